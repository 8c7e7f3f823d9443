"""Gives every fidelity test the golden files of its kind in GOLDEN_DIR (default: the project's own copies).

Without GOLDEN_DIR the tests of the MB-MPO family also run on files that naive computations write.
"""

import os
import pathlib

import numpy as np
import pytest
from kinds import KINDS, golden_files, kinds_of
from naive_files import NAIVE


def pytest_configure(config):
    """Declares the marker of tests that compare the project with itself, for which one file is as good as another."""
    config.addinivalue_line("markers", "no_naive_files: not on what naive computations write")


def pytest_generate_tests(metafunc):
    """Gives each test its golden files; every test id contains the file's name."""
    paths = golden_files()
    if "golden_path" in metafunc.fixturenames:
        metafunc.parametrize("golden_path", paths, ids=[path.name for path in paths])
    for kind in KINDS:
        fixture = f"{kind}_golden"
        if fixture in metafunc.fixturenames:
            matching = {path.name: path for path in paths if kind in kinds_of(path)}
            if "GOLDEN_DIR" not in os.environ and not metafunc.definition.get_closest_marker("no_naive_files"):
                matching |= {name: name for name, (kinds, _) in NAIVE.items() if kind in kinds}
            metafunc.parametrize(fixture, list(matching.values()), ids=list(matching), indirect=True, scope="module")


def pytest_collection_modifyitems(config, items):
    """Drops tests that show no name of a file: of a kind that GOLDEN_DIR has no file of, and, where it is set, those
    that take no golden file at all."""
    dropped = [item for item in items if getattr(item, "callspec", None) and "NOTSET" in item.callspec.id]
    if "GOLDEN_DIR" in os.environ:
        names = [path.name for path in golden_files()]
        dropped += [
            item
            for item in items
            if item not in dropped
            and pathlib.Path(__file__).parent in item.path.parents
            and not any(name in item.name for name in names)
        ]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


def _golden_fixture(kind):
    @pytest.fixture(scope="module", name=f"{kind}_golden")
    def golden(request, tmp_path_factory):
        path = request.param
        if not isinstance(path, pathlib.Path):
            kinds, write = NAIVE[path]
            path = tmp_path_factory.mktemp(path) / "mbmpo_naive.npz"
            write(path)
            assert tuple(kinds_of(path)) == kinds
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    return golden


for _kind in KINDS:
    globals()[f"{_kind}_golden"] = _golden_fixture(_kind)
