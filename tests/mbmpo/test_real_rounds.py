"""How real rounds are shared among copies, when they end, and with how many threads, wherever a learner makes them."""

import numpy as np
import pytest
from learner_tools import HORIZON, maml, mbmpc, mbmpo, metrpo, silent, trpo

from mbmpo import evaluation
from mbmpo.adapting import real_shard
from mbmpo.families import Hopper, InvertedPendulum, Swimmer
from mbmpo.real_data import draw_tasks
from metarl.experiment.errors import UserError
from metarl.experiment.learner import EvaluationRequest
from metarl.sampling.sampler import Sampler


class SampledError(Exception):
    """Stands for the round."""


@pytest.fixture
def made(monkeypatch):
    """The arguments of every sampler made so far, by name; no round takes place."""
    found = []
    make = Sampler.__init__

    def spied(self, family, act, num_tasks, copies, horizon, num_threads=None, **rest):
        found.append({"copies": copies, "num_threads": num_threads, **rest})
        make(self, family, act, num_tasks, copies, horizon, num_threads, **rest)

    def collect(self, *arguments, **named):
        raise SampledError

    monkeypatch.setattr(Sampler, "__init__", spied)
    monkeypatch.setattr(Sampler, "collect", collect)
    return found


def everywhere(learner, request):
    """The first round of training, of evaluation, of a video and of the final table's random actions."""
    for sample in (
        lambda: learner.run_iteration(silent),
        lambda: learner.evaluate(request, silent),
        lambda: learner.sample_rounds(EvaluationRequest(), silent),
        lambda: evaluation.random_row(learner, 3),
    ):
        with pytest.raises(SampledError):
            sample()


def test_one_copy_per_task_makes_its_episodes_in_a_row(made):
    """Section 6.4: one environment per task, in training, evaluation and rendering alike."""
    everywhere(maml(family=InvertedPendulum(), copies_per_task=1), EvaluationRequest(num_tasks=4, episodes=5))
    steps = [tasks * rollouts * HORIZON for tasks, rollouts in ((3, 2), (4, 5), (1, 2), (3, 1))]
    assert [sampler["min_steps"] for sampler in made] == steps
    assert {sampler["copies"] for sampler in made} == {1}


@pytest.mark.parametrize(
    ("rule", "family"), [("global", Hopper()), ("per_task", Hopper()), ("truncate", Hopper()), ("global", Swimmer())]
)
def test_few_copies_gather_as_many_steps_and_lose_less(rule, family):
    """Of M R H steps a round of c copies per task loses less than one episode per copy."""
    M, R, H, c = 3, 6, 40, 2
    learner = maml(family=family, meta_batch_size=M, rollouts_per_task=R, horizon=H, stop_rule=rule, copies_per_task=c)
    shard, collector = real_shard(learner, M, inner_updates=0, remember=True)
    shard.collect(learner.parameters, draw_tasks(family, M, 1, 0), 1, 0, keep=False)
    (batch,) = collector.forget()
    sampler = collector._sampler
    kept = int(batch.episodes.length.sum())
    assert sampler.rollouts_per_task == c
    assert M * R * H <= kept < M * R * H + M * c * H
    assert kept == batch.steps.valid.sum()
    # The sampler by task stops its copies one after the other.
    assert sampler.steps_taken - kept < M * c * H
    assert batch.episodes.terminated.any() == family.ends_early


def test_a_few_copies_train():
    learner = maml(family=Hopper(), copies_per_task=1, rollouts_per_task=3)
    metrics = learner.run_iteration(silent)
    assert metrics["env_steps/this_iteration"] >= 2 * 3 * 3 * HORIZON
    assert np.isfinite(metrics["post_update/return"])


def test_copies_share_rollouts_and_are_no_more_than_those():
    with pytest.raises(UserError, match=r"MAMLLearner\.copies_per_task must be at most 2"):
        maml(copies_per_task=3)
    with pytest.raises(UserError, match=r"MAMLLearner\.copies_per_task must be at least 1"):
        maml(copies_per_task=0)


RULED = {
    "MB-MPO": lambda rule: mbmpo(real_data={"stop_rule": rule}),
    "ME-TRPO": lambda rule: metrpo(real_data={"stop_rule": rule}),
    "MAML": lambda rule: maml(stop_rule=rule),
    "TRPO": lambda rule: trpo(stop_rule=rule),
}


@pytest.mark.parametrize("method", RULED)
def test_a_runs_stop_rule_holds_wherever_it_samples(made, method):
    everywhere(RULED[method]("truncate"), EvaluationRequest(num_tasks=2))
    assert [sampler["stop_rule"] for sampler in made] == ["truncate"] * 4
    with pytest.raises(UserError, match="stop_rule must be one of per_task, global, truncate; got 'globl'"):
        RULED[method]("globl")


def test_trpo_keeps_running_episodes_if_told_to():
    """O-23: M R H steps exactly, where the default goes on until finished episodes hold them."""
    taken = {
        rule: trpo(family=Hopper(), horizon=40, stop_rule=rule).run_iteration(silent) for rule in ("global", "truncate")
    }
    assert taken["truncate"]["env_steps/this_iteration"] == 4 * 40
    assert taken["global"]["env_steps/this_iteration"] >= 4 * 40
    assert taken["truncate"]["real/return"] != taken["global"]["real/return"]


@pytest.mark.parametrize("make", [mbmpo, metrpo, mbmpc], ids=["MB-MPO", "ME-TRPO", "MB-MPC"])
def test_random_rounds_use_the_threads_given(made, make):
    learner = make(real_data={"num_threads": 1})
    for sample in (lambda: learner.run_iteration(silent), lambda: evaluation.random_row(learner, 3)):
        with pytest.raises(SampledError):
            sample()
    assert [sampler["num_threads"] for sampler in made] == [1, 1]
