"""The outer loops, statement by statement (MB-MPO specification, sections 1, 5.3, 6.4 and 13).

One compiled learner serves most tests: its state is put back before each.
"""

import numpy as np
import pytest
import tensorflow as tf
from learner_tools import HORIZON, maml, mbmpc, mbmpo, metrpo, silent, without_clock

import mbmpo.learner as learner_module
from mbmpo.dynamics import FakePointEnsemble
from mbmpo.dynamics.variants import MLPDynamicsModel
from mbmpo.families import HalfCheetah, InvertedPendulum, Point2D, RandomParameters, Swimmer
from mbmpo.meta_updates import MetaTRPO
from mbmpo.real_data import draw_tasks, random_batch
from mbmpo.settings import ModelFit
from metarl.experiment.errors import UserError
from metarl.sampling.sampler import Sampler
from metarl.sampling.steps import FINAL_OBSERVATION

M, META_STEPS = 4, 4
ROUND = M * HORIZON


@pytest.fixture(scope="module")
def compiled():
    """An MB-MPO learner of a family that never ends early, its initial state and the state after an iteration."""
    learner = mbmpo(family=Swimmer(), meta_steps=META_STEPS, real_data={"rollouts_per_task": 1})
    initial = {name: np.array(value) for name, value in learner.state().items()}
    phases = []
    metrics = learner.run_iteration(phases.append)
    after = {name: np.array(value) for name, value in learner.state().items()}
    return learner, initial, after, metrics, phases


@pytest.fixture
def learner(compiled):
    """The learner after one iteration."""
    compiled[0].restore(compiled[2])
    return compiled[0]


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


def collected_weights(learner, monkeypatch):
    """Runs the collection of an iteration; returns the weights that acted."""
    seen = []
    collect = Sampler.collect

    def spied(sampler, weights, *arguments, **options):
        seen.append(weights)
        return collect(sampler, weights, *arguments, **options)

    monkeypatch.setattr(Sampler, "collect", spied)
    tasks = learner_module.TaskBatch(np.zeros((M, 0)), np.arange(M))
    learner._collect_real(tasks, silent)
    return seen[-1]


def test_order_of_an_iteration(compiled, learner):
    """Section 1.2: real data, real evaluation, model fit, meta-steps."""
    kinds = ["random actions", "real evaluation", "model fit", "meta-step"]
    seen = [next(kind for kind in kinds if phase.startswith(kind)) for phase in compiled[4]]
    assert seen == sorted(seen, key=kinds.index)
    assert set(seen) == set(kinds)
    phases = []
    learner.run_iteration(phases.append)
    assert phases[0] == f"real sampling, step 0/{ROUND}"
    assert f"real sampling, step {ROUND}/{ROUND}" in phases
    for steps in (0, ROUND, 2 * ROUND):
        assert f"real evaluation, step {steps}/{2 * ROUND}" in phases
    assert sum(phase.startswith("meta-step") for phase in phases) == META_STEPS


def test_counters_of_two_iterations(compiled, learner):
    """60 steps asked for are two sweeps of 4 x 12; every path loses its last step; evaluation is two rounds."""
    first, second = compiled[3], learner.run_iteration(silent)
    names = ("counted", "collected", "total", "buffer")
    assert [first[f"env_steps/{name}"] for name in names] == [60, 96, 96 + 2 * ROUND, 8 * (HORIZON - 1)]
    assert [second[f"env_steps/{name}"] for name in names] == [108, 144, 144 + 4 * ROUND, 12 * (HORIZON - 1)]
    assert [first["real/num_paths"], second["real/num_paths"]] == [8, 4]
    assert [first["pre_update/num_paths"], second["post_update/num_paths"]] == [4, 4]


def test_true_counting_counts_what_is_stored():
    """O-6: random episodes end early and overshoot the number asked for, and so do the policy's."""
    learner = mbmpo(real_data={"true_counting": True})
    stored = 0
    for iteration in range(2):
        learner.iteration = iteration
        stored += learner._gather(draw_tasks(learner.family, M, 3, iteration), silent).episodes.length.sum()
        assert learner._counted_steps == learner._collected_steps == stored
    assert stored > 60 + ROUND


def test_five_thousand_random_steps_are_eight_thousand():
    """O-6: 20 copies of 200 steps; `exact` keeps 25 whole paths."""
    batch = random_batch(Swimmer(), 5000, 4000, 200, 1, exact=False)
    assert batch.episodes.length.sum() == batch.steps.valid.sum() == 8000
    assert np.abs(batch.steps.action).max() <= 1.0
    exact = random_batch(Swimmer(), 5000, 4000, 200, 1, exact=True)
    assert exact.episodes.length.sum() == exact.steps.valid.sum() == 5000
    assert exact.steps.last.sum() == len(exact.episodes.task) == 25


