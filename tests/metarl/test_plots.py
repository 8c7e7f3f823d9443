"""Runs found and grouped, any column against any other, and the files that are written."""

import csv
import time

import numpy as np
import pytest
from run_folders import make, progress

from metarl.experiment.errors import UserError
from metarl.reporting import figures, layouts, plot_command, runs
from metarl.reporting.plot_command import Request


def one_panel(path, x="iteration", y="return", group_by=("method",), points=200):
    [panel] = layouts.columns(runs.find([str(path)]), x, [y], group_by, points).panels
    return panel


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_runs_are_found_in_sweeps_and_globs_each_once(tmp_path):
    for number in (1, 2, 3):
        make(tmp_path / "sweep" / "lr" / f"seed_{number}", progress([1.0]), seed=number)
    make(tmp_path / "sweep" / "lr" / "seed_4", [])
    (tmp_path / "sweep" / "lr" / "seed_4" / "progress.csv").write_text("")
    (tmp_path / "sweep" / "logs").mkdir()
    found = runs.find([str(tmp_path / "sweep"), str(tmp_path / "sweep" / "*" / "seed_[12]")])
    assert [run.path.name for run in found] == ["seed_1", "seed_2", "seed_3"]
    assert [run.settings["seed"] for run in found] == ["1", "2", "3"]
    assert len({run.configuration for run in found}) == 1
    with pytest.raises(UserError, match=r"there is no folder .*sweeep'; did you mean 'sweep'\?"):
        runs.find([str(tmp_path / "sweeep")])
    with pytest.raises(UserError, match="holds no run"):
        runs.find([str(tmp_path / "sweep" / "logs")])


def test_a_configuration_is_read_and_not_executed(tmp_path):
    folder = make(tmp_path / "run", progress([1.0]))
    config = folder / "operative_config.gin"
    config.write_text("import antigravity_that_does_not_exist\n" + config.read_text() + "HIDDEN = @Danger()\n")
    [run] = runs.find([str(folder)])
    assert (run.method, run.family, run.settings["TESP.inner_lr"]) == ("TESP", "HalfCheetah", "0.001")
    assert run.settings["HIDDEN"] == "@Danger()"
    config.write_text("a = = b\n")
    with pytest.raises(UserError, match="not valid gin"):
        runs.find([str(folder)])


def append(folder, text):
    config = folder / "operative_config.gin"
    config.write_text(config.read_text() + text)


def test_what_a_resume_may_change_and_threads_are_no_other_configuration(tmp_path):
    usual = "Experiment.checkpoint_every = 10\nruntime.intra_op_threads = 0\n"
    append(make(tmp_path / "1", progress([1.0])), usual)
    append(make(tmp_path / "2", progress([1.0]), seed=2), usual.replace("10", "3"))
    append(make(tmp_path / "3", progress([1.0]), seed=3), usual.replace("10", "%OFTEN") + "OFTEN = 7\n")
    append(make(tmp_path / "4", progress([1.0]), seed=4), usual.replace("threads = 0", "threads = 1"))
    append(make(tmp_path / "5", progress([1.0]), seed=5), usual + "metarl.Experiment.figure_every = 5\n")
    found = runs.find([str(tmp_path)])
    assert len({run.configuration for run in found}) == 1
    assert [run.settings["Experiment.checkpoint_every"] for run in found] == ["10", "3", "7", "10", "10"]
    append(tmp_path / "3", "TespLearner.num_goals = 5\n")
    make(tmp_path / "6", progress([1.0]), seed=6, inner_lr=0.1)
    assert len({run.configuration for run in runs.find([str(tmp_path)])}) == 3


