"""The numbers of an inspection against naive loops, with models whose predictions are known."""

import numpy as np
import pytest
import tensorflow as tf
from learner_tools import HORIZON, mbmpc, metrpo, silent

from mbmpo import inspection, inspection_plots, inspection_run
from mbmpo.families.point import Point2D
from mbmpo.inspection import HISTOGRAM_EDGES, RealRollouts
from mbmpo.inspection_request import InspectionRequest
from mbmpo.transitions import Transitions
from metarl.experiment.errors import UserError
from metarl.sampling.steps import Batch, Episodes, Steps


class Ensemble:
    """Model e: o' = o + gain_e * (a, 2a, ...) + 0.01 o²."""

    def __init__(self, *gains):
        self.gains = tf.constant(gains, tf.float32)
        self.num_models = len(gains)

    def predict_blocks(self, effective, observation, action):
        factor = tf.range(1.0, observation.shape[-1] + 1.0)
        return observation + effective[:, tf.newaxis, tf.newaxis] * action * factor + 0.01 * observation**2

    def predict_all(self, effective, observation, action):
        blocks = [tf.repeat(x[tf.newaxis], self.num_models, axis=0) for x in (observation, action)]
        return tf.transpose(self.predict_blocks(effective, *blocks), [1, 2, 0])


def predicted(gain, observation, action):
    return observation + gain * action * np.arange(1.0, len(observation) + 1) + 0.01 * observation**2


def rollouts(lengths=(7, 4, 2), width=3, horizon=6, seed=0):
    """Rollouts of `length` observations, arbitrary ones, actions of one number."""
    rng = np.random.default_rng(seed)
    n = len(lengths)
    observation = rng.normal(size=(n, horizon + 1, width)).astype(np.float32)
    action = rng.normal(size=(n, horizon, 1)).astype(np.float32)
    for row, length in enumerate(lengths):
        observation[row, length:] = 0.0
        action[row, length:] = 0.0
    return RealRollouts(observation, action, np.arange(horizon) < np.array(lengths)[:, None] - 1)


def transitions(count, width=2, seed=1):
    rng = np.random.default_rng(seed)
    o, following = (rng.normal(size=(count, width)).astype(np.float32) for _ in range(2))
    return Transitions(o, rng.normal(size=(count, 1)).astype(np.float32), following, np.zeros(count, np.int32))


