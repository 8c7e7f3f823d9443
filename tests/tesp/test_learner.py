"""The learner end to end on the point: determinism, resume, validation, final table, options, static shapes."""

import numpy as np
import pytest
import tensorflow as tf

from metarl.experiment.errors import UserError
from metarl.experiment.learner import NonFiniteError
from metarl.scaling.pool import LocalPool
from metarl.scaling.shard import TaskBatch
from tesp import reporting
from tesp.families.point import Point
from tesp.families.wheeled import Wheeled
from tesp.final_table import FinalTable
from tesp.learner import TespLearner
from tesp.methods import MAESN, MAML, TESP, MetaSGD, TESPAdaptivePolicy
from tesp.settings import FastAdaptation, MetaUpdate
from tesp.shard import Trajectory
from tesp.validation import Validation, adapt_to_goals

SMALL = {"hidden_sizes": (8, 8)}
CONTEXT = {"embedding_dim": 3, "embedding_coeff": 0.01}
METHODS = {
    "MAML": lambda: MAML(**SMALL),
    "MetaSGD": lambda: MetaSGD(**SMALL),
    "MAESN": lambda: MAESN(**SMALL, **CONTEXT),
    "TESP": lambda: TESP(**SMALL, **CONTEXT, gru_units=6),
    "TESPAdaptivePolicy": lambda: TESPAdaptivePolicy(**SMALL, **CONTEXT, gru_units=6),
}


def silent(phase):
    del phase


def make_learner(method="TESP", *, adaptation=None, meta_update=None, family=None, **settings):
    method = METHODS[method]() if isinstance(method, str) else method
    adaptation = {"rollouts_per_task": 3, "horizon": 12, "inner_updates": 2, "buffer_size": 4} | (adaptation or {})
    settings = {"meta_batch_size": 3, "seed": 2, "num_goals": 7, "validation": Validation(frequency=2)} | settings
    settings = {"final": FinalTable(num_goals=4)} | settings
    return TespLearner(
        method=method,
        family=family or Point(),
        adaptation=FastAdaptation(**adaptation),
        meta_update=MetaUpdate(num_evaluations=4, **(meta_update or {})),
        **settings,
    )


def without_clock(metrics):
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}


@pytest.mark.parametrize(
    "value",
    ["train", 5, ["train", "train"], ["training"]],
)
def test_bad_lists_of_goal_sets_are_one_line(value):
    with pytest.raises(UserError, match=r"Validation\.goal_sets") as error:
        Validation(goal_sets=value)
    assert "Validation.goal_sets" in str(error.value).splitlines()[0]


@pytest.mark.parametrize("method", METHODS)
def test_resumed_run_is_bit_identical(method):
    straight = make_learner(method)
    history = [without_clock(straight.run_iteration(silent)) for _ in range(3)]
    first = make_learner(method)
    assert without_clock(first.run_iteration(silent)) == history[0]
    stored = {name: np.array(value) for name, value in first.state().items()}
    second = make_learner(method)
    second.restore(stored)
    second.final_table(silent)
    assert [without_clock(second.run_iteration(silent)) for _ in range(2)] == history[1:]
    for name, value in straight.state().items():
        np.testing.assert_array_equal(value, second.state()[name], err_msg=name)
    assert history[1]["validation_test_2/return_2"] is not None
    assert history[0]["validation_test_2/return_2"] is None
    assert list(history[0]) == list(history[1])


def test_final_table_leaves_the_state_alone():
    learner = make_learner()
    learner.run_iteration(silent)
    before = learner.state()
    rows = learner.final_table(silent)
    after = learner.state()
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name])
    assert [row["paper"] for row in rows] == ["D", "D'", "D''"]
    assert {"do_nothing", "untrained_post", "fast_update_0", "fast_update_2"} <= set(rows[0])
    assert rows == learner.final_table(silent)


def test_the_final_table_has_the_noise_of_the_validation():
    """The training goals are without (section 6.2), so their rows agree and the others do not."""
    quiet, noisy = (
        make_learner(validation=Validation(frequency=0, noise_sigma=sigma)).final_table(silent) for sigma in (0.0, 0.3)
    )
    assert quiet[0] == noisy[0]
    for name in ("fast_update_0", "fast_update_2", "untrained_post"):
        assert [row[name] for row in quiet[1:]] != [row[name] for row in noisy[1:]], name
    assert [row["do_nothing"] for row in quiet] == [row["do_nothing"] for row in noisy]


def test_restore_names_what_differs():
    learner = make_learner()
    state = learner.state()
    for change, words in (
        (lambda arrays: arrays.pop("adam/step"), "lacks the array 'adam/step'"),
        (lambda arrays: arrays.update(extra=np.zeros(2)), "holds 'extra'"),
        (lambda arrays: arrays.update({"parameters/inner/proj.bias": np.zeros(9)}), "'parameters/inner/proj.bias' has"),
    ):
        arrays = dict(state)
        change(arrays)
        with pytest.raises(UserError, match="checkpoint") as error:
            learner.restore(arrays)
        assert words in str(error.value)


