"""ME-TRPO's and MB-MPC's loops (MB-MPO specification, sections 5.4, 6.1, 6.2 and 13)."""

import numpy as np
import pytest
import tensorflow as tf
from learner_tools import HORIZON, mbmpc, metrpo, silent

from mbmpo.evaluation import random_row
from mbmpo.families import Swimmer
from mbmpo.metrpo import METRPOLearner
from mbmpo.plain_step import PlainStep
from mbmpo.planning import ModelPredictiveController
from metarl.sampling.random_actions import MAX_COPIES


@pytest.fixture(scope="module")
def compiled():
    learner = metrpo(family=Swimmer(), update_steps=4, check_every=2)
    learner.run_iteration(silent)
    return learner, {name: np.array(value) for name, value in learner.state().items()}


@pytest.fixture
def learner(compiled):
    compiled[0].restore(compiled[1])
    return compiled[0]


def test_all_data_are_kept():
    learner = metrpo()
    bare = METRPOLearner(
        policy=learner.policy, family=learner.family, ensemble=learner.ensemble, update=learner.meta_update
    )
    assert bare.real.buffer_capacity is None


def test_the_baseline_of_the_batch_before_predicts(learner, monkeypatch):
    """Section 5.4: what one update fits, the next one predicts with, over iterations too."""
    update, used, fitted = PlainStep.update, [], []

    def spied(step, theta, coefficients):
        result = update(step, theta, coefficients)
        used.append(coefficients)
        fitted.append(result[1])
        return result

    monkeypatch.setattr(PlainStep, "update", spied)
    carried = learner._baseline
    assert np.any(carried != 0.0)
    learner.run_iteration(silent)
    assert len(used) == 4
    for before, after in zip(used, [carried, *fitted], strict=False):
        np.testing.assert_array_equal(before, after)
    assert not metrpo()._baseline.any()


@pytest.mark.parametrize(("returns", "updates"), [([5.0, 4.0, 9.0, 9.0], 1), ([5.0, 6.0, 5.0, 9.0], 2)])
def test_rolling_mean(learner, monkeypatch, returns, updates):
    """5, 4.8 falls; 5, 5.2, 5.16 falls; the step at which it falls is not made."""
    run, script = learner.imagination.run, iter(returns)
    monkeypatch.setattr(
        learner.imagination, "run", lambda *a, **k: run(*a, **k)._replace(mean_return=tf.constant([next(script)]))
    )
    monkeypatch.setattr(learner, "stopping", "reward")
    metrics = learner.run_iteration(silent)
    assert metrics["imagined/updates_made"] == updates
    found = [metrics[f"imagined/update_{number}"] for number in range(1, 5)]
    assert found == returns[: updates + 1] + [None] * (3 - updates)


@pytest.mark.parametrize(("improving", "updates"), [(1, 2), (2, 4)])
def test_validation_over_models(learner, monkeypatch, improving, updates):
    """O-21: every two steps; with one of two models improved (50 % < 70 %) the iteration's steps end."""
    values = iter([np.array([0.0, 0.0]), *(np.array([k, k if improving == 2 else -k]) for k in (1.0, 2.0))])
    monkeypatch.setattr(learner, "_model_returns", lambda effective: next(values))
    assert learner.run_iteration(silent)["imagined/updates_made"] == updates


def test_first_data_of_the_policy(monkeypatch):
    """O-24 as an option: the first round is the policy's own."""
    learner = metrpo(family=Swimmer(), first_data="policy", real_data={"initial_random_steps": None})
    phases = []
    monkeypatch.setattr(learner, "_fit_models", lambda report: {})
    monkeypatch.setattr(learner, "_improve", lambda report: {})
    metrics = learner.run_iteration(phases.append)
    ends = [f"real sampling, step {steps}/{4 * HORIZON}" for steps in (0, 4 * HORIZON)]
    assert [phases[0], phases[-1]] == ends
    assert metrics["env_steps/counted"] == 4 * HORIZON


def test_planning_acts_with_the_planned_actions(monkeypatch):
    """Section 6.2: every real step replans with the present models, all copies at once, keyed by the step."""
    learner = mbmpc(family=Swimmer())
    metrics = learner.run_iteration(silent)
    # 60 steps asked for, three copies of twelve: two sweeps.
    assert metrics["env_steps/collected"] == 72
    plan, seen = ModelPredictiveController.plan, []

    def spied(controller, effective, observation, **key):
        seen.append((np.array(observation), key, plan(controller, effective, observation, **key)))
        return seen[-1][2]

    monkeypatch.setattr(ModelPredictiveController, "plan", spied)
    learner.run_iteration(silent)
    assert [key["step"] for _, key, _ in seen] == list(range(HORIZON))
    steps = learner._last_batch.steps
    for tick, (observation, _, planned) in enumerate(seen):
        np.testing.assert_array_equal(steps.action[:, tick], planned.action)
        np.testing.assert_allclose(steps.observation[:, tick], observation, rtol=1e-6)
    assert np.abs(steps.action).max() <= 1.0


def test_the_final_table_rates_random_actions_on_no_more_tasks_than_there_are_copies():
    """A hundred at most: further tasks would count as returns of 0."""
    learner = mbmpc(family=Swimmer(), copies=103, real_data={"horizon": 2})
    row = random_row(learner, learner.num_tasks)
    assert row["tasks"] == MAX_COPIES == 100
    assert row == random_row(learner, 100)
    assert random_row(learner, 99)["tasks"] == 99
