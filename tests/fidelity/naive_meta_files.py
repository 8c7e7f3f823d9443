"""Writes files of the layouts of meta-updates from the formulas of `naive_meta_learning`, of any sizes."""

import naive_meta_learning as naive
import numpy as np

_WIDTHS = (5, 4, 4, 2)
_ALPHA = 0.1
_BONUS = 0.1


def single(prefix, arrays):
    """The arrays in float32 under a prefix."""
    return {f"{prefix}{name}": np.float32(value) for name, value in arrays.items()}


def tasks_of(prefix, tasks):
    return {name: x for i, task in enumerate(tasks) for name, x in single(f"{prefix}task{i}.", task).items()}


def meta_trpo_file(
    path, seed=0, inner_steps=1, pre_rows=(18, 15), post_rows=(16, 13), widths=_WIDTHS, *, with_exact=True
):
    """A file of the layout `mbmpo_meta_trpo.npz`: as many tasks as numbers of rows."""
    rng, delta = np.random.default_rng(seed), 0.01
    theta = naive.random_theta(rng, widths)
    start = naive.flat(theta)
    pre, points = [], [theta] * len(pre_rows)
    for _ in range(inner_steps):
        data = [naive.sampled(rng, point, widths[0], rows) for point, rows in zip(points, pre_rows, strict=True)]
        pre.append(data)
        points = [naive.adapted(point, d, _ALPHA, "likelihood") for point, d in zip(points, data, strict=True)]
    arrays = {"cfg.alpha": _ALPHA, "cfg.delta": delta, "cfg.inner_steps": inner_steps} | single("theta.", theta)
    moved = [theta] * len(pre_rows)
    for j, phase in enumerate(pre):
        arrays |= tasks_of(f"pre{j}.", phase)
        moved = [naive.adapted(point, data, _ALPHA, "likelihood") for point, data in zip(moved, phase, strict=True)]
        arrays |= tasks_of(f"adapted{j + 1}.", moved)
    arrays |= _distribution(rng, theta, widths)
    recorded = [naive.sampled(rng, point, widths[0], rows) for point, rows in zip(moved, post_rows, strict=True)]
    for case in ("exact", "pert"):
        post = recorded
        if case == "pert":
            post = [dict(data) for data in recorded]
            for data in post:
                for name in ("old_mean", "old_log_std"):
                    data[name] = data[name] + 0.07 * rng.normal(size=data[name].shape)
            post = [naive.as_float32(data) for data in post]
        found = _trpo_case(rng, theta, start, pre, post, delta, with_exact=with_exact and case == "exact")
        arrays |= tasks_of(f"{case}.post.", post) | {f"{case}.{name}": value for name, value in found.items()}
        bonus = _meta_losses(theta, pre, post, _BONUS)[0]
        arrays[f"ent.{case}.loss"] = bonus(start)
        gradient = naive.numeric_gradient(lambda point, bonus=bonus: bonus(naive.flat(point)), theta)
        arrays |= {f"ent.{case}.grad.{name}": value for name, value in gradient.items()}
    np.savez(path, **arrays)


def _distribution(rng, theta, widths):
    """The policy quantities of theta."""
    old = naive.as_float32({name: value + 0.1 * rng.normal(size=value.shape) for name, value in theta.items()})
    data = naive.sampled(rng, old, widths[0], 9)
    mean = naive.mean_network(theta, data["obs"])[-1]
    log_std = np.broadcast_to(theta["log_std"], mean.shape)
    entropy = np.sum(log_std + 0.5 * np.log(2 * np.pi * np.e), axis=-1)
    found = {name: data[name] for name in ("obs", "act", "old_mean", "old_log_std")}
    found |= {"mean": mean, "log_std": log_std, "entropy": entropy, "ratio": naive.ratio(theta, data)}
    found |= {"loglik": naive.log_prob(mean, log_std, data["act"]), "kl_old_new": naive.kl(data, mean, log_std)}
    floor = {"floor.log_std_param": np.array([-20.0, -13.0]), "floor.log_std_out": np.array([np.log(1e-6), -13.0])}
    return single("dist.", found | floor)