def test_truncated_random_steps_are_as_many_as_asked_for():
    """O-23: 15 steps of each of 4 copies; what runs is cut and kept, where the original's rule loses it."""
    batch = random_batch(InvertedPendulum(), 60, ROUND, HORIZON, 1, exact=False, truncate=True)
    assert batch.steps.valid.all()
    assert batch.episodes.length.sum() == 60
    assert not batch.episodes.terminated.all()
    learner = mbmpo(real_data={"stop_rule": "truncate"})
    learner._gather(draw_tasks(learner.family, M, 3, 0), silent)
    assert learner._collected_steps == 60


def test_columns_of_the_table(compiled):
    """Section 1.3 under readable names."""
    metrics = compiled[3]
    paths = {"return", "discounted_return", "return_std", "return_max", "return_min", "num_paths"}
    more = {"explained_variance", "entropy", "perplexity"}
    for prefix, expected in (("real", paths), ("pre_update", paths | more), ("post_update", paths | more)):
        assert {f"{prefix}/{name}" for name in expected} <= metrics.keys()
    for step in range(1, META_STEPS + 1):
        assert {f"imagined/pre_update_{step}", f"imagined/post_update_{step}"} <= metrics.keys()
    assert {"time/model_epoch", "model/epochs_mean", "model/epochs_std", "inner/mean_step_size"} <= metrics.keys()
    imagined = {f"imagined_{part}" for part in ("sampling", "processing", "inner", "outer")}
    samplers = {
        f"{sampler}_{part}"
        for sampler in ("real", "pre_update", "post_update")
        for part in ("policy", "simulation", "processing")
    }
    whole = {"env_sampling", "evaluation", "model_fit", "improvement", "iteration", "overall"}
    for name in imagined | samplers | whole:
        assert metrics[f"time/{name}"] > 0.0, name
    assert metrics["time/overall"] >= metrics["time/iteration"] >= metrics["time/model_fit"]
    assert metrics["model/epochs_mean"] == metrics["model/epochs_run"] == 3
    assert metrics["real/return_min"] <= metrics["real/return"] <= metrics["real/return_max"]
    np.testing.assert_allclose(metrics["pre_update/perplexity"], np.exp(metrics["pre_update/entropy"]))


def test_evaluation_is_neither_stored_nor_counted(compiled, learner):
    """O-5, O-31: without it everything else is the same."""
    initial, after, metrics = compiled[1:4]
    learner.restore(initial)
    learner.log_real_performance = False
    try:
        without = learner.run_iteration(silent)
    finally:
        learner.log_real_performance = True
    state = learner.state()
    differing = {name for name in after if not np.array_equal(after[name], state[name])}
    assert {name for name in differing if not name.startswith("history/")} == {"counters/evaluation"}
    assert list(without) == list(metrics)
    silenced = {name for name, value in without.items() if value is None}
    evaluated = ("pre_update/", "post_update/", "time/pre_update_", "time/post_update_")
    assert silenced == {name for name in metrics if name.startswith(evaluated)}
    assert without["env_steps/total"] == without["env_steps/collected"] == 96


def test_stale_policies_collect(learner, monkeypatch):
    """O-2: adapted in the last meta-step, from theta before the last meta-update."""
    thetas, adapted = [], []
    step = learner._imagined()
    adapt = step.adapt

    def spied(theta, *arguments, **options):
        thetas.append(theta)
        adapted.append(adapt(theta, *arguments, **options))
        return adapted[-1]

    monkeypatch.setattr(step, "adapt", spied)
    learner.run_iteration(silent)
    assert len(thetas) == META_STEPS
    assert not same(thetas[-1], learner.parameters)
    last = adapted[-1][0].adapted
    assert not same(last, learner_module.tiled(thetas[-1], M))
    assert same(last, collected_weights(learner, monkeypatch))


def test_readapted_policies_come_from_the_present_theta(learner, monkeypatch):
    monkeypatch.setattr(learner.real, "collect_with", "readapted")
    step = learner._imagined()
    adapt, seen = step.adapt, []

    def spied(theta, *arguments, **options):
        seen.append((theta, adapt(theta, *arguments, **options)))
        return seen[-1][1]

    monkeypatch.setattr(step, "adapt", spied)
    weights = collected_weights(learner, monkeypatch)
    [(theta, adaptation)] = seen
    assert same(theta, learner.parameters)
    assert same(weights, adaptation[0].adapted)
    assert not same(weights, learner._adapted)


def test_unadapted_policies_collect(learner, monkeypatch):
    monkeypatch.setattr(learner.real, "collect_with", "pre")
    weights = collected_weights(learner, monkeypatch)
    assert same(weights, learner_module.tiled(learner.parameters, M))


