"""A plan as one self-contained web page: values in, HTML out. No network, no chart library, no framework."""
