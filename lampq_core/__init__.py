"""Values, statistics, scores and allocation: NumPy and the standard library alone."""