def test_resetting_the_std_changes_theta_only(learner, monkeypatch):
    """Section 1.2, step 3: the stored adapted parameters keep theirs."""
    before = dict(learner.parameters)
    assert np.any(before["log_std"] != 0.0)
    monkeypatch.setattr(learner.real, "reset_policy_std", True)
    weights = collected_weights(learner, monkeypatch)
    np.testing.assert_array_equal(learner.parameters["log_std"], np.zeros(2))
    assert np.all(weights["log_std"].numpy() != 0.0)
    assert same({name: value for name, value in before.items() if name != "log_std"}, learner.parameters)


@pytest.mark.parametrize(
    ("returns", "updates"),
    [([10.0, 9.9, 9.8, 9.7], 1), ([10.0, 11.0, 9.0, 12.0], 2), ([1.0, 2.0, 2.0, 1.4], 4)],
)
def test_rolling_mean_of_the_imagined_return(learner, monkeypatch, returns, updates):
    """0.8 old + 0.2 new: 10, 9.98 falls; 10, 10.2, 9.96 falls; 1, 1.2, 1.36, 1.368 never falls.

    The step at which it falls makes no meta-update.
    """
    calls = []

    def scripted(adaptations, phase):
        if phase == 0:
            calls.append(0)
        return {"average_return": -1.0 if phase == 0 else returns[len(calls) - 1]}

    monkeypatch.setattr(learner_module, "pooled_statistics", scripted)
    monkeypatch.setattr(learner, "stop_when_reward_decreases", True)
    monkeypatch.setattr(learner, "log_real_performance", False)
    step = learner._imagined()
    update, made = step.update, []
    monkeypatch.setattr(step, "update", lambda *arguments: made.append(1) or update(*arguments))
    metrics = learner.run_iteration(silent)
    assert len(made) == updates
    tried = min(updates + 1, META_STEPS)
    found = [metrics[f"imagined/post_update_{number}"] for number in range(1, META_STEPS + 1)]
    assert found == returns[:tried] + [None] * (META_STEPS - tried)


def test_the_final_table_repeats(learner):
    assert learner.final_table(silent) == learner.final_table(silent)


def test_schedule_and_reinitialisation_of_the_models():
    """Section 1.2, step 5."""
    schedule = ModelFit(max_epochs=(30, 20, 10))
    assert [schedule.plan(i) for i in range(5)] == [(30, False), (20, False), (10, False), (10, False), (10, False)]
    cycle = ModelFit(max_epochs=(30, 10), reinit_cycle=2)
    assert [cycle.plan(i) for i in range(4)] == [(30, True), (10, False), (30, True), (10, False)]


def test_models_are_fitted_on_from_where_they_were_unless_reinitialised(learner, monkeypatch):
    starts = []
    fit = type(learner.ensemble).fit

    def spied(ensemble, state, *arguments, **options):
        starts.append((state, options["max_epochs"]))
        return fit(ensemble, state, *arguments, **options)

    monkeypatch.setattr(type(learner.ensemble), "fit", spied)
    warm = learner.models
    learner._fit_models(silent)
    monkeypatch.setattr(learner, "fit", ModelFit(max_epochs=(2, 1), reinit_cycle=1))
    learner._fit_models(silent)
    assert starts[0][0] is warm
    assert [epochs for _, epochs in starts] == [2, 2]
    assert not same(starts[1][0].weights, warm.weights)
    assert int(tf.reduce_max(starts[1][0].step)) == 0 < int(tf.reduce_max(warm.step))


def test_last_transitions_are_kept_with_what_was_observed_after_them(learner, monkeypatch):
    """O-7: as many transitions as steps; the last one of a path leads to the state that the simulator was left in."""
    batch = random_batch(InvertedPendulum(), 60, ROUND, HORIZON, 1, exact=False, record_final=True)
    final = batch.info[FINAL_OBSERVATION]
    last = batch.steps.last
    ended = batch.episodes.terminated
    assert ended.any()
    angle = np.abs(final[last][:, 1])
    np.testing.assert_array_equal(angle > 0.2, ended)
    assert not final[~last].any()
    without = random_batch(InvertedPendulum(), 60, ROUND, HORIZON, 1, exact=False)
    np.testing.assert_array_equal(without.steps.observation, batch.steps.observation)
    assert FINAL_OBSERVATION not in without.info


@pytest.mark.parametrize("make", [mbmpo, metrpo, mbmpc], ids=["MB-MPO", "ME-TRPO", "MB-MPC"])
def test_storing_last_transitions_works_in_every_method(make):
    learner = make(real_data={"store_last_transition": True})
    for _ in range(2):
        metrics = learner.run_iteration(silent)
        assert metrics["env_steps/buffer"] == metrics["env_steps/collected"]
    fallen = np.abs(learner.buffer.next_observation[:, 1]) > 0.2
    assert fallen.any()
    assert not np.abs(learner.buffer.observation[:, 1]).max() > 0.2


