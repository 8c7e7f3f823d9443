"""A sweep on a Ray cluster."""

import contextlib
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from sweep_tools import SLEEPER, SWEEP, index_rows, running_sleepers, start, starts, wait_for

from metarl.experiment import sweep_command
from metarl.experiment.errors import UserError
from metarl.experiment.sweep_command import Request
from metarl.experiment.sweep_ray import RayLauncher
from metarl.scaling import ray_cluster


def test_ray_that_is_not_installed_is_one_line(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"^Ray is not installed; pip install"):
        sweep_command.run(Request(("study.gin",), sweeps=("RATE=[1]",), ray_address="auto"))
    assert not (study / "runs").exists()


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("127.0.0.1:1", "--ray_address=127.0.0.1:1: no Ray cluster can be joined there"),
        ("127.0.0.1:x", "--ray_address is auto, local or host:port, not '127.0.0.1:x'"),
        ("atuo", "did you mean 'auto'?"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_one_line_at_once(study, address, part):
    pytest.importorskip("ray")
    begin = time.monotonic()
    with pytest.raises(UserError) as caught:
        sweep_command.run(Request(("study.gin",), sweeps=("RATE=[1]",), ray_address=address))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begin < 10
    assert not (study / "runs").exists()


def test_a_sweep_on_ray_reports_stops_and_goes_on(study):
    pytest.importorskip("ray")
    (study / "sweep.py").write_text(SWEEP.replace("jobs=", 'ray_address="local", jobs='))
    sweep = start("RATE=[0.1, 0.3, 0.2]", 3)
    wait_for(lambda: Path("s/index.csv").exists() and index_rows()["0.3"]["state"] == "failed", 60)
    wait_for(lambda: index_rows()["0.1"]["state"] == "finished", 60)
    wait_for(lambda: running_sleepers(study), 60)
    time.sleep(0.3)
    sweep.send_signal(signal.SIGTERM)
    _, log = sweep.communicate(timeout=60)
    assert sweep.returncode == 128 + signal.SIGTERM, log
    assert index_rows()["0.2"]["state"] == "interrupted"
    assert index_rows()["0.3"]["message"] == "error: no such rate"
    assert not running_sleepers(study)
    assert {rate: starts(rate) for rate in ("0.1", "0.2", "0.3")} == {"0.1": 1, "0.2": 1, "0.3": 1}


def test_runs_that_wait_for_a_place_are_pending_and_do_not_keep_the_sweep(study):
    """A cluster of two CPUs, of which each run takes both: the third run never gets a place."""
    pytest.importorskip("ray")
    two = (
        "from metarl.scaling import ray_cluster\nray_cluster.joined = functools.partial(ray_cluster.joined, num_cpus=2)"
    )
    (study / "sleeper.py").write_text(SLEEPER + "import os\nprint(os.environ['OMP_NUM_THREADS'])\n")
    text = SWEEP.replace("jobs=", 'ray_address="local", cpus_per_run=2, jobs=')
    (study / "sweep.py").write_text(text.replace("request =", f"import functools\n{two}\nrequest ="))
    sweep = start("RATE=[0.1, 0.2, 0.4]", 3)
    try:
        wait_for(lambda: Path("s/index.csv").exists() and index_rows()["0.2"]["state"] == "running", 60)
        wait_for(lambda: running_sleepers(study), 60)
        row = index_rows()["0.4"]
        assert (row["state"], row["started"]) == ("pending", "")
        time.sleep(0.3)
        sweep.send_signal(signal.SIGTERM)
        _, log = sweep.communicate(timeout=30)
    finally:
        sweep.kill()
    assert sweep.returncode == 128 + signal.SIGTERM, log
    states = {rate: row["state"] for rate, row in index_rows().items()}
    assert states == {"0.1": "finished", "0.2": "interrupted", "0.4": "pending"}
    assert not running_sleepers(study)
    [said] = Path("s/logs").glob("RATE-0.1*")
    assert said.read_text().splitlines()[-1] == "2"


def test_more_cpus_than_a_machine_of_the_cluster_has_are_refused(monkeypatch):
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0}}, {"Alive": False, "Resources": {"CPU": 64.0}}]
    left = []

    @contextlib.contextmanager
    def joined(address):
        yield SimpleNamespace(nodes=lambda: nodes, remote=lambda **_: lambda actor: actor)
        left.append(address)

    monkeypatch.setattr(ray_cluster, "joined", joined)
    RayLauncher("auto", 8).close()
    with pytest.raises(UserError, match=r"^--cpus_per_run=9: no machine of the Ray cluster has more than 8 CPUs$"):
        RayLauncher("auto", 9)
    assert left == ["auto", "auto"]
