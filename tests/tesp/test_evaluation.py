"""Evaluation apart from training: the numbers are those of the adaptation, goal by goal, and repeat."""

import numpy as np
import pytest
import tensorflow as tf

from metarl.experiment.errors import UserError
from metarl.experiment.learner import EvaluationRequest, NonFiniteError
from metarl.sampling.steps import Episodes
from tesp.evaluation import goal_groups, per_goal
from tesp.families.point import Point
from tesp.learner import TespLearner
from tesp.methods import MAML, TESP
from tesp.settings import FastAdaptation, MetaUpdate
from tesp.validation import Validation, adapt_to_goals, do_nothing_return

SMALL = {"hidden_sizes": (8, 8)}


def silent(phase):
    del phase


def make_learner(method="MAML", validation=None, **adaptation):
    tesp = {"embedding_dim": 3, "embedding_coeff": 0.01, "gru_units": 6}
    return TespLearner(
        method=MAML(**SMALL) if method == "MAML" else TESP(**SMALL, **tesp),
        family=Point(arrival_threshold=0.2),
        meta_batch_size=2,
        seed=3,
        num_goals=5,
        adaptation=FastAdaptation(
            **{"rollouts_per_task": 2, "horizon": 10, "inner_updates": 2, "buffer_size": 3} | adaptation
        ),
        meta_update=MetaUpdate(num_evaluations=2),
        validation=validation or Validation(frequency=0),
    )


@pytest.fixture(scope="module")
def maml():
    learner = make_learner()
    learner.run_iteration(silent)
    return learner


def evaluated(learner, **request):
    return learner.evaluate(EvaluationRequest(**request), silent)


def returns(result, goal_set):
    """[goals, K+1]."""
    return np.array(
        [
            [value for name, value in row.items() if name.startswith("return_")]
            for row in result.per_task
            if row["goal_set"] == goal_set
        ]
    )


@pytest.mark.parametrize("method", ["MAML", "TESP"])
def test_the_numbers_are_those_of_the_adaptation(method, maml):
    """Three goals in chunks of two, so that the last chunk is padded."""
    learner = maml if method == "MAML" else make_learner(method)
    if method == "TESP":
        learner.run_iteration(silent)
    before = {name: np.array(value) for name, value in learner.state().items()}
    result = evaluated(learner, task_sets=("test_1",), num_tasks=3)
    for name, value in learner.state().items():
        np.testing.assert_array_equal(value, before[name])

    goals = learner.goal_sets.test_1[:3]
    direct = adapt_to_goals(learner.pool, learner.parameters, goals, seed=3, iteration=1, phase="evaluation/test_1")
    assert result.env_steps == direct.simulated_steps
    assert [row["index"] for row in result.per_task] == [0, 1, 2]
    for row in result.per_task:
        assert [row["goal_x"], row["goal_y"]] == list(goals[row["index"]])
        for k, episodes in enumerate(direct.rounds):
            mine = episodes.task == row["index"]
            assert row[f"return_{k}"] == pytest.approx(np.mean(episodes.episode_return[mine]), rel=1e-12)
            assert row[f"length_{k}"] == pytest.approx(np.mean(episodes.length[mine]), rel=1e-12)
            assert row[f"success_{k}"] == pytest.approx(np.mean(episodes.final["arrived"][mine]), rel=1e-12)
            assert row[f"episodes_{k}"] == np.sum(mine)
    assert [(row["goal_set"], row["fast_updates"]) for row in result.pooled] == [("test_1", k) for k in range(3)]
    table = returns(result, "test_1")
    for k, row in enumerate(result.pooled):
        half_width = 4.30265 * np.std(table[:, k], ddof=1) / np.sqrt(3)
        assert row["return"] == pytest.approx(np.mean(table[:, k]))
        assert row["return_high"] - row["return"] == pytest.approx(half_width, rel=1e-5)
        assert row["episode_return"] == pytest.approx(np.mean(direct.rounds[k].episode_return))
        assert row["episodes"] == len(direct.rounds[k].length)
        assert row["do_nothing"] == pytest.approx(do_nothing_return(learner.family, goals, 10))
    gain = table[:, 2] - table[:, 0]
    assert result.pooled[0]["gain"] is None
    assert result.pooled[2]["gain"] == pytest.approx(np.mean(gain))
    half_width = 4.30265 * np.std(gain, ddof=1) / np.sqrt(3)
    assert result.pooled[2]["gain_low"] == pytest.approx(np.mean(gain) - half_width, rel=1e-5)
    assert any("warm-up" in note for note in result.notes) == (method == "TESP")
    assert all(note in result.text for note in result.notes)


