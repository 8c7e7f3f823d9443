"""The plasticity maps against NumPy, in a learner, and the figures of a run in training."""

import numpy as np
import pytest
import tensorflow as tf
from learner_tools import assert_same_state, ensemble, mbmpc, mbmpo, metrpo, policy, silent, without_clock

from mbmpo import history, training_plots
from mbmpo.dynamics import FakePointEnsemble
from mbmpo.families import InvertedPendulum
from mbmpo.families.point import Point2D
from mbmpo.plasticity import MapMaker, Maps, PointPlasticity, map_metrics
from mbmpo.transitions import Transitions
from metarl.experiment.errors import UserError


def fake(**settings):
    return FakePointEnsemble(**{"num_models": 3, "output_bias_range": [-0.05, 0.05]} | settings)


def study(models=None, family=None, **settings):
    return mbmpo(
        family=family or Point2D(),
        models=models or ensemble(),
        plasticity=PointPlasticity(resolution=6),
        **settings,
    )


def test_the_grid_follows_the_box_of_starts_or_stays_where_the_original_has_it():
    """The default box gives the original's ±1.8; (2, 6)² gives 4 ± 1.8 instead of it (O-15)."""
    shifted = Point2D(start_low=(2.0, 2.0), start_high=(6.0, 4.0), goal=(4.0, 4.0))
    relative, fixed = PointPlasticity(resolution=4), PointPlasticity(bounds="fixed", resolution=4)
    np.testing.assert_allclose(relative.extent(Point2D()), [-1.8, 1.8, -1.8, 1.8])
    np.testing.assert_allclose(relative.extent(shifted), [2.2, 5.8, 2.1, 3.9])
    np.testing.assert_allclose(fixed.extent(shifted), [-1.8, 1.8, -1.8, 1.8])
    grid = relative.grid(shifted).reshape(4, 4, 2)
    np.testing.assert_allclose(grid[0, :, 0], [2.2, 3.4, 4.6, 5.8], rtol=1e-6)
    np.testing.assert_allclose(grid[:, 0, 1], [2.1, 2.7, 3.3, 3.9], rtol=1e-6)


def gaussian(weights, o):
    hidden = np.tanh(o @ weights["mlp0.kernel"] + weights["mlp0.bias"])
    return hidden @ weights["mlp1.kernel"] + weights["mlp1.bias"], np.exp(weights["log_std"])


def test_both_maps_are_those_of_a_loop_over_the_grid():
    models, family, settings = ensemble(), Point2D(), PointPlasticity(resolution=3)
    rng = np.random.default_rng(0)
    before = {name: value.numpy() for name, value in policy().initial_weights(1, 2, 2).items()}
    adapted = {
        name: value + rng.normal(scale=0.3, size=(4, *value.shape)).astype(np.float32) for name, value in before.items()
    }
    effective = models.effective(models.initial_state(2, 2, 2))
    make = MapMaker(settings, policy(), models, family, "plasticity")
    tensors = [{name: tf.constant(value) for name, value in weights.items()} for weights in (before, adapted)]
    maps = make.extended(make.extended(make.empty(), *tensors, effective), *tensors, effective)
    assert maps.kl.shape == maps.std.shape == (2, 3, 3)
    positions = np.linspace(-1.8, 1.8, 3)
    for i, y in enumerate(positions):
        for j, x in enumerate(positions):
            o = np.array([x, y])
            mean, std = gaussian(before, o)
            divergences = []
            for task in range(4):
                mean_new, std_new = gaussian({name: value[task] for name, value in adapted.items()}, o)
                terms = np.log(std_new / std) + (std**2 + (mean - mean_new) ** 2) / (2 * std_new**2) - 0.5
                divergences.append(terms.sum())
            np.testing.assert_allclose(maps.kl[:, i, j], np.mean(divergences), rtol=1e-4)
            rows = [np.float32(value)[None] for value in (o, -0.05 * o)]
            following = models.predict_all(effective, *rows).numpy()[0]
            np.testing.assert_allclose(maps.std[:, i, j], following.std(axis=-1).mean(), rtol=1e-3)


def test_correlation_of_the_latest_maps_and_none_for_a_constant_one():
    grid = np.arange(4.0).reshape(1, 2, 2)
    maps = Maps(np.concatenate([-grid, grid]), np.concatenate([grid, 2.0 * grid + 1.0]), np.zeros(4))
    found = map_metrics(maps)
    assert found["plasticity/correlation"] == pytest.approx(1.0)
    assert (found["plasticity/kl_mean"], found["plasticity/std_mean"]) == (1.5, 4.0)
    constant = maps._replace(std=np.ones((1, 2, 2)))
    assert map_metrics(constant)["plasticity/correlation"] is None
    for shown, told in ((maps, "policy's change (correlation 1.00)"), (constant, "policy's change")):
        assert training_plots.plasticity_figure(shown).axes[2].get_title() == told


def test_only_the_point_has_such_a_plane():
    with pytest.raises(UserError, match=r"MBMPOLearner.plasticity draws the plane of @Point2D\(\), not of inverted_p"):
        study(family=InvertedPendulum())
    with pytest.raises(UserError, match=r"PointPlasticity.bounds must be one of"):
        PointPlasticity(bounds="enviroment")


