"""The few numbers of every iteration that a run's figures show; part of the state, so that they survive a resume.

Shapes: `T` iterations, `C` columns, `E` models.
"""

from typing import NamedTuple

import numpy as np

from metarl.experiment.learner import Metrics

RETURNS = ("real/return", "pre_update/return", "post_update/return")
IMAGINED_FIRST, IMAGINED_LAST = "imagined/first", "imagined/last"
LOSSES = ("train", "validation")
# What methods call the imagined return after an update: MB-MPO per meta-step, ME-TRPO per TRPO step.
_IMAGINED = ("imagined/post_update_", "imagined/update_")


class History(NamedTuple):
    """Numbers of all iterations so far.

    Attributes:
        value: [T, C] float64, 0 where nothing was measured.
        measured: [T, C] bool.
    """

    value: np.ndarray
    measured: np.ndarray


def columns(num_models: int) -> tuple[str, ...]:
    """Names of the C columns: metrics, and the first and the last imagined return of the iteration."""
    losses = [f"model/{kind}_loss_{k}" for kind in LOSSES for k in range(num_models)]
    return (*RETURNS, IMAGINED_FIRST, IMAGINED_LAST, *losses)


def empty(num_models: int) -> History:
    """The history before the first iteration."""
    shape = (0, len(columns(num_models)))
    return History(np.zeros(shape), np.zeros(shape, bool))


def imagined_returns(metrics: Metrics) -> list[float]:
    """The imagined returns after an iteration's updates, in order, as far as they were made."""
    return [value for name, value in metrics.items() if name.startswith(_IMAGINED) and value is not None]


def extended(history: History, metrics: Metrics, num_models: int) -> History:
    """The history with one iteration more."""
    imagined = imagined_returns(metrics)
    ends: Metrics = {IMAGINED_FIRST: imagined[0], IMAGINED_LAST: imagined[-1]} if imagined else {}
    row = [{**metrics, **ends}.get(name) for name in columns(num_models)]
    value = np.array([[0.0 if number is None else float(number) for number in row]])
    measured = np.array([[number is not None for number in row]])
    return History(np.concatenate([history.value, value]), np.concatenate([history.measured, measured]))


def curve(history: History, name: str, num_models: int) -> tuple[np.ndarray, np.ndarray]:
    """Iterations (from 1) at which a column was measured, and its numbers there."""
    column = columns(num_models).index(name)
    rows = np.flatnonzero(history.measured[:, column])
    return rows + 1, history.value[rows, column]
