"""Shards in actors of a local Ray cluster: the same results as in one process, whatever happens to the actors."""

import contextlib
import socket
import subprocess
import sys
import time

import failing_shards
import numpy as np
import pytest
import scaling_agreement
from experiment_tools import program_environment, rows
from toy_shards import TOY_SHARDS

from metarl.experiment import gin_front_door
from metarl.experiment.errors import UserError, WorkerError
from metarl.experiment.learner import NonFiniteError

pytest.importorskip("ray")
from metarl.scaling import ray_cluster
from metarl.scaling.pool import LocalPool
from metarl.scaling.ray_pool import RayPool
from metarl.scaling.sharded_learner import split_sizes


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def ray(faults):
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(failing_shards.FOLDER, str(faults))  # actors inherit it
            found = stack.enter_context(ray_cluster.joined("local", num_cpus=4))
        yield found


def build(faults):
    text = TOY_SHARDS + f"ToyShardedLearner.faults = {str(faults)!r}\n"
    return gin_front_door.build(gin_front_door.parse((), [text])).learner, text


@pytest.fixture(scope="module")
def pool(ray, faults):
    pool = RayPool(ray, build(faults)[1], split_sizes(5, 2), timeout=100.0)
    yield pool
    pool.close()


def run(learner):
    metrics = [learner.run_iteration(lambda _: None) for _ in range(3)]
    return metrics, learner.state()


@pytest.fixture(scope="module")
def undisturbed(faults):
    """The same split in this process."""
    learner, _ = build(faults)
    shards = [learner.make_part(first, count) for first, count in ((0, 3), (3, 2))]
    learner.use_pool(LocalPool(shards))
    return run(learner)


def assert_undisturbed(learner, undisturbed):
    metrics, state = run(learner)
    assert metrics == undisturbed[0]
    np.testing.assert_array_equal(state["w"], undisturbed[1]["w"])


def on(pool, faults):
    learner, _ = build(faults)
    learner.use_pool(pool)
    return learner


def test_actors_work_as_shards_of_this_process(pool, faults, undisturbed):
    before = pool.pids()
    assert_undisturbed(on(pool, faults), undisturbed)
    assert pool.pids() == before
    assert len(set(before)) == 2


@pytest.mark.parametrize(
    ("fault", "where"),
    [("kill", "collect_0"), ("hang", "evaluate_3"), ("raise", "evaluate_0"), ("kill 3", "collect_3")],
)
def test_a_lost_actor_changes_nothing(pool, faults, undisturbed, fault, where, caplog, monkeypatch):
    if fault == "hang":
        monkeypatch.setattr(pool, "_timeout", 4.0)
    replaced, before = pool.traffic.replaced, pool.pids()
    (faults / where).write_text(fault)
    assert_undisturbed(on(pool, faults), undisturbed)
    assert not (faults / where).exists()
    assert pool.traffic.replaced == replaced + 1
    assert len({*before, *pool.pids()}) == 3
    assert ("ZeroDivisionError: a toy divided by zero" in caplog.text) == (fault == "raise")
    assert ("in suffer" in caplog.text) == (fault == "raise")  # the worker's own traceback
    assert f"in '{where[:-2]}'; starting another in its place" in caplog.text


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("not_finite", NonFiniteError, "a toy is infinite"),
        ("user", UserError, "a toy is misused"),
        pytest.param(
            "always raise",
            WorkerError,
            "worker 1 (tasks 3-4) was lost 3 times in 'evaluate'.*divided by zero",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_errors_that_repetition_does_not_mend_reach_the_learner(pool, faults, fault, kind, message):
    (faults / "evaluate_3").write_text(fault)
    with pytest.raises(kind, match=message.replace("(", r"\(").replace(")", r"\)")):
        run(on(pool, faults))
    (faults / "evaluate_3").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "cases",
    [
        ("tesp",),
        pytest.param(("maml", "metasgd", "maesn", "tesp_adapt_policy"), marks=pytest.mark.slow),
        pytest.param(("mbmpo", "real_maml", "metrpo"), marks=pytest.mark.slow),
    ],
    ids=",".join,
)
def test_methods_agree_with_one_process(ray, cases):
    def make_pool(text, num_tasks):
        return RayPool(ray, text, split_sizes(num_tasks, 2), timeout=300.0)

    scaling_agreement.assert_agree(cases, scaling_agreement.run(cases), scaling_agreement.run(cases, make_pool))


