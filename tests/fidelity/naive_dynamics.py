"""Writes files of the layouts of the ensemble and of planning: NumPy, float64, member by member, row by row.

Nothing is shared with the package.
"""

import itertools

import numpy as np


def random_model(rng, widths):
    model = {}
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        limit = np.sqrt(6 / (a + b))
        model[f"V{i}"] = rng.uniform(-limit, limit, (a, b))
        model[f"g{i}"] = rng.uniform(0.5, 1.5, b)
        model[f"b{i}"] = 0.1 * rng.normal(size=b)
    return {name: np.float64(np.float32(value)) for name, value in model.items()}


def forward(model, x):
    """Inputs of every layer and the prediction."""
    values, depth = [x], len(model) // 3
    for i in range(depth):
        v, g, b = (model[f"{name}{i}"] for name in "Vgb")
        x = x @ (v * g / np.linalg.norm(v, axis=0)) + b
        x = np.maximum(x, 0) if i < depth - 1 else x
        values.append(x)
    return values


def loss_of(model, x, y):
    return np.mean((forward(model, x)[-1] - y) ** 2)


def gradient(model, x, y):
    values, result, depth = forward(model, x), {}, len(model) // 3
    delta = 2 * (values[-1] - y) / y.size
    for i in reversed(range(depth)):
        v, g = model[f"V{i}"], model[f"g{i}"]
        length = np.linalg.norm(v, axis=0)
        unit = v / length
        by_kernel = values[i].T @ delta
        along = np.sum(by_kernel * unit, axis=0)
        result |= {f"V{i}": g / length * (by_kernel - along * unit), f"g{i}": along, f"b{i}": delta.sum(axis=0)}
        delta = (delta @ (unit * g).T) * (values[i] > 0)
    return result


class Adam:
    """TensorFlow 1's, with its moments."""

    def __init__(self, model):
        self.m = {name: np.zeros_like(value) for name, value in model.items()}
        self.v = {name: np.zeros_like(value) for name, value in model.items()}
        self.t = 0

    def step(self, model, found, rate):
        self.t += 1
        rate = rate * np.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t)
        for name, g in found.items():
            self.m[name] = 0.9 * self.m[name] + 0.1 * g
            self.v[name] = 0.999 * self.v[name] + 0.001 * g**2
            model[name] = model[name] - rate * self.m[name] / (np.sqrt(self.v[name]) + 1e-8)


def transitions(rng, rows, dims):
    obs, act = rng.normal(size=(rows, dims[0])) * 2 + 1, rng.uniform(-1, 1, (rows, dims[1]))
    move = 0.3 * np.tanh(obs) + 0.1 * act.sum(axis=1, keepdims=True) + 0.05 * rng.normal(size=obs.shape)
    return {"obs": obs, "act": act, "obs_next": obs + move}


def statistics(data):
    parts = {"obs": data["obs"], "act": data["act"], "delta": data["obs_next"] - data["obs"]}
    return {name: (value.mean(axis=0), value.std(axis=0)) for name, value in parts.items()}


def normalised(data, norm):
    parts = {"obs": data["obs"], "act": data["act"], "delta": data["obs_next"] - data["obs"]}
    parts = {name: (value - norm[name][0]) / (norm[name][1] + 1e-10) for name, value in parts.items()}
    return np.concatenate([parts["obs"], parts["act"]], axis=1), parts["delta"]


def train(models, adams, data, perms, order, batch_size, rate):
    """Losses [epoch, position, model] before the steps and [epoch, model] after the epochs; models change."""
    norm = statistics(data)
    x, y = normalised(data, norm)
    cut = int(0.8 * len(x))
    train_loss, valid_loss = [], []
    for positions in order:
        train_loss.append(np.zeros((len(positions), len(models))))
        for k, (model, adam, perm) in enumerate(zip(models, adams, perms, strict=True)):
            rows = perm[:cut]
            for place, batch in enumerate(positions):
                own = rows[batch * batch_size : (batch + 1) * batch_size]
                train_loss[-1][place, k] = loss_of(model, x[own], y[own])
                adam.step(model, gradient(model, x[own], y[own]), rate)
        valid_loss.append([loss_of(m, x[p[cut:]], y[p[cut:]]) for m, p in zip(models, perms, strict=True)])
    return np.array(train_loss), np.array(valid_loss), norm


def predict(model, norm, obs, act):
    x = np.concatenate([(obs - norm["obs"][0]) / (norm["obs"][1] + 1e-10), (act - norm["act"][0]) / norm["act"][1]], 1)
    return obs + forward(model, x)[-1] * (norm["delta"][1] + 1e-10) + norm["delta"][0]


def stored(prefix, models):
    return {f"{prefix}model{k}.{n}": np.float32(value) for k, model in enumerate(models) for n, value in model.items()}


def stopping(losses, p, max_epochs):
    """The early stop of one model at a time: its last epoch."""
    last = []
    for curve in losses.T:
        r = r_prev = None
        for epoch, v in enumerate(curve[:max_epochs]):
            if epoch == 0:
                r, r_prev = (1.5 * v, 2 * v) if v >= 0 else (v / 1.5, v / 2)
            r = p * r + (1 - p) * v
            if r_prev < r or epoch == max_epochs - 1:
                break
            r_prev = r
        last.append(epoch)
    return np.array(last)


