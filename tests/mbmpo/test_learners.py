"""Every method end to end on a family whose episodes end early: same columns, resume and repetition bit for bit."""

import re

import numpy as np
import pytest
from learner_tools import METHODS, assert_finite, assert_same_state, silent, without_clock

from metarl.experiment.errors import UserError


@pytest.fixture(scope="module", params=METHODS)
def trained(request):
    """(maker, learner after three iterations, metrics of each, state after two); what they said is in `phases`."""
    make = METHODS[request.param]
    learner = make()
    learner.phases = []
    history, stored = [], {}
    for iteration in range(3):
        if iteration == 2:
            stored = {name: np.array(value) for name, value in learner.state().items()}
        history.append(learner.run_iteration(learner.phases.append))
    return make, learner, history, stored


def test_columns_stay_and_numbers_are_finite(trained):
    _, learner, history, _ = trained
    for metrics in history:
        assert list(metrics) == list(history[0])
        assert_finite(metrics)
        acted = [name for name in metrics if name.startswith("time/") and name.endswith("_policy")]
        assert acted
        assert all(metrics[name] > 0.0 for name in acted)
    assert learner.iteration == 3
    overall = [metrics["time/overall"] for metrics in history]
    assert overall == sorted(overall)
    assert overall[-1] >= sum(metrics["time/iteration"] for metrics in history)


def test_the_summary_line_has_the_numbers_of_the_table(trained):
    _, learner, history, _ = trained
    method = type(learner).__name__
    metrics, line = history[2], learner.summary_line(history[2])

    def shown(label, *names):
        return f"{label} " + " -> ".join(f"{metrics[name]:.4g}" for name in names)

    assert (
        shown("steps", "env_steps/total" if method in ("MAMLLearner", "TRPOLearner") else "env_steps/counted") in line
    )
    assert shown("seconds", "time/iteration") in line
    if method == "MAMLLearner":
        assert shown("pre/post-update", "pre_update/return", "post_update/return") in line
    else:
        assert shown("real", "real/return") in line
    updates = {"MBMPOLearner": "imagined/post_update_", "METRPOLearner": "imagined/update_"}
    if method in updates:
        made = [name for name in metrics if name.startswith(updates[method]) and metrics[name] is not None]
        assert shown("imagined", made[0], made[-1]) in line
    else:
        assert "imagined" not in line


def test_real_steps_are_told_of_as_they_are_made(trained):
    """With numbers, so that the progress bar can tell the time left."""
    said = [phase for phase in trained[1].phases if phase.startswith(("random", "real", "planned"))]
    counts = [re.search(r", step (\d+)/(\d+)$", phase) for phase in said]
    assert len(said) >= 3
    assert all(counts), said
    assert all(int(found[1]) <= int(found[2]) for found in counts)
    assert {phase.split(",")[0] for phase in said if not phase.startswith("planned")} == {
        phase.split(",")[0] for phase, found in zip(said, counts, strict=True) if found[1] == found[2]
    }


def test_a_resumed_run_and_a_new_run_are_bit_identical(trained):
    """A new learner repeats the first iteration; with the state after two restored, it repeats the third."""
    make, learner, history, stored = trained
    other = make()
    assert without_clock(other.run_iteration(silent)) == without_clock(history[0])
    other.restore(stored)
    assert other.iteration == 2
    assert without_clock(other.run_iteration(silent)) == without_clock(history[2])
    assert_same_state(other, learner)


def test_the_final_table_leaves_the_learner_alone(trained):
    _, learner, _, _ = trained
    before = learner.state()
    rows = learner.final_table(silent)
    assert rows[0]["policy"] == "random actions"
    assert all(row.keys() == rows[0].keys() for row in rows)
    after = learner.state()
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)


def test_restore_names_what_differs(trained):
    _, learner, _, stored = trained
    name = next(name for name in stored if np.ndim(stored[name]) and not name.startswith("buffer/"))
    for change, words in (
        (lambda arrays: arrays.pop(name), f"lacks the array '{name}'"),
        (lambda arrays: arrays.update(extra=np.zeros(2)), "holds 'extra'"),
        (lambda arrays: arrays.update({name: np.zeros(9)}), f"'{name}' has shape"),
    ):
        arrays = dict(stored)
        change(arrays)
        with pytest.raises(UserError, match="checkpoint") as error:
            learner.restore(arrays)
        assert words in str(error.value)
        assert "\n" not in str(error.value)
    assert learner.iteration == 3


def test_evidence_of_a_crash_is_plain_arrays(trained):
    _, learner, _, stored = trained
    evidence = learner.crash_evidence()
    assert stored.keys() <= evidence.keys()
    assert any(name.startswith(("steps/", "phase_0/")) for name in evidence)
    assert all(np.asarray(value).dtype != object for value in evidence.values())
