import csv
import errno
import json
import os
import shutil
import signal
from pathlib import Path

import gin
import numpy as np
import pytest
import tensorflow as tf
import toy_learner
from experiment_tools import TOY, assert_same_run, contents, final_state, mistake, rows, run

from metarl.experiment import console
from metarl.experiment.checkpoints import CheckpointStore, list_checkpoints
from metarl.experiment.errors import UserError
from metarl.experiment.learner import NonFiniteError
from metarl.experiment.metrics import CsvWriter, TensorBoardWriter, aligned

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def killed(monkeypatch):
    """Makes the next run end like a kill -9 right after the named step of the given iteration."""

    class Killed(BaseException):
        pass

    def kill_after(owner, name, iteration):
        original = getattr(owner, name)

        def dying(self, *arguments):
            result = original(self, *arguments)
            now = self.iteration if hasattr(self, "iteration") else arguments[0]
            if now == iteration:
                raise Killed
            return result

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, dying)
            with pytest.raises(Killed):
                run()

    return kill_after


def events(logdir="run"):
    """Steps, tags and values of all events in TensorBoard's order, without the wall-clock ones."""
    found = []
    for path in sorted((Path(logdir) / "tensorboard").iterdir()):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            found += [
                (event.step, value.tag, value.simple_value)
                for value in event.summary.value
                if not value.tag.startswith("time/")
            ]
    return found


def test_progress_has_a_row_per_meta_update_and_every_bit(toy):
    run()
    with (toy / "run" / "progress.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["iteration", "train/return", "train/steps", "validation/return", "time/sampling"]
    assert [line[0] for line in lines] == ["1", "2", "3", "4", "5", "6"]
    assert [line[3] == "" for line in lines] == [True, True, False, True, True, False]
    assert lines[5][2] == "600"
    experiment = gin.get_configurable("metarl.Experiment")()
    for _ in range(6):
        metrics = experiment.learner.run_iteration(lambda _: None)
    assert float(lines[5][1]) == metrics["train/return"]
    assert np.float32(lines[5][3]) == metrics["validation/return"]


def test_curves_and_figures_reach_tensorboard(toy):
    run("Experiment.figure_every = 4")
    found = events()
    assert [step for step, tag, _ in found if tag == "train/return"] == [1, 2, 3, 4, 5, 6]
    assert [step for step, tag, _ in found if tag == "validation/return"] == [3, 6]
    assert [step for step, tag, _ in found if tag == "figure/weights"] == [4, 6]


def test_the_final_table_is_shown_and_written(toy, caplog):
    with caplog.at_level("INFO", "absl"):
        run()
    assert "iteration  set  return  episodes\n        6    D" in caplog.text
    with (toy / "run" / "final.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert b"\r" not in (toy / "run" / "final.csv").read_bytes()
    weights = np.frombuffer(final_state()["weights"][1], np.float32)
    assert [(row["set"], float(row["return"])) for row in table] == [("D", weights[0]), ("D'", weights[1])]


def test_a_finished_run_says_so_and_changes_nothing(toy, caplog):
    run()
    before = contents(toy)
    with caplog.at_level("INFO", "absl"):
        assert run() == 0
    assert "run is finished: 6 meta-updates" in caplog.text
    assert contents(toy) == before


def test_a_run_of_a_learner_without_a_final_table_is_finished_too(toy, monkeypatch, caplog):
    monkeypatch.setattr(toy_learner.ToyLearner, "final_table", lambda self, report: [])
    assert run() == 0
    assert (toy / "run" / "final.csv").read_bytes() == b"iteration\n6\n"
    with caplog.at_level("INFO", "absl"):
        assert run() == 0
    assert "run is finished: 6 meta-updates" in caplog.text


def test_a_missing_or_older_final_table_is_made_without_touching_the_rest(toy):
    run()
    complete = contents(toy)
    (toy / "run" / "final.csv").unlink()
    assert run() == 0
    assert contents(toy) == complete
    older = complete["run/final.csv"].replace(b"\n6,", b"\n4,")
    (toy / "run" / "final.csv").write_bytes(older)
    assert run() == 0
    assert contents(toy) == complete


@pytest.mark.parametrize("iteration", range(1, 7))
@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (toy_learner.ToyLearner, "run_iteration"),
        (CsvWriter, "write"),
        (TensorBoardWriter, "write"),
        (toy_learner.ToyLearner, "state"),
        (CheckpointStore, "save"),
    ],
)
def test_a_run_killed_anywhere_and_resumed_is_the_undisturbed_run(toy, killed, owner, step, iteration):
    run(logdir="undisturbed")
    if step in ("state", "save") and iteration % 2:
        iteration -= 1  # checkpoints come at 0, 2, 4 and 6
    killed(owner, step, iteration)
    assert max(list_checkpoints("run"), default=0) >= iteration - 2
    assert run() == 0
    assert_same_run("run", "undisturbed")
    assert sorted(step for step, tag, _ in events() if tag == "train/return") == [1, 2, 3, 4, 5, 6]
    assert sorted(events()) == sorted(events("undisturbed"))


