"""The supplement's generator, which builds every config once for all tests."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _script(name):
    """The module supplement/<name>.py: scripts of a folder that is no package."""
    spec = importlib.util.spec_from_file_location(f"supplement_{name}", ROOT / "supplement" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="session")
def supplement():
    yield from _script("generate")


@pytest.fixture(scope="session")
def collect_results():
    yield from _script("collect_results")
