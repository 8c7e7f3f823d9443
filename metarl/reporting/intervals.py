"""Mean and interquartile mean over runs, with bootstrap intervals stratified by configuration.

A stratum of one run would be in every resample exactly once and add nothing to an interval's width. So no stratum has
one: configurations of a single run are one stratum together, and the only one of them joins the smallest other. An
interval over such configurations is that of configurations drawn like runs; it errs on the wide side.

Shapes: `n` runs, `X` points of a curve, `B` resamples.
"""

from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
_RESAMPLES = 1000
_CHUNK = 2_000_000  # numbers held at once


class Summary(NamedTuple):
    """A curve over runs; intervals are NaN where there is only one run.

    Attributes:
        runs: [X], runs (or pooled values) that have a value there.
        mean: [X], and its interval `mean_low`, `mean_high`.
        iqm: [X], the interquartile mean, and its interval `iqm_low`, `iqm_high`.
        std: [X], population standard deviation.
    """

    runs: np.ndarray
    mean: np.ndarray
    mean_low: np.ndarray
    mean_high: np.ndarray
    iqm: np.ndarray
    iqm_low: np.ndarray
    iqm_high: np.ndarray
    std: np.ndarray


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half: of n sorted values, what lies between positions n/4 and 3n/4, ends counted in part.

    Args:
        values: [n, ...].

    Returns:
        [...]; for n = 1 and 2 this is the mean, for multiples of 4 the mean of the middle n/2.
    """
    n = len(values)
    position = np.arange(n + 1.0)
    weights = np.diff(np.clip(position, n / 4, 3 * n / 4)) / (n / 2)
    return np.tensordot(weights, np.sort(values, axis=0), axes=1)


def bootstrap(
    values: np.ndarray, strata: np.ndarray, resamples: int = _RESAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of resampled runs: as many from every stratum as it has, with replacement, whole curves at a time.

    Args:
        values: [n, X].
        strata: [n], a label per run; those of one run are joined.
        resamples: B.
        seed: of the draws.

    Returns:
        The means [B, X] and the interquartile means [B, X].
    """
    n, X = values.shape
    strata = _without_lone_runs(strata)
    rng = np.random.default_rng(seed)
    times = np.zeros((resamples, n))  # how often each run was drawn
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        times[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), resamples)
    means = times @ values / n
    iqms = np.empty((resamples, X))
    order = np.argsort(values, axis=0)
    ordered = np.take_along_axis(values, order, axis=0)
    step = max(1, _CHUNK // (resamples * n))
    for start in range(0, X, step):
        part = slice(start, start + step)
        upper = np.cumsum(times[:, order[:, part]], axis=1)  # [B, n, step], positions in the sorted resample
        np.clip(upper, n / 4, 3 * n / 4, out=upper)
        weights = np.diff(upper, axis=1, prepend=n / 4)
        iqms[:, part] = np.einsum("bnx,nx->bx", weights, ordered[:, part]) / (n / 2)
    return means, iqms


def _without_lone_runs(strata: np.ndarray) -> np.ndarray:
    """Returns labels, [n], that several runs share each, unless there is only one run."""
    _, which, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    lone, shared = sizes[which] == 1, np.flatnonzero(sizes > 1)
    if lone.sum() == 1 and len(shared):
        return np.where(lone, shared[np.argmin(sizes[shared])], which)
    return np.where(lone, len(sizes), which)


def summarise(values: np.ndarray, strata: np.ndarray, confidence: float = CONFIDENCE) -> Summary:
    """Summarises curves over runs; at every point over the runs that have a value there.

    Args:
        values: [n, X], NaN where a run has no value.
        strata: [n], a label per run, such as its configuration.
        confidence: of the percentile intervals.
    """
    X = values.shape[1]
    rows = {name: np.full(X, np.nan) for name in Summary._fields}
    present = ~np.isnan(values)
    rows["runs"] = present.sum(axis=0)
    tails = 100 * np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    patterns, which = np.unique(present, axis=1, return_inverse=True)
    for index in range(patterns.shape[1]):
        members, points = patterns[:, index], np.flatnonzero(which.ravel() == index)
        if not members.any():
            continue
        part = values[np.ix_(members, points)]
        rows["mean"][points], rows["std"][points] = part.mean(axis=0), part.std(axis=0)
        rows["iqm"][points] = interquartile_mean(part)
        if len(part) > 1:
            means, iqms = bootstrap(part, strata[members])
            rows["mean_low"][points], rows["mean_high"][points] = np.percentile(means, tails, axis=0)
            rows["iqm_low"][points], rows["iqm_high"][points] = np.percentile(iqms, tails, axis=0)
    return Summary(**rows)


def pooled(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, Summary]:
    """Mean and population standard deviation of all values at equal x (MB-MPO specification, section 9.7).

    Args:
        x: [k], of all runs together.
        y: [k].

    Returns:
        The different x in order, [X], and the curve; it has no interquartile mean and no intervals.
    """
    at, which = np.unique(x, return_inverse=True)
    count = np.bincount(which, minlength=len(at))
    mean = np.bincount(which, y, len(at)) / np.maximum(count, 1)
    variance = np.bincount(which, (y - mean[which]) ** 2, len(at)) / np.maximum(count, 1)
    nothing = np.full(len(at), np.nan)
    return at, Summary(count, mean, nothing, nothing, nothing, nothing, nothing, np.sqrt(variance))


def align(curves: list[tuple[np.ndarray, np.ndarray]], points: int) -> tuple[np.ndarray, np.ndarray]:
    """Brings runs with different x to common points, by straight lines between a run's own points and no further.

    Args:
        curves: x and y per run, NaN where there is none.
        points: at most so many; of more, evenly spread ones are kept, the first and the last among them.

    Returns:
        The common x, [X], and y, [n, X], NaN outside a run's own range.
    """
    cleaned = []
    for x, y in curves:
        known = ~(np.isnan(x) | np.isnan(y))
        at, last = np.unique(x[known][::-1], return_index=True)  # of equal x the last row counts
        cleaned.append((at, y[known][::-1][last]))
    grid = np.unique(np.concatenate([x for x, _ in cleaned]))
    if len(grid) > points:
        grid = grid[np.unique(np.linspace(0, len(grid) - 1, points).round().astype(int))]
    rows = [
        np.interp(grid, x, y, left=np.nan, right=np.nan) if len(x) else np.full(len(grid), np.nan) for x, y in cleaned
    ]
    return grid, np.stack(rows)