def test_a_row_that_is_being_written_is_left_out_and_a_word_is_a_mistake(tmp_path):
    make(tmp_path / "torn", progress([1.0, None, 3.0]), torn="4,4.0,40")
    make(tmp_path / "torn_number", progress([1.0, 2.0]), torn="3,4.")
    [torn, number] = runs.find([str(tmp_path)])
    steps, values = torn.read(["env_steps/total", "return"])
    np.testing.assert_array_equal(steps, [100, 200, 300])
    np.testing.assert_array_equal(values, [1, np.nan, 3])
    np.testing.assert_array_equal(number.read(["return"])[0], [1, 2])
    make(tmp_path / "words", progress([1.0, "two"]))
    [words] = runs.find([str(tmp_path / "words")])
    with pytest.raises(UserError, match="not a number"):
        words.read(["return"])


def test_groups_by_method_macro_and_binding_in_the_order_of_numbers(tmp_path):
    for rate in (0.1, 0.01, 1e-05):
        for seed in (1, 2):
            make(tmp_path / f"lr_{rate}" / str(seed), progress([rate]), seed=seed, inner_lr=rate)
    make(tmp_path / "maml", progress([7.0]), method="MAML", inner_lr=0.1)
    found = runs.find([str(tmp_path)])
    assert {label: len(group) for label, group in runs.group(found, ["method"]).items()} == {"MAML": 1, "TESP": 6}
    by_macro = runs.group(found, ["INNER_LR"])
    assert list(by_macro) == ["INNER_LR = 1e-05", "INNER_LR = 0.01", "INNER_LR = 0.1"]
    assert len(by_macro["INNER_LR = 0.1"]) == 3
    assert list(runs.group(found, ["TESP.inner_lr"]))[-1] == "TESP.inner_lr = none"
    assert next(iter(runs.group(found, ["method", "INNER_LR"]))) == "MAML, INNER_LR = 0.1"
    assert len(runs.where(found, ["INNER_LR=1e-1", "method=TESP"])) == 2
    assert list(runs.group(found[:1], ["MAML.inner_lr"])) == ["MAML.inner_lr = none"]
    with pytest.raises(UserError, match=r"--group_by: no run has .* 'INER_LR'; did you mean 'INNER_LR'\?"):
        runs.check_names(found, ["method", "INER_LR"], "--group_by")
    with pytest.raises(UserError, match=r"--where=INNER_LR=3: no run is so; INNER_LR is 0.01, 0.1, 1e-05"):
        runs.where(found, ["INNER_LR=3"])
    with pytest.raises(UserError, match=r"--where=TESP.inner_lr=0.1: no run is so; TESP.inner_lr is not set"):
        runs.where(found, ["method=MAML", "TESP.inner_lr=0.1"])
    with pytest.raises(UserError, match="is not NAME=value"):
        runs.where(found, ["INNER_LR"])


def test_groups_whose_short_names_are_alike_stay_apart(tmp_path):
    for module in ("a", "b"):
        folder = make(tmp_path / module, progress([1.0]))
        config = folder / "operative_config.gin"
        config.write_text(config.read_text() + f"PART = @{module}.Name()\n")
    grouped = runs.group(runs.find([str(tmp_path)]), ["PART"])
    assert {label: len(members) for label, members in grouped.items()} == {"PART = @a.Name()": 1, "PART = @b.Name()": 1}


def test_columns_against_steps_iterations_and_time(tmp_path):
    seconds = {"time/meta_update": [2.0, None, 3.0]}
    make(tmp_path / "1", progress([1.0, 2.0, 3.0], **seconds), seed=1)
    make(tmp_path / "2", progress([3.0, 4.0, 5.0, 6.0], **{"time/meta_update": [2.0, 0.0, 3.0, 5.0]}), seed=2)
    [curve] = one_panel(tmp_path).curves
    np.testing.assert_array_equal(curve.x, [1, 2, 3, 4])
    np.testing.assert_array_equal(curve.summary.runs, [2, 2, 2, 1])
    np.testing.assert_allclose(curve.summary.mean, [2, 3, 4, 6])
    np.testing.assert_array_equal(one_panel(tmp_path, "env_steps").curves[0].x, [100, 200, 300, 400])
    [curve] = one_panel(tmp_path, "time").curves
    np.testing.assert_array_equal(curve.x, [2, 5, 10])
    np.testing.assert_allclose(curve.summary.mean, [3, 4, 6])  # of equal times the later row


