"""Learning on the point: adaptation must help, and training must improve returns before and after it."""

import numpy as np
import pytest

from metarl.experiment import gin_front_door
from tesp.reporting import pooled
from tesp.validation import adapt_to_goals


def returns_on_test_goals(learner, parameters):
    """Return on the goals of D' after 0 .. K fast-updates, the same noise at every call."""
    goals = learner.goal_sets.test_1[:20]
    result = adapt_to_goals(learner.pool, parameters, goals, seed=7, iteration=0, phase="learning test")
    return [pooled([episodes])["return"] for episodes in result.rounds]


@pytest.mark.parametrize("method", ["maml", "tesp"])
def test_adaptation_helps_and_training_improves_both(method):
    config = gin_front_door.parse([f"configs/{method}_point.gin"], ["Validation.frequency = 0"], 1)
    learner = gin_front_door.build(config).learner
    untrained = returns_on_test_goals(learner, learner.parameters)
    training = [learner.run_iteration(lambda phase: None) for _ in range(30)]
    trained = returns_on_test_goals(learner, learner.parameters)
    assert trained[-1] > trained[0] + 5.0, "adaptation must help"
    assert trained[0] > untrained[0], "training must improve the return before adaptation"
    assert trained[-1] > untrained[-1] + 5.0, "training must improve the return after adaptation"
    during = [metrics["return/fast_update_3"] for metrics in training]
    assert np.mean(during[-5:]) > np.mean(during[:5]) + 5.0
