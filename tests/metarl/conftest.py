"""Fixtures of the experiment floor's tests."""

from experiment_tools import toy  # noqa: F401
from sweep_tools import study  # noqa: F401
