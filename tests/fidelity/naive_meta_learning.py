"""The formulas of specification sections 3 and 4 once more: NumPy, float64, one task and one row block at a time.

Gradients of meta-objectives are finite differences of the loss; nothing is shared with the package.
"""

import itertools

import numpy as np


def random_theta(rng, widths):
    theta = {}
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        theta[f"W{i}"] = rng.normal(size=(a, b)) * 0.5
        theta[f"b{i}"] = rng.normal(size=b) * 0.1
    theta["log_std"] = rng.normal(size=widths[-1]) * 0.2 - 0.3
    return as_float32(theta)


def as_float32(theta):
    return {name: np.asarray(value, np.float32).astype(np.float64) for name, value in theta.items()}


def flat(theta):
    return np.concatenate([value.reshape(-1) for value in theta.values()])


def unflat(vector, like):
    result, start = {}, 0
    for name, value in like.items():
        result[name] = vector[start : start + value.size].reshape(value.shape)
        start += value.size
    return result


def mean_network(theta, obs):
    depth = (len(theta) - 1) // 2
    hidden = [obs]
    for i in range(depth):
        z = hidden[-1] @ theta[f"W{i}"] + theta[f"b{i}"]
        hidden.append(np.tanh(z) if i < depth - 1 else z)
    return hidden


def sampled(rng, theta, obs_dim, rows):
    obs = rng.normal(size=(rows, obs_dim))
    mean = mean_network(theta, obs)[-1]
    log_std = np.broadcast_to(theta["log_std"], mean.shape)
    act = mean + np.exp(log_std) * rng.normal(size=mean.shape)
    adv = rng.normal(size=rows)
    adv = (adv - adv.mean()) / adv.std()
    return as_float32({"obs": obs, "act": act, "adv": adv, "old_mean": mean, "old_log_std": np.array(log_std)})


def log_prob(mean, log_std, act):
    d = act.shape[1]
    return -np.sum(log_std, -1) - 0.5 * np.sum(((act - mean) / np.exp(log_std)) ** 2, -1) - 0.5 * d * np.log(2 * np.pi)


def kl(data, mean, log_std):
    var_old, var_new = np.exp(2 * data["old_log_std"]), np.exp(2 * log_std)
    numerator = (data["old_mean"] - mean) ** 2 + var_old - var_new
    return np.sum(numerator / (2 * var_new + 1e-8) + log_std - data["old_log_std"], axis=-1)


def ratio(theta, data):
    mean = mean_network(theta, data["obs"])[-1]
    old = log_prob(data["old_mean"], data["old_log_std"], data["act"])
    return np.exp(log_prob(mean, theta["log_std"], data["act"]) - old)


def mean_kl(theta, data):
    return float(np.mean(kl(data, mean_network(theta, data["obs"])[-1], theta["log_std"])))


def inner_gradient(theta, data, kind):
    """Gradient of -mean(r A) or -mean(log pi A), by back-propagation."""
    hidden = mean_network(theta, data["obs"])
    n, depth = len(data["adv"]), (len(theta) - 1) // 2
    weight = -data["adv"] / n
    if kind == "ratio":
        weight = weight * ratio(theta, data)
    std = np.exp(theta["log_std"])
    z = (data["act"] - hidden[-1]) / std
    delta = weight[:, None] * z / std
    gradient = {"log_std": np.sum(weight[:, None] * (z**2 - 1), axis=0)}
    for i in reversed(range(depth)):
        gradient[f"W{i}"], gradient[f"b{i}"] = hidden[i].T @ delta, delta.sum(axis=0)
        if i:
            delta = (delta @ theta[f"W{i}"].T) * (1 - hidden[i] ** 2)
    return {name: gradient[name] for name in theta}


def adapted(theta, data, alpha, kind):
    gradient = inner_gradient(theta, data, kind)
    return {name: theta[name] - alpha * gradient[name] for name in theta}


def numeric_gradient(loss, theta, eps=1e-5):
    start = flat(theta)
    result = np.zeros_like(start)
    for i in range(len(start)):
        step = np.zeros_like(start)
        step[i] = eps
        result[i] = (loss(unflat(start + step, theta)) - loss(unflat(start - step, theta))) / (2 * eps)
    return unflat(result, theta)


def ppo_loss(theta, pre, post, alpha, clip_eps, inner_coeff, outer_coeff=None):
    """Mean over tasks; `outer_coeff` None: clipped."""
    losses = []
    for i, (before, after) in enumerate(zip(pre, post, strict=True)):
        new = adapted(theta, before, alpha, "ratio")
        r, adv = ratio(new, after), after["adv"]
        if outer_coeff is None:
            loss = -np.mean(np.minimum(r * adv, np.clip(r, 1 - clip_eps, 1 + clip_eps) * adv))
        else:
            loss = -np.mean(r * adv) + outer_coeff[i] * mean_kl(new, after)
        losses.append(loss + inner_coeff[i] * mean_kl(theta, before))
    return float(np.mean(losses))


def adapted_coeff(coeff, kls, target):
    result = []
    for c, value in zip(coeff, kls, strict=True):
        result.append(c / 2 if value < target / 1.5 else 2 * c if value > 1.5 * target else c)
    return np.array(result)


