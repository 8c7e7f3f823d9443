import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time

import experiment_tools as tools
import numpy as np
import pytest
from experiment_tools import assert_help_is_quick, assert_same_run, contents, read_until, rows, run, toy  # noqa: F401

from metarl.experiment.checkpoints import list_checkpoints

PROGRAM = "launchers.train"
COMMAND = tools.program(PROGRAM)


@pytest.fixture(autouse=True)
def _working_directory(toy, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PYTHONPATH", tools.program_environment()["PYTHONPATH"])
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    return toy


def launch(*arguments):
    return tools.launch(PROGRAM, *arguments)


def test_help_needs_nothing_heavy_and_less_than_a_second():
    assert_help_is_quick(PROGRAM, "--gin_file", "--seed")


def test_list_shows_each_config_with_its_headline(tmp_path):
    (tmp_path / "configs" / "studies").mkdir(parents=True)
    (tmp_path / "configs" / "studies" / "bbb.gin").write_text("# A study,\n# of 0.5 and 1. More.\n# seeds: 1\n")
    (tmp_path / "configs" / "aaa.gin").write_text("# Table 1, first row.\nX = 1\n")
    done = launch("--list")
    assert done.returncode == 0
    assert "configs/aaa.gin  Table 1, first row.\n" in done.stdout
    assert "configs/studies/bbb.gin  A study, of 0.5 and 1.\n" in done.stdout


def test_a_reader_of_the_list_may_leave_early():
    lister = subprocess.Popen([*COMMAND, "--list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lister.stdout.close()
    assert lister.stderr.read() == ""
    assert lister.wait() == 0
    lister.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gin_fil=x"], "error: Unknown command line flag 'gin_fil'. Did you mean: gin_file ?"),
        (["--seed=-1"], "error: flag --seed=-1: -1 is not a non-negative integer"),
        (["--seed=abc"], "error: flag --seed=abc: 'abc' is not an integer\n"),
        (["--flagfile=nowhere.txt"], "error: Unable to open flagfile"),
        (["--seed"], "error: Missing value for flag --seed"),
        (["toy.gin"], "error: unexpected argument 'toy.gin'"),
        ([], "error: which experiment?"),
        (["--gin_file=toi.gin"], "error: --gin_file: no gin file 'toi.gin'; did you mean 'toy.gin'?"),
        (["--gin_file=toy.gin", "--gin_param=ITERATION=3"], "error: --gin_param='ITERATION=3': nothing in this experi"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(tmp_path, arguments, message):
    before = contents(tmp_path)
    done = launch(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert contents(tmp_path) == before


def test_a_run_kills_and_resumes_by_the_same_command(tmp_path):
    """kill -9 at random moments, until the run gets through; then compares with one that was left alone."""
    slow = ["--gin_file=toy.gin", "--gin_param=ITERATIONS=40", "--gin_param=ToyLearner.pause=0.02", "--seed=5"]
    assert run("ITERATIONS = 40", "ToyLearner.pause = 0.02", logdir="undisturbed", seed=5) == 0
    rng = np.random.default_rng()
    for _ in range(2):
        trainer = subprocess.Popen([*COMMAND, *slow, "--logdir=run"], stderr=subprocess.PIPE, text=True)
        read_until(trainer, "/40  return")
        time.sleep(rng.uniform(0, 0.3))
        trainer.send_signal(signal.SIGKILL)
        trainer.communicate()
        done = len(rows("run"))
        assert max(list_checkpoints("run")) >= done - 3
    resumed = launch(*slow, "--logdir=run")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed from run/checkpoints/checkpoint_" in resumed.stderr
    assert_same_run("run", "undisturbed")


def test_sigterm_ends_with_143_and_a_checkpoint(tmp_path):
    arguments = ["--gin_file=toy.gin", "--gin_bindings=ITERATIONS=1000", "--gin_param=ToyLearner.pause=0.02"]
    trainer = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True)
    read_until(trainer, "/1000  return")
    refused = launch(*arguments)
    assert refused.returncode == 2
    assert f"error: runs/toy/seed_1 is being trained by process {trainer.pid} on " in refused.stderr
    trainer.terminate()
    _, rest = trainer.communicate(timeout=60)
    assert trainer.returncode == 143
    assert "the same command goes on after meta-update" in rest
    folder = tmp_path / "runs" / "toy" / "seed_1"
    assert max(list_checkpoints(folder)) == len(rows(folder))
    assert (folder / "flags.txt").read_text() == (
        "--gin_file=toy.gin\n--gin_param=ITERATIONS=1000\n--gin_param=ToyLearner.pause=0.02\n"
    )


def on_a_terminal(*arguments):
    """Runs a command on a terminal of 100 columns; returns what it shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 10_000)
        except OSError:  # how Linux reports that the other side is closed
            break
        if not data:
            break
        shown += data
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()


def screen(text):
    """The lines as a terminal leaves them: a carriage return begins the line again."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        cells = ""
        for part in line.split("\r"):
            cells = part + cells[len(part) :]
        lines.append(cells.rstrip())
    return lines


def test_a_terminal_shows_a_bar_with_the_time_left_below_whole_log_lines():
    text = on_a_terminal("--gin_file=toy.gin", "--gin_param=ToyLearner.pause=0.15")
    assert re.search(r"50%\|.*\| 3/6 \[\d\d:\d\d<\d\d:\d\d, .*sampling\]", text)
    lines = screen(text)
    logged = [line for line in lines if re.search(r"\d/6  return", line)]
    assert len(logged) == 6
    assert all(re.fullmatch(r"I\d{4} .*\] \d/6  return -?\d+\.\d+", line) for line in logged)
    assert sum("%|" in line for line in lines) == 1  # the bar, once, at the bottom
    assert not [line for line in lines if "oneDNN" in line or "cuda" in line.lower()]
