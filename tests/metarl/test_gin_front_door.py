import subprocess
import sys

import gin
import pytest
import tensorflow as tf
from experiment_tools import contents, mistake

from metarl.experiment import gin_front_door, project
from metarl.experiment.errors import UserError

pytestmark = pytest.mark.usefixtures("toy")


def build(*params, files=("toy.gin",), seed=None):
    return gin_front_door.build(gin_front_door.parse(files, params, seed))


@pytest.mark.parametrize(
    ("param", "named", "nearest"),
    [
        ("Experment.iterations = 3", "'Experment'", "'Experiment'"),
        ("metarl.Experimnt.iterations = 3", "'metarl.Experimnt'", "'metarl.Experiment'"),
        ("ToyLearner.meta_batchsize = 3", "'meta_batchsize'", "'meta_batch_size'"),
        ("ITERATION = 3", "ITERATION;", "'ITERATIONS'"),
        ("Meta_Batch_Size = 3", "Meta_Batch_Size;", "'META_BATCH_SIZE'"),
        ("sc0pe/Hill.height = 3.0", "sc0pe/Hill.height;", "'Hill.height'"),
        ("Valley.steepness = 3.0", "Valley.steepness;", "'Hill.steepness'"),
        ("ToyLearner.task = @toy.Hil()", "'toy.Hil'", "'toy.Hill'"),
        ("ToyLearner.task = @Vally()", "'Vally'", "'Valley'"),
        ("ToyLearner.task = [{'a': (@Vally(),)}]", "'Vally'", "'Valley'"),
        ("Experiment.iterations = %ITERATION", "%ITERATION ", "'ITERATIONS'"),
        ("Experiment.iterations = %FOO", "%FOO is not defined; defined are ITERATIONS, META_BATCH_SIZE, SEED", ""),
        ("A = %B\nB = %A", "macro A", ""),
        ("ToyLearner.task = %gin.REQUIRED", "ToyLearner.task", ""),
        ("Experiment.iterations = 1/32", "Experiment.iterations = 1/32", ""),
        ("Experiment.iterations", "Experiment.iterations", ""),
        ("ITERATIONS = ", "ITERATIONS =", ""),
        ("ITERATIONS = (3", "ITERATIONS = (3", ""),
        ("ITERATIONS = 'three", "ITERATIONS", ""),
        ("ITERATIONS = $", "ITERATIONS = $", ""),
        ("ToyLearner:", "ToyLearner:", ""),
        ("ToyLerner:\n  size = 3", "'ToyLerner'", "'ToyLearner'"),
        ("= 3", "= 3", ""),
        ("include 'toi.gin'", "'toi.gin'", "'toy.gin'"),
        ("include toy.gin", "include", ""),
        ("import toy_lerner", "'toy_lerner'", "'toy_learner'"),
        ("import metarl.experimnt.loop", "'metarl.experimnt.loop'", "'metarl.experiment.loop'"),
        ("import metrl.experimnt.lop", "'metrl.experimnt.lop'", "'metarl.experiment.loop'"),
        ("from __gin__ import dynamic_registration", "dynamic_registration", ""),
        ("ITERATIONS = 'abc'", "iterations must be an integer, got 'abc' (in Experiment)", ""),
        ("ITERATIONS = True", "iterations must be an integer", ""),
        ("ITERATIONS = 0", "iterations must be at least 1", ""),
        ("Experiment.checkpoint_every = 0", "checkpoint_every", ""),
        ("Experiment.learner = 5", "learner must be a learner", ""),
        ("Experiment.learner = @Hill()", "learner must be a learner, such as @Name(), got a Hill (in Experiment)", ""),
        ("ToyLearner.task = @Hill", "such as @Hill(), got Hill without its parentheses", ""),
        ("ITERATIONS = three", "--gin_param='ITERATIONS = three': three is not a gin value; text stands in quotes", ""),
        ("ToyLearner.learning_rate = -1.0", "learning_rate must be at least 0", ""),
        ("META_BATCH_SIZE = 11", "meta_batch_size must be at most 10", ""),
        ("ToyLearner.task = None", "task must be a toy task", ""),
        ("ToyLearner.size = 'abc'", "cannot be built (in ToyLearner): ", ""),
        ("ToyLearner.size = -1", "cannot be built (in ToyLearner): ValueError", ""),
        ("runtime.intra_op_threads = -1", "intra_op_threads must be at least 0", ""),
    ],
)
def test_a_mistake_is_one_line_that_names_it_and_the_nearest_right_name(toy, param, named, nearest):
    before = contents(toy)
    message = mistake(param)
    assert named in message
    assert f"did you mean {nearest}?" in message if nearest else True
    assert contents(toy) == before


@pytest.mark.parametrize("module", ["nosuch.mod", "metrl.nosuch", "zzzzzz", "metarl.zzzzzz"])
def test_no_module_is_suggested_that_does_not_exist(toy, module):
    assert mistake(f"import {module}").endswith(f"there is no module {module!r}")


def test_a_mistake_in_a_file_is_told_with_its_line(toy):
    (toy / "toy.gin").write_text((toy / "toy.gin").read_text() + "\nToyLearner.sise = 3\n")
    assert "toy.gin:15: 'ToyLearner' has no parameter 'sise'; did you mean 'size'?" in mistake()


