"""launchers.multiprocess: a run like launchers.train's, with workers that can be killed."""

import contextlib
import dataclasses
import os
import signal
import subprocess

import failing_shards
import numpy as np
import pytest
import scaling_agreement
import tensorflow as tf
from experiment_tools import assert_help_is_quick, final_state, launch, read_until, rows, start

from metarl.scaling.process_pool import ProcessPool
from metarl.scaling.sharded_learner import split_sizes

PROGRAM = "launchers.multiprocess"
PATIENCE = 400  # seconds for what takes ten on an idle machine
TESP = {
    "META_BATCH_SIZE": 3, "ROLLOUTS_PER_TASK": 2, "HORIZON": 5, "INNER_UPDATES": 1, "HIDDEN_SIZES": [4, 4],
    "GRU_UNITS": 5, "EMBEDDING_DIM": 3, "TespLearner.num_goals": 4, "Validation.num_goals": 2,
    "Validation.frequency": 0,
    "MetaUpdate.num_evaluations": 3, "FinalTable.num_goals": 2, "Experiment.checkpoint_every": 1,
}  # fmt: skip


def command(logdir, iterations, *more, program=PROGRAM):
    bindings = [f"--gin_param={name}={value}" for name, value in {**TESP, "ITERATIONS": iterations}.items()]
    return [program, "--gin_file=configs/tesp_point.gin", f"--logdir={logdir}", *bindings, *more]