def test_a_split_without_rows_names_the_ensemble_that_trains():
    """One transition of 2-step episodes: nothing to train and validate with, and made-up models do neither."""
    few = {"horizon": 2, "initial_random_steps": 1}
    single = MLPDynamicsModel(hidden_sizes=(8,))
    with pytest.raises(UserError, match=r"^MLPDynamicsModel.valid_split_ratio 0.2 of 1 transitions leaves no training"):
        mbmpo(family=Point2D(), models=single, meta_batch_size=1, real_data=few)
    mbmpo(family=Point2D(), models=FakePointEnsemble(num_models=1), meta_batch_size=1, real_data=few)


def test_sizes_of_imagination():
    """Section 5.2 at the canonical size, 5.3's 60,000 steps, and the long horizon's 25 rows (O-10)."""
    sizes = {"family": Swimmer(), "meta_batch_size": 20}
    canonical = mbmpo(**sizes, real_data={"horizon": 200}, imagined={"rollouts_per_task": 50})
    assert (canonical.imagination.rows_per_task, canonical.imagination.capacity) == (50, 50 * 200)
    long = {"real_data": {"horizon": 1000}, "imagined": {"rollouts_per_task": 50, "horizon": 500}}
    assert mbmpo(**sizes, **long).imagination.rows_per_task == 25
    long["imagined"]["rows_from"] = "imagined_horizon"
    assert mbmpo(**sizes, **long).imagination.rows_per_task == 50
    imagined = metrpo(family=Swimmer(), imagined_steps=50_000, real_data={"horizon": 200}).imagination
    assert (imagined.rows_per_task, imagined.capacity) == (100, 60_000)


def test_long_horizon_and_buffer_resets_run():
    """Real horizon 24, imagined 12: half the rows, two sweeps, resets from the buffer at inherited times."""
    learner = mbmpo(
        family=Swimmer(),
        real_data={"horizon": 24, "initial_random_steps": 100, "buffer_capacity": 50, "exact_random_steps": True},
        imagined={"rollouts_per_task": 4, "horizon": 12, "reset": "buffer", "clip_observation": None},
        adaptation={"inner_updates": 2, "trainable_inner_lr": True, "first_order": True},
    )
    assert learner.imagination.rows_per_task == 2
    first, second = (learner.run_iteration(silent) for _ in range(2))
    assert [first["env_steps/buffer"], second["env_steps/buffer"]] == [50, 50]
    assert first["env_steps/collected"] == 5 * 24
    # The column is of before the meta-steps, so that it begins with the configured value.
    assert first["inner/mean_step_size"] == pytest.approx(0.1)
    assert second["inner/mean_step_size"] != first["inner/mean_step_size"]


def test_tasks_with_physical_parameters():
    """Imagination resets and rewards know no task; real rollouts do."""
    family = HalfCheetah(random_parameters=RandomParameters(log_scale_limit=1.0))
    learner = mbmpo(family=family, meta_steps=1)
    first, second = (learner.run_iteration(silent) for _ in range(2))
    assert family.task_dim > 0
    assert list(first) == list(second)
    learner = maml(family=family)
    assert np.isfinite(learner.run_iteration(silent)["post_update/return"])


def test_maml_samples_every_phase():
    """Section 6.4: K + 1 phases of M R H steps, one meta-update, per-phase columns."""
    learner = maml(family=Swimmer(), adaptation={"inner_updates": 2})
    metrics = [learner.run_iteration(silent) for _ in range(2)]
    per_iteration = 3 * 3 * 2 * HORIZON
    assert [m["env_steps/this_iteration"] for m in metrics] == [per_iteration] * 2
    assert [m["env_steps/total"] for m in metrics] == [per_iteration, 2 * per_iteration]
    assert {"pre_update/return", "update_1/return", "post_update/return"} <= metrics[0].keys()
    assert metrics[0]["pre_update/num_paths"] == 6
    assert without_clock(metrics[0]) != without_clock(metrics[1])


def test_training_the_initial_policy_only():
    """`use_maml=False` (section 4.1): Adam on the inner loss; what it does not report is left out."""
    learner = maml(MetaTRPO(use_maml=False), family=Swimmer())
    before = dict(learner.parameters)
    metrics = learner.run_iteration(silent)
    assert metrics["meta/loss_before"] is not None
    assert metrics["meta/kl_after"] is None
    largest = max(float(np.max(np.abs(learner.parameters[name] - value))) for name, value in before.items())
    assert largest == pytest.approx(1e-3, rel=1e-2)
