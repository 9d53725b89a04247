"""What one can do with a model: a verb is a function from values to values, one file each."""