def _meta_losses(theta, pre, post, bonus=0.0):
    """(loss, mean KL over all rows) of theta as a vector."""

    def task(i):
        return [phase[i] for phase in pre]

    def loss(vector):
        point, values = naive.unflat(vector, theta), []
        for i, after in enumerate(post):
            new = naive.adapted_by(point, task(i), _ALPHA, "likelihood")
            visited = [naive.adapted_by(point, task(i)[:j], _ALPHA, "likelihood") for j in range(len(pre))]
            entropies = [np.sum(one["log_std"] + 0.5 * np.log(2 * np.pi * np.e)) for one in visited]
            values.append(-np.mean(naive.ratio(new, after) * after["adv"]) - bonus * sum(entropies))
        return float(np.mean(values))

    def divergence(vector):
        point, rows = naive.unflat(vector, theta), []
        for i, after in enumerate(post):
            new = naive.adapted_by(point, task(i), _ALPHA, "likelihood")
            rows.append(naive.kl(after, naive.mean_network(new, after["obs"])[-1], new["log_std"]))
        return float(np.mean(np.concatenate(rows)))

    return loss, divergence


def _trpo_case(rng, theta, start, pre, post, delta, *, with_exact):
    loss, divergence = _meta_losses(theta, pre, post)

    def gradient(function, vector=start):
        point = naive.numeric_gradient(lambda p: function(naive.flat(p)), naive.unflat(vector, theta))
        return naive.flat(point)

    def product(vector, eps):
        ends = [gradient(divergence, start + sign * eps * vector) for sign in (1, -1)]
        return (ends[0] - ends[1]) / (2 * eps) + 1e-5 * vector

    eps = 1 / (np.linalg.norm(start) + 1e-8)

    def original(vector):
        return product(vector, eps)

    g = gradient(loss)
    x = naive.conjugate_gradient(original, g)
    after, index, rejected = naive.line_search(start, x, original, loss, divergence, delta)
    found = {"loss": loss(start), "kl": divergence(start), "hvp.eps": eps, "cg_direction": x}
    found |= {"backtrack_index": index, "rejected": rejected}
    found |= {"loss_after": loss(after), "kl_after": divergence(after)}
    kl_gradient = gradient(divergence)
    for prefix, vector in (("grad.", g), ("kl_grad.", kl_gradient), ("theta_after.", after)):
        found |= {f"{prefix}{name}": value for name, value in naive.unflat(vector, theta).items()}
    for name, vector in (("v", np.float32(rng.normal(size=len(start)))), ("g", np.float32(g))):
        found |= {f"hvp.{name}.vec": vector, f"hvp.{name}.fd": original(vector)}
        if with_exact:
            found[f"hvp.{name}.exact"] = product(vector, 1e-3 / np.linalg.norm(vector))
    return found


def ppo_loss(theta, pre, post, alpha, clip_eps, inner_coeff, outer_coeff=None):
    """Mean over tasks; `outer_coeff` None: clipped."""
    losses = []
    for i, (before, after) in enumerate(zip(pre, post, strict=True)):
        new = naive.adapted(theta, before, alpha, "ratio")
        r, adv = naive.ratio(new, after), after["adv"]
        if outer_coeff is None:
            loss = -np.mean(np.minimum(r * adv, np.clip(r, 1 - clip_eps, 1 + clip_eps) * adv))
        else:
            loss = -np.mean(r * adv) + outer_coeff[i] * naive.mean_kl(new, after)
        losses.append(loss + inner_coeff[i] * naive.mean_kl(theta, before))
    return float(np.mean(losses))


def adapted_coeff(coeff, kls, target):
    result = []
    for c, value in zip(coeff, kls, strict=True):
        result.append(c / 2 if value < target / 1.5 else 2 * c if value > 1.5 * target else c)
    return np.array(result)


