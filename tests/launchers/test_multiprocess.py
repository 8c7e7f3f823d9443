"""launchers.multiprocess: a run like launchers.train's, with workers that can be killed."""

import os
import signal
import subprocess

import numpy as np
import pytest
from experiment_tools import assert_help_is_quick, launch, read_until, rows, start

from metarl.experiment.checkpoints import list_checkpoints, load_checkpoint

SIZES = {
    "META_BATCH_SIZE": 3, "ROLLOUTS_PER_TASK": 2, "HORIZON": 5, "INNER_UPDATES": 1, "HIDDEN_SIZES": [4, 4],
    "GRU_UNITS": 5, "EMBEDDING_DIM": 3, "TespLearner.num_goals": 4, "Validation.num_goals": 2,
    "Validation.frequency": 0,
    "MetaUpdate.num_evaluations": 3, "FinalTable.num_goals": 2, "Experiment.checkpoint_every": 1,
}  # fmt: skip
PROGRAM = "launchers.multiprocess"


def command(logdir, iterations, *more, program=PROGRAM):
    bindings = [f"--gin_param={name}={value}" for name, value in {**SIZES, "ITERATIONS": iterations}.items()]
    return [program, "--gin_file=configs/tesp_point.gin", f"--logdir={logdir}", *bindings, *more]


def workers_of(process):
    """Ids of the processes that a launcher's process started, but for Python's resource tracker."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
    ).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "spawn_main" in line]


def final(logdir, iteration):
    return load_checkpoint(list_checkpoints(logdir)[iteration]).arrays


def finish(process):
    log = process.communicate(timeout=200)[1]
    assert process.returncode == 0, log
    return log


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of an undisturbed run and of one of whose workers one was killed; what was seen meanwhile."""
    folder = tmp_path_factory.mktemp("multiprocess")
    iterations = 20
    undisturbed = start(*command(folder / "undisturbed", iterations, "--num_workers=2"))
    victim = start(*command(folder / "killed", iterations, "--num_workers=2"))
    read_until(victim, f"2/{iterations}  return")
    workers = workers_of(victim)
    os.kill(workers[1], signal.SIGKILL)
    log = finish(victim)
    finish(undisturbed)
    return folder, {"log": log, "workers": workers, "iterations": iterations}


def test_help_needs_nothing_heavy_and_less_than_a_second():
    assert_help_is_quick(PROGRAM, "--gin_file", "--num_workers", "--worker_timeout")


def test_a_killed_worker_changes_nothing(runs):
    folder, facts = runs
    assert len(facts["workers"]) == 2
    assert "was killed by SIGKILL" in facts["log"]
    assert rows(folder / "undisturbed") == rows(folder / "killed")
    first, second = (final(folder / name, facts["iterations"]) for name in ("undisturbed", "killed"))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_no_worker_is_left(runs):
    for worker in runs[1]["workers"]:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


def test_one_process_agrees_and_goes_on_with_the_run(runs, tmp_path):
    """To the tolerance of the design; and the same folder resumes with launchers.train and with one worker."""
    folder = runs[0]
    done = launch(*command(tmp_path / "one", 2, program="launchers.train"))
    assert done.returncode == 0, done.stderr
    for mine, other in zip(rows(tmp_path / "one"), rows(folder / "undisturbed"), strict=False):
        for name in ("return/fast_update_0", "return/fast_update_1"):
            if name in mine:
                np.testing.assert_allclose(float(mine[name]), float(other[name]), rtol=1e-3)
        assert mine["env_steps/total"] == other["env_steps/total"]
    done = launch(*command(tmp_path / "one", 3, "--num_workers=3"))
    assert done.returncode == 0, done.stderr
    assert "resumed from" in done.stderr
    assert [row["iteration"] for row in rows(tmp_path / "one")] == ["1", "2", "3"]


def test_sigterm_ends_the_run_and_its_workers_after_the_meta_update(tmp_path):
    process = start(*command(tmp_path / "run", 100_000, "--num_workers=2"))
    read_until(process, "1/100000  return")
    workers = workers_of(process)
    # As a terminal's Ctrl-C or a scheduler does: everyone in the group hears it.
    for pid in [*workers, process.pid]:
        os.kill(pid, signal.SIGTERM)
    log = process.communicate(timeout=100)[1]
    assert process.returncode == 128 + signal.SIGTERM, log
    assert "SIGKILL" not in log
    assert "raised" not in log
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--num_workers=0"], "flag --num_workers=0: 0 is not a positive integer"),
        (["--worker_timeout=0", "--gin_file=configs/tesp_point.gin"], "--worker_timeout must be at least 1"),
        (["--num_workers=4", "--gin_file=configs/tesp_point.gin", "--gin_param=META_BATCH_SIZE=3"], "4 shards are too"),
        (["--num_workers=2", "--gin_file=configs/mbmpo_hopper.gin"], "ImaginedData.stop_rule = 'per_task'"),
        (["--num_workers=2", "--gin_file=configs/mbmpc_half_cheetah.gin"], "MBMPCLearner cannot be spread"),
        (["--num_worker=2"], "Did you mean: num_workers"),
        (["--num_workers=2"], "which experiment?"),
    ],
)
def test_a_mistake_is_one_line(arguments, words, tmp_path, monkeypatch):
    done = launch(PROGRAM, *arguments, *([f"--logdir={tmp_path / 'run'}"] if len(arguments) > 1 else []))
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