def test_every_function_is_traced_once():
    """Over batches with different early ends, validation (last chunk padded) and the final table."""
    learner = make_learner(family=Point(arrival_threshold=0.3), validation=Validation(frequency=1))
    lengths = set()
    for _ in range(3):
        metrics = learner.run_iteration(silent)
        lengths.add(metrics["episodes/fast_update_2"])
    learner.final_table(silent)
    assert len(lengths) > 1
    compute = learner.shards[0].computation
    for function in (compute.prepare, compute.advantages, compute.inner_step, compute.outer_gradient):
        assert function.experimental_get_tracing_count() == 1


def test_task_batches_follow_the_original_stream():
    """The first meta-batch of seed 1 on wheeled (specification, section 5.7)."""
    learner = TespLearner(method=MAML(**SMALL), family=Wheeled(), seed=1)
    first = learner.draw_tasks()
    expected = [3, 4, 8, 9, 13, 16, 19, 22, 25, 28, 35, 36, 57, 61, 63, 66, 76, 79, 82, 98]
    goals = learner.goal_sets.train[expected]
    np.testing.assert_array_equal(first.tasks[np.lexsort(first.tasks.T)], goals[np.lexsort(goals.T)])
    np.testing.assert_array_equal(first.indices, np.arange(20))


@pytest.mark.parametrize(
    "change",
    [
        {"meta_update": {"replay_inner": True}},
        {"meta_update": {"second_order": True}},
        {"adaptation": {"warmup": False}},
        {"adaptation": {"episode_mode": "last_episodes"}},
        {"adaptation": {"episode_mode": "all_episodes", "encoder_episode_capacity": 40}},
        {"adaptation": {"inner_updates": 0}},
        {"method": TESP(**SMALL, **CONTEXT, gru_units=6, encoder_action_feature="action")},
        {"method": TESP(**SMALL, **CONTEXT, gru_units=6, adaptive_inner_lr=False)},
    ],
    ids=[
        "replay_inner",
        "second_order",
        "no warmup",
        "last_episodes",
        "all_episodes",
        "no inner_updates",
        "encoder_action_feature",
        "constant rates",
    ],
)
def test_options_run_and_change_the_result(change):
    default, changed = make_learner(), make_learner(**change)
    for learner in (default, changed):
        metrics = [learner.run_iteration(silent) for _ in range(2)]
    assert all(value is None or np.isfinite(value) for value in metrics[-1].values())
    same = [
        np.array_equal(a, b)
        for a, b in zip(*(tf.nest.flatten(learner.parameters.shared) for learner in (default, changed)), strict=True)
    ]
    assert not all(same)


@pytest.mark.parametrize("rollback", [False, True])
def test_adam_goes_back_to_the_selected_iterate_if_asked(rollback):
    learner = make_learner("MAML", meta_update={"rollback_adam": rollback, "outer_lr": 0.1})
    selected = learner.run_iteration(silent)["outer/selected"]
    assert selected < 3  # such steps leave the KL limit at once
    assert learner.state()["adam/step"] == (selected if rollback else 3)


def test_warmup_costs_one_round():
    steps = {warmup: make_learner(adaptation={"warmup": warmup}) for warmup in (True, False)}
    totals = {w: learner.run_iteration(silent)["env_steps/this_iteration"] for w, learner in steps.items()}
    assert totals[True] > 1.2 * totals[False]


def test_encoder_overflow_names_the_setting():
    learner = make_learner(
        adaptation={"episode_mode": "all_episodes", "encoder_episode_capacity": 9}, family=Point(arrival_threshold=0.3)
    )
    with pytest.raises(UserError, match=r"FastAdaptation\.encoder_episode_capacity is 9"):
        learner.run_iteration(silent)


@pytest.mark.parametrize(
    ("settings", "least"), [({"episode_mode": "last_episodes"}, 3), ({"episode_mode": "all_episodes"}, 9)]
)
def test_room_that_cannot_be_enough_is_refused_before_the_first_step(settings, least):
    sizes = {"rollouts_per_task": 3, "inner_updates": 2}
    assert FastAdaptation(**sizes, **settings, encoder_episode_capacity=least).encoder_episode_capacity == least
    with pytest.raises(UserError, match=f"encoder_episode_capacity must be at least {least}"):
        FastAdaptation(**sizes, **settings, encoder_episode_capacity=least - 1)