def test_a_longer_run_is_the_run_that_was_long_from_the_start(toy):
    run("ITERATIONS = 9", logdir="undisturbed")
    run("ITERATIONS = 3")
    run("ITERATIONS = 5", "Experiment.checkpoint_every = 1")
    run("ITERATIONS = 9")
    assert_same_run("run", "undisturbed")


def test_figures_change_no_number(toy):
    run(logdir="undisturbed")
    run("Experiment.figure_every = 1")
    assert_same_run("run", "undisturbed")


@pytest.mark.parametrize("damage", ["truncated", "bit flip", "missing"])
def test_without_the_newest_checkpoint_the_one_before_is_used(toy, caplog, damage):
    run(logdir="undisturbed")
    run()
    newest = list_checkpoints("run")[6]
    data = newest.read_bytes()
    if damage == "missing":
        newest.unlink()
    else:
        newest.write_bytes(data[:-100] if damage == "truncated" else data[:600] + b"\xff" + data[601:])
    with caplog.at_level("INFO", "absl"):
        assert run() == 0
    assert "done again, because it came after the last checkpoint: meta-update 5 to 6" in caplog.text
    assert ("is damaged (" in caplog.text) == (damage != "missing")
    assert_same_run("run", "undisturbed")


@pytest.mark.parametrize("folder_too", [False, True])
def test_a_run_that_lost_all_its_checkpoints_never_starts_again(toy, folder_too):
    run()
    shutil.rmtree(toy / "run" / "checkpoints")
    if not folder_too:
        (toy / "run" / "checkpoints").mkdir()
    before = contents(toy)
    assert "but no checkpoint: refusing to start again from 0" in mistake()
    (toy / "run" / "progress.csv").unlink()
    assert "but no checkpoint: refusing to start again from 0" in mistake()
    assert contents(toy).keys() == before.keys() - {"run/progress.csv"}


