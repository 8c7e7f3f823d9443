"""The two papers' figures: which runs, which columns, at which steps."""

import numpy as np
import pytest
from run_folders import make, progress

from metarl.experiment.errors import UserError
from metarl.reporting import figures, layouts, runs


def mbmpo_runs(tmp_path):
    counted = {"column": "env_steps/counted"}
    for seed, shift in ((1, 0.0), (2, 2.0)):
        rows = progress([10 + shift, 20 + shift, None], 4000, "pre_update/return", **counted)
        for row in rows:
            row["real/return"] = -1.0  # the first existing column is drawn, not this one
        rows += [row | {"iteration": 4, "pre_update/return": 99.0, "env_steps/counted": 500_000} for row in rows[:1]]
        make(tmp_path / "ours" / str(seed), rows, method="MBMPO", seed=seed)
    make(
        tmp_path / "no_adaptation", progress([0.0], 4000, "pre_update/return", **counted), method="MBMPO", inner_lr=0.0
    )
    make(tmp_path / "metrpo", progress([5.0, 6.0], 4000, "real/return", **counted), method="METRPO")
    for seed in (1, 2):
        rows = progress([1.0 * seed, 3.0 * seed, 5.0], 9_990 + seed, "real/return")
        make(tmp_path / "trpo" / str(seed), rows, method="TRPO", seed=seed)


def test_mbmpo_curves_follow_section_9_7(tmp_path):
    mbmpo_runs(tmp_path)
    based, free = layouts.mbmpo(runs.find([str(tmp_path)]), ["method"])
    [panel] = based.panels
    ours, metrpo = panel.curves
    assert (ours.label, ours.num_runs, metrpo.label) == ("MB-MPO", 2, "ME-TRPO")
    np.testing.assert_array_equal(ours.x, [2000, 6000])  # half the gap of 4,000 to the left; 500,000 is past the end
    np.testing.assert_allclose(ours.summary.mean, [11, 21])
    np.testing.assert_allclose(ours.summary.std, [1, 1])  # of the population
    np.testing.assert_array_equal(metrpo.x, [4000, 8000])
    assert not panel.log_x
    assert based.band == free.band == "std"
    [panel] = free.panels
    assert panel.log_x
    curves = {curve.label: curve for curve in panel.curves}
    # steps 9,991 and 9,992, 19,982 and 19,984, 29,973 and 29,976: 0 has no place on a logarithmic axis
    np.testing.assert_array_equal(curves["TRPO"].x, [10_000, 20_000])
    np.testing.assert_array_equal(curves["TRPO"].summary.runs, [2, 2])
    np.testing.assert_allclose(curves["TRPO"].summary.mean, [4.5, 5])
    assert panel.reference_lines == {"MB-MPO": 99.0, "ME-TRPO": 6.0}
    axes = figures.draw(free).axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[1] == 1e7  # the dashed lines, too, although no run comes near
    assert [line.get_xdata()[-1] for line in axes.lines if line.is_dashed()] == [1e7, 1e7]


def test_an_environment_without_the_papers_step_size_is_drawn_all_the_same(tmp_path):
    mbmpo_runs(tmp_path)
    other = progress([1.0], 4000, "pre_update/return", column="env_steps/counted")
    make(tmp_path / "point", other, method="MBMPO", inner_lr=0.05, family="Point2D")
    based, _ = layouts.mbmpo(runs.find([str(tmp_path)]), ["method"])
    assert [(panel.title, panel.curves[0].num_runs) for panel in based.panels] == [("HalfCheetah", 2), ("Point2D", 1)]


def test_runs_without_real_evaluation_show_the_collected_data(tmp_path):
    """Their columns of the evaluation exist and are empty."""
    rows = progress([None, None], 4000, "pre_update/return", column="env_steps/counted")
    rows = [row | {"real/return": 10.0 * number, "env_steps/total": 1} for number, row in enumerate(rows, 1)]
    make(tmp_path / "ours", rows, method="MBMPO")
    found = runs.find([str(tmp_path)])
    [panel] = layouts.mbmpo(found, ["method"])[0].panels
    np.testing.assert_allclose(panel.curves[0].summary.mean, [10, 20])
    [panel] = layouts.columns(found, "env_steps", ["return"], ["method"], 200).panels
    assert panel.y_label == "real/return"
    np.testing.assert_allclose(panel.curves[0].summary.mean[[0, -1]], [10, 20])


def overridden(folder, rate):
    """As left by --gin_param=InnerAdaptation.inner_lr=...: gin lists no macro that nothing looked up."""
    config = folder / "operative_config.gin"
    config.write_text(config.read_text().replace("INNER_LR = 0.001\n", "").replace("%INNER_LR", rate))


