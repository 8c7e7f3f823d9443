import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs import sweep_lines as independent
from metarl.experiment import console, sweep_command, sweep_lines, sweep_runner, sweeps
from metarl.experiment.errors import UserError
from metarl.experiment.run_directory import RunDirectory
from metarl.experiment.sweep_command import Request
from metarl.experiment.sweep_lines import Axis

PROJECT = Path(__file__).resolve().parents[2]
STUDIES = sorted((PROJECT / "configs" / "studies").glob("*.gin"))

CONFIG = """# A study.
# seeds: 4, 5
# sweep: RATE=[0.1, 0.2]
# sweep: (WIDTH, HEIGHT)=[(1, 2), (3, 4)]
SEED = 7
ITERATIONS = 3
RATE = 0.5
WIDTH = 1
HEIGHT = 1
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


@pytest.mark.parametrize(
    ("line", "names", "values"),
    [
        ("INNER_LR=[1e-3,1e-2]", ("INNER_LR",), ((0.001,), (0.01,))),
        (" TESP.inner_lr = [1] ", ("TESP.inner_lr",), ((1,),)),
        ("(A, B)=[(1, 'x'), (2, None)]", ("A", "B"), ((1, "x"), (2, None))),
        ("RANGE=[[0.0, 0.1], [0.0, 1.0]]", ("RANGE",), (([0.0, 0.1],), ([0.0, 1.0],))),
        ("scope/Thing.flag=[True, False]", ("scope/Thing.flag",), ((True,), (False,))),
    ],
)
def test_a_sweep_line(line, names, values):
    assert sweep_lines.parse(line, "--sweep") == Axis(names, values)


def test_references_stay_gin_text():
    # A name that nobody registers: gin writes registered ones, of whatever test came before, with their module.
    [first, second] = sweep_lines.parse("META_UPDATE=[@NobodysUpdate(), %OTHER]", "--sweep").values
    assert (repr(first[0]), repr(second[0])) == ("@NobodysUpdate()", "%OTHER")


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("A=1", "not NAME=[value, ...]"),
        ("A", "not NAME=[value, ...]"),
        ("A=[]", "has no values"),
        ("(A, B)=[1, 2]", "a tuple of 2, got 1"),
        ("(A, B)=[(1, 2, 3)]", "a tuple of 2, got (1, 2, 3)"),
        ("A, B=[(1, 2)]", "stand in parentheses"),
        ("A=[1, 2", "not NAME=[value, ...]"),
        ("A=[os.remove('x')]", "not a list of gin values"),
        ("A=[1]\nB=[2]", "gin value"),
        ("../A=[1]", "is not"),
    ],
)
def test_a_wrong_sweep_line_is_one_line(line, part):
    with pytest.raises(UserError) as caught:
        sweep_lines.parse(line, "--sweep")
    assert part in str(caught.value)
    assert str(caught.value).startswith("--sweep: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "part"), [("1,x", "'x'"), ("1,,2", "''"), ("1,1", "twice"), ("-1", "'-1'")])
def test_wrong_seeds_are_named(text, part):
    with pytest.raises(UserError, match=re.escape(part)):
        sweep_lines.parse_seeds(text, "--seeds")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_headers_are_read_as_they_stand(path):
    """Against the parser of the configs' tests; every name is one that the config has."""
    axes, seeds = sweep_lines.of_header([path])
    expected = independent.of_file(path)
    assert [(axis.names, axis.values) for axis in axes] == [(sweep.names, sweep.values) for sweep in expected]
    assert (seeds or ()) == independent.seeds(path)
    if axes:
        index = sweep_command.make_index(Request((str(path),), from_header=True, logdir="nowhere/at_all"))
        assert len(index.runs) == len(seeds or [1]) * math.prod(len(axis.values) for axis in axes)


def test_grid_and_coupled_values_and_seeds_of_the_header(study):
    index = sweep_command.make_index(Request(("study.gin",), sweeps=("header",)))
    assert [(run.values["RATE"], run.values["WIDTH"], run.values["HEIGHT"], run.seed) for run in index.runs] == [
        (rate, width, height, seed)
        for rate in ("0.1", "0.2")
        for width, height in (("1", "2"), ("3", "4"))
        for seed in (4, 5)
    ]
    assert len({run.folder for run in index.runs}) == 8
    assert index.runs[0].bindings == ["RATE = 0.1", "WIDTH = 1", "HEIGHT = 2"]
    assert not (study / "runs").exists()


def test_seeds_default_to_the_configs_own_and_a_flag_replaces_the_headers(study):
    index = sweep_command.make_index(Request(("study.gin",), sweeps=("RATE=[1]",)))
    assert [run.seed for run in index.runs] == [7]
    index = sweep_command.make_index(Request(("study.gin",), from_header=True, seeds="9"))
    assert {run.seed for run in index.runs} == {9}


@pytest.mark.parametrize(
    ("line", "names"),
    [("rate=[1]", ["RATE"]), ("speed=[1]", ["Thing.speed"]), ("Any.thing=[1]", ["Any.thing"])],
)
def test_a_name_may_be_written_small_or_without_its_owner(study, line, names):
    index = sweep_command.make_index(Request(("study.gin",), sweeps=(line,)))
    assert list(index.runs[0].values) == names


