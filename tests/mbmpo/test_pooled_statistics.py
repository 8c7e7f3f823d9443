"""Logged statistics of paths that lie on several shards (MB-MPO specification, section 1.3)."""

import itertools

import numpy as np
import pytest
from test_processing import batch, episodes

from mbmpo.meta_step import pooled_statistics, sampling_seconds
from mbmpo.processing import Processing, path_statistics
from mbmpo.shard import Account, Adaptation
from metarl.sampling.sampler import SamplingSeconds
from metarl.sampling.steps import Steps

LENGTHS = [[12, 1, 9], [20], [3, 3, 3, 3], [25, 14], [2]]


def adaptation(steps, *seconds):
    numbers = path_statistics(steps, Processing().fitted(steps))
    return Adaptation(
        "key", {}, [{name: float(value) for name, value in numbers.items()}], {}, Account(0, None, seconds)
    )


def parts(steps, cuts):
    return [Steps(*(x[start:stop] for x in steps)) for start, stop in itertools.pairwise(cuts)]


@pytest.mark.parametrize("cuts", [(0, 1, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)])
def test_statistics_do_not_depend_on_the_split(cuts):
    """Tasks of very unequal numbers of paths and steps, at least one whole task per shard."""
    steps = batch(LENGTHS, seed=4)
    whole = pooled_statistics([adaptation(steps)], 0)
    found = pooled_statistics([adaptation(part) for part in parts(steps, cuts)], 0)
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        assert found[name] == pytest.approx(value, rel=1e-11), name


def test_explained_variance_is_that_of_all_steps_together():
    """1 - var(R - V) / (var(R) + 1e-8) over the concatenated paths, not a mean of tasks' values."""
    steps = batch(LENGTHS, seed=4)
    processed = Processing().fitted(steps)
    rows = [(task, e) for task in range(len(LENGTHS)) for e in episodes(steps, task)]
    returns, value = (
        np.concatenate([getattr(processed, name).numpy()[task, e] for task, e in rows]) for name in ("returns", "value")
    )
    expected = 1.0 - np.var(returns - value) / (np.var(returns) + 1e-8)
    found = pooled_statistics([adaptation(part) for part in parts(steps, (0, 2, 5))], 0)
    assert found["explained_variance"] == pytest.approx(expected, rel=1e-10)
    assert found["num_steps"] == returns.size == sum(map(sum, LENGTHS))


def test_seconds_of_a_phase_are_of_all_shards_that_sampled():
    steps = batch([[3]])
    first, second = SamplingSeconds(1.0, 2.0, 3.0), SamplingSeconds(4.0, 5.0, 6.0)
    assert sampling_seconds([adaptation(steps, first, second), adaptation(steps, second, first)], 1) == [second, first]
    assert sampling_seconds([adaptation(steps)], 0) == []
