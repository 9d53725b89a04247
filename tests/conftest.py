"""Settings of all tests."""

from hypothesis import settings

# The same examples in every run, and no clock: a failure on one machine is a failure on all.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")
