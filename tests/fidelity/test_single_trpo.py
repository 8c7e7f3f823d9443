"""One step of single-task TRPO with the exact product (MB-MPO specification, section 4.1)."""

import mbmpo_golden_tools as tools
import numpy as np

from mbmpo.meta_updates import TRPO, mean_gradient, mean_kl, mean_term
from mbmpo.objectives import MetaData
from metarl.optim.trust_region import conjugate_gradient, flatten, unflatten


def test_one_step(single_trpo_golden):
    golden = single_trpo_golden
    theta = tools.weights_of(golden, "theta.")
    post = tools.phase_of_tasks([{name: golden[name] for name in ("obs", "act", "adv", "old_mean", "old_log_std")}])
    data = MetaData((), post)
    update = TRPO(step_size=float(golden["delta"]))
    objective = update.make_objective(tools.policy_of(theta), inner_lr=0.0)

    def evaluate(what, point, argument=None):
        return objective.evaluate(what, point, data, argument)

    found = evaluate("loss_gradient", theta)
    np.testing.assert_allclose(mean_term(found, "loss"), golden["loss"], 1e-4, 1e-6)
    np.testing.assert_allclose(mean_kl(found), golden["kl"], 1e-4, 1e-6)
    tools.assert_weights(mean_gradient(found), golden, "grad.")
    product = update.product(theta, evaluate)
    result = tools.flat(unflatten(product(flatten(tools.unflat(np.float32(golden["hvp.vec"]), theta))), theta))
    np.testing.assert_allclose(result, golden["hvp.exact"], 1e-3, 1e-4 * np.max(np.abs(golden["hvp.exact"])))
    direction = conjugate_gradient(product, flatten(mean_gradient(found)))
    expected = golden["cg_direction"]
    np.testing.assert_allclose(tools.flat(unflatten(direction, theta)), expected, 5e-3, 5e-3 * np.max(np.abs(expected)))
    after, _, info = update.update(theta, {}, evaluate)
    assert int(info["backtrack_index"]) == int(golden["backtrack_index"])
    tools.assert_weights(after, golden, "theta_after.", 0.0, 1e-4)
    np.testing.assert_allclose(info["loss_after"], golden["loss_after"], 5e-3, 1e-5)
    np.testing.assert_allclose(info["kl_after"], golden["kl_after"], 5e-3, 1e-6)