@pytest.mark.parametrize("name", ["MAML", "MetaSGD", "MAESN"])
@pytest.mark.parametrize("setting", [{"warmup": False}, {"episode_mode": "all_episodes"}])
def test_settings_of_the_encoder_are_refused_without_one(name, setting):
    with pytest.raises(UserError, match=rf"FastAdaptation\.{next(iter(setting))} = .* has no effect with {name}"):
        make_learner(name, adaptation=setting)


@pytest.mark.parametrize("setting", ["kl_limit", "clip_param"])
def test_zero_does_not_mean_off(setting):
    with pytest.raises(UserError, match=rf"MetaUpdate\.{setting} must be positive, got 0"):
        MetaUpdate(**{setting: 0})
    with pytest.raises(UserError, match=r"MetaSGD\.inner_lr_bound must be positive"):
        MetaSGD(**SMALL, inner_lr_bound=0.0)


def test_a_bad_return_stops_at_its_round_and_is_kept(monkeypatch):
    learner = make_learner("MAML")
    learner.run_iteration(silent)
    sampler, rounds = learner.shards[0].sampler, []
    collect = sampler.collect

    def diverging(*arguments, **settings):
        batch = collect(*arguments, **settings)
        rounds.append(batch)
        if len(rounds) == 2:
            batch.episodes.episode_return[1] = np.nan
        return batch

    monkeypatch.setattr(sampler, "collect", diverging)
    with pytest.raises(NonFiniteError, match="not finite: a return on task 0 is nan in train/round 1"):
        learner.run_iteration(silent)
    assert len(rounds) == 2
    evidence = learner.crash_evidence()
    np.testing.assert_array_equal(evidence["not_finite/reward"], rounds[1].steps.reward)
    assert "steps/reward" in evidence


def test_figures_of_tasks_that_are_no_places():
    path = np.zeros((4, 2))
    figure = reporting.trajectory_figure([Trajectory(np.array([0.25]), None, [path], [path])])
    (axes,) = figure.axes
    assert axes.get_title() == "task (0.25)"
    assert [line.get_label() for line in axes.lines] == ["before", "after"]
    shown = make_learner("MAML")
    shown.run_iteration(silent)
    axes = shown.figures()["trajectories"].axes[0]
    assert axes.get_title().startswith("goal (")
    assert [line.get_label() for line in axes.lines if not line.get_label().startswith("_")] == [
        "before",
        "after",
        "goal",
    ]


def test_the_final_table_s_own_copies_and_sets():
    learner = make_learner("TESP", final=FinalTable(num_goals=4, rollouts_per_task=5, goal_sets=("test_2", "train")))
    learner.run_iteration(silent)
    before = learner.state()
    rows = learner.final_table(silent)
    assert [row["goal_set"] for row in rows] == ["test_2", "train"]
    assert all(row["goals"] == 4 and np.isfinite(row["fast_update_2"]) for row in rows)
    usual = make_learner("TESP", final=FinalTable(num_goals=4, goal_sets=("test_2", "train")))
    usual.restore(before)
    # Other copies, other noise, other numbers.
    assert [row["fast_update_2"] for row in usual.final_table(silent)] != [row["fast_update_2"] for row in rows]
    assert {name: value.tobytes() for name, value in learner.state().items()} == {
        name: value.tobytes() for name, value in before.items()
    }


def test_validation_chunks_are_padded_and_independent_of_the_chunk_size():
    """Seven goals in chunks of three: the same episodes as one by one, because noise is keyed by goal."""
    learner = make_learner("MAML")
    goals = learner.goal_sets.test_1
    single = LocalPool([learner.make_shard(1, learner.adaptation)])
    keys = {"seed": 2, "iteration": 0, "phase": "check"}
    chunked = adapt_to_goals(learner.pool, learner.parameters, goals, **keys)
    alone = adapt_to_goals(single, learner.parameters, goals, **keys)
    for a, b in zip(chunked.rounds, alone.rounds, strict=True):
        np.testing.assert_array_equal(a.task, b.task)
        np.testing.assert_allclose(a.episode_return, b.episode_return, rtol=1e-3)
    assert set(chunked.rounds[0].task) == set(range(7))


def test_validation_does_not_disturb_the_kept_batch():
    learner = make_learner()
    shard = learner.shards[0]
    tasks = TaskBatch(learner.goal_sets.train[:3], np.arange(3))
    adaptation = shard.collect(learner.parameters, tasks, 2, 0)
    before, _ = shard.evaluate(adaptation.key, learner.parameters, "outer_gradient")
    adapt_to_goals(
        learner.pool, learner.parameters, learner.goal_sets.test_1, seed=2, iteration=0, phase="validation/test_1"
    )
    after, _ = shard.evaluate(adaptation.key, learner.parameters, "outer_gradient")
    for a, b in zip(tf.nest.flatten(before), tf.nest.flatten(after), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("method", "options"), [*((name, {}) for name in METHODS), ("MAML", {"second_order": True})])