def test_iterations_are_meta_updates_only_where_they_hold_one_each(tmp_path):
    """An iteration of MB-MPO's family holds META_STEPS of them, or another method's updates."""
    make(tmp_path / "tesp" / "1", progress([1.0], **{"time/meta_update": [1.0]}))
    make(tmp_path / "mbmpo" / "1", progress([1.0], **{"time/iteration": [1.0]}), method="MBMPO", family="Point2D")
    assert one_panel(tmp_path / "tesp").x_label == "meta-updates"
    assert one_panel(tmp_path / "mbmpo").x_label == "iterations"
    mixed = layouts.columns(runs.find([str(tmp_path)]), "iteration", ["return"], ["method"], 10)
    assert [panel.x_label for panel in mixed.panels] == ["iterations", "iterations"]  # and one column of the table
    assert one_panel(tmp_path / "mbmpo", "time").x_label == "training time, seconds"


def test_return_stands_for_what_each_method_calls_so(tmp_path):
    """Before adaptation, else of the collected data, else after the last fast-update."""
    for number, columns in enumerate(
        (
            {"real/return": 1.0, "pre_update/return": 2.0},
            {"return": 1.0, "real/return": 3.0},
            {f"return/fast_update_{k}": 10.0 * k for k in range(12)},
        )
    ):
        method = ("MBMPO", "METRPO", "TESP")[number]
        make(tmp_path / method, [{"iteration": 1, **columns}], method=method)
    plan = layouts.columns(runs.find([str(tmp_path)]), "iteration", ["return"], ["method"], 10)
    means = {curve.label: curve.summary.mean[0] for curve in plan.panels[0].curves}
    assert means == {"MB-MPO": 2.0, "ME-TRPO": 3.0, "TESP": 110.0}


def test_every_environment_has_its_own_panel(tmp_path):
    make(tmp_path / "1", progress([1.0]), family="Ant")
    make(tmp_path / "2", progress([5.0]), family="Wheeled")
    plan = layouts.columns(runs.find([str(tmp_path)]), "iteration", ["return"], ["method"], 10)
    assert [(panel.title, panel.curves[0].summary.mean[0]) for panel in plan.panels] == [("Ant", 1), ("Wheeled", 5)]


@pytest.mark.parametrize(
    ("row", "missing"),
    [
        ({"env_steps/total": 5}, "return"),
        ({"return": 1.0}, "env_steps/counted or env_steps/total"),
        ({"length": 1.0}, "return, nor env_steps/counted or env_steps/total"),
    ],
)
@pytest.mark.parametrize("layout", ["columns", "mbmpo"])
def test_a_run_is_left_out_for_the_reason_that_is_told(tmp_path, caplog, layout, row, missing):
    make(tmp_path / "whole", progress([1.0], 10_000))
    make(tmp_path / "part", [{"iteration": 1, **row}])
    if layout == "mbmpo":
        missing = missing.replace("return", "pre_update/return or real/return or return")
    plot_command.run(Request((str(tmp_path),), layout=layout, output=str(tmp_path / "plots")))
    [told] = [record.message for record in caplog.records if "left out" in record.message]
    assert told == f"left out: {tmp_path / 'part'} has no column {missing}"


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ("iteration", "retrun", "--y: no run has a column 'retrun'; did you mean 'return'?"),
        ("env_step", "return", "--x: no run has a column 'env_step'; did you mean 'env_steps'?"),
        ("time", "return", "--x=time: no run has a column time/iteration or time/meta_update"),
        ("iteration", "total", "--y: no run has a column 'total'; did you mean 'env_steps/total'?"),
    ],
)
def test_a_column_that_is_nowhere_is_named_with_the_nearest(tmp_path, x, y, message):
    make(tmp_path / "1", progress([1.0]))
    with pytest.raises(UserError) as caught:
        plot_command.run(Request((str(tmp_path),), x=x, y=(y,), output=str(tmp_path / "plots")))
    assert str(caught.value) == message
    assert not (tmp_path / "plots").exists()