def test_a_run_killed_before_its_first_checkpoint_starts(toy, monkeypatch):
    run(logdir="undisturbed")

    def dying(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert (toy / "run" / "operative_config.gin").exists()
    assert run() == 0
    assert_same_run("run", "undisturbed")


def test_a_moved_run_goes_on(toy):
    run("ITERATIONS = 8", logdir="undisturbed")
    run("ITERATIONS = 5")
    (toy / "far" / "away").mkdir(parents=True)
    shutil.move(toy / "run", toy / "far" / "away" / "moved")
    assert run("ITERATIONS = 8", logdir="far/away/moved") == 0
    assert_same_run("far/away/moved", "undisturbed")


@pytest.mark.parametrize("how", ["lost", "half a header", "half a row", "a gap"])
def test_a_damaged_progress_file_does_not_stop_a_run(toy, caplog, how):
    run("ITERATIONS = 5")
    path = toy / "run" / "progress.csv"
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    if how == "lost":
        path.unlink()
    else:
        path.write_text(
            {"half a header": "iterat", "half a row": text[:-5], "a gap": "".join(lines[:2] + lines[3:])}[how]
        )
    with caplog.at_level("WARNING", "absl"):
        assert run() == 0
    assert "progress.csv" in caplog.text
    expected = {"lost": [6], "half a header": [6], "half a row": [1, 2, 3, 4, 6], "a gap": [1, 3, 4, 5, 6]}[how]
    assert [int(row["iteration"]) for row in rows()] == expected


def test_damaged_events_do_not_stop_a_run(toy, caplog):
    run("ITERATIONS = 5")
    (path,) = (toy / "run" / "tensorboard").iterdir()
    data, end = path.read_bytes(), 0
    for _ in range(3):  # the file's header and two meta-updates stay
        end += 16 + int.from_bytes(data[end : end + 8], "little")
    size = int.from_bytes(data[end : end + 8], "little")
    path.write_bytes(data[: end + 12] + b"\xff" * size + data[end + 12 + size :])
    assert run() == 0
    assert f"is damaged; its events are cut off from byte {end} on" in caplog.text
    assert sorted(step for step, tag, _ in events() if tag == "train/return") == [1, 2, 6]


def test_a_number_that_is_not_finite_stops_the_run_with_evidence(toy, caplog):
    run("ITERATIONS = 2", "ToyLearner.not_finite_at = 3")
    before = final_state()
    assert run("ToyLearner.not_finite_at = 3") == 1
    assert "meta-update 3: not finite: metric train/return, validation/return" in caplog.text
    assert [row["iteration"] for row in rows()] == ["1", "2"]
    assert final_state() == before
    with np.load(toy / "run" / "crash" / "iteration_00000003.npz", allow_pickle=False) as evidence:
        assert set(evidence) == {"weights", "momentum"}
    described = json.loads((toy / "run" / "crash" / "iteration_00000003.json").read_text())
    assert described["metrics"]["train/return"] == "nan"
    assert run("ToyLearner.not_finite_at = 3") == 1


def test_weights_that_are_not_finite_are_never_saved(toy, caplog, monkeypatch):
    original = toy_learner.ToyLearner.run_iteration

    def finite_metrics(self, report):
        return {**original(self, report), "train/return": 0.0, "validation/return": None}

    monkeypatch.setattr(toy_learner.ToyLearner, "run_iteration", finite_metrics)
    assert run("ToyLearner.not_finite_weights_at = 4") == 1
    assert "meta-update 4: not finite: array weights" in caplog.text
    assert sorted(list_checkpoints("run")) == [0, 2]


def test_a_learner_may_stop_itself(toy, monkeypatch, caplog):
    def refuse(self, report):
        raise NonFiniteError("the simulator left the numbers")

    monkeypatch.setattr(toy_learner.ToyLearner, "run_iteration", refuse)
    assert run() == 1
    assert "the simulator left the numbers" in caplog.text
    assert (toy / "run" / "crash" / "iteration_00000000.npz").exists()


def test_a_full_disk_stops_with_one_line_and_costs_an_interval(toy, monkeypatch, caplog):
    run(logdir="undisturbed")
    original = CheckpointStore.save

    def refuse(self, iteration, arrays):
        if iteration == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, iteration, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", refuse)
        assert run() == 3
    assert "No space left on device; the same command goes on" in caplog.text
    assert run() == 0
    assert_same_run("run", "undisturbed")


@pytest.mark.parametrize("name", ["flags.txt", "versions.json", "operative_config.gin", "lock"])
def test_a_full_disk_at_the_very_start_is_one_line_and_spoils_nothing(toy, monkeypatch, caplog, name):
    run(logdir="undisturbed")
    writing, replace = os.write, os.replace

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if name == "lock":
            patch.setattr(
                os, "write", lambda lock, data: full() if data.startswith(b"process") else writing(lock, data)
            )
            assert run() == 0  # the note of who holds the lock is all that is missing
        else:
            patch.setattr(os, "replace", lambda old, new: full() if Path(new).name == name else replace(old, new))
            assert run() == 3
            assert "No space left on device; the same command goes on" in caplog.text
            assert not list(Path("run").glob(".*.tmp"))
    assert run() == 0
    assert_same_run("run", "undisturbed")


def test_what_a_kill_left_half_written_is_no_foreign_file(toy):
    run(logdir="undisturbed")
    Path("run").mkdir()
    Path("run/.flags.txt.tmp").write_text("python -m la")
    assert run() == 0
    assert_same_run("run", "undisturbed")


def test_a_full_disk_is_told_by_the_event_writer_too(tmp_path):
    writer = TensorBoardWriter(tmp_path / "tensorboard")
    writer.write(1, {"train/return": 1.0}, {})
    writer._writer = tf.io.TFRecordWriter("/dev/full")
    with pytest.raises(OSError, match="dev/full") as caught:
        writer.write(2, {"train/return": 1.0}, {})
    assert caught.value.errno == errno.ENOSPC


def test_a_final_table_that_is_not_finite_fails_the_run(toy, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(toy_learner.ToyLearner, "final_table", lambda self, report: [{"set": "D", "return": np.nan}])
        assert run() == 1
    assert "not finite: final table's return" in caplog.text
    assert not Path("run/final.csv").exists()
    assert run() == 0


def test_a_tilde_is_the_home_directory(toy, monkeypatch):
    monkeypatch.setenv("HOME", str(toy / "home"))
    assert run(logdir="~/run") == 0
    assert (toy / "home" / "run" / "final.csv").exists()
    assert not Path("~").exists()


def test_a_checkpoint_that_does_not_fit_the_learner_is_one_line(toy):
    run("ITERATIONS = 5")
    CheckpointStore(toy / "run" / "checkpoints").save(6, {"weights": np.zeros(3)})
    assert "differ in" in mistake()


def test_sigterm_saves_and_the_rest_follows_later(toy, caplog):
    run(logdir="undisturbed")
    gin_text = TOY + "ToyLearner.signal_at = 3\n"
    (toy / "toy.gin").write_text(gin_text)
    with caplog.at_level("WARNING", "absl"):
        assert run() == 128 + signal.SIGTERM
    assert "stopped; the same command goes on after meta-update 3" in caplog.text
    assert max(list_checkpoints("run")) == 3
    assert [row["iteration"] for row in rows()] == ["1", "2", "3"]
    assert run() == 0
    assert_same_run("run", "undisturbed")


def test_a_second_signal_stops_at_once_and_costs_no_more_than_an_interval(toy, monkeypatch):
    before = signal.getsignal(signal.SIGINT)  # a background job's is to ignore it
    run(logdir="undisturbed")
    original = toy_learner.ToyLearner.run_iteration

    def interrupted_twice(self, report):
        if self.iteration == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, report)

    with monkeypatch.context() as patch:
        patch.setattr(toy_learner.ToyLearner, "run_iteration", interrupted_twice)
        patch.setattr(console, "_ONE_REQUEST_SECONDS", 0.0)
        assert run() == 128 + signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is before
    assert run() == 0
    assert_same_run("run", "undisturbed")


def test_a_process_and_its_group_signalled_at_once_are_one_request(toy, monkeypatch, caplog):
    original = toy_learner.ToyLearner.run_iteration

    def interrupted_twice(self, report):
        if self.iteration == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)  # another number, so that the system does not join them
        return original(self, report)

    monkeypatch.setattr(toy_learner.ToyLearner, "run_iteration", interrupted_twice)
    with caplog.at_level("WARNING", "absl"):
        assert run() == 128 + signal.SIGTERM
    assert "stopped; the same command goes on after meta-update 4" in caplog.text


