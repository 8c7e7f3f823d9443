"""Replicas of tf.distribute: on virtual devices of the CPU, and in two processes on loopback."""

import functools
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import scaling_agreement
from experiment_tools import TESTS, assert_help_is_quick, final_state, launch, program_environment, rows
from toy_shards import TOY_SHARDS

LAUNCHER = "launchers.distribute"


def cluster(index, ports):
    """The environment of one of the processes."""
    hosts = [f"127.0.0.1:{port}" for port in ports]
    described = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
    return program_environment() | {"TF_CONFIG": json.dumps(described)}


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start_two(command, **options):
    ports = free_ports(2)
    return [
        subprocess.Popen(command, env=cluster(index, ports), stderr=subprocess.PIPE, text=True, **options)
        for index in range(2)
    ]


def ended(processes, timeout=400):
    """Exit codes and logs."""
    try:
        logs = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], logs


@functools.cache
def alone(cases):
    return scaling_agreement.run(cases)


def load(path):
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.mark.parametrize(
    "cases",
    [
        ("tesp", "real_maml"),
        pytest.param(("maml", "metasgd", "maesn", "tesp_adapt_policy", "mbmpo", "metrpo"), marks=pytest.mark.slow),
    ],
    ids=",".join,
)
def test_two_replicas_agree_with_one_process(cases, tmp_path):
    command = [sys.executable, TESTS / "scaling_agreement.py", "mirrored", tmp_path / "found", *cases]
    done = subprocess.run(command, env=program_environment(), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    scaling_agreement.assert_agree(cases, alone(cases), load(tmp_path / "found_0.npz"))


@pytest.mark.parametrize(
    "cases",
    [
        ("real_maml",),
        pytest.param(("tesp", "mbmpo", "metrpo"), marks=pytest.mark.slow),
        pytest.param(("maml", "metasgd", "maesn", "tesp_adapt_policy"), marks=pytest.mark.slow),
    ],
    ids=",".join,
)
def test_two_processes_agree_with_one(cases, tmp_path):
    command = [sys.executable, TESTS / "scaling_agreement.py", "multi_worker", tmp_path / "found", *cases]
    codes, logs = ended(start_two(command))
    assert codes == [0, 0], logs
    scaling_agreement.assert_agree(cases, alone(cases), load(tmp_path / "found_0.npz"))
    for name, value in load(tmp_path / "found_0.npz").items():  # all processes go the same way, bit for bit
        np.testing.assert_array_equal(load(tmp_path / "found_1.npz")[name], value)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A working directory with `toy.gin` and an empty folder of faults."""
    (tmp_path / "faults").mkdir()
    (tmp_path / "toy.gin").write_text(TOY_SHARDS + f"ToyShardedLearner.faults = {str(tmp_path / 'faults')!r}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*more, logdir="run"):
    return [sys.executable, "-m", LAUNCHER, "--gin_file=toy.gin", f"--logdir={logdir}", *more]


def test_a_lost_peer_is_one_line_and_the_run_resumes(toy):
    (toy / "faults" / "evaluate_3").write_text("kill 4")  # the second shard, in its second iteration
    (survivor, victim), logs = ended(start_two(command("--strategy=multi_worker", "--peer_timeout=60")))
    assert victim == 9
    assert survivor == 4
    said = [line for line in logs[0].splitlines() if "meta-update" not in line and " 1/3 " not in line]
    assert len(said) == 1, logs[0]
    assert said[0].startswith("error: lost another process of the strategy")
    assert said[0].endswith("the same command goes on from the last checkpoint")
    assert len(rows("run")) == 1

    codes, logs = ended(start_two(command("--strategy=multi_worker")))
    assert codes == [0, 0], logs
    assert "resumed from" in logs[0]
    # The same split in one process that nobody disturbed: a sum of two has one order.
    done = launch(LAUNCHER, "--gin_file=toy.gin", "--logdir=mirrored", "--replicas=2", timeout=400)
    assert done.returncode == 0, done.stderr
    assert rows("run") == rows("mirrored")
    assert final_state("run") == final_state("mirrored")
    assert sorted(os.listdir(toy)) == ["faults", "mirrored", "run", "toy.gin"]  # the second process wrote nowhere


@pytest.mark.slow
def test_a_peer_that_hangs_is_lost_in_bounded_time(toy):
    (toy / "faults" / "evaluate_3").write_text("hang 4")
    chief, victim = start_two(command("--strategy=multi_worker", "--peer_timeout=15"))
    try:
        _, log = chief.communicate(timeout=400)
    finally:
        victim.kill()
        victim.communicate()
        chief.kill()
    assert chief.returncode == 4
    assert "lost another process of the strategy: it did not answer in time" in log


def test_peers_that_never_come_are_one_line(toy):
    ports = free_ports(2)
    arguments = command("--strategy=multi_worker", "--peer_timeout=1")
    done = subprocess.run(arguments, env=cluster(0, ports), capture_output=True, text=True, timeout=400)
    assert done.returncode == 4
    missing = f"worker 1 at 127.0.0.1:{ports[1]}"
    assert done.stderr.startswith(f"error: other processes of TF_CONFIG did not start within 1 seconds: {missing}; ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "needs the environment variable TF_CONFIG"),
        ("{", "TF_CONFIG is not JSON"),
        ("[]", "TF_CONFIG lacks a part"),
        ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG lacks a part or has a wrong one (KeyError('task'))"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "TF_CONFIG says worker 1"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "has a job 'ps'"),
        ('{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}', "the address 'a'"),
    ],
)
def test_a_broken_cluster_is_one_line(config, said):
    from metarl.experiment.errors import UserError
    from metarl.scaling import cluster_config

    with pytest.raises(UserError) as caught:
        cluster_config.require_cluster({} if config is None else {"TF_CONFIG": config})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--strategy=mirored"], "did you mean 'mirrored'?"),
        (["--strategy=multi_worker", "--replicas=2"], "--replicas is for --strategy=mirrored"),
        (["--replicas=6"], "6 shards are too many: ToyShardedLearner has 5 tasks"),
    ],
)
def test_mistakes_are_one_line(toy, flags, said):
    done = subprocess.run(command(*flags), env=program_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (toy / "run").exists()


def test_help_is_quick():
    assert_help_is_quick(LAUNCHER, "--strategy", "--replicas", "--peer_timeout", "--gin_file")
    assert_help_is_quick("launchers.ray_cluster", "--address", "--num_workers", "--worker_timeout", "--gin_file")
