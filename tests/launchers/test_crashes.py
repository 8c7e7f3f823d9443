"""A trainer of the real thing that is killed, damaged, disturbed or watched, always by the command line."""

import json
import shutil
import signal
import threading
import time

import numpy as np
import pytest
from experiment_tools import assert_same_run, launch, read_until, rows, start

from metarl.experiment.checkpoints import list_checkpoints

SIZES = {
    "META_BATCH_SIZE": 2, "ROLLOUTS_PER_TASK": 2, "HORIZON": 5, "INNER_UPDATES": 1, "HIDDEN_SIZES": [4, 4],
    "GRU_UNITS": 5, "EMBEDDING_DIM": 3, "TespLearner.num_goals": 4, "Validation.num_goals": 3,
    "Validation.frequency": 3, "MetaUpdate.num_evaluations": 3, "FinalTable.num_goals": 2,
    "Experiment.checkpoint_every": 1, "Experiment.figure_every": 0,
}  # fmt: skip
WIDE = {
    "META_BATCH_SIZE": 3, "ROLLOUTS_PER_TASK": 9, "HORIZON": 30, "INNER_UPDATES": 1, "Validation.frequency": 0,
    "FinalTable.num_goals": 0, "Experiment.checkpoint_every": 1,
}  # fmt: skip
ITERATIONS = 24


def command(logdir, iterations=ITERATIONS, config="configs/tesp_point.gin", sizes=SIZES):
    bindings = [f"--gin_param={name}={value}" for name, value in {**sizes, "ITERATIONS": iterations}.items()]
    return ["launchers.train", f"--gin_file={config}", f"--logdir={logdir}", *bindings]


def finish(process):
    """Waits for a trainer that must end well; returns its log."""
    log = process.communicate(timeout=200)[1]
    assert process.returncode == 0, log
    return log


def newest(run):
    return max(list_checkpoints(run))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of a run left alone, of one killed and resumed, and of one that also lost its newest checkpoint."""
    folder = tmp_path_factory.mktemp("crashes")
    undisturbed = start(*command(folder / "undisturbed"))
    victim = start(*command(folder / "killed"))
    read_until(victim, f"1/{ITERATIONS}  return")
    time.sleep(np.random.default_rng().uniform(0.0, 0.8))
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    facts = {"code": victim.returncode, "rows": len(rows(folder / "killed")), "checkpoint": newest(folder / "killed")}
    shutil.copytree(folder / "killed", folder / "damaged")
    damaged = list_checkpoints(folder / "damaged")[facts["checkpoint"]]
    damaged.write_bytes(damaged.read_bytes()[:-100])
    trainers = {name: start(*command(folder / name)) for name in ("killed", "damaged")}
    finish(undisturbed)
    facts["logs"] = {name: finish(trainer) for name, trainer in trainers.items()}
    return folder, facts


def test_kill_loses_at_most_one_interval_and_the_same_command_gives_the_same_run(runs):
    folder, facts = runs
    assert facts["code"] in (-signal.SIGKILL, 0)
    assert facts["checkpoint"] >= facts["rows"] - 1
    if facts["checkpoint"] < ITERATIONS:
        assert f"checkpoint_{facts['checkpoint']:08d}.npz" in facts["logs"]["killed"]
    assert_same_run(folder / "killed", folder / "undisturbed")
    assert len(rows(folder / "killed")) == ITERATIONS
    assert rows(folder / "killed")[2]["validation_test_1/return_1"]


def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_gives_the_same_run(runs):
    folder, facts = runs
    log = facts["logs"]["damaged"]
    assert f"checkpoint_{facts['checkpoint']:08d}.npz" in log
    assert "damaged" in log
    assert f"resumed from {folder}/damaged/checkpoints/checkpoint_{facts['checkpoint'] - 1:08d}.npz" in log
    assert_same_run(folder / "damaged", folder / "undisturbed")


def test_beside_a_live_trainer_another_is_refused_and_an_evaluation_works(tmp_path):
    trainer = start(*command(tmp_path / "run", 1_000_000))
    try:
        read_until(trainer, "2/1000000  return")
        log = []
        reader = threading.Thread(target=lambda: log.extend(trainer.stderr))  # a full pipe would stop the trainer
        reader.start()
        second = start(*command(tmp_path / "run", 1_000_000))
        evaluation = launch(
            "launchers.evaluate", f"--run={tmp_path}/run", "--goal_set=test_1", "--num_goals=2",
            f"--output={tmp_path}/result",
        )  # fmt: skip
        assert evaluation.returncode == 0, evaluation.stderr
        refusal = second.communicate(timeout=60)[1]
        assert second.returncode == 2
        assert refusal.count("\n") == 1
        assert f"run is being trained by process {trainer.pid} on " in refusal
        assert trainer.poll() is None
        seen = newest(tmp_path / "run")
    finally:
        trainer.terminate()
    assert trainer.wait(timeout=60) == 143
    reader.join()
    assert "the same command goes on after meta-update" in log[-1]
    summary = json.loads((tmp_path / "result" / "evaluation.json").read_text())
    assert 1 <= summary["iteration"] <= seen
    done = newest(tmp_path / "run")
    assert done == len(rows(tmp_path / "run")) >= seen


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_at_any_moment_of_a_run_at_the_paper_s_widths(tmp_path):
    """The start, the compilation and checkpoints included."""
    wide = {"config": "configs/tesp_wheeled.gin", "sizes": WIDE, "iterations": 6}
    began = time.monotonic()
    finish(start(*command(tmp_path / "undisturbed", **wide)))
    whole = time.monotonic() - began
    rng = np.random.default_rng()
    for _ in range(4):
        before = newest(tmp_path / "run") if (tmp_path / "run" / "checkpoints").is_dir() else -1
        victim = start(*command(tmp_path / "run", **wide))
        time.sleep(rng.uniform(0.2, 1.0) * whole)
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        if (tmp_path / "run" / "progress.csv").exists():
            assert newest(tmp_path / "run") >= max(before, len(rows(tmp_path / "run")) - 1)
    finish(start(*command(tmp_path / "run", **wide)))
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")
