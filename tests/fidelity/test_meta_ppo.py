"""Meta-PPO against numbers of the original program (MB-MPO specification, section 4.2)."""

import mbmpo_golden_tools as tools
import numpy as np

from mbmpo.meta_objective import Argument, Penalties
from mbmpo.meta_ppo import MetaPPO
from mbmpo.meta_updates import mean_gradient, mean_term
from mbmpo.objectives import MetaData


def test_both_objectives(meta_ppo_golden):
    golden = meta_ppo_golden
    theta = tools.weights_of(golden, "theta.")
    alpha = float(golden.get("cfg.alpha", golden.get("cfg.inner_lr", 0.1)))
    pre, post = tools.phase_of(golden, "pre."), tools.phase_of(golden, "post.")
    data = MetaData((pre,), post)
    inner, outer = golden["cfg.inner_coeff"].reshape(-1, 1), golden["cfg.outer_coeff"]
    seen = 0
    for case in ("clip", "klpen"):
        if f"{case}.loss" not in golden:
            continue
        seen += 1
        update = MetaPPO(
            learning_rate=float(golden.get("cfg.lr", 1e-3)),
            max_epochs=int(golden.get("cfg.epochs", 3)),
            num_batches=None,
            clip_eps=float(golden["cfg.clip_eps"]),
            clip_outer=case == "clip",
            target_inner_step=float(golden["cfg.target_inner"]),
            target_outer_step=float(golden["cfg.target_outer"]),
        )
        objective = update.make_objective(tools.policy_of(theta), inner_lr=alpha)

        def evaluate(what, point, argument=None, objective=objective):
            return objective.evaluate(what, point, data, argument)

        adapted = objective.adapt(theta, None, pre)
        for task in range(len(outer)):
            one = {name: value[task] for name, value in adapted.items()}
            tools.assert_weights(one, golden, f"adapted.task{task}.", 1e-4, atol_of_largest=1e-6)
        found = evaluate("loss_gradient", theta, Argument(penalties=Penalties(inner, outer)))
        np.testing.assert_allclose(mean_term(found, "loss"), golden[f"{case}.loss"], 1e-4, 1e-6)
        tools.assert_weights(mean_gradient(found), golden, f"{case}.grad.")
        np.testing.assert_allclose(found.terms["inner_kl"][:, 0], golden[f"{case}.inner_kl"], 1e-4, 1e-6)
        if f"{case}.outer_kl" in golden:
            np.testing.assert_allclose(found.terms["outer_kl"], golden[f"{case}.outer_kl"], 1e-4, 1e-6)

        state = update.initial_state(theta, len(outer), 1)
        state |= {"inner_coefficients": inner, "outer_coefficients": outer}
        after, state, info = update.update(theta, state, evaluate)
        # An entry whose gradient is rounding noise may move by the whole rate in Adam's first step.
        gradients = mean_gradient(found)
        largest = max(float(np.max(np.abs(value))) for value in gradients.values())
        for theirs, ours in tools.names_of({n[6:]: v for n, v in golden.items() if n.startswith("theta.")}):
            expected = golden[f"{case}.theta_after.{theirs}"]
            real = np.abs(gradients[ours]) > 1e-5 * largest
            np.testing.assert_allclose(np.asarray(after[ours])[real], expected[real], 0, 2e-5, err_msg=f"{case} {ours}")
        np.testing.assert_allclose(info["loss_after"], golden[f"{case}.loss_after"], 1e-3, 1e-5)
        last = evaluate("scalars", after, Argument(penalties=Penalties(inner, outer)))
        np.testing.assert_allclose(last.terms["inner_kl"][:, 0], golden[f"{case}.inner_kl_after"], 5e-3, 1e-6)
        np.testing.assert_allclose(state["inner_coefficients"][:, 0], golden[f"{case}.inner_coeff_after"], 1e-6)
        if f"{case}.outer_coeff_after" in golden:
            np.testing.assert_allclose(last.terms["outer_kl"], golden[f"{case}.outer_kl_after"], 5e-3, 1e-6)
            np.testing.assert_allclose(state["outer_coefficients"], golden[f"{case}.outer_coeff_after"], 1e-6)
    assert seen
