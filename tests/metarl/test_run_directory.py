import json
import os
import subprocess
import sys

import pytest
from experiment_tools import contents, mistake, rows, run
from toy_learner import ToyLearner

from metarl.experiment import front_door, run_directory
from metarl.experiment.errors import UserError
from metarl.experiment.run_directory import RunDirectory, default_path, read_sessions, safe_name

pytestmark = pytest.mark.usefixtures("toy")


def test_a_run_holds_what_a_reader_looks_for(toy):
    assert run("Experiment.figure_every = 2") == 0
    assert {path.name for path in (toy / "run").iterdir()} == {
        "progress.csv", "final.csv", "tensorboard", "checkpoints", "operative_config.gin", "flags.txt",
        "versions.json", "lock",
    }  # fmt: skip
    (versions,) = json.loads((toy / "run" / "versions.json").read_text())["sessions"]
    assert versions["tensorflow"].startswith("2.")
    assert {"python", "numpy", "mujoco", "git_commit", "cpu_count"} <= versions.keys()
    assert "ToyLearner.learning_rate = 0.1" in (toy / "run" / "operative_config.gin").read_text()


@pytest.mark.parametrize("old_form", [False, True])
def test_every_session_with_other_versions_is_kept_and_told(toy, monkeypatch, caplog, old_form):
    now = run_directory.versions()
    monkeypatch.setattr(run_directory, "versions", lambda: now)
    run("ITERATIONS = 2")
    first = {"after_meta_update": 0, **now}
    if old_form:  # one session, not in a list
        (toy / "run" / "versions.json").write_text(json.dumps(now))
        first = dict(now)
    run("ITERATIONS = 3")
    assert read_sessions(toy / "run") == [first]
    assert "changed since" not in caplog.text
    second = {**now, "git_commit": "abc", "numpy": "9.9", "cpu_count": 1000}
    monkeypatch.setattr(run_directory, "versions", lambda: second)
    run("ITERATIONS = 5")
    assert read_sessions(toy / "run") == [first, {"after_meta_update": 3, **second}]
    assert caplog.text.count("changed since the last session of run: ") == 1
    assert f"numpy {now['numpy']} -> 9.9, git_commit {now['git_commit']} -> abc\n" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"sessions": 3}', '{"sessions": [3]}'])
def test_unreadable_versions_do_not_stop_a_run(toy, content):
    run("ITERATIONS = 2")
    (toy / "run" / "versions.json").write_text(content)
    assert read_sessions(toy / "run") == []
    run("ITERATIONS = 3")
    assert [session["after_meta_update"] for session in read_sessions(toy / "run")] == [2]


def test_earlier_commands_stay_as_comments(toy):
    for iterations in (2, 2, 3, 4):
        flags = ["--gin_file=toy.gin", f"--gin_param=ITERATIONS={iterations}"]
        assert front_door.run(front_door.Command(["toy.gin"], [f"ITERATIONS = {iterations}"], None, "run", flags)) == 0
    assert (toy / "run" / "flags.txt").read_text() == (
        "--gin_file=toy.gin\n--gin_param=ITERATIONS=4\n"
        "# command 1, replaced since:\n#   --gin_file=toy.gin\n#   --gin_param=ITERATIONS=2\n"
        "# command 2, replaced since:\n#   --gin_file=toy.gin\n#   --gin_param=ITERATIONS=3\n"
    )


def test_the_default_folder_is_named_after_config_and_seed(toy):
    assert run(logdir=None, seed=3) == 0
    assert (toy / "runs" / "toy" / "seed_3" / "progress.csv").exists()
    assert str(default_path(["configs/a.gin", "b.gin"], 1)) == "runs/a-b/seed_1"
    assert str(default_path(["configs/a.gin"], None)) == "runs/a"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a b", "a\nb", "ä", "a\0b", "$(x)", "-rf\n"])
def test_hostile_names_are_refused(name):
    with pytest.raises(UserError, match="cannot name a folder"):
        safe_name(name, "the name")
    with pytest.raises(UserError, match="cannot name a folder"):
        RunDirectory("run").path(name)


def test_hostile_config_names_need_a_logdir(toy):
    (toy / "a b.gin").write_text((toy / "toy.gin").read_text())
    with pytest.raises(UserError, match=r"the gin file name 'a b' cannot name a folder.*--logdir"):
        default_path(["a b.gin"], 1)
    with pytest.raises(UserError, match=r"the seed 'seed_../../x' cannot name"):
        default_path(["a.gin"], "../../x")


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "progress.csv"])
def test_a_link_out_of_the_folder_is_refused(toy, name):
    (toy / "elsewhere").mkdir()
    (toy / "run").mkdir()
    (toy / "run" / name).symlink_to(toy / "elsewhere")
    before = contents(toy)
    assert "leads out of the run's folder" in mistake()
    assert contents(toy) == before