def test_the_open_loop_knows_the_start_and_the_actions_only():
    ensemble, real = Ensemble(0.1, 0.3), rollouts()
    scale = np.array([1.0, 2.0, 4.0])
    loop = inspection.open_loop(ensemble, ensemble.gains, real, scale)
    paths = np.zeros((3, 7, 2, 3))
    for row in range(3):
        for e, gain in enumerate((0.1, 0.3)):
            paths[row, 0, e] = real.observation[row, 0]
            for t in range(6):
                paths[row, t + 1, e] = predicted(gain, paths[row, t, e], real.action[row, t])
    np.testing.assert_allclose(loop.predicted, paths, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(loop.mean, paths.mean(axis=2), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(loop.spread, paths.std(axis=2), rtol=1e-4, atol=1e-5)
    assert loop.num_rollouts.tolist() == [3, 2, 2, 1, 1, 1]
    for step in range(6):
        lasting = [row for row, length in enumerate((7, 4, 2)) if length > step + 1]
        truth = real.observation[lasting, step + 1].astype(np.float64)
        for e in range(3):
            guess = paths[lasting, step + 1, e] if e < 2 else paths[lasting, step + 1].mean(axis=1)
            expected = np.sqrt(np.mean((guess - truth) ** 2, axis=0))
            np.testing.assert_allclose(loop.rmse[step, e], expected, rtol=1e-5)
        unchanged = np.sqrt(np.mean((real.observation[lasting, 0] - truth) ** 2, axis=0))
        np.testing.assert_allclose(loop.rmse_no_change[step], unchanged, rtol=1e-5)


def test_a_model_that_runs_away_stays_countable():
    ensemble, real = Ensemble(1e30, 0.1), rollouts(lengths=(7, 7))
    loop = inspection.open_loop(ensemble, ensemble.gains, real, np.ones(3))
    assert np.isfinite(loop.predicted).all()
    assert np.isfinite(loop.rmse).all()
    assert loop.rmse[-1, 0].min() > 1e5
    inspection_plots.rollout_figure(loop, 0, "title")
    found = inspection.one_step(ensemble, ensemble.gains, inspection.transitions_of(real), np.ones(3))
    assert np.isfinite(found.rmse).all()


@pytest.mark.parametrize("rows_at_once", [7, 1000])
def test_one_step_errors_are_those_of_a_loop_over_the_rows(rows_at_once):
    ensemble, data = Ensemble(0.1, 0.3, -0.2), transitions(50)
    scale = inspection.change_scale(data)
    np.testing.assert_allclose(scale, np.std(data.next_observation.astype(float) - data.observation, axis=0), rtol=1e-6)
    found = inspection.one_step(ensemble, ensemble.gains, data, scale, rows_at_once)
    guesses = np.stack(
        [
            [predicted(gain, o, a) for gain in (0.1, 0.3, -0.2)]
            for o, a in zip(data.observation.astype(float), data.action.astype(float), strict=True)
        ]
    )
    mean = guesses.mean(axis=1)
    errors = np.concatenate([guesses, mean[:, None]], axis=1) - data.next_observation[:, None]
    np.testing.assert_allclose(found.rmse, np.sqrt((errors**2).mean(axis=0)), rtol=1e-5)
    np.testing.assert_allclose(found.spread, np.sqrt((guesses.std(axis=1) ** 2).mean(axis=0)), rtol=1e-4)
    change = data.next_observation.astype(float) - data.observation
    np.testing.assert_allclose(found.rmse_no_change, np.sqrt((change**2).mean(axis=0)), rtol=1e-5)
    relative = errors / scale
    # 20 bins of 50 rows: ten of three, then ten of two; the oldest first.
    np.testing.assert_allclose(found.age[[0, -1]], [48.0, 0.5])
    np.testing.assert_allclose(found.rmse_by_age[0], np.sqrt((relative[:3] ** 2).mean(axis=(0, 2))), rtol=1e-5)
    np.testing.assert_allclose(found.rmse_by_age[-1], np.sqrt((relative[-2:] ** 2).mean(axis=(0, 2))), rtol=1e-5)
    size = np.sqrt((((mean - data.observation) / scale) ** 2).mean(axis=1))
    smallest = np.argsort(size)[:3]
    np.testing.assert_allclose(found.change[0], size[smallest].mean(), rtol=1e-4)
    expected = np.sqrt((relative[smallest] ** 2).mean(axis=(0, 2)))
    np.testing.assert_allclose(found.rmse_by_change[0], expected, rtol=1e-4)
    assert (np.diff(found.change) > 0).all()
    np.testing.assert_allclose(found.histogram.sum(axis=0), 1.0)
    below_one = HISTOGRAM_EDGES[1:] < 1.0 + 1e-9
    np.testing.assert_allclose(found.histogram[below_one, 1].sum(), (np.abs(relative[:, 1]) < 1.0).mean(), atol=1e-9)


def test_a_dimension_that_never_changes_does_not_divide_by_zero():
    data = transitions(10)
    still = data._replace(next_observation=data.observation.copy())
    assert inspection.change_scale(still).tolist() == [1.0, 1.0]


def test_the_first_episode_of_a_row_is_cut_at_the_horizon():
    """Row 0: episodes of 2 and 3 steps; row 1: one of 5; three predicted steps are asked for."""
    observation = np.arange(10.0, dtype=np.float32).reshape(2, 5, 1)
    flags = np.ones((2, 5), bool)
    steps = Steps(observation, -observation, observation[..., 0], np.zeros((2, 5, 2)), flags, flags, flags)
    episodes = Episodes(
        np.array([0, 0, 1]), np.zeros(3), np.array([2, 3, 5]), np.zeros(3, bool), np.array([0, 2, 0]), {}, {}
    )
    real = inspection.first_episodes(Batch(steps, episodes, {}), 3)
    assert real.observation[..., 0].tolist() == [[0, 1, 0, 0], [5, 6, 7, 8]]
    assert real.action[..., 0].tolist() == [[0, -1, 0], [-5, -6, -7]]
    assert real.valid.tolist() == [[True, False, False], [True, True, True]]
    data = inspection.transitions_of(real)
    assert data.observation[:, 0].tolist() == [0, 5, 6, 7]
    assert data.next_observation[:, 0].tolist() == [1, 6, 7, 8]
    assert data.time.tolist() == [0, 0, 1, 2]


def test_the_table_tells_the_errors_relative_to_the_scale():
    ensemble, real = Ensemble(0.1, 0.3), rollouts()
    scale = np.array([1.0, 2.0, 4.0])
    loop = inspection.open_loop(ensemble, ensemble.gains, real, scale)
    found = inspection.one_step(ensemble, ensemble.gains, inspection.transitions_of(real), scale)
    table = inspection.summary(loop, found, found)
    assert [(row["what"], row["steps"], row["rows"]) for row in table] == [
        ("one step, buffer", 1, 10),
        ("one step, fresh rollouts", 1, 10),
        ("open loop", 1, 3),
        ("open loop", 2, 2),
        ("open loop", 5, 1),
        ("open loop", 6, 1),
    ]
    last = loop.rmse[-1] / scale
    assert table[-1]["error_of_mean"] == pytest.approx(np.sqrt(np.mean(last[2] ** 2)))
    each = np.sqrt(np.mean(last[:2] ** 2, axis=1))
    assert (table[-1]["best_model"], table[-1]["worst_model"]) == pytest.approx((each.min(), each.max()))


def test_figures_show_every_dimension_or_say_which():
    ensemble = Ensemble(0.01, 0.03)
    for width, panels in ((3, 3), (30, 24)):
        real = rollouts(width=width)
        loop = inspection.open_loop(ensemble, ensemble.gains, real, np.ones(width))
        figure = inspection_plots.rollout_figure(loop, 0, "title")
        assert len(figure.axes) == panels
        lines = figure.axes[0].get_lines()
        assert [line.get_label() for line in lines] == ["model 0", "model 1", "mean of the models", "real"]
        np.testing.assert_array_equal(lines[-1].get_ydata(), real.observation[0, :, int(_shown(loop)[0])])
        assert ("24 of 30" in figure.get_suptitle()) == (width == 30)
        inspection_plots.error_by_step_figure(loop, "title")
    worst = np.argmax(np.nanmean(loop.rmse[:, -1], axis=0))
    assert worst in _shown(loop)


def _shown(loop):
    return inspection_plots.shown_dimensions(loop)


@pytest.mark.parametrize(
    ("make", "request_", "steps"),
    [
        (metrpo, InspectionRequest(rollouts=3), HORIZON),
        (metrpo, InspectionRequest(rollouts=3, horizon=20), 20),
        (mbmpc, InspectionRequest(rollouts=3), HORIZON - 1),
        (mbmpc, InspectionRequest(rollouts=3, horizon=4), 4),
        (mbmpc, InspectionRequest(rollouts=3, horizon=20, actions="random"), 20),
    ],
)
def test_real_rollouts_of_every_method_are_of_the_real_point(make, request_, steps):
    """Each step is the point's own move by the action that is recorded for it; each rollout has its own start."""
    learner = make(family=Point2D(start_low=(1.0, 1.0), start_high=(9.0, 9.0)))
    real = inspection_run.real_rollouts(learner, request_, silent)
    assert real.action.shape == (3, steps, 2)
    assert real.valid.all()
    moved = real.observation[:, :-1] + np.clip(0.1 * real.action, -0.1, 0.1)
    np.testing.assert_allclose(real.observation[:, 1:], moved, atol=1e-5)
    assert len(np.unique(real.observation[:, 0], axis=0)) == 3
    again = inspection_run.real_rollouts(learner, request_, silent)
    np.testing.assert_array_equal(real.observation, again.observation)


def test_a_planner_cannot_go_beyond_its_episodes():
    with pytest.raises(UserError, match=f"--horizon={HORIZON}: planned episodes of this run allow {HORIZON - 1} steps"):
        inspection_run.real_rollouts(mbmpc(), InspectionRequest(horizon=HORIZON), silent)
