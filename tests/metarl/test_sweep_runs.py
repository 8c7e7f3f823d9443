"""A sweep's runs: failures, signals, kills, jobs side by side."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from sweep_tools import SLEEPER, index_rows, running_sleepers, start, starts, wait_for

from metarl.experiment import console, sweep_command, sweep_runner
from metarl.experiment.run_directory import RunDirectory
from metarl.experiment.sweep_command import Request
from metarl.experiment.sweep_processes import LocalLauncher


def test_a_failed_run_is_told_and_stops_nothing_and_is_tried_again(study):
    done = start("RATE=[0.3, 0.1]")
    _, log = done.communicate(timeout=60)
    assert done.returncode == sweep_runner.UNFINISHED, log
    assert re.search(r"^FAILED +RATE=0.3 seed=1  exit code 1: error: no such rate  \(s/logs/.+\.log\)$", log, re.M)
    assert re.search(r"^finished +RATE=0.1 seed=1 ", log, re.M)
    assert "2 runs: 1 failed, 1 finished; s/index.csv" in log
    rows = index_rows()
    assert (rows["0.3"]["state"], rows["0.3"]["exit_code"]) == ("failed", "1")
    assert rows["0.3"]["message"] == "error: no such rate"
    assert (rows["0.1"]["state"], rows["0.1"]["exit_code"]) == ("finished", "0")
    assert rows["0.1"]["started"] <= rows["0.1"]["finished"]
    again = start("RATE=[0.3, 0.1]")
    again.communicate(timeout=60)
    assert again.returncode == sweep_runner.UNFINISHED
    assert (starts("0.3"), starts("0.1")) == (2, 1)


@pytest.mark.parametrize("code", [130, 143])
def test_a_run_that_something_else_interrupted_is_counted_and_no_success(study, code):
    (study / "sleeper.py").write_text(SLEEPER + f"if rate == 0.5:\n    sys.exit({code})\n")
    done = start("RATE=[0.5, 0.1]")
    _, log = done.communicate(timeout=60)
    assert done.returncode == sweep_runner.UNFINISHED, log
    assert "2 runs: 1 interrupted, 1 finished; s/index.csv" in log
    assert "1 interrupted by something other than this sweep; the same command goes on" in log
    assert (index_rows()["0.5"]["state"], index_rows()["0.5"]["exit_code"]) == ("interrupted", str(code))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_children_and_the_same_command_goes_on(study, number):
    sweep = start("RATE=[0.1, 0.2, 0.4]")
    wait_for(lambda: Path("s/index.csv").exists() and index_rows()["0.2"]["state"] == "running")
    wait_for(lambda: (Path("s") / index_rows()["0.2"]["run"] / "starts").exists())
    time.sleep(0.3)
    os.killpg(sweep.pid, number)  # as a terminal's Ctrl-C does
    _, log = sweep.communicate(timeout=30)
    assert sweep.returncode == 128 + number, log
    assert {rate: row["state"] for rate, row in index_rows().items()} == {
        "0.1": "finished", "0.2": "interrupted", "0.4": "pending"
    }  # fmt: skip
    assert not running_sleepers(study)
    assert (Path("s") / index_rows()["0.2"]["run"] / "signals").read_text() == f"{signal.SIGTERM.value} "
    (study / "sleeper.py").write_text(SLEEPER.replace("sleep(60)", "sleep(0)"))
    again = start("RATE=[0.1, 0.2, 0.4]", 2)
    _, log = again.communicate(timeout=60)
    assert again.returncode == 0, log
    assert "1 of 3 runs are finished already" in log
    assert [starts(rate) for rate in ("0.1", "0.2", "0.4")] == [1, 2, 1]


def test_after_kill_9_what_ran_is_resumed_and_two_sweeps_do_not_share_a_folder(study):
    sweep = start("RATE=[0.1, 0.2]")
    wait_for(lambda: Path("s/index.csv").exists() and index_rows()["0.2"]["state"] == "running")
    wait_for(lambda: running_sleepers(study))
    second = start("RATE=[0.1, 0.2]")
    _, log = second.communicate(timeout=30)
    assert second.returncode == 2
    assert log.startswith("error: s is being trained by process ")
    sweep.send_signal(signal.SIGKILL)
    sweep.communicate()
    for pid in running_sleepers(study):
        os.kill(pid, signal.SIGKILL)
    listed = sweep_command.dry_run(Request(("study.gin",), sweeps=("RATE=[0.1, 0.2]",), seeds="1", logdir="s"))
    assert [line.split()[0] for line in listed.splitlines()] == ["finished", "interrupted", "2"]
    (study / "sleeper.py").write_text(SLEEPER.replace("sleep(60)", "sleep(0)"))
    again = start("RATE=[0.1, 0.2]")
    again.communicate(timeout=60)
    assert again.returncode == 0
    assert (starts("0.1"), starts("0.2")) == (1, 2)


def test_a_dry_run_tells_what_is_running_beside_it(study):
    request = Request(("study.gin",), sweeps=("RATE=[0.1, 0.2, 0.4]",), seeds="1", logdir="s")

    def states():
        listed = sweep_command.dry_run(request).splitlines()
        return [line.split()[0] for line in listed[:-1]], listed[-1]

    sweep = start("RATE=[0.1, 0.2, 0.4]")
    try:
        wait_for(lambda: Path("s/index.csv").exists() and index_rows()["0.2"]["state"] == "running")
        found, summary = states()
        assert found == ["finished", "running", "pending"]
        assert f"3 runs, 2 to do, in s; process {sweep.pid} on " in summary
    finally:
        os.killpg(sweep.pid, signal.SIGTERM)
        sweep.communicate(timeout=30)
    assert states()[0] == ["finished", "interrupted", "pending"]
    left = RunDirectory(sweep_command.make_index(request).run_path(sweep_command.make_index(request).runs[2]))
    left.acquire()  # as a process that a killed sweep left at work
    assert states()[0] == ["finished", "interrupted", "running"]
    left.release()


def test_the_jobs_run_side_by_side_and_no_more(study, monkeypatch):
    """A launcher whose processes end on demand."""
    index = sweep_command.make_index(Request(("study.gin",), sweeps=("RATE=[1, 2, 3, 4, 5]",), logdir="s"))
    alive, most, order = [], [], []

    class Process:
        def __init__(self, name):
            self.name, self.looks = name, 0
            alive.append(self)

        def begun(self):
            return True

        def poll(self):
            self.looks += 1
            if self.looks < 3:
                return None
            alive.remove(self)
            return 0

        def signal(self, number):
            raise AssertionError

    class Launcher:
        def start(self, command, log):
            order.append(next(text for text in command if text.startswith("--gin_param=RATE")))
            process = Process(command[-1])
            most.append(len(alive))
            return process

        def close(self):
            pass

    assert sweep_runner.run_sweep(index, ("study.gin",), (), Launcher(), 2) == 0
    assert max(most) == 2
    assert order == [f"--gin_param=RATE = {number}" for number in range(1, 6)]
    stored = json.loads(Path("s/sweep.json").read_text())
    assert [run["state"] for run in stored["runs"]] == ["finished"] * 5


def test_threads_of_a_run_are_limited_without_a_word_in_its_configuration(study):
    told = "import os; from metarl.scaling import cores; print(cores.usable(), os.environ['TF_NUM_INTRAOP_THREADS'])"
    process = LocalLauncher(cpus=1).start([sys.executable, "-c", told], Path("log"))
    wait_for(lambda: process.poll() is not None)
    assert Path("log").read_text() == "1 1\n"


def test_runs_that_a_killed_sweep_left_at_work_are_waited_for(study, capsys):
    index = sweep_command.make_index(Request(("study.gin",), sweeps=("RATE=[1, 2]",), logdir="s"))
    left = RunDirectory(index.run_path(index.runs[0]))
    left.acquire()
    index.write()
    started = []

    class Ended:
        def begun(self):
            return True

        def poll(self):
            left.release()
            return 0

        def signal(self, number):
            raise AssertionError

    class Launcher:
        def start(self, command, log):
            started.append(next(text for text in command if text.startswith("--gin_param=RATE")))
            return Ended()

        def close(self):
            pass

    assert sweep_runner.run_sweep(index, ("study.gin",), (), Launcher(), 2) == 0
    assert started == ["--gin_param=RATE = 2", "--gin_param=RATE = 1"]
    assert capsys.readouterr().err.count(f"waiting    RATE=1 seed=7  is being trained by process {os.getpid()} on") == 1


def test_the_third_signal_kills(study, monkeypatch):
    monkeypatch.setattr(console, "_ONE_REQUEST_SECONDS", 0.0)
    index = sweep_command.make_index(Request(("study.gin",), sweeps=("RATE=[1, 2]",), logdir="s"))
    received = []

    class Stubborn:
        def begun(self):
            return True

        def poll(self):
            if len(received) < 3:
                os.kill(os.getpid(), signal.SIGTERM)
                return None
            return -signal.SIGKILL

        def signal(self, number):
            received.append(number)

    class Launcher:
        def start(self, command, log):
            return Stubborn()

        def close(self):
            received.append("closed")

    assert sweep_runner.run_sweep(index, ("study.gin",), (), Launcher(), 1) == 128 + signal.SIGTERM
    assert received == [signal.SIGTERM, signal.SIGTERM, signal.SIGKILL, "closed"]
    assert [run.state for run in index.runs] == ["interrupted", "pending"]
