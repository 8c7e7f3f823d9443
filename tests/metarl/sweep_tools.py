"""A sweep whose training only sleeps, and what the tests look at while it runs."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

CONFIG = """# A study.
# seeds: 4, 5
# sweep: RATE=[0.1, 0.2]
# sweep: (WIDTH, HEIGHT)=[(1, 2), (3, 4)]
SEED = 7
ITERATIONS = 3
RATE = 0.5
WIDTH = 1
HEIGHT = 1
Experiment.iterations = %ITERATIONS
Thing.speed = %RATE
Thing.mass = 2
Other.mass = 3
"""

# Stands in for the training: says what it was asked for, sleeps, ends as SPEED says.
SLEEPER = """
import pathlib, re, signal, sys, time
values = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
folder, rate = pathlib.Path(values["logdir"]), float(values["rate"])
folder.mkdir(parents=True, exist_ok=True)
starts = folder / "starts"
starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
(folder / "operative_config.gin").write_text("")
def receive(number, _):
    with (folder / "signals").open("a") as file:
        file.write(f"{number} ")
    time.sleep(0.3)
    sys.exit(143)
signal.signal(signal.SIGTERM, receive)
signal.signal(signal.SIGINT, receive)
print("log of", folder.name, flush=True)
if rate == 0.2:
    time.sleep(60)
if rate == 0.3:
    sys.exit("error: no such rate\\n")
"""

# A sweep whose training is the sleeper.
SWEEP = """
import signal, sys
from metarl.experiment import front_door, sweep_check, sweep_command, sweep_runner

for number in (signal.SIGINT, signal.SIGHUP):  # the tests may run in a background job, which ignores them
    signal.signal(number, signal.SIG_DFL)

sweep_check.require_buildable = lambda *_: None

def command(index, gin_files, gin_params, run):
    return [sys.executable, "-S", "sleeper.py", f"--logdir={index.run_path(run)}", f"--rate={run.values['RATE']}"]

sweep_runner.train_command = command
request = sweep_command.Request(("study.gin",), sweeps=(sys.argv[1],), seeds="1", logdir="s", jobs=int(sys.argv[2]))
sys.exit(front_door.exit_code(lambda: sweep_command.run(request)))
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    (tmp_path / "study.gin").write_text(CONFIG)
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (tmp_path / "sweep.py").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    return tmp_path


def start(sweep, jobs=1):
    command = [sys.executable, "sweep.py", sweep, str(jobs)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def index_rows():
    with open("s/index.csv", newline="") as file:
        return {row["RATE"]: row for row in csv.DictReader(file)}


def starts(rate):
    return len((Path("s") / index_rows()[rate]["run"] / "starts").read_text())


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running_sleepers(folder):
    """The processes that train in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"sleeper.py" in (path / "cmdline").read_bytes() and (path / "cwd").resolve() == folder.resolve():
                found.append(int(path.name))
        except OSError:
            continue
    return found
