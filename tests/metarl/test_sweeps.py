"""Sweep lines, the runs they make, and the folder that knows them."""

import json
import math
import re
from pathlib import Path

import pytest

from configs import sweep_lines as independent
from metarl.experiment import sweep_check, sweep_command, sweep_lines, sweeps
from metarl.experiment.errors import UserError
from metarl.experiment.sweep_command import Request
from metarl.experiment.sweep_lines import Axis

STUDIES = sorted((Path(__file__).resolve().parents[2] / "configs" / "studies").glob("*.gin"))


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


def test_a_macro_that_is_defined_by_itself_is_one_line(study):
    params = ("A = %B", "B = [%A]", "Thing.mass = %A")
    with pytest.raises(UserError, match=r"^the macro [AB] is defined by itself$"):
        sweep_command.make_index(Request(("study.gin",), gin_params=params, sweeps=("RATE=[1]",)))


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


def finished_index(request):
    """The index of a sweep whose runs are finished, without what they trained."""
    index = sweep_command.make_index(request)
    for run in index.runs:
        run.state = sweeps.FINISHED
        index.run_path(run).mkdir(parents=True)
        (index.run_path(run) / "operative_config.gin").write_text("")
    index.write()
    return index


def states(request):
    return [run.state for run in sweep_command.make_index(request).runs]


def test_a_folder_that_is_no_sweep_or_another_sweep_is_refused(study):
    (study / "other").mkdir()
    (study / "other" / "precious").write_text("")
    with pytest.raises(UserError, match="not empty and not a sweep"):
        sweep_command.make_index(Request(("study.gin",), sweeps=("RATE=[1]",), logdir="other"))
    request = Request(("study.gin",), sweeps=("RATE=[1]",), logdir="s")
    finished_index(request)
    assert states(request) == [sweeps.FINISHED]
    (study / "twin.gin").write_text((study / "study.gin").read_text())
    with pytest.raises(UserError, match=r"^s holds a sweep with --gin_file study\.gin, not twin\.gin; choose another"):
        sweep_command.make_index(request._replace(gin_files=("twin.gin",)))
    for text in ("{", "[]", '{"runs": [1]}', '{"runs": [{"odd": 1}], "gin_files": [], "gin_params": []}'):
        (study / "s" / "sweep.json").write_text(text)
        with pytest.raises(UserError, match=r"sweep.json cannot be read"):
            sweep_command.make_index(request)


@pytest.mark.parametrize("by", ["--gin_param", "the file", "--gin_param, written by an older version"])
def test_more_iterations_make_finished_runs_look_again_and_fewer_are_refused(study, by, monkeypatch):
    monkeypatch.setattr(sweep_check, "require_same", lambda *_: None)  # the study's classes do not exist
    request = Request(("study.gin",), ("ITERATIONS = 5",), ("RATE=[1, 2]",), logdir="s")
    finished_index(request)
    if "older" in by:
        without_configuration(study / "s" / "sweep.json")

    def wanting(number):
        if by == "the file":
            (study / "study.gin").write_text((study / "study.gin").read_text() + f"ITERATIONS = {number}\n")
            return request._replace(gin_params=())
        return request._replace(gin_params=(f"ITERATIONS = {number}",))

    assert states(wanting(5)) == [sweeps.FINISHED] * 2
    assert states(wanting(9)) == [sweeps.PENDING] * 2
    with pytest.raises(UserError) as caught:
        sweep_command.make_index(wanting(4))
    assert str(caught.value).startswith("s holds finished runs of 5 meta-updates, more than the 4 wanted; raise ITER")


def without_configuration(path):
    """Takes away what older versions did not write."""
    content = json.loads(path.read_text())
    del content["configuration"], content["iterations"]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("edit", "looks"),
    [
        ("# a word\nRATE = 0.7\nSEED = 9\nITERATIONS = 4", False),
        ("WEIGHT = 2\nThing.mass = %WEIGHT", False),
        ("Thing.mass = 3", True),
        ("Thing.force = 3", True),
    ],
)
@pytest.mark.parametrize("older", [False, True])
def test_only_an_edit_that_may_matter_is_looked_at_closely(study, monkeypatch, edit, looks, older):
    """Without importing what is configured; a sweep that an older version wrote is always looked at."""
    request = Request(("study.gin",), sweeps=("RATE=[1, 2]",), seeds="1,2", logdir="s")
    index = finished_index(request)
    compared = []
    monkeypatch.setattr(sweep_check, "require_same", lambda *arguments: compared.append(arguments))
    if older:
        without_configuration(study / "s" / "sweep.json")
    (study / "study.gin").write_text((study / "study.gin").read_text() + edit)
    sweep_command.make_index(request._replace(sweeps=("RATE=[2, 3]",)))
    if not (older or looks):
        assert compared == []
        return
    [(files, params, samples)] = compared
    assert (files, params) == (("study.gin",), ())
    assert sorted(run.values["RATE"] for run, _ in samples) == ["1", "2"]
    assert {path for _, path in samples} <= {index.run_path(run) for run in index.runs}
