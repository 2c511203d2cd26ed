"""Settings that every test shares."""

import os

from hypothesis import HealthCheck, settings

# A timing deadline fails on a busy machine and says nothing about a result.
settings.register_profile("default", deadline=None)
# CI must give the same verdict on the same commit; chance is for the developer's machine.
settings.register_profile(
    "ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
