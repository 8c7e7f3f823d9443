"""The parts of rendering: which renderer, which episode, which view, which frames."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from mbmpo.families import HalfCheetah, Point2D
from metarl.experiment.errors import UserError
from metarl.rendering import backend, camera, film, rounds, video
from metarl.rendering.rounds import Recording, Round
from metarl.sampling.noise import NoiseKey
from metarl.sampling.sampler import Sampler
from metarl.simulation.task_family import Scene, Simulation, TaskFamily
from tesp.families import Point, Wheeled
from tesp.families.fixed_goal import FixedGoal

GOAL = np.array([0.5, -0.3])


def recording(steps=4, end="time is up", label="policy"):
    states = np.linspace([0.0, 0.0], [0.5, -0.3], steps + 1)
    return Recording(label, -3.0, -3.5, 2, states, np.full(steps, -0.5), states[1:], end)


def test_egl_is_tried_first_and_osmesa_next():
    tried = []

    def works(name):
        tried.append(name)
        return name == "osmesa"

    assert backend.choose(None, works) == "osmesa"
    assert tried == ["egl", "osmesa"]
    assert backend.choose(None, lambda name: True) == "egl"


def test_without_a_renderer_one_line_says_what_to_install():
    with pytest.raises(UserError) as caught:
        backend.choose(None, lambda name: False)
    line = str(caught.value)
    assert "\n" not in line
    for word in ("EGL", "OSMesa", "libegl1", "libosmesa6"):
        assert word in line


def test_the_users_choice_is_tried_alone():
    assert backend.choose("osmesa", lambda name: name == "osmesa") == "osmesa"
    with pytest.raises(UserError, match="MUJOCO_GL=elg draws no picture here; leave it unset"):
        backend.choose("elg", lambda name: name == "egl")


def test_a_probe_of_a_renderer_that_does_not_exist_fails_in_its_own_process():
    assert not backend.draws("nonsense")


def test_a_probe_that_hangs_counts_as_a_failure(monkeypatch):
    monkeypatch.setattr(backend, "_SECONDS", 0.05)
    monkeypatch.setattr(backend, "_PICTURE", "import time; time.sleep(20)")
    assert not backend.draws("egl")


@pytest.mark.parametrize("asked", [None, "osmesa"])
def test_this_process_never_draws(monkeypatch, asked):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if asked:
        monkeypatch.setenv("MUJOCO_GL", asked)
    assert backend.disable_here() == asked
    assert os.environ["MUJOCO_GL"] == "disable"


def test_a_missing_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    find = backend.importlib.util.find_spec
    monkeypatch.setattr(
        backend.importlib.util, "find_spec", lambda name: None if name == "imageio_ffmpeg" else find(name)
    )
    with pytest.raises(UserError, match=r'writing a video needs imageio-ffmpeg: pip install .*\[video\]"'):
        backend.require_video_writer()


def seen(view, points, radii, field_of_view):
    """How far every sphere reaches in a square picture, 1 being its edge; by MuJoCo's definition of a free camera."""
    a, e = math.radians(view.azimuth), math.radians(view.elevation)
    forward = np.array([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])
    eye = view.lookat - view.distance * forward
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    reach = []
    for point, radius in zip(points, radii, strict=True):
        depth = (point - eye) @ forward
        assert depth > 0
        reach += [(abs((point - eye) @ axis) + radius) / (depth * math.tan(math.radians(field_of_view / 2)))
                  for axis in (right, up)]  # fmt: skip
    return np.array(reach)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("height", [0.0, 3.0])
def test_the_camera_sees_everything_and_wastes_little(seed, height):
    rng = np.random.default_rng(seed)
    points = rng.uniform([-2.0, -1.0, 0.0], [1.0, 3.0, 0.1 + height], (20, 3)) + rng.normal(size=3)
    radii = rng.uniform(0.0, 0.2, 20)
    view = camera.fitted(points, radii, 45.0)
    reach = seen(view, points, radii, 45.0)
    assert reach.max() < 1.0
    assert reach.max() > 0.8
    assert view.elevation == (-30.0 if height else -50.0)
    assert camera.fitted(points, radii, 45.0, from_above=True).elevation == -50.0