@contextlib.contextmanager
def started(*arguments):
    """A launcher's process, which does not outlive a test that fails."""
    process = start(*arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def workers_of(process):
    """Ids of the two processes that a launcher's process started, but for Python's resource tracker."""
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout
    workers = [int(line.split()[0]) for line in found.splitlines() if "spawn_main" in line]
    assert len(workers) == 2, found
    return workers


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of a run one of whose workers was killed and of one as long that nobody disturbed; what was seen."""
    folder = tmp_path_factory.mktemp("multiprocess")
    # However slow this test is to act, the run is not over by then.
    with started(*command(folder / "killed", 100_000, "--num_workers=2")) as victim:
        read_until(victim, "2/100000  return")
        workers = workers_of(victim)
        os.kill(workers[1], signal.SIGKILL)
        log = read_until(victim, "starting another in its place")
        read_until(victim, "/100000  return")
        workers = {*workers, *workers_of(victim)}
        victim.terminate()
        rest = victim.communicate(timeout=PATIENCE)[1]
        assert victim.returncode == 128 + signal.SIGTERM, rest
    iterations = len(rows(folder / "killed"))
    done = launch(*command(folder / "undisturbed", iterations, "--num_workers=2"), timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return folder, {"log": log, "workers": workers}


def test_help_needs_nothing_heavy_and_less_than_a_second():
    assert_help_is_quick(PROGRAM, "--gin_file", "--num_workers", "--worker_timeout")


def test_a_killed_worker_changes_nothing(runs):
    folder, facts = runs
    assert len(facts["workers"]) == 3
    assert "was killed by SIGKILL" in facts["log"]
    assert rows(folder / "undisturbed") == rows(folder / "killed")
    assert final_state(folder / "undisturbed") == final_state(folder / "killed")


def test_no_worker_is_left(runs):
    assert all(gone(worker) for worker in runs[1]["workers"])


def test_one_process_agrees_and_goes_on_with_the_run(runs, tmp_path):
    """To the tolerance of the design; and the same folder resumes with launchers.train and with three workers."""
    folder = runs[0]
    done = launch(*command(tmp_path / "one", 2, program="launchers.train"), timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    for mine, other in zip(rows(tmp_path / "one"), rows(folder / "undisturbed"), strict=False):
        for name in ("return/fast_update_0", "return/fast_update_1"):
            np.testing.assert_allclose(float(mine[name]), float(other[name]), rtol=1e-3)
        assert mine["env_steps/total"] == other["env_steps/total"]
    done = launch(*command(tmp_path / "one", 3, "--num_workers=3"), timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "resumed from" in done.stderr
    assert [row["iteration"] for row in rows(tmp_path / "one")] == ["1", "2", "3"]


def test_sigterm_ends_the_run_and_its_workers_after_the_meta_update(tmp_path):
    with started(*command(tmp_path / "run", 100_000, "--num_workers=2")) as process:
        read_until(process, "1/100000  return")
        workers = workers_of(process)
        # As a terminal's Ctrl-C or a scheduler does: everyone in the group hears it.
        for pid in [*workers, process.pid]:
            os.kill(pid, signal.SIGTERM)
        log = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 128 + signal.SIGTERM, log
    assert "SIGKILL" not in log
    assert "raised" not in log
    assert all(gone(worker) for worker in workers)


class MeteredPool(ProcessPool):
    """Lets nothing travel in an evaluation but parameters, vectors of their shape, gradients and scalars."""

    evaluations = 0

    def evaluate(self, own=None, **common):
        before = dataclasses.replace(self.traffic)
        sums, scalars = super().evaluate(own, **common)
        if self.traffic.replaced > before.replaced:  # a replacement is told everything again
            return sums, scalars
        workers, (parameters, _) = len(self.sizes), weighed(common["parameters"])
        sent, received = self.traffic.sent - before.sent, self.traffic.received - before.received
        asked, parts = weighed((common, own))
        assert asked <= 3 * parameters + 100 * self.num_tasks
        assert sent <= workers * (asked + 200 * parts + 1000)
        found, parts = weighed(sums)
        told, terms = weighed(scalars)
        assert found <= 2 * parameters
        assert told <= 40 * 8 * self.num_tasks
        assert received <= workers * (found + 200 * parts + 1000) + told + 200 * terms
        MeteredPool.evaluations += 1
        return sums, scalars


def weighed(nest):
    """Bytes, and the number of leaves, of a nest."""
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(nest) if leaf is not None and not isinstance(leaf, str)]
    return sum(leaf.nbytes for leaf in leaves), len(leaves)


@pytest.mark.slow  # the tests around it start the same workers; that a split agrees is shown in one process too
@pytest.mark.parametrize(
    "cases",
    [("metrpo",), ("tesp", "maml", "metasgd", "maesn", "tesp_adapt_policy", "real_maml")],
    ids=",".join,
)
def test_two_processes_agree_with_one(cases):
    """And per evaluation only parameters, gradients and scalars travel."""
    before = MeteredPool.evaluations

    def make_pool(text, num_tasks):
        return MeteredPool(text, split_sizes(num_tasks, 2), timeout=PATIENCE)

    found = scaling_agreement.run(cases, make_pool)
    assert MeteredPool.evaluations >= before + 2 * len(cases)
    scaling_agreement.assert_agree(cases, scaling_agreement.run(cases), found)


@pytest.mark.parametrize(
    "faults",
    [
        # In the middle of the first trust-region update, in the second iteration's collection.
        {"evaluate_2": "kill 4", "collect_0": "raise 2"},
        pytest.param({"evaluate_0": "hang 3", "adaptation_effect_2": "raise"}, marks=pytest.mark.slow),
    ],
    ids=["kill, raise", "hang, raise"],
)
def test_lost_workers_change_nothing_of_mbmpo(faults, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(failing_shards.FOLDER, str(tmp_path))

    def make_pool(text, num_tasks):
        # A worker that is merely slow beyond its limit is replaced too: no harm but for the time.
        return MeteredPool(text, split_sizes(num_tasks, 2), timeout=20.0)

    found = scaling_agreement.assert_lost_workers_change_nothing("mbmpo", make_pool, tmp_path, faults)
    said = {"kill": "ended with exit code 9", "hang": "did not answer for 20 seconds", "raise": "a toy divided by zero"}
    for fault in faults.values():
        assert said[fault.split()[0]] in caplog.text
    assert "in suffer" in caplog.text  # the traceback of the worker that raised
    monkeypatch.delenv(failing_shards.FOLDER)
    scaling_agreement.assert_agree(["mbmpo"], scaling_agreement.run(["mbmpo"]), found)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--num_workers=0"], "flag --num_workers=0: 0 is not a positive integer"),
        (["--worker_timeout=0", "--gin_file=configs/tesp_point.gin"], "--worker_timeout must be at least 1"),
        (["--num_workers=4", "--gin_file=configs/tesp_point.gin", "--gin_param=META_BATCH_SIZE=3"], "4 shards are too"),
        (["--num_workers=2", "--gin_file=configs/mbmpo_hopper.gin"], "ImaginedData.stop_rule = 'per_task'"),
        (["--num_workers=2", "--gin_file=configs/metrpo_hopper.gin"], "METRPOLearner.stop_rule = 'per_task'"),
        (
            ["--num_workers=2", "--gin_file=configs/maml_trpo_point_navigation.gin"],
            "MAMLLearner.stop_rule = 'per_task'",
        ),
        (["--num_workers=2", "--gin_file=configs/mbmpc_half_cheetah.gin"], "MBMPCLearner cannot be spread"),
        (["--num_worker=2"], "Did you mean: num_workers"),
        (["--num_workers=2"], "which experiment?"),
    ],
)
def test_a_mistake_is_one_line(arguments, words, tmp_path):
    logdir = [f"--logdir={tmp_path / 'run'}"] if len(arguments) > 1 else []
    done = launch(PROGRAM, *arguments, *logdir, timeout=PATIENCE)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