def ppo_file(path, seed=0):
    """A file of the layout `mbmpo_meta_ppo.npz`."""
    rng = np.random.default_rng(seed)
    theta = random_theta(rng, (5, 4, 4, 2))
    alpha, clip_eps, targets = 0.1, 0.2, (0.01, 0.001)
    inner_coeff, outer_coeff = np.array([0.5, 2.0]), np.array([0.3, 0.7])
    # The recorded distributions differ a little from theta's, so that KLs and ratios are not trivial.
    behind = as_float32({name: value + 0.03 * rng.normal(size=value.shape) for name, value in theta.items()})
    pre = [sampled(rng, behind, 5, rows) for rows in (14, 11)]
    post = [
        sampled(rng, adapted(behind, data, alpha, "ratio"), 5, rows) for data, rows in zip(pre, (12, 15), strict=True)
    ]
    arrays = {
        "cfg.alpha": alpha,
        "cfg.clip_eps": clip_eps,
        "cfg.inner_coeff": inner_coeff,
        "cfg.outer_coeff": outer_coeff,
        "cfg.target_inner": targets[0],
        "cfg.target_outer": targets[1],
    }
    arrays |= {f"theta.{name}": np.float32(value) for name, value in theta.items()}
    for i, (before, after) in enumerate(zip(pre, post, strict=True)):
        arrays |= {f"pre.task{i}.{name}": np.float32(value) for name, value in before.items()}
        arrays |= {f"post.task{i}.{name}": np.float32(value) for name, value in after.items()}
        arrays |= {f"adapted.task{i}.{n}": np.float32(v) for n, v in adapted(theta, before, alpha, "ratio").items()}
    for case in ("clip", "klpen"):
        penal = None if case == "clip" else outer_coeff

        def loss(point, penal=penal):
            return ppo_loss(point, pre, post, alpha, clip_eps, inner_coeff, penal)

        def kls(point):
            inner = np.array([mean_kl(point, data) for data in pre])
            outer = [mean_kl(adapted(point, b, alpha, "ratio"), a) for b, a in zip(pre, post, strict=True)]
            return inner, np.array(outer)

        found = {"loss": loss(theta), "inner_kl": kls(theta)[0]}
        found |= {f"grad.{name}": value for name, value in numeric_gradient(loss, theta).items()}
        point, m, v = flat(theta), 0.0, 0.0
        for t in range(1, 4):
            g = flat(numeric_gradient(loss, unflat(point, theta)))
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            point = point - 1e-3 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)
        after = unflat(point, theta)
        inner, outer = kls(after)
        found |= {f"theta_after.{name}": value for name, value in after.items()}
        found |= {"loss_after": loss(after), "inner_kl_after": inner}
        found["inner_coeff_after"] = adapted_coeff(inner_coeff, inner, targets[0])
        if case == "klpen":
            found |= {"outer_kl": kls(theta)[1], "outer_kl_after": outer}
            found["outer_coeff_after"] = adapted_coeff(outer_coeff, outer, targets[1])
        arrays |= {f"{case}.{name}": value for name, value in found.items()}
    np.savez(path, **arrays)


def kl_gradient(theta, data):
    """Gradient of the mean KL, by back-propagation."""
    hidden = mean_network(theta, data["obs"])
    n, depth = len(data["adv"]), (len(theta) - 1) // 2
    variance = np.exp(2 * theta["log_std"])
    width = 2 * variance + 1e-8
    difference = hidden[-1] - data["old_mean"]
    numerator = difference**2 + np.exp(2 * data["old_log_std"]) - variance
    delta = 2 * difference / width / n
    gradient = {"log_std": np.mean(1 - 2 * variance / width - numerator * 4 * variance / width**2, axis=0)}
    for i in reversed(range(depth)):
        gradient[f"W{i}"], gradient[f"b{i}"] = hidden[i].T @ delta, delta.sum(axis=0)
        if i:
            delta = (delta @ theta[f"W{i}"].T) * (1 - hidden[i] ** 2)
    return {name: gradient[name] for name in theta}


def trpo_file(path, seed=0):
    """A file of the layout `mbmpo_trpo.npz`."""
    rng = np.random.default_rng(seed)
    theta = random_theta(rng, (5, 4, 4, 2))
    data = sampled(rng, theta, 5, 40)
    start, delta = flat(theta), 0.01

    def loss(vector):
        return -float(np.mean(ratio(unflat(vector, theta), data) * data["adv"]))

    def product(vector, eps=1e-5):
        ends = [flat(kl_gradient(unflat(start + sign * eps * vector, theta), data)) for sign in (1, -1)]
        return (ends[0] - ends[1]) / (2 * eps) + 1e-5 * vector

    # At ratio 1 the gradients of r A and of log pi A agree.
    g = flat(inner_gradient(theta, data, "likelihood"))
    x, residual, p = np.zeros_like(g), g.copy(), g.copy()
    for _ in range(10):
        z = product(p)
        step = residual @ residual / (p @ z)
        x, new = x + step * p, residual - step * z
        p = new + (new @ new) / (residual @ residual) * p
        residual = new
    full = np.sqrt(2 * delta / (x @ product(x) + 1e-8)) * x
    for index in range(15):
        after = start - 0.8**index * full
        divergence = mean_kl(unflat(after, theta), data)
        if loss(after) < loss(start) and divergence <= delta:
            break
    vec = rng.normal(size=len(start))
    arrays = {f"theta.{name}": np.float32(value) for name, value in theta.items()}
    arrays |= {name: np.float32(value) for name, value in data.items()}
    arrays |= {f"grad.{name}": value for name, value in unflat(g, theta).items()}
    arrays |= {f"theta_after.{name}": value for name, value in unflat(after, theta).items()}
    np.savez(
        path,
        **arrays,
        **{"loss": loss(start), "kl": 0.0, "hvp.vec": vec, "hvp.exact": product(vec), "cg_direction": x},
        **{"backtrack_index": index, "loss_after": loss(after), "kl_after": divergence, "delta": delta},
    )