def test_a_run_of_another_configuration_is_refused_with_the_difference(toy):
    run()
    before = contents(toy)
    message = mistake("ToyLearner.learning_rate = 0.25")
    assert "run of another configuration: ToyLearner.learning_rate is 0.1 there and 0.25 here" in message
    assert "ToyLearner.seed is 1 there and 2 here" in mistake(seed=2)
    message = mistake("ToyLearner.task = @Valley()")
    assert "ToyLearner.task is @toy.Hill() there and @toy.Valley() here" in message
    message = mistake("ToyLearner.task = @Valley()", "ToyLearner.size = 7", "META_BATCH_SIZE = 2")
    assert "ToyLearner.meta_batch_size is 4 there and 2 here; ToyLearner.size is 6 there and 7 here;" in message
    assert ", and 3 more; choose another --logdir" in message
    assert "Hill.height is 0.0 there and absent here" in mistake("ToyLearner.task = @steep/Hill()")
    assert contents(toy) == before


def test_the_same_configuration_said_differently_is_accepted(toy):
    run("ToyLearner.learning_rate = 0.25")
    assert run("RATE = 0.25", "toy.ToyLearner.learning_rate = %RATE", "Experiment.keep_checkpoints = 2") == 0


def test_what_the_learner_calls_changeable_may_change(toy, monkeypatch):
    run("ITERATIONS = 2")
    assert "ToyLearner.pause is 0.0 there and 0.001 here" in mistake("ToyLearner.pause = 0.001")
    monkeypatch.setattr(ToyLearner, "changeable", frozenset({"ToyLearner.pause"}))
    assert run("ToyLearner.pause = 0.001") == 0
    assert "ToyLearner.size is 6 there" in mistake("ToyLearner.size = 7")


def test_a_default_that_newer_code_added_is_no_difference(toy):
    run()
    stored = toy / "run" / "operative_config.gin"
    stored.write_text("".join(line for line in stored.open() if not line.startswith("ToyLearner.size")))
    assert run() == 0
    stored.write_text("".join(line for line in stored.open() if not line.startswith("ToyLearner.size")))
    assert "ToyLearner.size is absent there and 7 here" in mistake("ToyLearner.size = 7")
    assert run("ToyLearner.size = 6") == 0


def test_fewer_iterations_than_done_are_refused_and_more_continue(toy):
    run()
    before = contents(toy)
    assert "has done 6 meta-updates already, more than the 5 wanted" in mistake("ITERATIONS = 5")
    assert contents(toy) == before
    assert run("ITERATIONS = 9") == 0
    assert [row["iteration"] for row in rows()] == [str(i) for i in range(1, 10)]
    assert "ITERATIONS = 9" in (toy / "run" / "operative_config.gin").read_text()


def test_a_folder_that_is_not_a_run_is_refused(toy):
    (toy / "thesis").mkdir()
    (toy / "thesis" / "chapter.tex").write_text("...")
    before = contents(toy)
    assert "is not empty and not a run (it holds chapter.tex)" in mistake(logdir="thesis")
    assert contents(toy) == before
    (toy / "empty").mkdir()
    assert run(logdir="empty") == 0


@pytest.mark.parametrize("garbage", ["\x00", "Experiment.iterations = (", "= =", "x"])
def test_an_unreadable_stored_configuration_is_refused(toy, garbage):
    run()
    (toy / "run" / "operative_config.gin").write_text(garbage)
    before = contents(toy)
    assert "another" in mistake()
    assert contents(toy) == before


def test_an_unwritable_logdir_is_one_line(toy):
    (toy / "file").write_text("")
    before = contents(toy)
    assert "is not a folder" in mistake(logdir="file")
    assert "is not a folder" in mistake(logdir="file/run")
    assert "cannot use --logdir /proc/run" in mistake(logdir="/proc/run")
    assert "cannot use --logdir" in mistake(logdir="x" * 300)
    assert contents(toy) == before


def test_a_folder_without_write_permission_is_one_line(toy, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as a user who may do anything
    before = contents(toy)
    assert "no permission to write" in mistake()
    assert contents(toy) == before


def test_a_second_trainer_is_refused_with_the_holders_name(toy):
    run("ITERATIONS = 2")
    holder = RunDirectory("run")
    holder.acquire()
    before = contents(toy)
    message = mistake()
    assert f"run is being trained by process {os.getpid()} on " in message
    assert contents(toy) == before
    holder.release()
    assert run() == 0


def test_the_lock_goes_with_a_killed_process(toy):
    hold = "from metarl.experiment.run_directory import *; RunDirectory('run').acquire(); print(1, flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    holder.stdout.readline()
    assert f"process {holder.pid} on " in mistake()
    holder.kill()
    holder.communicate()
    assert run("ITERATIONS = 1") == 0
