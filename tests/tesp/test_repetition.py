"""The same validation round, over and over beside busy processes: always the same bits.

What depends on which thread was faster shows once in thousands of adaptations at most, so this runs by the clock:
REPETITION_MINUTES=30 pytest -m slow tests/tesp/test_repetition.py
"""

import itertools
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from absl import logging
from test_learner import silent

from tesp.families.wheeled import Wheeled
from tesp.final_table import FinalTable
from tesp.learner import TespLearner
from tesp.methods import TESP
from tesp.settings import FastAdaptation, MetaUpdate
from tesp.validation import Validation, adapt_to_goals

MINUTES = float(os.environ.get("REPETITION_MINUTES", "3"))
# Work that comes and goes on every core.
BUSY = """
import time, numpy as np
x = np.ones((700, 700), np.float32)
rng = np.random.default_rng()
while True:
    end = time.perf_counter() + rng.uniform(0, 0.05)
    while time.perf_counter() < end:
        x @ x
    time.sleep(rng.uniform(0, 0.01))
"""


@pytest.fixture
def _load():
    alone = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    processes = [subprocess.Popen([sys.executable, "-c", BUSY], env=alone) for _ in range(2)]
    yield
    for process in processes:
        process.kill()
        process.wait()


def paper_like(rollouts_per_task):
    return TespLearner(
        method=TESP(hidden_sizes=(256, 256), gru_units=256, embedding_dim=8, embedding_coeff=0.01),
        family=Wheeled(),
        meta_batch_size=4,
        num_goals=8,
        adaptation=FastAdaptation(rollouts_per_task=rollouts_per_task, horizon=30),
        meta_update=MetaUpdate(num_evaluations=3),
        validation=Validation(frequency=0),
        final=FinalTable(num_goals=0),
    )


def measured(learner, collected):
    """Everything that a validation round gives, in the order in which it comes to be: name -> bytes."""
    collected.clear()
    result = adapt_to_goals(
        learner.pool,
        learner.parameters,
        learner.goal_sets.test_1[:6],
        seed=learner.seed,
        iteration=learner.iteration,
        phase="validation/test_1",
    )
    arrays = {}
    for chunk, adaptation in enumerate(collected):
        for k, episodes in enumerate(adaptation.rounds):
            arrays[f"chunk {chunk}, round {k}, lengths"] = episodes.length
            arrays[f"chunk {chunk}, round {k}, returns"] = episodes.episode_return
            if k < len(adaptation.inner_loss):
                arrays[f"chunk {chunk}, fast-update {k + 1}, loss"] = adaptation.inner_loss[k]
                arrays[f"chunk {chunk}, fast-update {k + 1}, gradient's norm"] = adaptation.inner_grad_norm[k]
        arrays[f"chunk {chunk}, norm of the embedding"] = adaptation.context_norm
    for k, episodes in enumerate(result.rounds):
        arrays |= {f"goals, round {k}, {name}": value for name, value in episodes.final.items()}
    return {name: np.asarray(value).tobytes() for name, value in arrays.items()}


@pytest.mark.slow
@pytest.mark.usefixtures("_load")
@pytest.mark.timeout(MINUTES * 60 + 600)
@pytest.mark.parametrize("rollouts_per_task", [4, 9], ids=["policy in NumPy", "compiled policy"])
def test_a_validation_round_repeats_bit_for_bit(rollouts_per_task, monkeypatch, record_property):
    learner = paper_like(rollouts_per_task)
    learner.run_iteration(silent)  # so that rates and embedding are not those of the initial weights
    shard = learner.shards[0]
    collect, collected = shard.collect, []

    def keeping(*arguments, **options):
        collected.append(collect(*arguments, **options))
        return collected[-1]

    monkeypatch.setattr(shard, "collect", keeping)
    expected = measured(learner, collected)
    assert any("gradient's norm" in name for name in expected)
    end = time.monotonic() + 60 * MINUTES / 2
    for repetition in itertools.count(1):
        found = measured(learner, collected)
        differing = [name for name in expected if found[name] != expected[name]]
        assert not differing, (
            f"repetition {repetition}: {len(differing)} of {len(expected)} differ, first {differing[0]}"
        )
        if repetition % 25 == 0:
            logging.info("%d repetitions of 6 goals with the same bits", repetition)
        if time.monotonic() > end:
            break
    record_property("repetitions", repetition)
    logging.info("%d repetitions of 6 goals with the same bits", repetition)
