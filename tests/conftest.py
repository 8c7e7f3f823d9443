"""Test-wide settings: quiet TensorFlow, and helper modules importable from the folders of the tests."""

import os

import gin
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def _gin_cleared():
    """No test hands its bindings on to the next one in the same process."""
    yield
    gin.clear_config()