def test_step_sizes_that_are_not_the_papers_are_not_pooled(tmp_path):
    mbmpo_runs(tmp_path)
    column = {"column": "env_steps/counted"}
    for number, (rate, value) in enumerate(((0.1, 1.0), (0.01, 2.0), (0.01, 4.0), (0.2, 3.0))):
        rows = progress([value], 4000, "pre_update/return", **column)
        make(tmp_path / "point" / str(number), rows, method="MBMPO", inner_lr=rate, family="Point2D")
    make(
        tmp_path / "point" / "metrpo", progress([5.0], 4000, "real/return", **column), method="METRPO", family="Point2D"
    )
    [_, panel], _ = (plan.panels for plan in layouts.mbmpo(runs.find([str(tmp_path)]), ["method"]))
    assert panel.title == "Point2D"
    assert [(curve.label, curve.num_runs, curve.summary.mean[0]) for curve in panel.curves] == [
        ("MB-MPO, INNER_LR = 0.01", 2, 3.0),
        ("MB-MPO, INNER_LR = 0.1", 1, 1.0),
        ("MB-MPO, INNER_LR = 0.2", 1, 3.0),
        ("ME-TRPO", 1, 5.0),
    ]


def test_a_step_size_without_macro_is_one_all_the_same(tmp_path):
    mbmpo_runs(tmp_path)
    rows = progress([1000.0], 4000, "pre_update/return", column="env_steps/counted")
    overridden(make(tmp_path / "direct", rows, method="MBMPO", seed=3), "0.05")
    based, _ = layouts.mbmpo(runs.find([str(tmp_path)]), ["method"])
    assert [(curve.label, curve.num_runs) for curve in based.panels[0].curves] == [("MB-MPO", 2), ("ME-TRPO", 1)]
    overridden(make(tmp_path / "point" / "1", rows, method="MBMPO", family="Point2D"), "0.05")
    make(tmp_path / "point" / "2", rows, method="MBMPO", family="Point2D", inner_lr=0.1)
    [plan] = layouts.mbmpo(runs.find([str(tmp_path / "point")]), ["method"])
    assert plan.labels() == ["MB-MPO, InnerAdaptation.inner_lr = 0.05", "MB-MPO, InnerAdaptation.inner_lr = 0.1"]


def test_mbmpo_curves_by_inner_step_size_leave_nothing_out(tmp_path):
    mbmpo_runs(tmp_path)
    found = [run for run in runs.find([str(tmp_path)]) if run.method == "MB-MPO"]
    [plan] = layouts.mbmpo(found, ["INNER_LR"])
    assert plan.labels() == ["INNER_LR = 0.0", "INNER_LR = 0.001"]


def tesp_rows(validated, offset):
    """Validation after 0 .. 2 fast-updates in the given meta-updates of 4."""
    rows = []
    for i in range(1, 5):
        row = {"iteration": i}
        for number, name in enumerate(("train", "test_1", "test_2")):
            for k in range(3):
                row[f"validation_{name}/return_{k}"] = 100 * number + 10 * i + k + offset if i in validated else None
        rows.append(row)
    return rows


def test_tesp_figures_show_the_goal_sets_and_the_last_validation(tmp_path):
    make(tmp_path / "1", tesp_rows((2, 4), 0.0), seed=1)
    make(tmp_path / "2", tesp_rows((2,), 2.0), seed=2)
    updates, fast = layouts.tesp(runs.find([str(tmp_path)]), ["method"], 200)
    assert [panel.title for panel in updates.panels] == ["HalfCheetah, D", "HalfCheetah, D′", "HalfCheetah, D″"]
    for number, panel in enumerate(updates.panels):
        [curve] = panel.curves
        np.testing.assert_array_equal(curve.x, [2, 4])
        np.testing.assert_allclose(curve.summary.mean, [100 * number + 20 + 2 + 1, 100 * number + 40 + 2])
        np.testing.assert_array_equal(curve.summary.runs, [2, 1])
    [curve] = fast.panels[1].curves
    np.testing.assert_array_equal(curve.x, [0, 1, 2])
    np.testing.assert_allclose(curve.summary.mean, [(140 + 122) / 2 + k for k in range(3)])


def test_tesp_figures_of_a_run_without_validation_take_the_table_at_its_end(tmp_path):
    final = [{"goal_set": "test_1", "fast_update_0": -3.0, "fast_update_1": -1.0}]
    make(tmp_path / "1", progress([1.0]), final=final)
    [fast] = layouts.tesp(runs.find([str(tmp_path)]), ["method"], 200)
    assert [panel.title for panel in fast.panels] == ["HalfCheetah, D′"]
    np.testing.assert_array_equal(fast.panels[0].curves[0].summary.mean, [-3, -1])
    make(tmp_path / "other" / "2", progress([1.0]))
    with pytest.raises(UserError, match="--layout=tesp: no run has"):
        layouts.tesp(runs.find([str(tmp_path / "other")]), ["method"], 200)
