"""Settings of all tests."""

import pytest
from hypothesis import settings

# The same examples in every run, and no clock: a failure on one machine is a failure on all.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture
def weights_of_any_size(monkeypatch):
    """Layers are found however small they are: models put together by hand stay a few lines."""
    monkeypatch.setattr("lampq.core.values.layer.SMALLEST", 1)
