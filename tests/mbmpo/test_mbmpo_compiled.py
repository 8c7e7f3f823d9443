"""The compiled graphs of MB-MPO's methods: no sum whose order depends on timing, and each traced once.

TensorFlow's AddN accumulates into whichever input's buffer is free, so with three inputs or more its last bit depends
on which thread was faster; repetition finds that once in thousands of calls, the graphs show it at once.
"""

from unittest import mock

import pytest
from graph_sums import alone, sums_of_an_addition, sums_of_three
from learner_tools import maml, mbmpo, metrpo, silent, trpo

from mbmpo.families import Swimmer
from mbmpo.meta_ppo import MetaPPO
from mbmpo.meta_updates import MetaTRPO, MetaVPG
from metarl import compiled
from metarl.compiled import Compiled

SECOND_ORDER = {"inner_updates": 2, "trainable_inner_lr": True}
# Without the real evaluation, whose phases have another number of rows and are functions of their own.
SMALL = {"meta_steps": 1, "log_real_performance": False}
LEARNERS = {
    "MB-MPO TRPO": lambda: mbmpo(adaptation=SECOND_ORDER, family=Swimmer(), **SMALL),
    "MB-MPO TRPO, exact product": lambda: mbmpo(MetaTRPO(hvp="exact", entropy_bonus=0.01), family=Swimmer(), **SMALL),
    "MB-MPO PPO": lambda: mbmpo(
        MetaPPO(clip_outer=False, max_epochs=2, entropy_bonus=0.01),
        adaptation=SECOND_ORDER,
        family=Swimmer(),
        **SMALL,
    ),
    "MB-MPO VPG": lambda: mbmpo(MetaVPG(), family=Swimmer(), **SMALL),
    "ME-TRPO": lambda: metrpo("validation", family=Swimmer(), update_steps=2),
    "MAML TRPO": lambda: maml(MetaTRPO(constraint="pre_update"), adaptation=SECOND_ORDER, family=Swimmer()),
    "TRPO": lambda: trpo(family=Swimmer()),
}


def observe(name):
    """(sums in the graphs of the first iteration, traces after the first and after the third by function)."""
    made = []
    original = Compiled.__init__

    def counted(self, function):
        original(self, function)
        made.append(self)

    with mock.patch.object(compiled.Compiled, "__init__", counted):
        learner = LEARNERS[name]()
        sums = sums_of_three(lambda: learner.run_iteration(silent))
        first = [function.experimental_get_tracing_count() for function in made]
        for _ in range(2):
            learner.run_iteration(silent)
    return sums, first, [function.experimental_get_tracing_count() for function in made]


def observe_all():
    return {name: observe(name) for name in LEARNERS}


@pytest.fixture(scope="module")
def observed():
    return alone(observe_all)


@pytest.mark.parametrize("name", LEARNERS)
def test_no_sum_depends_on_timing(observed, name):
    assert observed[name][0] == []


@pytest.mark.parametrize("name", LEARNERS)
def test_every_function_is_traced_once(observed, name):
    """In three iterations with the same number of rows."""
    _, first, last = observed[name]
    assert sum(first) > 3
    assert set(last) <= {0, 1}


def test_the_check_sees_such_a_sum():
    assert alone(sums_of_an_addition)
