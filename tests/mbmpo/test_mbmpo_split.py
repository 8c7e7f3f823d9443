"""Tasks spread over shards: the promises of the design, for imagined and for real tasks."""

import numpy as np
import pytest
from learner_tools import ensemble, maml, mbmpo, mbmpo_with_options, metrpo, silent
from toy_pool import split

from mbmpo.dynamics import bad_models
from mbmpo.dynamics.variants import MetaDynamicsEnsemble
from mbmpo.families import HalfCheetah, Hopper, InvertedPendulum, Point2D, PointNavigation
from mbmpo.imagination_layout import Blocks
from mbmpo.meta_ppo import MetaPPO
from metarl.experiment.errors import UserError


def with_options():
    """In its second iteration: the first one's random actions ask nothing of the shards."""
    learner = mbmpo_with_options(family=HalfCheetah(), meta_steps=1, log_real_performance=False)
    learner.iteration = 1
    return learner


CASES = {
    "MB-MPO": lambda: mbmpo(family=HalfCheetah(), meta_batch_size=6, models=ensemble(num_models=3), meta_steps=1),
    "MB-MPO, options": with_options,
    "MB-MPO, early ends": lambda: mbmpo(imagined={"stop_rule": "per_task", "reset": "buffer"}, meta_steps=1),
    # Two shards of three tasks: the second begins with a block of model 1.
    "MB-MPO, noisy models": lambda: mbmpo(
        family=HalfCheetah(),
        meta_batch_size=6,
        models=bad_models.BadDynamicsEnsemble(
            num_models=3, hidden_sizes=(8, 8), output_bias_range=(0.0, 0.5), gaussian_noise_output_std=0.1
        ),
        meta_steps=1,
    ),
    "MB-MPO, PPO, groups": lambda: mbmpo(
        MetaPPO(),
        family=HalfCheetah(),
        models=MetaDynamicsEnsemble(
            num_ensembles=3, models_per_ensemble=2, hidden_sizes=(8, 8), batch_size=50, persistency=0.9
        ),
        meta_batch_size=3,
        meta_steps=1,
    ),
    "MAML": lambda: maml(family=PointNavigation(), meta_batch_size=3, stop_rule="per_task"),
    "ME-TRPO": lambda: metrpo(family=HalfCheetah(), update_steps=1),
    "ME-TRPO, early ends": lambda: metrpo(stop_rule="per_task", update_steps=1),
}


def recorded(learner):
    """The sums of the evaluations of the first meta-update, in order, beside the iteration's metrics."""
    found = []
    evaluate = learner.pool.evaluate

    def spied(own=None, **common):
        sums, parts = evaluate(own, **common)
        found.append((common["what"], sums, parts))
        return sums, parts

    learner.pool.evaluate = spied
    metrics = learner.run_iteration(silent)
    return metrics, found


@pytest.mark.parametrize("case", CASES)
def test_two_shards_agree_with_one(case):
    (one, firsts), (two, seconds) = recorded(CASES[case]()), recorded(split(CASES[case](), 2))
    for (what, sums, parts), (_, other_sums, other_parts) in zip(firsts, seconds, strict=False):
        counts = [sum(part["count"].sum() for part in found) for found in (parts, other_parts)]
        assert counts[0] == counts[1]
        if sums is not None:
            assert what in ("loss_gradient", "inner_gradient")
            for name, value in sums.items():
                found = other_sums[name] / (len(other_parts) if case.startswith("ME-TRPO") else 1)  # a mean of shards
                np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-4 * np.abs(value).max())
            break
    else:
        pytest.fail("no gradient was asked for")
    for name in (
        "pre_update/return",
        "imagined/pre_update_1",
        "imagined/post_update_1",
        "imagined/update_1",
        "post_update/return",
    ):
        if one.get(name) is not None:
            np.testing.assert_allclose(two[name], one[name], rtol=1e-3)
    # Of theta's own paths, which are the same; with the adapted ones only nearly so.
    for name in one if case == "MAML" else ():
        if name.startswith("pre_update/"):
            np.testing.assert_allclose(two[name], one[name], rtol=1e-6, err_msg=name)
    assert ("model/disagreement" in one) == (case != "MAML")
    if "model/disagreement" in one:
        np.testing.assert_allclose(two["model/disagreement"], one["model/disagreement"], rtol=1e-3)


def test_the_same_split_repeats_bit_for_bit():
    states = []
    for _ in range(2):
        learner = split(CASES["MB-MPO"](), 2)
        learner.run_iteration(silent)
        states.append(learner.state())
    for name, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][name], err_msg=name)


def test_blocks_have_no_row_that_nobody_needs():
    """Seven of twelve tasks, four to a model: 2 + 4 + 1 tasks in blocks of one; six from the first: 4 + 2."""
    whole = Blocks(range(12), 12, 3)
    assert whole.models is None
    assert Blocks(range(2, 9), 12, 3).models.tolist() == [0, 0, 1, 1, 1, 1, 2]
    blocks = Blocks(range(6), 12, 3)
    assert blocks.models.tolist() == [0, 0, 1]
    rows = np.arange(60.0).reshape(30, 2).astype(np.float32)
    assert blocks.split(rows).shape == (3, 10, 2)
    np.testing.assert_array_equal(blocks.join(blocks.split(rows)), rows)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mbmpo(family=InvertedPendulum()), "ImaginedData.stop_rule = 'per_task'"),
        (
            lambda: mbmpo(
                family=HalfCheetah(), imagined={"reset": "buffer", "rows_from": "imagined_horizon", "horizon": 6}
            ),
            None,
        ),
        (lambda: metrpo(), "METRPOLearner.stop_rule = 'per_task'"),
        (lambda: maml(family=Hopper()), "MAMLLearner.stop_rule = 'per_task'"),
        (
            lambda: mbmpo(family=HalfCheetah(), meta_batch_size=2, models=ensemble(num_models=1)),
            "3 shards are too many",
        ),
        (
            lambda: mbmpo(family=Point2D(), models=bad_models.FakePointEnsemble(num_models=2, mask="smooth")),
            "smooth mask",
        ),
    ],
)
def test_what_cannot_be_split_is_one_line(make, words):
    learner = make()
    if words is None:
        learner.require_split(2)
        return
    with pytest.raises(UserError, match=words) as error:
        learner.require_split(3)
    assert "\n" not in str(error.value)
    learner.require_split(1)
