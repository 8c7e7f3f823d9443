"""The supplement's generator, which builds every config once for all tests, and gin left empty behind them."""

import importlib.util
import sys
from pathlib import Path

import gin
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def supplement():
    """The module supplement/generate.py, which is a script of a folder that is no package."""
    spec = importlib.util.spec_from_file_location("supplement_generate", ROOT / "supplement" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(autouse=True)
def _gin_cleared():
    yield
    gin.clear_config()
