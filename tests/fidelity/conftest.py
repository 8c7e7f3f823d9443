"""Gives every fidelity test the golden files of its kind in GOLDEN_DIR (default: the project's own copies)."""

import numpy as np
import pytest
from kinds import KINDS, golden_files, kinds_of


def pytest_generate_tests(metafunc):
    """Gives each test its golden files; every test id contains the file's name."""
    paths = golden_files()
    if "golden_path" in metafunc.fixturenames:
        metafunc.parametrize("golden_path", paths, ids=[path.name for path in paths])
    for kind in KINDS:
        fixture = f"{kind}_golden"
        if fixture in metafunc.fixturenames:
            matching = [path for path in paths if kind in kinds_of(path)]
            metafunc.parametrize(fixture, matching, ids=[p.name for p in matching], indirect=True, scope="module")


def pytest_collection_modifyitems(config, items):
    """Drops tests of a kind that GOLDEN_DIR has no file of (they have no file's name to show)."""
    dropped = [item for item in items if getattr(item, "callspec", None) and "NOTSET" in item.callspec.id]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


def _load(request):
    with np.load(request.param, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _golden_fixture(kind):
    @pytest.fixture(scope="module", name=f"{kind}_golden")
    def golden(request):
        return _load(request)

    return golden


for _kind in KINDS:
    globals()[f"{_kind}_golden"] = _golden_fixture(_kind)
