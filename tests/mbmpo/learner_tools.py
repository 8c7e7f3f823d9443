"""Learners of the MB-MPO family at the smallest size, for tests."""

import numpy as np

from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.families import InvertedPendulum
from mbmpo.learner import MBMPOLearner
from mbmpo.maml import MAMLLearner
from mbmpo.mbmpc import MBMPCLearner
from mbmpo.meta_ppo import MetaPPO
from mbmpo.meta_updates import TRPO, MetaTRPO, MetaVPG
from mbmpo.metrpo import METRPOLearner
from mbmpo.planning import CrossEntropyMethod, RandomShooting
from mbmpo.policies import GaussianMLPPolicy
from mbmpo.settings import ImaginedData, InnerAdaptation, ModelFit, RealData
from mbmpo.trpo import TRPOLearner

HORIZON = 12


def silent(phase):
    del phase


def policy():
    return GaussianMLPPolicy(hidden_sizes=(4,))


def ensemble(**settings):
    return DynamicsEnsemble(**{"num_models": 2, "hidden_sizes": (8, 8), "batch_size": 50} | settings)


def real(**settings):
    return RealData(**{"rollouts_per_task": 1, "horizon": HORIZON, "initial_random_steps": 60} | settings)


def mbmpo(meta_update=None, *, family=None, models=None, real_data=None, imagined=None, adaptation=None, **settings):
    settings = {"meta_batch_size": 4, "meta_steps": 2, "seed": 3, "fit": ModelFit(max_epochs=(3, 2))} | settings
    return MBMPOLearner(
        policy=policy(),
        family=family or InvertedPendulum(),
        ensemble=models or ensemble(),
        meta_update=meta_update or MetaTRPO(),
        real=real(**(real_data or {})),
        imagined=ImaginedData(**{"rollouts_per_task": 3} | (imagined or {})),
        adaptation=InnerAdaptation(**(adaptation or {})),
        **settings,
    )


def mbmpo_with_options(**settings):
    """What few runs use, all together; VPG, because it compiles the fewest functions."""
    return mbmpo(
        MetaVPG(),
        real_data={"collect_with": "readapted", "reset_policy_std": True, "true_counting": True},
        adaptation={"inner_updates": 2, "trainable_inner_lr": True},
        stop_when_reward_decreases=True,
        effect_in_every_meta_step=True,
        **settings,
    )


def metrpo(stopping="none", *, family=None, real_data=None, **settings):
    settings = {"copies": 4, "update_steps": 3, "imagined_steps": 100, "check_every": 1, "seed": 3} | settings
    return METRPOLearner(
        policy=policy(),
        family=family or InvertedPendulum(),
        ensemble=ensemble(),
        update=TRPO(),
        stopping=stopping,
        validation_rollouts=2,
        real=real(**{"buffer_capacity": None} | (real_data or {})),
        fit=ModelFit(max_epochs=(3,)),
        **settings,
    )


def mbmpc(planner=None, *, family=None, real_data=None, **settings):
    return MBMPCLearner(
        family=family or InvertedPendulum(),
        ensemble=ensemble(),
        planner=planner or RandomShooting(num_candidates=8, horizon=3),
        real=real(**(real_data or {})),
        fit=ModelFit(max_epochs=(3,)),
        **{"copies": 3, "seed": 3} | settings,
    )


def maml(meta_update=None, *, family=None, adaptation=None, **settings):
    settings = {"meta_batch_size": 3, "rollouts_per_task": 2, "horizon": HORIZON, "seed": 3} | settings
    return MAMLLearner(
        policy=policy(),
        family=family or InvertedPendulum(),
        meta_update=meta_update or MetaTRPO(),
        adaptation=InnerAdaptation(**(adaptation or {})),
        **settings,
    )


def trpo(*, family=None, **settings):
    settings = {"copies": 4, "horizon": HORIZON, "seed": 3} | settings
    return TRPOLearner(policy=policy(), family=family or InvertedPendulum(), update=TRPO(), **settings)


def cross_entropy():
    return CrossEntropyMethod(num_candidates=8, horizon=3, iterations=2)


METHODS = {
    "MB-MPO TRPO": mbmpo,
    "MB-MPO PPO": lambda **settings: mbmpo(MetaPPO(max_epochs=2, num_batches=2), **settings),
    "MB-MPO VPG": lambda **settings: mbmpo(MetaVPG(), **settings),
    "MB-MPO options": mbmpo_with_options,
    "ME-TRPO": metrpo,
    "ME-TRPO reward": lambda **settings: metrpo("reward", **settings),
    "ME-TRPO validation": lambda **settings: metrpo("validation", **settings),
    "MB-MPC": mbmpc,
    "MB-MPC CEM": lambda **settings: mbmpc(cross_entropy(), **settings),
    "MAML TRPO": maml,
    "MAML PPO": lambda **settings: maml(MetaPPO(max_epochs=2, multi_adam=True), **settings),
    "MAML VPG": lambda **settings: maml(MetaVPG(), **settings),
    "TRPO": trpo,
}


def without_clock(metrics):
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}


def assert_finite(metrics):
    for name, value in metrics.items():
        assert value is None or np.isfinite(value), name


def assert_same_state(learner, other):
    state, expected = learner.state(), other.state()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)
