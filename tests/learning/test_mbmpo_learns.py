"""MB-MPO, ME-TRPO and MAML at a small size: real returns must rise above their start and above random actions."""

import numpy as np

from metarl.experiment import gin_front_door

SMALL = (
    "HORIZON = 50", "META_BATCH_SIZE = 4", "NUM_MODELS = 2", "MODEL_HIDDEN_SIZES = [32, 32]", "MODEL_MAX_EPOCHS = 30",
    "INITIAL_RANDOM_STEPS = 500",
)  # fmt: skip


def silent(phase):
    del phase


def learner_of(config, *params):
    return gin_front_door.build(gin_front_door.parse([config], params, 1)).learner


def table(learner):
    """Real returns by (policy, fast-updates) on the same twenty tasks."""
    return {(row["policy"], row["fast_updates"]): row["return"] for row in learner.final_table(silent)}


def test_mb_mpo_learns_on_the_point():
    """Models of 2,100 counted real steps take the point to the goal; returns are minus the summed distance."""
    learner = learner_of("configs/mbmpo_point_laptop.gin", *SMALL, "ROLLOUTS_PER_TASK = 2", "META_STEPS = 6")
    history = [learner.run_iteration(silent) for _ in range(5)]
    during = [metrics["pre_update/return"] for metrics in history]
    returns = table(learner)
    assert history[-1]["env_steps/counted"] <= 2100
    assert returns["trained", 0] > max(returns["untrained", 0], returns["random actions", None]) + 20.0
    assert during[-1] > during[0] + 20.0


def test_me_trpo_learns_on_the_point():
    learner = learner_of(
        "configs/metrpo_half_cheetah.gin", *SMALL, "FAMILY = @Point2D()", "IMAGINED_STEPS = 2000", "META_STEPS = 8",
    )  # fmt: skip
    for _ in range(4):
        learner.run_iteration(silent)
    returns = table(learner)
    assert returns["trained", 0] > max(returns["untrained", 0], returns["random actions", None]) + 20.0


def test_maml_learns_to_adapt_to_goals():
    """2-D navigation: after adaptation the return rises, and adaptation comes to help."""
    learner = learner_of(
        "configs/maml_trpo_point_navigation.gin", "HORIZON = 50", "META_BATCH_SIZE = 10", "ROLLOUTS_PER_TASK = 10",
    )  # fmt: skip
    history = [learner.run_iteration(silent) for _ in range(8)]
    after = [metrics["post_update/return"] for metrics in history]
    returns = table(learner)
    assert np.mean(after[-2:]) > after[0] + 10.0
    assert returns["trained", 1] > returns["untrained", 1] + 10.0
    assert returns["trained", 1] > returns["trained", 0] + 2.0