def stopping_case(rng, models, p, max_epochs):
    epochs = np.arange(max_epochs)[:, None]
    turn = rng.uniform(1, max(2, 0.8 * max_epochs), models)
    losses = 1 + 0.5 * np.exp(-epochs / 5) + 0.1 * np.maximum(epochs - turn, 0) + 0.05 * rng.normal(size=(1, models))
    last = stopping(losses, p, max_epochs)
    trained = [int(np.sum(last >= epoch)) for epoch in range(last.max() + 1)]
    found = {"persistency": p, "max_epochs": max_epochs, "valid_loss": losses, "last_epoch": last}
    found |= {"epochs_run": last.max() + 1, "models_trained_per_epoch": trained, "AvgEpochsPerModel": last.mean()}
    return found


def dynamics_file(path, seed=0, num_models=3, dims=(5, 2), hidden=(16, 16), rows=(40, 65), mini_rows=40, batch_size=10):
    """A file of the layout `mbmpo_dynamics.npz`."""
    rng, rate = np.random.default_rng(seed), 1e-3
    widths = (sum(dims), *hidden, dims[0])
    models = [random_model(rng, widths) for _ in range(num_models)]
    arrays = {"cfg.models": num_models, "cfg.lr": rate} | stored("init.", models)
    raw = np.float32(rng.normal(size=(6, sum(dims))))
    arrays |= {"raw.obs_normalised": raw[:, : dims[0]], "raw.act_normalised": raw[:, dims[0] :]}
    arrays["raw.delta_normalised_pred"] = np.stack([forward(model, raw)[-1] for model in models], axis=-1)
    adams = [Adam(model) for model in models]
    for number, (count, epochs) in enumerate(zip(rows, (12, 8), strict=True), start=1):
        data = transitions(rng, count, dims)
        perms = np.stack([rng.permutation(count) for _ in models])
        losses, valid, norm = train(models, adams, data, perms, [[0]] * epochs, 500, rate)
        found = {**data, "perm": perms, "epochs": epochs, "train_loss": losses[:, 0], "valid_loss": valid}
        for name, (mean, std) in norm.items():
            found |= {f"norm.{name}.mean": mean, f"norm.{name}.std": std}
        count = 2 * num_models
        given = transitions(rng, count, dims)
        every = np.stack([predict(model, norm, given["obs"], given["act"]) for model in models], axis=-1)
        drawn = rng.integers(num_models, size=count)
        found |= {"predict.obs": given["obs"], "predict.act": given["act"], "predict.all": every}
        found |= {"predict.mean": every.mean(axis=-1), "predict.std": every.std(axis=-1)}
        found["predict.model_batches"] = np.stack([every[row, :, row // 2] for row in range(count)])
        found |= {"predict.rand": every[np.arange(count), :, drawn], "predict.rand_model_index": drawn}
        arrays |= {f"fit{number}.{name}": value for name, value in found.items()}
        arrays |= stored(f"fit{number}.weights_after.", models)
    models = [random_model(rng, widths) for _ in range(num_models)]
    arrays |= stored("mini.init.", models) | {"mini.batch_size": batch_size}
    data = transitions(rng, mini_rows, dims)
    perms = np.stack([rng.permutation(mini_rows) for _ in models])
    cut = int(0.8 * mini_rows)
    order = np.stack([rng.permutation(-(-cut // batch_size))] * 5)
    losses, valid, _ = train(models, [Adam(model) for model in models], data, perms, order, batch_size, rate)
    sizes = np.minimum(batch_size, cut - batch_size * order)
    arrays |= {f"mini.{name}": value for name, value in data.items()} | stored("mini.weights_after.", models)
    arrays |= {"mini.perm": perms, "mini.batch_order": order, "mini.batch_rows": sizes}
    arrays |= {"mini.train_loss": losses, "mini.valid_loss": valid}
    for name, p, max_epochs in (("slow", 0.99, 40), ("quick", 0.5, 9), ("one", 0.9, 1)):
        arrays |= {f"stop.{name}.{k}": v for k, v in stopping_case(rng, num_models, p, max_epochs).items()}
    np.savez(path, **arrays)


def mpc_file(path, seed=1, states=3, per_state=40, horizon=6, num_models=3, dims=(5, 2), hidden=(16, 16)):
    """A file of the layout `mbmpo_mpc.npz`."""
    rng = np.random.default_rng(seed)
    models = [random_model(rng, (sum(dims), *hidden, dims[0])) for _ in range(num_models)]
    norm = {
        name: (rng.normal(size=width), rng.uniform(0.5, 2, width))
        for name, width in (("obs", dims[0]), ("act", dims[1]), ("delta", dims[0]))
    }
    obs = rng.normal(size=(states, dims[0]))
    candidates = rng.uniform(-1, 1, (horizon, states * per_state, dims[1]))
    drawn = rng.integers(num_models, size=(horizon, states * per_state))
    values = []
    for row in range(states * per_state):
        o, value = obs[row // per_state][None], 0.0
        for t in range(horizon):
            o = predict(models[drawn[t, row]], norm, o, candidates[t, row][None])
            value -= 0.99**t * np.sum(o**2)
        values.append(value)
    best = np.argmax(np.reshape(values, (states, per_state)), axis=1)
    arrays = stored("weights.", models) | {"obs": obs, "candidates": candidates, "model_index": drawn}
    for name, (mean, std) in norm.items():
        arrays |= {f"norm.{name}.mean": mean, f"norm.{name}.std": std}
    chosen = candidates[0].reshape(states, per_state, -1)[np.arange(states), best]
    np.savez(path, **arrays, chosen=chosen, chosen_candidate=best)
