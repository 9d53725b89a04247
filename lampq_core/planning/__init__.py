"""Profile and request in, plan out. What solves a problem is passed in: the core imports no solver."""
