"""Baseline, advantages and logged columns against numbers of MB-MPO's original program."""

import re

import numpy as np
import pytest
import tensorflow as tf
from golden_tools import group

from mbmpo import processing
from mbmpo.processing import Processing
from mbmpo.transitions import from_steps
from metarl.sampling.steps import Steps

LOGGED = {
    "AverageDiscountedReturn": "average_discounted_return",
    "AverageReturn": "average_return",
    "ExplainedVariance": "explained_variance",
    "NumTrajs": "num_paths",
    "Entropy": "entropy",
    "Perplexity": "perplexity",
    "StdReturn": "std_return",
    "MaxReturn": "max_return",
    "MinReturn": "min_return",
}


def steps_of(batch, padding=4):
    """Float64 Steps [1, S] of concatenated paths, with padding behind."""
    lens = [int(n) for n in batch["lens"]]
    total = sum(lens)
    assert total == len(batch["rewards"])

    def padded(x):
        x = np.asarray(x)
        return tf.constant(np.concatenate([x, np.full((padding, *x.shape[1:]), 7, x.dtype)])[np.newaxis])

    shape = np.shape(batch["actions"])
    recorded = [batch.get(name, np.zeros(shape)) for name in ("mean", "log_std")]
    last = np.zeros(total + padding, bool)
    last[np.cumsum(lens) - 1] = True
    valid = np.arange(total + padding) < total
    return Steps(
        observation=padded(batch["observations"]),
        action=padded(batch["actions"]),
        reward=padded(batch["rewards"]),
        logits=padded(np.concatenate(recorded, axis=1)),
        time=padded(np.concatenate([np.arange(n) for n in lens]).astype(np.int32)),
        valid=tf.constant(valid[np.newaxis]),
        last=tf.constant(last[np.newaxis]),
    )


def orders_of(golden):
    """[(order, center, positive)] of the file."""
    found = {re.match(r"(maml|nonmaml)\.center(\d)\.pos(\d)\.batch", name) for name in golden}
    return sorted((m[1], bool(int(m[2])), bool(int(m[3]))) for m in found if m)


def test_every_order(processing_golden):
    golden = processing_golden
    orders = set(orders_of(golden))
    assert orders
    batches = sorted({name.split(".")[0] for name in golden if re.match(r"batch\d+\.lens", name)})
    gamma = float(golden.get("cfg.gamma", golden.get("gamma", 0.99)))
    for order, center, positive in orders:
        coefficients = None
        for batch in batches:
            case = group(golden, f"{order}.center{int(center)}.pos{int(positive)}.{batch}.")
            settings = Processing(gamma=gamma, lambda_=float(case["gae_lambda"]), center=center, positive=positive)
            steps = steps_of(group(golden, f"{batch}."))
            n = len(case["advantages"])
            if order == "maml":
                found = settings.fitted(steps)
                short = settings.maml(steps)
            else:
                found = settings.predicted_then_fitted(steps, coefficients)
                short, again = settings.sequential(steps, coefficients)
                np.testing.assert_array_equal(again, found.coefficients)
            coefficients = found.coefficients
            np.testing.assert_array_equal(short, found.advantage)
            np.testing.assert_array_equal(found.advantage[0, n:], 0.0)
            message = f"{order} center={center} positive={positive} {batch}"
            np.testing.assert_allclose(found.advantage[0, :n], case["advantages"], 1e-7, 1e-9, err_msg=message)
            if "returns" in case:
                np.testing.assert_allclose(found.returns[0, :n], case["returns"], 1e-7)
                expected = case["baseline_coeffs_afterwards"]
                np.testing.assert_allclose(coefficients[0], expected, 1e-5, 1e-8 * np.max(np.abs(expected)))
                np.testing.assert_allclose(
                    processing.path_statistics(steps)["average_return"], case["mean_return"], 1e-7
                )
            logged = processing.path_statistics(steps, found)
            columns = group(case, "log.")
            if f"{batch}.log_std" not in golden:
                columns = {name: value for name, value in columns.items() if name not in ("Entropy", "Perplexity")}
            for name, value in columns.items():
                np.testing.assert_allclose(logged[LOGGED[name]], value, 1e-7, 1e-10, err_msg=f"{message} {name}")


def test_transitions_for_the_model(processing_golden):
    """Section 1.2 (3): the last step of every path is dropped; the buffer is float32."""
    expected = group(processing_golden, "dynamics.")
    if not expected:
        pytest.skip("the file has no transitions")
    found = from_steps(steps_of(group(processing_golden, "batch1.")))
    np.testing.assert_array_equal(found.time, expected["timesteps_dynamics"])
    for ours, theirs in (
        ("observation", "observations"),
        ("next_observation", "next_observations"),
        ("action", "actions"),
    ):
        np.testing.assert_allclose(getattr(found, ours), expected[f"{theirs}_dynamics"], 1e-6, err_msg=theirs)


def test_pooling_tasks_is_one_batch_of_all_paths(processing_golden):
    """The pooled statistics of two tasks are those of their paths laid end to end."""
    one = steps_of(group(processing_golden, "batch1."))
    both = Steps(*(tf.concat([x, x], axis=0) for x in one))
    single, pooled = processing.path_statistics(one), processing.path_statistics(processing.pooled(both))
    assert float(pooled["num_paths"]) == 2 * float(single["num_paths"])
    for name in ("average_return", "std_return", "max_return", "min_return"):
        assert float(pooled[name]) == pytest.approx(float(single[name]), rel=1e-12)
