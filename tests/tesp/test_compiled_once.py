"""Every compiled function of an experiment is traced and compiled once, over batches that end differently.

The number of traces alone does not see XLA compile again for a trace it already has. The clock does: a meta-update of
this size is hundreds of times shorter than compiling it.
"""

import statistics
import time

import pytest

from metarl.networks import gru
from metarl.optim import adam
from metarl.sampling.policy import CompiledPolicy
from tesp.computation import Computation
from tesp.families.point import Point
from tesp.learner import TespLearner
from tesp.methods import MAML, TESP
from tesp.settings import FastAdaptation, MetaUpdate
from tesp.validation import Validation

METHODS = {
    "MAML": lambda: MAML(hidden_sizes=(8, 8)),
    "TESP": lambda: TESP(hidden_sizes=(8, 8), embedding_dim=3, embedding_coeff=0.01, gru_units=6),
}
# More copies than the sampler serves in NumPy, so that its policy is compiled too.
COPIES = 12


@pytest.mark.parametrize("method", METHODS)
def test_compiled_once(method, monkeypatch):
    traced = {"act": 0, "policies": 0}
    act, make_policy = Computation.act, CompiledPolicy.__init__

    def counted_act(*arguments):
        traced["act"] += 1
        return act(*arguments)

    def counted_policy(*arguments):
        traced["policies"] += 1
        make_policy(*arguments)

    monkeypatch.setattr(Computation, "act", counted_act)
    monkeypatch.setattr(CompiledPolicy, "__init__", counted_policy)
    learner = TespLearner(
        method=METHODS[method](),
        family=Point(arrival_threshold=0.3),
        meta_batch_size=2,
        num_goals=7,
        adaptation=FastAdaptation(rollouts_per_task=COPIES, horizon=10, inner_updates=2, buffer_size=4),
        meta_update=MetaUpdate(num_evaluations=3),
        validation=Validation(frequency=0),
    )
    compute = learner.shards[0].computation
    inside = (gru._forward, gru._backward)
    before = [function.experimental_get_tracing_count() for function in inside]
    steps_before = adam._update.experimental_get_tracing_count()
    seconds, episodes = [], set()
    for _ in range(8):
        started = time.perf_counter()
        metrics = learner.run_iteration(lambda phase: None)
        seconds.append(time.perf_counter() - started)
        episodes.add(metrics["episodes/fast_update_2"])
    assert len(episodes) > 2
    for function in (
        compute.prepare,
        compute.advantages,
        compute.inner_step,
        compute.outer_gradient,
        compute.outer_terms,
    ):
        assert function.experimental_get_tracing_count() == 1
    new = [function.experimental_get_tracing_count() - count for function, count in zip(inside, before, strict=True)]
    assert new == ([1, 1] if method == "TESP" else [0, 0])
    assert adam._update.experimental_get_tracing_count() - steps_before <= 1
    assert traced == {"act": 1, "policies": 1}
    assert max(seconds[1:]) < seconds[0]
    assert statistics.median(seconds[1:]) < 0.2 * seconds[0]
    # The rule of thumb for a call that compiled: ten times the usual.
    assert seconds[2] < 10 * statistics.median(seconds)
