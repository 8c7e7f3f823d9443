"""Test-wide settings: quiet TensorFlow, and helper modules importable from the folders of the tests."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