def test_the_terms_alone_are_those_beside_the_gradient(method, options):
    learner = make_learner(method, meta_update=options)
    tasks = TaskBatch(learner.goal_sets.train[:3], np.arange(3))
    shard = learner.shards[0]
    key = shard.collect(learner.parameters, tasks, 2, 0).key
    moved = tf.nest.map_structure(lambda x: x + 0.01, learner.parameters)
    _, expected = shard.evaluate(key, moved, "outer_gradient")
    gradient, terms = shard.evaluate(key, moved, "outer_terms")
    assert gradient is None
    for found, value in zip(terms, expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-6, atol=1e-8)
        assert found.shape == (3,)


def test_the_last_evaluation_needs_no_gradient(monkeypatch):
    learner = make_learner("MAML")
    asked = []
    evaluate = learner.pool.evaluate
    monkeypatch.setattr(learner.pool, "evaluate", lambda **common: asked.append(common["what"]) or evaluate(**common))
    learner.run_iteration(silent)
    assert asked == ["outer_gradient"] * 3 + ["outer_terms"]


def test_repeating_collect_repeats_the_result():
    """How a lost worker is replaced: same parameters, tasks, seed and iteration, by a new shard."""
    results = []
    for _ in range(2):
        learner = make_learner()
        tasks = TaskBatch(learner.goal_sets.train[:3], np.arange(3))
        adaptation = learner.shards[0].collect(learner.parameters, tasks, 2, 5)
        results.append(learner.shards[0].evaluate(adaptation.key, learner.parameters, "outer_gradient"))
    for a, b in zip(*map(tf.nest.flatten, results), strict=True):
        np.testing.assert_array_equal(a, b)


def test_validation_schedule():
    auto = Validation(frequency="auto")
    assert [i for i in range(1, 301) if auto.is_due(i)] == [100, 200, 225, 250, 275, 300]
    assert [i for i in range(1, 60) if Validation().is_due(i)] == [25, 50]
    assert not any(Validation(frequency=0).is_due(i) for i in range(1, 60))


def test_noise_study_spares_the_training_goals():
    validation = Validation(noise_sigma=0.05)
    assert validation.noise_for("train") is None
    assert validation.noise_for("test_1").sigma == 0.05
    assert Validation().noise_for("test_2") is None


def test_a_non_finite_parameter_stops_the_meta_update_with_evidence():
    learner = make_learner()
    learner.run_iteration(silent)
    poisoned = dict(learner.parameters.shared)
    poisoned["mlp2.bias"] = tf.fill(poisoned["mlp2.bias"].shape, np.float32("nan"))
    learner.parameters = learner.parameters._replace(shared=poisoned)
    with pytest.raises(NonFiniteError, match="is nan"):
        learner.run_iteration(silent)
    evidence = learner.crash_evidence()
    assert np.isnan(evidence["parameters/shared/mlp2.bias"]).all()
    assert {"steps/observation", "steps/reward", "advantage", "accumulated/gru.kernel"} <= set(evidence)


def test_a_non_finite_gradient_is_not_passed_over(monkeypatch):
    """Finite terms at the first evaluation and a bad gradient: the next evaluation's terms show it."""
    learner = make_learner("MAML")
    original = type(learner.shards[0]).evaluate

    def bad_gradient(shard, key, parameters, what):
        gradient, terms = original(shard, key, parameters, what)
        return tf.nest.map_structure(lambda g: g * np.float32("nan"), gradient), terms

    monkeypatch.setattr(type(learner.shards[0]), "evaluate", bad_gradient)
    with pytest.raises(NonFiniteError):
        learner.run_iteration(silent)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"validation": Validation(num_goals=8)}, "Validation.num_goals is 8, more than the 7 goals"),
        ({"meta_batch_size": 8}, "more than the 7 goals"),
        ({"meta_batch_size": 0}, "meta_batch_size must be at least 1"),
        ({"seed": "one"}, "seed must be an integer"),
        ({"adaptation": {"rollouts_per_task": 0}}, "rollouts_per_task must be at least 1"),
        ({"adaptation": {"inner_updates": -1}}, "inner_updates must be at least 0"),
        ({"adaptation": {"episode_mode": "episodes_buffer"}}, "did you mean 'episode_buffer'"),
        ({"adaptation": {"encoder_episode_capacity": 3}}, "encoder_episode_capacity must be at least 4"),
        ({"meta_update": {"outer_lr": -1e-3}}, "outer_lr must be at least 0"),
    ],
)
def test_bad_settings_are_one_line(settings, words):
    with pytest.raises(UserError) as error:
        make_learner(**settings)
    assert words in str(error.value).splitlines()[0]
