"""Numbers that are not finite end a run with evidence, wherever they come from."""

import json

import numpy as np
import pytest
import tensorflow as tf
from learner_tools import maml, mbmpc, mbmpo, metrpo, silent, trpo

from mbmpo.families import Swimmer
from mbmpo.meta_step import MetaStep
from metarl.experiment import loop
from metarl.experiment.experiment import Experiment
from metarl.experiment.learner import EvaluationRequest, NonFiniteError
from metarl.experiment.run_directory import RunDirectory
from metarl.simulation.task_family import Simulation

MAKERS = {"MB-MPO": mbmpo, "ME-TRPO": metrpo, "MB-MPC": mbmpc, "MAML": maml, "TRPO": trpo}


class BadSwimmer(Swimmer):
    """A swimmer whose real or imagined reward, or real observation, is not finite."""

    real = imagined = observed = 0.0

    def make_simulation(self, num_copies):
        return BadSimulation(super().make_simulation(num_copies), self)

    def reward(self, observation, action, next_observation):
        return super().reward(observation, action, next_observation) + self.imagined


class BadSimulation(Simulation):
    def __init__(self, simulation, family):
        self._simulation, self._family = simulation, family
        self.num_copies = simulation.num_copies

    def __getattr__(self, name):
        return getattr(self._simulation, name)

    def reset(self, indices=None, numbers=None):
        self._simulation.reset(indices, numbers)

    def observe(self):
        return self._simulation.observe() + self._family.observed

    def step(self, actions, tasks):
        outcome = self._simulation.step(actions, tasks)
        return outcome._replace(reward=outcome.reward + self._family.real)

    def perturb_state(self, noise):
        self._simulation.perturb_state(noise)


def bad(**values):
    family = BadSwimmer()
    for name, value in values.items():
        setattr(family, name, value)
    return family


def run(learner, folder):
    """Trains through the real loop; returns the exit code, the error in crash/ and the evidence."""
    directory = RunDirectory(str(folder))
    directory.acquire()
    try:
        code = loop.train(Experiment(learner=learner, iterations=2, checkpoint_every=1), directory)
    finally:
        directory.release()
    [described] = (folder / "crash").glob("*.json")
    with np.load(described.with_suffix(".npz")) as evidence:
        return code, json.loads(described.read_text())["error"], dict(evidence)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_real_reward_that_is_not_a_number(kind, tmp_path):
    code, error, evidence = run(MAKERS[kind](family=bad(real=np.nan)), tmp_path)
    assert code == 1
    assert error == "not finite: reward of the real steps"
    name = "phase_0/advantage" if kind == "MAML" else "steps/reward"
    assert name in evidence
    assert not (tmp_path / "final.csv").exists()


def test_an_observation_that_is_infinite(tmp_path):
    code, error, _ = run(mbmpo(family=bad(observed=np.inf)), tmp_path)
    assert (code, error) == (1, "not finite: observation of the real steps")


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("kind", ["MB-MPO", "ME-TRPO"])
def test_an_imagined_reward_that_is_not_finite(kind, value, tmp_path):
    code, error, evidence = run(MAKERS[kind](family=bad(imagined=value)), tmp_path)
    assert code == 1
    step = "meta-step" if kind == "MB-MPO" else "TRPO step"
    assert error == f"not finite: return of the imagined rollouts of {step} 1"
    if kind == "MB-MPO":
        assert "imagined/shard_0/phase_1/observation" in evidence


@pytest.fixture(scope="module")
def healthy():
    learner = mbmpo(family=Swimmer(), meta_steps=1)
    learner.run_iteration(silent)
    return learner, {name: np.array(value) for name, value in learner.state().items()}


def test_a_model_that_is_not_finite(healthy):
    """Caught by the fit, which is where it would first show."""
    learner, state = healthy
    learner.restore(state)
    weights = {name: value * np.nan for name, value in learner.models.weights.items()}
    learner.models = learner.models._replace(weights=weights)
    with pytest.raises(NonFiniteError, match="the loss of dynamics model 0 is not finite in epoch 1"):
        learner.run_iteration(silent)
    assert learner.iteration == 1


def test_a_model_that_explodes_in_imagination(healthy, monkeypatch):
    learner, state = healthy
    learner.restore(state)
    effective = learner.ensemble.effective(learner.models)
    broken = tf.nest.map_structure(lambda x: x * np.nan if x.dtype.is_floating else x, effective)
    monkeypatch.setattr(learner.ensemble, "effective", lambda models: broken)
    with pytest.raises(NonFiniteError, match="of the imagined rollouts of meta-step 1"):
        learner.run_iteration(silent)


def test_parameters_that_are_not_finite_after_the_meta_update(healthy, monkeypatch):
    """The original's TRPO never accepts them, but Adam does."""
    learner, state = healthy
    learner.restore(state)
    update = MetaStep.update

    def poisoned(*arguments):
        theta, *rest = update(*arguments)
        return {**theta, "log_std": theta["log_std"] * np.nan}, *rest

    monkeypatch.setattr(MetaStep, "update", poisoned)
    with pytest.raises(NonFiniteError, match="not finite: log_std of the policy after meta-step 1"):
        learner.run_iteration(silent)
    assert np.isnan(learner.crash_evidence()["method/theta/log_std"]).all()


@pytest.mark.parametrize("kind", ["MB-MPC", "TRPO"])
def test_an_evaluation_with_a_return_that_is_not_finite(kind):
    learner = MAKERS[kind](family=bad(real=np.inf))
    with pytest.raises(NonFiniteError, match="return on the tasks 'drawn' is not finite"):
        learner.evaluate(EvaluationRequest(num_tasks=2), silent)