def ppo_file(path, seed=0, pre_rows=(14, 11), post_rows=(12, 15), widths=_WIDTHS):
    """A file of the layout `mbmpo_meta_ppo.npz`: as many tasks as numbers of rows."""
    rng = np.random.default_rng(seed)
    theta = naive.random_theta(rng, widths)
    clip_eps, targets = 0.2, (0.01, 0.001)
    inner_coeff = np.array([0.5, 2.0, 1.0])[: len(pre_rows)]
    outer_coeff = np.array([0.3, 0.7, 0.5])[: len(pre_rows)]
    # The recorded distributions differ a little from theta's, so that KLs and ratios are not trivial.
    behind = naive.as_float32({name: value + 0.03 * rng.normal(size=value.shape) for name, value in theta.items()})
    pre = [naive.sampled(rng, behind, widths[0], rows) for rows in pre_rows]
    post = [
        naive.sampled(rng, naive.adapted(behind, data, _ALPHA, "ratio"), widths[0], rows)
        for data, rows in zip(pre, post_rows, strict=True)
    ]
    arrays = {
        "cfg.alpha": _ALPHA,
        "cfg.clip_eps": clip_eps,
        "cfg.inner_coeff": inner_coeff,
        "cfg.outer_coeff": outer_coeff,
        "cfg.target_inner": targets[0],
        "cfg.target_outer": targets[1],
    }
    arrays |= single("theta.", theta) | tasks_of("pre.", pre) | tasks_of("post.", post)
    arrays |= tasks_of("adapted.", [naive.adapted(theta, before, _ALPHA, "ratio") for before in pre])
    for case in ("clip", "klpen"):
        penal = None if case == "clip" else outer_coeff

        def loss(point, penal=penal):
            return ppo_loss(point, pre, post, _ALPHA, clip_eps, inner_coeff, penal)

        def kls(point):
            inner = np.array([naive.mean_kl(point, data) for data in pre])
            outer = [naive.mean_kl(naive.adapted(point, b, _ALPHA, "ratio"), a) for b, a in zip(pre, post, strict=True)]
            return inner, np.array(outer)

        found = {"loss": loss(theta), "inner_kl": kls(theta)[0]}
        found |= {f"grad.{name}": value for name, value in naive.numeric_gradient(loss, theta).items()}
        point, m, v = naive.flat(theta), 0.0, 0.0
        for t in range(1, 4):
            g = naive.flat(naive.numeric_gradient(loss, naive.unflat(point, theta)))
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            point = point - 1e-3 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)
        after = naive.unflat(point, theta)
        inner, outer = kls(after)
        found |= {f"theta_after.{name}": value for name, value in after.items()}
        found |= {"loss_after": loss(after), "inner_kl_after": inner}
        found["inner_coeff_after"] = adapted_coeff(inner_coeff, inner, targets[0])
        if case == "klpen":
            found |= {"outer_kl": kls(theta)[1], "outer_kl_after": outer}
            found["outer_coeff_after"] = adapted_coeff(outer_coeff, outer, targets[1])
        arrays |= {f"{case}.{name}": value for name, value in found.items()}
    np.savez(path, **arrays)


def trpo_file(path, seed=0, rows=40, widths=_WIDTHS):
    """A file of the layout `mbmpo_trpo.npz`."""
    rng = np.random.default_rng(seed)
    theta = naive.random_theta(rng, widths)
    data = naive.sampled(rng, theta, widths[0], rows)
    start, delta = naive.flat(theta), 0.01

    def loss(vector):
        return -float(np.mean(naive.ratio(naive.unflat(vector, theta), data) * data["adv"]))

    def divergence(vector):
        return naive.mean_kl(naive.unflat(vector, theta), data)

    def product(vector, eps=1e-5):
        ends = [
            naive.flat(naive.kl_gradient(naive.unflat(start + sign * eps * vector, theta), data)) for sign in (1, -1)
        ]
        return (ends[0] - ends[1]) / (2 * eps) + 1e-5 * vector

    # At ratio 1 the gradients of r A and of log pi A agree.
    g = naive.flat(naive.inner_gradient(theta, data, "likelihood"))
    x = naive.conjugate_gradient(product, g)
    after, index, _ = naive.line_search(start, x, product, loss, divergence, delta)
    vec = rng.normal(size=len(start))
    arrays = single("theta.", theta) | single("", data)
    arrays |= {f"grad.{name}": value for name, value in naive.unflat(g, theta).items()}
    arrays |= {f"theta_after.{name}": value for name, value in naive.unflat(after, theta).items()}
    np.savez(
        path,
        **arrays,
        **{"loss": loss(start), "kl": 0.0, "hvp.vec": vec, "hvp.exact": product(vec), "cg_direction": x},
        **{"backtrack_index": index, "loss_after": loss(after), "kl_after": divergence(after), "delta": delta},
    )
