"""Plans whose layers interact: search, bounds, rounds around a quantized plan."""
