"""Settings that every test shares."""

import os

import pytest
from hypothesis import HealthCheck, settings

# A timing deadline fails on a busy machine and says nothing about a result.
settings.register_profile("default", deadline=None)
# CI must give the same verdict on the same commit; chance is for the developer's machine.
settings.register_profile(
    "ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_modifyitems(items):
    """Mark what goes through the instruction sets: their kernels depend on the C compiler alone."""
    for item in items:
        if "isa" in getattr(getattr(item, "callspec", None), "params", ()):
            item.add_marker(pytest.mark.matrix)