@pytest.mark.parametrize(
    ("sweeps_", "message"),
    [
        (("RATES=[1]",), "--sweep: the config has no macro 'RATES'; did you mean 'RATE'?"),
        (("mass=[1]",), "--sweep: 'mass' may be any of Other.mass, Thing.mass"),
        (("RATE=[1]", "rate=[2]"), "--sweep: RATE is swept twice"),
        (("SEED=[1]",), "--sweep: the seeds of a sweep are --seeds"),
        (("RATE=[1, 2, 1]",), "--sweep: RATE=1 seed=7 is there twice"),
        ((), "what is to be swept?"),
    ],
)
def test_a_wrong_request_names_the_mistake(study, sweeps_, message):
    with pytest.raises(UserError) as caught:
        sweep_command.make_index(Request(("study.gin",), sweeps=sweeps_))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"include 'binary.gin'\n"])
def test_a_gin_file_that_is_no_text_is_one_line(study, content):
    (study / "binary.gin").write_bytes(b"\xff")
    (study / "study.gin").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read the gin file '(study|binary)\.gin'"):
        sweep_command.make_index(Request(("study.gin",), seeds="1"))


def test_no_value_chooses_a_folder_outside_the_sweep(study):
    values = ["../../etc", "a/b", "a_b", "a b", "/", "..", ".", "", "x" * 500, "\n", "ü", "-rf", "$(touch x)"]
    runs = sweeps.plan([Axis(("RATE",), tuple((value,) for value in values))], [1])
    assert len({run.folder for run in runs}) == len(values)
    for run in runs:
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,100}/seed_1", run.folder)
        assert ".." not in run.folder
        assert not run.folder.startswith((".", "-"))
        [binding] = run.bindings
        assert "\n" not in binding


def test_a_symbolic_link_that_leads_out_is_refused(study):
    index = sweep_command.make_index(Request(("study.gin",), sweeps=("RATE=[1]",), logdir="s"))
    (study / "s").mkdir()
    (study / "elsewhere").mkdir()
    index.write()
    (study / "s" / index.runs[0].folder.split("/")[0]).symlink_to(study / "elsewhere")
    with pytest.raises(UserError, match="leads out"):
        sweep_command.make_index(Request(("study.gin",), sweeps=("RATE=[1]",), logdir="s"))


def test_a_folder_that_is_no_sweep_or_another_sweep_is_refused(study):
    (study / "other").mkdir()
    (study / "other" / "precious").write_text("")
    with pytest.raises(UserError, match="not empty and not a sweep"):
        sweep_command.make_index(Request(("study.gin",), sweeps=("RATE=[1]",), logdir="other"))
    (study / "s").mkdir()
    request = Request(("study.gin",), ("WIDTH = 2", "ITERATIONS = 5"), ("RATE=[1]",), logdir="s")
    index = sweep_command.make_index(request)
    index.runs[0].state = sweeps.FINISHED
    (study / "s" / index.runs[0].folder).mkdir(parents=True)
    (study / "s" / index.runs[0].folder / "operative_config.gin").write_text("")
    index.write()
    assert sweep_command.make_index(request).runs[0].state == sweeps.FINISHED
    with pytest.raises(UserError, match="--gin_param WIDTH = 2, not WIDTH = 3"):
        sweep_command.make_index(request._replace(gin_params=("WIDTH = 3",)))
    longer = sweep_command.make_index(request._replace(gin_params=("WIDTH = 2", "ITERATIONS = 9")))
    assert longer.runs[0].state == sweeps.PENDING
    for text in ("{", "[]", '{"runs": [1]}', '{"runs": [{"odd": 1}], "gin_files": [], "gin_params": []}'):
        (study / "s" / "sweep.json").write_text(text)
        with pytest.raises(UserError, match=r"sweep.json cannot be read"):
            sweep_command.make_index(request)


def test_a_failed_run_is_told_and_stops_nothing_and_is_tried_again(study):
    done = start("RATE=[0.3, 0.1]")
    _, log = done.communicate(timeout=60)
    assert done.returncode == sweep_runner.SOME_FAILED, log
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
    assert again.returncode == sweep_runner.SOME_FAILED
    assert (starts("0.3"), starts("0.1")) == (2, 1)


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


def test_the_jobs_run_side_by_side_and_no_more(study, monkeypatch):
    """A launcher whose processes end on demand."""
    index = sweep_command.make_index(Request(("study.gin",), sweeps=("RATE=[1, 2, 3, 4, 5]",), logdir="s"))
    alive, most, order = [], [], []

    class Process:
        def __init__(self, name):
            self.name, self.looks = name, 0
            alive.append(self)

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


def test_runs_that_a_killed_sweep_left_at_work_are_waited_for(study, capsys):
    index = sweep_command.make_index(Request(("study.gin",), sweeps=("RATE=[1, 2]",), logdir="s"))
    left = RunDirectory(index.run_path(index.runs[0]))
    left.acquire()
    index.write()
    started = []

    class Ended:
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