def test_evaluation_repeats_and_the_seed_changes_it(maml):
    first = evaluated(maml, task_sets=("test_2",), num_tasks=2)
    again = evaluated(maml, task_sets=("test_2",), num_tasks=2)
    other = evaluated(maml, task_sets=("test_2",), num_tasks=2, seed=4)
    assert first.per_task == again.per_task
    assert first.pooled == again.pooled
    assert np.all(returns(first, "test_2") != returns(other, "test_2"))
    assert other.settings["seed"] == 4


def test_all_sets_and_what_is_pooled_over_them(maml):
    """Without a choice all sets; more goals leave the first ones' numbers alone."""
    result = evaluated(maml)
    names = ["train", "test_1", "test_2", "pooled"]
    assert [row["goal_set"] for row in result.pooled] == [name for name in names for _ in range(3)]
    assert [row["adaptation"] for row in result.pooled[:3]] == ["pre", "", "post"]
    assert [row["paper"] for row in result.pooled[::3]] == ["D", "D'", "D''", ""]
    table = np.concatenate([returns(result, name) for name in names[:3]])
    assert table.shape == (15, 3)
    pooled = result.pooled[-1]
    assert pooled["goals"] == 15
    assert pooled["return"] == pytest.approx(np.mean(table[:, 2]))
    assert pooled["gain"] == pytest.approx(np.mean(table[:, 2] - table[:, 0]))
    few = evaluated(maml, task_sets=("all",), num_tasks=2)
    for name in names[:3]:
        np.testing.assert_array_equal(returns(few, name), returns(result, name)[:2])
    assert len(few.per_task) == 6


def test_goals_of_ones_own_with_other_fast_updates_and_copies(maml):
    goals = ((0.9, -0.9), (3.0, 0.0), (0.1, 0.1))
    result = evaluated(maml, tasks=goals, fast_updates=0, episodes=4)
    assert [(row["goal_x"], row["goal_y"]) for row in result.per_task] == list(goals)
    assert {row["goal_set"] for row in result.per_task} == {"explicit"}
    assert "return_1" not in result.per_task[0]
    assert all(row["episodes_0"] >= 4 for row in result.per_task)
    # Arriving is ending early, which leaves room for more episodes in the 4 x 10 steps of a round.
    assert result.per_task[2]["success_0"] > 0.0
    assert result.per_task[2]["episodes_0"] > 4
    assert result.per_task[1]["return_0"] < -20.0
    assert [row["gain"] for row in result.pooled] == [None]
    assert any("other amounts of data" in note for note in result.notes)

    both = evaluated(maml, task_sets=("train",), tasks=goals[:1], num_tasks=1, fast_updates=1)
    assert [row["goal_set"] for row in both.per_task] == ["train", "explicit"]
    assert [row["goals"] for row in both.pooled] == [1, 1, 1, 1, 2, 2]
    assert both.pooled[0]["return_low"] is None
    assert both.pooled[-1]["return_low"] is not None
    assert both.pooled[-1]["return"] == pytest.approx(np.mean([row["return_1"] for row in both.per_task]))


def test_noise_of_either_kind_spares_the_training_goals(maml):
    sets = {"task_sets": ("train", "test_1", "test_2"), "num_tasks": 2}
    clean = evaluated(maml, **sets)
    noisy = {kind: evaluated(maml, **sets, noise_sigma=0.5, noise_kind=kind) for kind in ("observation", "state")}
    for kind, result in noisy.items():
        np.testing.assert_array_equal(returns(result, "train"), returns(clean, "train"))
        for name in ("test_1", "test_2"):
            assert np.all(returns(result, name) != returns(clean, name))
        assert result.settings["noise_sigma"] == {"train": 0.0, "test_1": 0.5, "test_2": 0.5}
        assert result.settings["noise_kind"]["test_1"] == kind
        assert {row["noise_sigma"] for row in result.per_task} == {0.0, 0.5}
    assert np.all(returns(noisy["observation"], "test_1") != returns(noisy["state"], "test_1"))
    assert any("none on train" in note for note in noisy["state"].notes)
    assert not any("noise" in note for note in clean.notes)