def test_files_hold_what_is_drawn_and_are_not_replaced_unasked(tmp_path):
    for seed in (1, 2, 3):
        make(tmp_path / "runs" / str(seed), progress([1.0 * seed, 2.0 * seed, 4.0 * seed][: seed + 1]), seed=seed)
    output = tmp_path / "out" / "deep"
    request = Request((str(tmp_path / "runs"),), x="iteration", output=str(output))
    assert plot_command.run(request) == 0
    names = {path.name for path in output.iterdir()}
    assert names == {"return_vs_iteration.png", "return_vs_iteration.pdf", "return_vs_iteration.csv"}
    assert (output / "return_vs_iteration.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "return_vs_iteration.pdf").read_bytes().startswith(b"%PDF")
    rows = table(output / "return_vs_iteration.csv")
    assert [(row["group"], row["meta-updates"], row["runs"], row["mean"]) for row in rows] == [
        ("TESP", "1", "3", "2"), ("TESP", "2", "3", "4"), ("TESP", "3", "2", "10")
    ]  # fmt: skip
    assert float(rows[0]["iqm"]) == pytest.approx(2.0)
    assert float(rows[0]["mean_low"]) < 2 < float(rows[0]["mean_high"])
    before = (output / "return_vs_iteration.png").read_bytes()
    (output / "return_vs_iteration.csv").unlink()
    with pytest.raises(UserError, match=r"return_vs_iteration\.png exists; --overwrite replaces it"):
        plot_command.run(request)
    assert {path.name for path in output.iterdir()} == names - {"return_vs_iteration.csv"}
    make(tmp_path / "runs" / "4", progress([50.0]), seed=4)
    assert plot_command.run(request._replace(overwrite=True)) == 0
    assert (output / "return_vs_iteration.png").read_bytes() != before
    assert plot_command.run(request._replace(name="mine")) == 0
    assert (output / "mine.csv").read_bytes() == (output / "return_vs_iteration.csv").read_bytes()
    with pytest.raises(UserError, match="cannot name a folder"):
        plot_command.run(request._replace(name="../mine"))


@pytest.mark.parametrize("statistic", figures.STATISTICS)
def test_the_part_that_not_all_runs_reach_is_pale(tmp_path, statistic):
    make(tmp_path / "1", progress([1.0, 2.0, 3.0, 4.0]), seed=1)
    make(tmp_path / "2", progress([1.0, 2.0]), seed=2)
    plan = layouts.columns(runs.find([str(tmp_path)]), "iteration", ["return"], ["method"], 10)
    figure = figures.draw(plan, statistic)
    solid, pale = figure.axes[0].lines[:2]
    np.testing.assert_array_equal(solid.get_ydata(), [1, 2, np.nan, np.nan])
    np.testing.assert_array_equal(pale.get_ydata(), [np.nan, 2, 3, 4])
    assert pale.get_alpha() < 0.6
    assert "pale" in figure.legends[0].get_title().get_text()
    assert "TESP (2 runs)" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_part_is_pale_although_no_point_has_all_runs(tmp_path):
    """Where two of three runs overlap, one is missing as much as where the third is alone."""
    for seed, iterations in ((1, range(1, 4)), (2, range(1, 6)), (3, range(6, 8))):
        rows = [{"iteration": i, "return": float(i)} for i in iterations]
        make(tmp_path / str(seed), rows, seed=seed)
    plan = layouts.columns(runs.find([str(tmp_path)]), "iteration", ["return"], ["method"], 10)
    np.testing.assert_array_equal(plan.panels[0].curves[0].summary.runs, [2, 2, 2, 1, 1, 1, 1])
    figure = figures.draw(plan, "mean")
    solid, pale = figure.axes[0].lines
    assert np.isnan(solid.get_ydata()).all()
    np.testing.assert_array_equal(pale.get_ydata(), range(1, 8))
    assert pale.get_alpha() < 0.6
    dashed = figures.draw(plan, "both").axes[0].lines[2:]  # the interquartile mean
    assert [line.get_alpha() for line in dashed if not np.isnan(line.get_ydata()).all()] == [pale.get_alpha()]


def test_a_hundred_runs_of_a_thousand_rows_take_less_than_five_seconds(tmp_path):
    rng = np.random.default_rng(0)
    metrics = {f"metric/{i}": [float(value) for value in rng.normal(size=1000)] for i in range(30)}
    for group in range(10):
        rows = progress([float(v) for v in rng.normal(size=1000)], 4000 + group, **metrics)
        first = make(tmp_path / f"{group}" / "seed_1", rows, inner_lr=group / 100)
        for seed in range(2, 11):
            folder = make(tmp_path / f"{group}" / f"seed_{seed}", [], inner_lr=group / 100, seed=seed)
            (folder / "progress.csv").write_bytes((first / "progress.csv").read_bytes())
    best = np.inf
    for attempt in range(3):
        begin, used = time.perf_counter(), time.process_time()
        output = str(tmp_path / f"plots_{attempt}")
        assert plot_command.run(Request((str(tmp_path),), group_by=("INNER_LR",), output=output)) == 0
        # What other processes take of the cores is not counted: nearly all of it is one thread's work.
        best = min(best, time.perf_counter() - begin, time.process_time() - used)
        if best < 4:
            break
    assert best < 4  # the imports take less than another second
    assert len(table(tmp_path / "plots_0" / "return_vs_env_steps.csv")) > 10 * 100


@pytest.mark.parametrize(
    ("name", "content", "layout", "message"),
    [
        ("progress.csv", b"a" * 300_000, "columns", r"progress\.csv cannot be read: it is not a table$"),
        ("final.csv", b"a" * 300_000, "tesp", r"final\.csv cannot be read: it is not a table$"),
        ("final.csv", b"goal_set,fast_update_0\ntrain,x\n", "tesp", "a return in its final table is not a number$"),
        ("final.csv", b"goal_set,fast_update_0\ntrain\n", "tesp", "--layout=tesp: no run has columns"),
        ("final.csv", b"\xff\x00\n\xfe,1,2\n", "tesp", "--layout=tesp: no run has columns"),
        ("progress.csv", b"iteration,return,env_steps/total\n1,2,900\n", "mbmpo", "no run has enough steps"),
    ],
)
def test_damaged_tables_are_one_line(tmp_path, name, content, layout, message):
    run = make(tmp_path / "run", progress([1.0]), method="TRPO", final=[{"iteration": 1}])
    (run / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        plot_command.run(Request((str(run),), layout=layout, output=str(tmp_path / "plots")))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "plots").exists()


def test_what_is_counted_has_whole_numbers_below_it(tmp_path):
    make(tmp_path / "1", [{"iteration": i, "return": float(i)} for i in (20, 30, 40)])
    figure = figures.draw(layouts.columns(runs.find([str(tmp_path)]), "iteration", ["return"], ("method",), 200))
    ticks = figure.axes[0].get_xticks()
    assert len(ticks) > 2
    np.testing.assert_array_equal(ticks, np.round(ticks))


def test_dollar_signs_of_folders_and_values_are_no_formulas(tmp_path):
    make(tmp_path / "$x_{$", progress([1.0, 2.0]))
    request = Request((str(tmp_path),), group_by=("folder",), output=str(tmp_path / "plots"))
    assert plot_command.run(request) == 0
    assert table(tmp_path / "plots" / "return_vs_env_steps.csv")[0]["group"] == "$x_{$"
