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


def adapted_by(theta, phases, alpha, kind):
    """Theta after one inner step on each of a task's phases."""
    for data in phases:
        theta = adapted(theta, data, alpha, kind)
    return theta


def conjugate_gradient(product, g, iterations=10, residual_tol=1e-10):
    x, residual, p = np.zeros_like(g), g.copy(), g.copy()
    for _ in range(iterations):
        z = product(p)
        step = residual @ residual / (p @ z)
        x, new = x + step * p, residual - step * z
        p = new + (new @ new) / (residual @ residual) * p
        residual = new
        if residual @ residual < residual_tol:
            break
    return x


def line_search(start, x, product, loss, divergence, delta):
    """(theta afterwards, index of the last candidate, whether it was rejected), vectors."""
    full = np.sqrt(2 * delta / (x @ product(x) + 1e-8)) * x
    before = loss(start)
    for index in range(15):
        after = start - 0.8**index * full
        if loss(after) < before and divergence(after) <= delta:
            break
    rejected = not (loss(after) < before and divergence(after) < delta)
    return (start if rejected else after), index, rejected