def test_a_signal_during_the_final_table_stops_at_once(toy, monkeypatch):
    original = toy_learner.ToyLearner.final_table

    def interrupted(self, report):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, report)

    with monkeypatch.context() as patch:
        patch.setattr(toy_learner.ToyLearner, "final_table", interrupted)
        assert run() == 128 + signal.SIGTERM
    assert not (toy / "run" / "final.csv").exists()
    assert run() == 0
    assert (toy / "run" / "final.csv").exists()


def test_columns_of_another_version_stay_and_the_run_goes_on(toy):
    run("ITERATIONS = 5")
    path, whole = toy / "run" / "progress.csv", rows()
    path.write_text(path.read_text().replace("train/steps", "train/other"))
    for iterations in (6, 7):  # the second time nothing is left to change
        assert run(f"ITERATIONS = {iterations}") == 0
    after = rows()
    assert list(after[0]) == [*whole[0], "train/other"]
    assert [row["train/other"] for row in after] == [*(row["train/steps"] for row in whole), "", ""]
    assert [row["train/steps"] for row in after] == [*[""] * 5, "600", "700"]
    assert [row["iteration"] for row in after] == list("1234567")


def test_metrics_that_change_on_the_way_are_one_line(tmp_path):
    writer = CsvWriter(tmp_path / "progress.csv")
    writer.rewind(0)
    writer.write(1, {"a": 1.0, "b": 2.0}, {})
    with pytest.raises(UserError, match="other columns than the metrics measured now: b, c"):
        writer.write(2, {"a": 1.0, "c": 2.0}, {})
    with pytest.raises(UserError, match="measured now: b"):
        writer.write(2, {"a": 1.0}, {})


def test_a_run_without_newer_columns_goes_on(toy):
    """What an older version did not measure is empty in its rows; what it wrote stays as it is."""
    run("ITERATIONS = 5")
    path, whole = toy / "run" / "progress.csv", rows()
    assert list(whole[0])[2] == "train/steps"
    cells = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("".join(",".join([*line[:2], *line[3:]]) + "\n" for line in cells))
    assert run("ITERATIONS = 6") == 0
    after = rows()
    assert after[:5] == [row | {"train/steps": ""} for row in whole]
    assert after[5]["train/steps"] == "600"
    assert list(after[5]) == list(whole[0])


def test_tables_line_up():
    table = aligned([{"set": "D", "return": -12.34567, "n": 3}, {"set": "D''", "return": None, "n": 12}])
    assert table == "set  return   n\n  D  -12.35   3\nD''       -  12"
