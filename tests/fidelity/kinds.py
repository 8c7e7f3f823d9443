"""Finds the golden files and tells what each holds."""

import os
import pathlib
import re

import numpy as np
import pytest

GOLDEN_DIR = pathlib.Path(os.environ.get("GOLDEN_DIR", pathlib.Path(__file__).parents[1] / "data" / "golden"))

# A file's kinds are told by its family's prefix and by the arrays it holds: each pattern must match an array's name.
KINDS = {
    "adaptation": ("tesp_", r"outer1\.selected"),
    "baseline": ("tesp_", r"a\.coeffs"),
    "gru": ("tesp_", r"seq_final"),
    "buffer": ("tesp_", r"padded\.seq_lens"),
    "meta_trpo": ("mbmpo_", r"pre0\.task0\.obs"),
    "meta_ppo": ("mbmpo_", r"cfg\.clip_eps"),
    "single_trpo": ("mbmpo_", r"hvp\.exact"),
    "dynamics": ("mbmpo_", r"fit1\.perm"),
    "early_stopping": ("mbmpo_", r"stop\.\w+\.valid_loss"),
    "mpc": ("mbmpo_", r"chosen_candidate"),
    "processing": ("mbmpo_", r"batch1\.lens"),
    "rewards": ("mbmpo_", r"[^.]+\.has_done"),
}


def kinds_of(path: pathlib.Path) -> list[str]:
    """The kinds of numbers a golden file holds."""
    with np.load(path, allow_pickle=False) as arrays:
        return [
            kind
            for kind, (prefix, pattern) in KINDS.items()
            if path.name.startswith(prefix) and any(re.fullmatch(pattern, name) for name in arrays.files)
        ]


def golden_files() -> list[pathlib.Path]:
    """All golden files; a folder without any is a failure, not an empty run."""
    paths = sorted([*GOLDEN_DIR.glob("tesp_*.npz"), *GOLDEN_DIR.glob("mbmpo_*.npz")])
    if not paths:
        raise pytest.UsageError(f"no tesp_*.npz and no mbmpo_*.npz in {GOLDEN_DIR}")
    return paths
