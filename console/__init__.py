"""What people see: arguments, tables, progress bars. The only part that imports rich."""
