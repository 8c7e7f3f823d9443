"""Videos of runs on disk: flags to an mp4 file, refusals, and a run folder that stays as it was."""

import os
import shutil
from pathlib import Path

import experiment_tools as tools
import imageio.v2 as imageio
import numpy as np
import pytest
from absl import logging
from experiment_tools import assert_help_is_quick, contents

from metarl.experiment import gin_front_door, saved_run
from metarl.experiment.checkpoints import CheckpointStore
from metarl.experiment.errors import UserError
from metarl.experiment.learner import EvaluationRequest
from metarl.experiment.run_directory import RunDirectory
from metarl.rendering import backend, film, rounds, run

PROGRAM = "launchers.render"
STORED = Path(__file__).parents[1] / "data" / "checkpoints"
ONE_GOAL = EvaluationRequest(tasks=((0.5, -0.3),), fast_updates=0)
REACHER = """import tesp.families
import tesp.learner
import tesp.methods

Experiment.learner = @TespLearner()
Experiment.iterations = 1
TespLearner.family = @Reacher2Link()
TespLearner.method = @MAML()
TespLearner.meta_batch_size = 1
TespLearner.num_goals = 1
TespLearner.adaptation = @FastAdaptation()
MAML.hidden_sizes = (4, 4)
FastAdaptation.rollouts_per_task = 2
FastAdaptation.horizon = 5
FastAdaptation.inner_updates = 1
"""
MBMPO_COMMON = """import metarl.experiment.experiment
import mbmpo.families
import mbmpo.methods

Experiment.iterations = 1
GaussianMLPPolicy.hidden_sizes = (4,)
"""
LEARNERS = {
    "MAMLLearner": """
MAMLLearner.policy = @GaussianMLPPolicy()
MAMLLearner.family = @PointNavigation()
MAMLLearner.meta_update = @MetaTRPO()
MAMLLearner.meta_batch_size = 2
MAMLLearner.rollouts_per_task = 3
MAMLLearner.horizon = 6
""",
    "METRPOLearner": """
METRPOLearner.policy = @GaussianMLPPolicy()
METRPOLearner.family = @HalfCheetah()
METRPOLearner.ensemble = @DynamicsEnsemble()
METRPOLearner.update = @TRPO()
METRPOLearner.copies = 2
METRPOLearner.real = @RealData()
DynamicsEnsemble.num_models = 2
DynamicsEnsemble.hidden_sizes = (4,)
RealData.horizon = 6
""",
    "MBMPCLearner": """
MBMPCLearner.family = @Point2D()
MBMPCLearner.ensemble = @DynamicsEnsemble()
MBMPCLearner.planner = @RandomShooting()
MBMPCLearner.copies = 2
MBMPCLearner.real = @RealData()
DynamicsEnsemble.num_models = 2
DynamicsEnsemble.hidden_sizes = (4,)
RandomShooting.horizon = 2
RandomShooting.num_candidates = 4
RealData.horizon = 6
RealData.rollouts_per_task = 1
""",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory with a finished run of TESP on point, `run`."""
    shutil.copytree(STORED / "tesp", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.INFO)
    yield tmp_path
    logging.set_verbosity(verbosity)


@pytest.fixture
def reacher(here):
    """The working directory with an untrained run on a family of MuJoCo's, `reacher`."""
    (here / "reacher").mkdir()
    (here / "reacher" / "operative_config.gin").write_text(REACHER)
    learner = gin_front_door.build(gin_front_door.parse(["reacher/operative_config.gin"])).learner
    CheckpointStore(here / "reacher" / "checkpoints").save(0, learner.state())
    return here


def render(directory="run", request=ONE_GOAL, which="latest", output=None, renderer=None):
    return run.run(saved_run.find(directory, which, allow_untrained=True), request, output, renderer)


def mistake(*arguments, **options):
    """Renders, which must be refused with one line and leave the working directory alone; returns the line."""
    before = contents(".")
    with pytest.raises(UserError) as caught:
        render(*arguments, **options)
    assert contents(".") == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pictures(path):
    with imageio.get_reader(path) as reader:
        return [np.asarray(frame) for frame in reader], reader.get_meta_data()


def without_videos(folder):
    return {name: data for name, data in contents(folder).items() if not name.startswith("videos")}


def reddish(picture):
    red, green, blue = (picture[..., channel].astype(int) for channel in range(3))
    return (red > 150) & (green < 110) & (blue < 110)


def test_help_needs_nothing_heavy_and_less_than_a_second():
    assert_help_is_quick(PROGRAM, "--goal", "--fast_updates", "--output")


def test_every_flag_reaches_the_video(here):
    """From the command line: three panels with the goal in each; the run is as before."""
    before = contents("run")
    done = tools.launch(
        PROGRAM, "--run=run", "--checkpoint=2", "--goal=0.5,-0.3", "--fast_updates=2", "--seed=7", "--output=out/a.mp4"
    )
    assert done.returncode == 0, done.stderr
    assert contents("run") == before
    assert "after 2 fast-updates: return" in done.stderr
    assert sorted(path.name for path in (here / "out").iterdir()) == ["a.mp4"]
    frames, meta = pictures("out/a.mp4")
    assert meta["fps"] == pytest.approx(20)
    assert len(frames) == 10 + 1 + 20  # the horizon, the end, a second of it
    assert frames[0].shape == (544, 3 * 480, 3)
    for panel in range(3):
        assert reddish(frames[-1][64:, 480 * panel : 480 * (panel + 1)]).sum() > 20
    assert not np.array_equal(frames[0], frames[10])


def test_a_new_file_at_every_call_and_the_same_one_for_the_same_seed(here):
    before = contents("run")
    for _ in range(2):
        assert render() == 0
    assert without_videos("run") == before
    assert sorted(os.listdir("run/videos")) == ["iteration_00000002_001.mp4", "iteration_00000002_002.mp4"]
    one, other = (pictures(path)[0] for path in sorted(Path("run/videos").iterdir()))
    np.testing.assert_array_equal(one, other)


def test_both_ports_and_every_kind_of_method_have_rounds():
    panels = {
        "MAMLLearner": ["before fast-updates", "after 1 fast-update"], "METRPOLearner": ["policy"],
        "MBMPCLearner": ["planned"],
    }  # fmt: skip
    for name, text in LEARNERS.items():
        bindings = [line for line in (MBMPO_COMMON + text).splitlines() if line]
        bindings = [line for line in bindings if name != "MBMPCLearner" or "GaussianMLPPolicy" not in line]
        learner = gin_front_door.build(
            gin_front_door.parse([], ["\n".join([*bindings, f"Experiment.learner = @{name}()"])])
        ).learner
        before = {key: array.tobytes() for key, array in learner.state().items()}
        sampled = learner.sample_rounds(EvaluationRequest(seed=5), lambda phase: None)
        assert [one.label for one in sampled.rounds] == panels[name]
        for one in sampled.rounds:
            found = rounds.record(learner.family, sampled.task, one)
            assert len(found.states) == len(found.rewards) + 1
        assert {key: array.tobytes() for key, array in learner.state().items()} == before
        if name != "MAMLLearner":
            for request in (EvaluationRequest(fast_updates=1), EvaluationRequest(tasks=((1.0, 2.0),))):
                with pytest.raises(UserError, match=r"--(fast_updates=1|goal): "):
                    learner.sample_rounds(request, lambda phase: None)


def test_a_policy_of_mb_mpo_is_shown_before_and_after(here):
    shutil.copytree(STORED / "mbmpo", "imagined")
    assert render("imagined", EvaluationRequest()) == 0
    frames, _ = pictures("imagined/videos/iteration_00000002_001.mp4")
    assert frames[0].shape == (544, 2 * 480, 3)


def test_a_model_of_mujoco_is_drawn_or_the_line_says_what_is_missing(reacher):
    """Whichever this machine has: a picture with robot, path and goal, or one line."""
    if not any(map(backend.draws, backend.CANDIDATES)):
        assert "no off-screen renderer works here" in mistake("reacher")
        return
    assert render("reacher", EvaluationRequest(tasks=((0.5, -0.3),), fast_updates=1)) == 0
    frames, meta = pictures("reacher/videos/iteration_00000000_001.mp4")
    assert meta["fps"] == pytest.approx(20)
    assert frames[0].shape == (544, 2 * 480, 3)
    for left in (0, 480):
        panel = frames[-1][64:, left : left + 480]
        assert reddish(panel).sum() > 20  # the goal
        blue = (panel[..., 2].astype(int) - panel[..., 0] > 60).sum()
        assert 1000 < blue < 100_000  # the arm


def test_without_a_renderer_nothing_is_sampled(reacher, monkeypatch):
    monkeypatch.setattr(backend, "draws", lambda name: False)
    monkeypatch.setattr(film, "shoot", None)
    monkeypatch.setattr("tesp.learner.TespLearner.sample_rounds", None)
    assert "libosmesa6" in mistake("reacher")
    assert "MUJOCO_GL=elg draws no picture here" in mistake("reacher", renderer="elg")


def test_points_need_no_renderer(here, monkeypatch):
    monkeypatch.setattr(backend, "draws", lambda name: False)
    assert render() == 0


def test_a_renderer_that_crashes_leaves_nothing(here, monkeypatch):
    def crash(*arguments):
        raise UserError("the renderer MUJOCO_GL=egl ended by SIGSEGV")

    monkeypatch.setattr(film, "shoot", crash)
    assert "SIGSEGV" in mistake()
    assert not Path("run/videos").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run=run", "--goal=a,b"], "--goal=a,b: must be finite numbers"),
        (["--run=run", "--fast_updates=-1"], "--fast_updates must be at least 0"),
        (["--run=rum"], "did you mean 'run'?"),
        (["--run=run", "goal"], "unexpected argument 'goal'"),
        (["--run=run", "--gaol=1,2"], "Did you mean"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(here, arguments, words):
    before = contents(".")
    done = tools.launch(PROGRAM, *arguments)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert "Traceback" not in done.stderr
    assert contents(".") == before


def test_a_goal_of_another_size_is_refused(here):
    assert "--goal=0.5: a goal of point is 2 numbers" in mistake(request=EvaluationRequest(tasks=((0.5,),)))


def test_an_output_that_does_not_fit_is_refused(here):
    (here / "there.mp4").write_bytes(b"mine")
    assert "must be an mp4 file, such as video.mp4" in mistake(output="video.avi")
    assert "exists already" in mistake(output="there.mp4")
    assert "is inside the run" in mistake(output="run/a.mp4")
    assert "is inside the run" in mistake(output="run/videos/../checkpoints/a.mp4")
    assert "is not a folder" in mistake(output="there.mp4/a.mp4")


def test_a_file_that_appears_meanwhile_is_not_replaced(here, monkeypatch):
    shoot = film.shoot

    def slow(*arguments):
        Path("late.mp4").write_bytes(b"mine")
        return shoot(*arguments)

    monkeypatch.setattr(film, "shoot", slow)
    with pytest.raises(UserError, match=r"late\.mp4 exists by now"):
        render(output="late.mp4")
    assert Path("late.mp4").read_bytes() == b"mine"
    assert sorted(os.listdir(".")) == ["late.mp4", "run"]


@pytest.mark.parametrize("name", ["-i", "a b;$(touch x)'\"", "http:", "%05d", "ünï\n"])
def test_hostile_names_of_a_run_stay_inside_it(here, name):
    Path("run").rename(here / name)
    before = without_videos(".")
    assert render(name) == 0
    assert os.listdir(".") == [name]
    assert os.listdir(Path(name, "videos")) == ["iteration_00000002_001.mp4"]
    after = {key: data for key, data in contents(".").items() if "videos" not in key}
    assert after == before


def test_a_link_that_leads_out_of_the_run_is_refused(here):
    (here / "elsewhere").mkdir()
    (here / "run" / "videos").symlink_to(here / "elsewhere")
    assert "leads out of the run's folder" in mistake()
    with pytest.raises(UserError):
        RunDirectory("run").path("videos", "..", "..", "x.mp4")
