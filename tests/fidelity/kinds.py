"""Finds the golden files and tells what each holds."""

import os
import pathlib

import numpy as np
import pytest

GOLDEN_DIR = pathlib.Path(os.environ.get("GOLDEN_DIR", pathlib.Path(__file__).parents[1] / "data" / "golden"))

# A file's kind is told from the arrays it holds, not from its name.
KINDS = {
    "adaptation": "outer1.selected",
    "baseline": "a.coeffs",
    "gru": "seq_final",
    "buffer": "padded.seq_lens",
}


def kinds_of(path: pathlib.Path) -> list[str]:
    """The kinds of numbers a golden file holds."""
    with np.load(path, allow_pickle=False) as arrays:
        return [kind for kind, array in KINDS.items() if array in arrays.files]


def golden_files() -> list[pathlib.Path]:
    """All golden files; a folder without any is a failure, not an empty run."""
    paths = sorted(GOLDEN_DIR.glob("tesp_*.npz"))
    if not paths:
        raise pytest.UsageError(f"no tesp_*.npz in {GOLDEN_DIR}")
    return paths