def sampled(family, task, rollouts, horizon, seed=3):
    def act(arguments, observation, standard_normal):
        mean = tf.zeros_like(standard_normal) + arguments["mean"][:, None, None]
        return tf.concat([mean, tf.zeros_like(mean), mean + standard_normal], axis=-1)

    sampler = Sampler(family, act, 1, rollouts, horizon, 1)
    key = NoiseKey(seed, 5, "render/round 0", [0])
    return Round("policy", sampler.collect({"mean": tf.constant([0.3])}, task[None], key), key)


@pytest.mark.parametrize(
    ("family", "task", "rollouts", "horizon"),
    [
        (Wheeled(), GOAL, 5, 12),
        (Point(arrival_threshold=0.2), np.array([0.2, 0.2]), 6, 10),  # most episodes arrive, so that copies restart
        (HalfCheetah(), np.zeros(0), 70, 6),  # more resets than are repeated at once
        (Point2D(start_low=(-0.1, -0.1), start_high=(0.1, 0.1)), np.zeros(0), 4, 9),
        (FixedGoal(family=Point(), goal=(0.5, -0.3)), np.zeros(0), 3, 9),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_median_episode_is_simulated_again(family, task, rollouts, horizon):
    """Its observations and rewards are those that the sampler recorded."""
    one = sampled(family, task, rollouts, horizon)
    found = rounds.record(family, task, one)
    episodes, steps = one.batch.episodes, one.batch.steps
    returns = np.sort(episodes.episode_return)
    assert found.episode_return == returns[(len(returns) - 1) // 2]
    assert found.num_episodes == len(returns)
    assert found.mean_return == pytest.approx(returns.mean())
    index = int(np.flatnonzero(episodes.episode_return == found.episode_return)[0])
    rows = slice(episodes.start[index], episodes.start[index] + episodes.length[index])
    np.testing.assert_allclose(found.rewards, steps.reward[0, rows], rtol=1e-5, atol=1e-6)
    observation = steps.observation[0, rows]
    assert len(found.states) == len(observation) + 1
    if isinstance(family, HalfCheetah):  # qpos without x is in columns
        columns = [int(np.argmin(np.abs(observation[0] - value))) for value in found.states[0, 1:]]
        np.testing.assert_allclose(found.states[:-1, 1:], observation[:, columns], atol=1e-5)
    else:
        np.testing.assert_allclose(found.states[:-1, :2], observation[:, :2], atol=1e-6)
    if episodes.terminated[index]:
        assert found.end in ("arrived", "ended")
    else:
        assert found.end == "time is up"


class _Hidden(Simulation):
    num_copies = 1
    reset = observe = step = perturb_state = lambda *arguments: None


class _HiddenFamily(TaskFamily):
    name = "hidden"

    def make_simulation(self, num_copies):
        return _Hidden()


def test_a_family_without_a_picture_is_refused_by_name():
    with pytest.raises(UserError, match="hidden cannot be drawn"):
        rounds.drawable_simulation(_HiddenFamily(), 1)


def test_an_episode_that_does_not_repeat_is_refused():
    one = sampled(Point(), GOAL, 2, 5)
    one.batch.steps.reward[0] += 0.01
    with pytest.raises(UserError, match="point did not repeat an episode"):
        rounds.record(Point(), GOAL, one)


def test_what_diverges_stands_still():
    """Infinite actions are clipped by point, so that its position is made to overflow by the task's family."""

    class Broken(Point):
        def make_simulation(self, num_copies):
            simulation = super().make_simulation(num_copies)
            step = simulation.step

            def breaking(actions, tasks):
                outcome = step(actions, tasks)
                simulation.state[simulation.state[:, 0] > 0.03] = np.nan
                return outcome._replace(reward=simulation.state[:, 0])

            simulation.step = breaking
            return simulation

    found = rounds.record(Broken(), GOAL, sampled(Broken(), GOAL, 1, 12))
    assert np.isnan(found.rewards[-1])
    assert np.isfinite(found.states).all()
    first = int(np.argmax(np.isnan(found.rewards)))
    assert (found.states[first + 1 :] == found.states[first]).all()


class _Grey:
    """A painter whose grey is the step."""

    def paint(self, recording, step):
        return np.full((video.PANEL, video.PANEL, 3), 10 * step, np.uint8)


def test_panels_run_side_by_side_and_an_ended_one_stands_still():
    pictures, rate = video.frames(_Grey(), [recording(4), recording(2, "arrived")], "goal", 0.05)
    assert rate == pytest.approx(20.0)
    pictures = list(pictures)
    assert len(pictures) == 4 + 1 + 20  # steps, the end, a second of it
    for step, picture in enumerate(pictures[:5]):
        assert picture.shape == (544, 960, 3)
        assert picture[300, 200, 0] == 10 * step
        assert picture[300, 700, 0] == 10 * min(step, 2)
    np.testing.assert_array_equal(pictures[-1], pictures[4])


def test_every_label_names_the_fast_updates_and_the_return(monkeypatch):
    texts = []
    monkeypatch.setattr(video.ImageDraw.ImageDraw, "text", lambda self, place, text, **options: texts.append(text))
    panels = [recording(2, label=rounds.fast_update_label(k)) for k in range(3)]
    next(iter(video.frames(_Grey(), panels, "goal 0.50, -0.30", 0.05)[0]))
    assert texts[::3] == [
        "before fast-updates, return -3.0", "after 1 fast-update, return -3.0", "after 2 fast-updates, return -3.0",
    ]  # fmt: skip


def test_short_steps_are_skipped_and_many_panels_take_rows():
    pictures, rate = video.frames(_Grey(), [recording(7)] * 6, "", 0.005)
    assert rate == pytest.approx(50.0)  # every fourth of 200 steps a second
    pictures = list(pictures)
    assert pictures[0].shape == (2 * 544, 4 * 480, 3)
    assert [picture[300, 200, 0] for picture in pictures[:3]] == [0, 40, 70]
    assert not pictures[0][544:, 960:].any()


def test_a_film_goes_to_the_other_process_and_back(tmp_path):
    model = Wheeled().model
    whole = film.Film(model, [recording(), recording(2)._replace(path=None)], Scene(GOAL, "goal"), 0.05)
    film._store(tmp_path, whole, tmp_path / "x.mp4")
    found, path = film._stored(tmp_path)
    assert path == tmp_path / "x.mp4"
    assert (found.model.nq, found.period, found.scene.caption) == (model.nq, 0.05, "goal")
    np.testing.assert_array_equal(found.scene.goal, GOAL)
    assert found.recordings[1].path is None
    for mine, theirs in zip(whole.recordings, found.recordings, strict=True):
        np.testing.assert_array_equal(mine.states, theirs.states)
        assert mine._replace(states=0, rewards=0, path=0) == theirs._replace(states=0, rewards=0, path=0)


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("metarl.rendering.film, metarl.rendering.painters, metarl.rendering.video", "tensorflow"),
        ("metarl.rendering.run, tesp.rendering, mbmpo.rendering", "imageio"),
    ],
)
def test_the_two_processes_stay_apart(modules, absent):
    """TensorFlow beside a software renderer ends in a crash; without the extra [video] everything else works."""
    code = f"import sys, {modules}; assert {absent!r} not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_renderer_that_crashes_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(film.sys, "executable", "false")
    whole = film.Film(None, [recording()], Scene(GOAL, ""), 0.05)
    with pytest.raises(UserError, match="the video could not be drawn"):
        film.shoot(whole, tmp_path / "x.mp4", "")
    assert not list(tmp_path.iterdir())