@pytest.mark.slow
def test_lost_actors_change_nothing_of_mbmpo(ray, faults, caplog):
    def make_pool(text, num_tasks):
        return RayPool(ray, text, split_sizes(num_tasks, 2), timeout=20.0)

    mishaps = {"evaluate_2": "kill 4", "collect_0": "raise 2", "evaluate_0": "hang 8"}
    scaling_agreement.assert_lost_workers_change_nothing("mbmpo", make_pool, faults, mishaps)
    for said in ("was lost", "did not answer for 20 seconds", "a toy divided by zero", "in suffer"):
        assert said in caplog.text


def test_too_few_cpus_are_refused_at_once(ray, faults):
    with pytest.raises(UserError, match="2 workers of 4 CPU need 8 CPUs, and the cluster has 4"):
        RayPool(ray, build(faults)[1], (3, 2), timeout=3.0, threads=4)


def test_servers_of_a_local_cluster_listen_on_localhost_only(ray):
    address = ray.get_runtime_context().gcs_address
    assert address.startswith("127.0.0.1:")
    port = int(address.rpartition(":")[2])
    with socket.socket() as other:  # every other address of this machine is free for this port
        other.bind(("127.0.0.2", port))


def launch_toy(folder, *flags, **environment):
    (folder / "toy.gin").write_text(TOY_SHARDS)
    return launch(folder, "--gin_file=toy.gin", *flags, **environment)


def launch(folder, *flags, **environment):
    command = [sys.executable, "-m", "launchers.ray_cluster", "--logdir=run", *flags]
    return subprocess.run(
        command, cwd=folder, env=program_environment() | environment, capture_output=True, text=True, timeout=300
    )


def test_a_running_cluster_is_joined_and_left_alone(ray, tmp_path, undisturbed):
    done = launch_toy(tmp_path, "--address=auto", "--num_workers=2", RAY_ADDRESS=ray.get_runtime_context().gcs_address)
    assert done.returncode == 0, done.stderr
    assert all(" loop.py:" in line for line in done.stderr.splitlines()[:4]), done.stderr  # Ray itself says nothing
    assert [float(row["toy/return"]) for row in rows(tmp_path / "run")] == [one["toy/return"] for one in undisturbed[0]]
    assert len(ray.nodes()) == 1


def test_a_number_of_actors_that_the_cluster_decides_is_checked_too(ray, pool, tmp_path):
    """Four CPUs, two of them taken: two actors, and episodes that end early at different times."""
    assert int(ray.available_resources()["CPU"]) == 2
    address = ray.get_runtime_context().gcs_address
    done = launch(tmp_path, "--gin_file=configs/maml_trpo_point_navigation.gin", f"--address={address}")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: episodes of point_navigation end at different times")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nowhere", "auto, local or host:port"),
        ("127.0.0.1:1", "Connection refused"),
        pytest.param("auto", "not a Ray cluster", marks=pytest.mark.slow),
    ],
)
def test_unreachable_clusters_are_one_line_in_bounded_time(address, said, tmp_path):
    began = time.monotonic()
    done = launch_toy(tmp_path, f"--address={address}", RAY_ADDRESS="127.0.0.1:1")
    assert time.monotonic() - began < 200  # a tenth of it, where the machine is not busy
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("failures", [1, 2])
def test_a_cluster_that_does_not_start_is_started_once_more_and_then_one_line(failures, monkeypatch):
    begun = []

    def init(**options):
        begun.append(options["address"])
        if len(begun) <= failures:
            raise Exception("The current node\ntimed out during startup.")  # as Ray does: of no narrower class

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    if failures == 1:
        with ray_cluster.joined("local"):
            pass
    else:
        with pytest.raises(UserError, match="The current node timed out during startup") as caught:
            ray_cluster.joined("local").__enter__()
        assert "\n" not in str(caught.value)
    assert begun == ["local", "local"]


def test_without_ray_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="Ray is not installed"), ray_cluster.joined("auto"):
        pass