def test_the_fake_models_disagree_where_their_error_is():
    """The spread of the biases times the mask (d / d_max)², everywhere on the grid."""
    learner = study(
        models=fake(goal=(4.0, 4.0)),
        family=Point2D(start_low=(2.0, 2.0), start_high=(6.0, 6.0), goal=(4.0, 4.0)),
        meta_batch_size=3,
        log_real_performance=False,
    )
    metrics = learner.run_iteration(silent)
    bias = learner.models.output_error["bias"].numpy()
    x, y = np.meshgrid(np.linspace(2.2, 5.8, 6), np.linspace(2.2, 5.8, 6))
    square = (x - 4.0) ** 2 + (y - 4.0) ** 2
    np.testing.assert_allclose(learner.plasticity_maps.std[0], bias.std() * square / square.max(), rtol=1e-3, atol=1e-6)
    assert metrics["plasticity/std_mean"] > 0.0
    assert metrics["plasticity/kl_mean"] > 0.0
    # The adaptation to real data takes place, unlogged.
    assert metrics["pre_update/return"] is None
    assert metrics["env_steps/total"] > metrics["env_steps/collected"]


def test_maps_of_every_iteration_survive_a_resume_and_change_no_result():
    learner, plain = study(), mbmpo(family=Point2D(), effect_in_every_meta_step=True)
    found = without_clock(learner.run_iteration(silent))
    expected = without_clock(plain.run_iteration(silent))
    for name in ("adaptation/kl_pre_post", "model/disagreement"):
        numbered = [expected.pop(f"{name}_{step}") for step in (1, 2)]
        assert numbered[0] != numbered[1] == expected[name]
    assert {name: value for name, value in found.items() if not name.startswith("plasticity/")} == expected
    assert learner.run_iteration(silent).keys() >= {"plasticity/correlation"}
    assert learner.plasticity_maps.kl.shape == (2, 6, 6)
    assert not np.array_equal(*learner.plasticity_maps.kl)
    other = study()
    other.restore({name: np.array(value) for name, value in learner.state().items()})
    assert_same_state(other, learner)
    assert set(other.figures()) == {*plain.figures(), "figures/plasticity"}
    shown = other.figures()["figures/plasticity"].axes
    np.testing.assert_array_equal(shown[0].get_images()[0].get_array(), learner.plasticity_maps.std[-1])
    np.testing.assert_array_equal(shown[2].get_images()[0].get_array(), learner.plasticity_maps.kl[-1])


@pytest.mark.parametrize(("make", "imagined"), [(metrpo, 2), (mbmpc, 0)])
def test_figures_show_all_iterations_after_a_resume_and_leave_the_state_alone(make, imagined):
    learner = make()
    kept = []
    for _ in range(2):
        kept.append(learner.run_iteration(silent))
    other = make()
    other.restore({name: np.array(value) for name, value in learner.state().items()})
    before = {name: np.array(value) for name, value in other.state().items()}
    figures = other.figures()
    for name, value in other.state().items():
        np.testing.assert_array_equal(value, before[name])
    assert list(figures) == ["figures/returns", "figures/model_losses", "figures/one_step_error"]
    lines = {line.get_label(): line for line in figures["figures/returns"].axes[0].get_lines()}
    assert sum(label.startswith("imagined") for label in lines) == imagined
    assert lines["real, collected data"].get_ydata().tolist() == [metrics["real/return"] for metrics in kept]
    losses = figures["figures/model_losses"].axes[0].get_lines()
    assert losses[1].get_ydata().tolist() == [metrics["model/validation_loss_0"] for metrics in kept]
    assert losses[1].get_xdata().tolist() == [1, 2]


def test_history_tells_what_was_not_measured():
    kept = history.empty(1)
    kept = history.extended(kept, {"real/return": 1.0, "pre_update/return": None, "imagined/update_1": 5.0}, 1)
    kept = history.extended(kept, {"real/return": 0.0, "pre_update/return": 3.0, "imagined/update_1": None}, 1)
    assert np.isfinite(kept.value).all()
    iterations, values = history.curve(kept, "real/return", 1)
    assert (iterations.tolist(), values.tolist()) == ([1, 2], [1.0, 0.0])
    iterations, values = history.curve(kept, "pre_update/return", 1)
    assert (iterations.tolist(), values.tolist()) == ([2], [3.0])
    assert history.curve(kept, "imagined/last", 1)[0].tolist() == [1]


def test_the_one_step_figure_takes_the_newest_rows():
    rng = np.random.default_rng(0)
    models = fake(output_bias_range=[0.0, 0.0])
    o = rng.uniform(-2.0, 2.0, (2500, 2)).astype(np.float32)
    a = rng.uniform(-0.1, 0.1, (2500, 2)).astype(np.float32)
    following = o + a
    following[:500] += 1.0  # old rows of another world
    buffer = Transitions(o, a, following, np.zeros(2500, np.int32))
    figure = training_plots.one_step_figure(models, models.effective(models.initial_state(0, 2, 2)), buffer)
    axes = figure.axes[0]
    assert "2,000" in axes.get_title()
    assert max(bar.get_height() for bar in axes.patches) < 1e-4