@pytest.mark.parametrize("name", ["toi.gin", "/nowhere/toy.gin"])
def test_a_missing_gin_file_is_named_before_anything_is_imported(toy, name):
    with pytest.raises(UserError, match="no gin file"):
        build(files=[name])


def test_required_values_are_named(toy):
    (toy / "toy.gin").write_text("import toy_learner\nExperiment.learner = @ToyLearner()\nExperiment.iterations = 3\n")
    assert "ToyLearner.task, ToyLearner.seed" in mistake()
    (toy / "toy.gin").write_text("")
    assert "Experiment.learner, Experiment.iterations" in mistake()


def test_unreadable_files_and_endless_includes_are_one_line(toy):
    (toy / "toy.gin").write_bytes(b"\xff\xfe\x00")
    assert "cannot read" in mistake()
    (toy / "toy.gin").write_text("include 'other.gin'")
    (toy / "other.gin").write_text("\ninclude 'toy.gin'")
    assert mistake() == "other.gin:2: the gin file 'toy.gin' includes itself"


def test_a_reference_that_leads_back_to_itself_is_one_line(toy):
    assert "refers to itself" in mistake("ToyLearner.task = @ToyLearner()")


def test_an_ambiguous_name_lists_what_it_may_be(toy):
    @gin.configurable("Hill", module="tests.elsewhere")
    def _hill():
        pass

    try:
        assert "'Hill' may be any of tests.elsewhere.Hill, toy.Hill" in mistake("Hill.height = 1.0")
    finally:
        gin.config._REGISTRY.pop("tests.elsewhere.Hill")


def test_files_then_params_then_seed_and_the_last_binding_wins(toy):
    (toy / "overlay.gin").write_text("ITERATIONS = 7\nMETA_BATCH_SIZE = 5\n")
    files = ["toy.gin", "overlay.gin"]
    experiment = build("META_BATCH_SIZE = 2", "SEED = 3", "META_BATCH_SIZE = 3", files=files, seed=9)
    assert (experiment.iterations, experiment.learner.meta_batch_size, experiment.learner.seed) == (7, 3, 9)


def test_includes_are_found_from_the_working_directory_and_then_from_the_project(toy, monkeypatch):
    root = toy / "project"
    (root / "configs" / "base").mkdir(parents=True)
    (root / "configs" / "base" / "toy.gin").write_text((toy / "toy.gin").read_text())
    (root / "configs" / "tiny.gin").write_text("include 'configs/base/toy.gin'\nITERATIONS = 2\n")
    monkeypatch.setattr(project, "project_root", lambda: root)
    assert build(files=["configs/tiny.gin"]).iterations == 2
    (toy / "configs").mkdir()
    (toy / "configs" / "tiny.gin").write_text("include 'configs/base/toy.gin'\nITERATIONS = 3\n")
    assert build(files=["configs/tiny.gin"]).iterations == 3
    with pytest.raises(UserError, match=r"did you mean 'configs/tiny.gin'\?"):
        build(files=["configs/tini.gin"])


def test_what_an_override_made_idle_is_no_mistake(toy):
    (toy / "toy.gin").write_text(
        (toy / "toy.gin").read_text() + "STEEPNESS = 2.0\nHill.steepness = %STEEPNESS\nHill.height = 1.0\n"
    )
    experiment = build("ToyLearner.meta_batch_size = 3", "ToyLearner.task = @Valley()")
    assert experiment.learner.meta_batch_size == 3
    assert experiment.learner.task.steepness == -1.0
    with pytest.raises(UserError, match="nothing in this experiment uses STEEPNES"):
        build("ToyLearner.task = @Valley()", "STEEPNES = 3")


def test_scopes_in_use_are_accepted(toy):
    experiment = build("ToyLearner.task = @steep/Hill()", "steep/Hill.steepness = 3.0", "Hill.height = 2.0")
    assert (experiment.learner.task.steepness, experiment.learner.task.height) == (3.0, 2.0)
    message = mistake("ToyLearner.task = @steep/Hill()", "stepe/Hill.steepness = 3.0")
    assert "did you mean 'steep/Hill.steepness'?" in message


def test_the_operative_configuration_builds_the_same_experiment(toy):
    build("ToyLearner.task = @steep/Hill()", "steep/Hill.steepness = 3.0")
    text = gin.operative_config_str()
    (toy / "operative.gin").write_text(text)
    experiment = build(files=["operative.gin"])
    assert experiment.learner.task.steepness == 3.0
    assert gin.operative_config_str() == text


def test_threads_cannot_change_once_tensorflow_runs(toy):
    tf.constant(1) + 1
    threads = tf.config.threading.get_intra_op_parallelism_threads() + 1
    assert "cannot change once TensorFlow has started" in mistake(f"runtime.intra_op_threads = {threads}")


def test_determinism_and_threads_are_set_before_the_first_operation():
    text = """
import tensorflow as tf
from metarl.experiment.runtime import runtime
runtime(intra_op_threads=1, inter_op_threads=2, op_determinism=True)
threading = tf.config.threading
assert threading.get_intra_op_parallelism_threads() == 1
assert threading.get_inter_op_parallelism_threads() == 2
try:
    tf.function(lambda: tf.random.uniform([]))()
except RuntimeError:
    pass  # determinism refuses unseeded random operations
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", text], check=True, timeout=120)