def test_the_run_s_own_noise_is_the_default():
    learner = make_learner(validation=Validation(noise_sigma=0.3, noise_kind="state"))

    def noise(**request):
        return {group.name: group.noise for group in goal_groups(learner, EvaluationRequest(**request))}

    own = noise(task_sets=("all",), tasks=((0.5, 0.5),))
    assert own["train"] is None
    assert {own[name] for name in ("test_1", "test_2", "explicit")} == {learner.validation.noise_for("test_1")}
    assert own["explicit"].sigma == 0.3
    assert set(noise(noise_sigma=0.0).values()) == {None}
    other = noise(noise_sigma=0.1)["test_2"]
    assert (other.sigma, other.kind) == (0.1, "observation")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"task_sets": ("test1",)}, "--goal_set must be one of train, test_1, test_2, all; got 'test1'; did you mean"),
        ({"task_sets": ("train",), "num_tasks": 6}, "--num_goals=6: the goal set 'train' has 5 goals"),
        ({"tasks": ((0.5,),)}, "--goal=0.5: a goal of point is 2 numbers, got 1"),
        ({"tasks": ((0.5, 0.5), (1.0, 2.0, 3.0))}, "--goal=1,2,3: a goal of point is 2 numbers, got 3"),
        ({"noise_sigma": 0.1, "noise_kind": "observations"}, "did you mean 'observation'"),
        ({"noise_sigma": -0.1}, "--noise_sigma must be at least 0"),
        ({"noise_sigma": float("nan")}, "--noise_sigma must be finite"),
        ({"noise_kind": "state"}, "--noise_kind says nothing without --noise_sigma"),
        ({"tasks": ((0.5, 0.5),), "num_tasks": 1}, "give a --goal_set too"),
        ({"num_tasks": 0}, "--num_goals must be at least 1"),
        ({"fast_updates": -1}, "--fast_updates must be at least 0"),
        ({"episodes": 0}, "--episodes must be at least 1"),
        ({"seed": -1}, "--seed must be at least 0"),
    ],
)
def test_bad_requests_are_one_line_before_the_first_step(maml, monkeypatch, request_, words):
    monkeypatch.setattr(maml, "make_shard", None)
    with pytest.raises(UserError) as error:
        evaluated(maml, **request_)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_return_that_is_not_finite_is_an_error():
    learner = make_learner()
    broken = {name: tf.fill(value.shape, np.nan) for name, value in learner.parameters.inner.items()}
    learner.parameters = learner.parameters._replace(inner=broken)
    with pytest.raises(NonFiniteError, match="not finite"):
        evaluated(learner, task_sets=("train",), num_tasks=1)


def test_a_goal_s_value_is_the_mean_of_its_own_episodes():
    episodes = Episodes(
        task=np.array([0, 0, 0, 1]),
        episode_return=np.array([-1.0, -2.0, -6.0, -10.0]),
        length=np.array([2, 3, 4, 10]),
        terminated=np.array([True, True, False, False]),
        start=np.array([0, 2, 5, 0]),
        sums={},
        final={"arrived": np.array([1.0, 1.0, 0.0, 0.0])},
    )
    measured = per_goal([episodes], np.array([-4.0, -5.0]))
    np.testing.assert_allclose(measured.returns, [[-3.0, -10.0]])
    np.testing.assert_allclose(measured.length, [[3.0, 10.0]])
    np.testing.assert_allclose(measured.success, [[2 / 3, 0.0]])
    np.testing.assert_allclose(measured.episodes, [[3.0, 1.0]])


def test_resized_settings_keep_the_rest_and_give_the_encoder_room():
    settings = FastAdaptation(rollouts_per_task=2, horizon=10, inner_updates=2, episode_mode="all_episodes")
    larger = settings.resized(rollouts_per_task=5, inner_updates=4)
    assert (larger.rollouts_per_task, larger.inner_updates, larger.horizon) == (5, 4, 10)
    assert (settings.encoder_episode_capacity, larger.encoder_episode_capacity) == (12, 50)
    assert settings.resized(inner_updates=0).encoder_episode_capacity == 12
    tight = FastAdaptation(rollouts_per_task=2, episode_mode="last_episodes", encoder_episode_capacity=3)
    assert tight.resized(rollouts_per_task=5).encoder_episode_capacity == 8
    buffer = FastAdaptation(buffer_size=3)
    assert buffer.resized(rollouts_per_task=90, inner_updates=9).encoder_episode_capacity == 3
    assert (settings.rollouts_per_task, settings.inner_updates) == (2, 2)


def test_more_copies_and_fast_updates_than_in_training_fit_the_encoder():
    learner = make_learner("TESP", episode_mode="all_episodes")
    result = evaluated(learner, tasks=((0.9, 0.0),), episodes=4, fast_updates=3)
    assert result.per_task[0]["episodes_3"] >= 4


def test_noise_on_the_training_goals_alone_is_refused(maml):
    with pytest.raises(UserError, match=r"--noise_sigma=0\.1 has no effect on the training goals"):
        evaluated(maml, task_sets=("train",), noise_sigma=0.1)
