"""The TESP family's formulas once more, from the specification alone: NumPy, float64, one episode and step at a time.

Writes files of the goldens' layout for any method and any sizes. Gradients are complex-step derivatives of the losses,
exact to rounding: every function below takes complex numbers, and branches look at the real part only, which is also
the convention of the rate's clip (derivative 1 up to and on the bound, 0 beyond). Nothing is shared with the package.

Weights may have a leading axis of perturbed copies; `...` stands for it.
"""

import itertools
from typing import NamedTuple

import numpy as np

METHODS = ("maml", "metasgd", "maesn", "tesp", "tesp_adapt_policy")
_STEP = 1e-30


class Sizes(NamedTuple):
    """Sizes of a file; the defaults are small, so that a file takes about a second."""

    observation: int = 3
    action: int = 2
    hidden: tuple[int, ...] = (5, 4)
    units: int = 4
    embedding: int = 2
    buffer: int = 3
    fast_updates: int = 2
    evaluations: int = 4
    tasks: int = 2
    episodes: int = 4
    longest: int = 8


class Config(NamedTuple):
    """The scalars `cfg.*` of a file."""

    inner_lr: float = 0.02
    inner_lr_bound: float = 0.1
    inner_grad_clip: float = 60.0
    outer_lr: float = 5e-3
    clip_param: float = 0.15
    eta: float = 0.05
    kl_limit: float = 0.01
    gamma: float = 0.99
    lam: float = 0.97


def single(x):
    """Rounded to what a file holds."""
    return np.asarray(x, np.float32).astype(np.float64)


def below(x, limit):
    return np.real(x) < limit


class Model:
    """One method: its variables, its policy and its losses (sections 1, 2, 3.3 and 3.5)."""

    def __init__(self, method, sizes, config):
        self.method, self.sizes, self.config = method, sizes, config
        self.has_encoder = method.startswith("tesp")
        widths = (sizes.observation + self.context_dim(), *sizes.hidden, 2 * sizes.action)
        mlp = {}
        for i, (rows, columns) in enumerate(itertools.pairwise(widths)):
            mlp |= {f"mlp{i}.kernel": (rows, columns), f"mlp{i}.bias": (columns,)}
        features = sizes.observation + 2 * sizes.action + 1
        encoder = {
            "gru.kernel": (features, 3 * sizes.units),
            "gru.recurrent_kernel": (sizes.units, 3 * sizes.units),
            "gru.bias": (3 * sizes.units,),
            "proj.kernel": (sizes.units, sizes.embedding),
            "proj.bias": (sizes.embedding,),
        }
        self.depth = len(widths) - 1
        self.inner = {
            "maml": mlp,
            "metasgd": mlp,
            "maesn": {"z": (sizes.embedding,)},
            "tesp": encoder,
            "tesp_adapt_policy": encoder | mlp,
        }[method]
        self.shared = mlp if method in ("maesn", "tesp") else {}
        self.learned_rates = method != "maml"
        self.eta = config.eta if self.context_dim() else 0.0

    def context_dim(self):
        return self.sizes.embedding if self.method in ("maesn", "tesp", "tesp_adapt_policy") else 0

    def initial(self, rng):
        """{"w.<name>": ..., "alpha.<name>": ...}; rates inside, outside and exactly on the bound."""
        variables = {}
        for name, shape in (self.inner | self.shared).items():
            scale = 0.3 if len(shape) == 1 else 0.8 / np.sqrt(shape[0])
            variables[f"w.{name}"] = single(scale * rng.normal(size=shape))
        if self.learned_rates:
            bound = float(np.float32(min(self.config.inner_lr_bound, 0.1)))
            for name, shape in self.inner.items():
                rate = rng.uniform(-0.09, 0.09, shape)
                special = rng.choice([0.0, bound, -bound, 2 * bound, -1.5 * bound], size=shape)
                variables[f"alpha.{name}"] = single(np.where(rng.random(shape) < 0.3, special, rate))
        return variables

    def adapted(self, variables, accumulated):
        """Theta' = theta - clip(alpha) G, and phi."""
        weights = {name: variables[f"w.{name}"] for name in self.shared}
        # A file's variables are float32, so the bound that they can lie on exactly is float32(0.1).
        bound = float(np.float32(self.config.inner_lr_bound))
        for name in self.inner:
            rate = variables[f"alpha.{name}"] if self.learned_rates else self.config.inner_lr
            rate = np.where(below(rate, -bound), -bound, np.where(below(-rate, -bound), bound, rate))
            weights[name] = variables[f"w.{name}"] - rate * accumulated[name]
        return weights

    def encoder(self, weights, episodes):
        """Section 2.2; `episodes` are arrays [T, F]."""
        if not episodes:
            return np.zeros(self.sizes.embedding)
        kernel_z, kernel_r, kernel_c = np.split(weights["gru.kernel"], 3, axis=-1)
        recurrent_z, recurrent_r, recurrent_c = np.split(weights["gru.recurrent_kernel"], 3, axis=-1)
        bias_z, bias_r, bias_c = (b[..., None, :] for b in np.split(weights["gru.bias"], 3, axis=-1))
        embeddings = []
        for episode in episodes:
            state = np.zeros((1, self.sizes.units))
            for x in episode[:, None, :]:
                z = hard_sigmoid(x @ kernel_z + state @ recurrent_z + bias_z)
                r = hard_sigmoid(x @ kernel_r + state @ recurrent_r + bias_r)
                c = np.tanh(x @ kernel_c + (r * state) @ recurrent_c + bias_c)
                state = z * state + (1 - z) * c
            embeddings.append((state @ weights["proj.kernel"])[..., 0, :] + weights["proj.bias"])
        return sum(embeddings) / len(embeddings)

    def context(self, weights, episodes):
        if self.has_encoder:
            return self.encoder(weights, episodes)
        return weights["z"] if self.context_dim() else None

    def logits(self, weights, context, obs):
        """[..., S, 2A] from observations [S, O]."""
        x = obs
        if context is not None:
            tiled = np.broadcast_to(context[..., None, :], (*context.shape[:-1], len(obs), context.shape[-1]))
            x = np.concatenate([np.broadcast_to(obs, (*context.shape[:-1], *obs.shape)), tiled], axis=-1)
        for i in range(self.depth):
            x = x @ weights[f"mlp{i}.kernel"] + weights[f"mlp{i}.bias"][..., None, :]
            x = np.tanh(x) if i < self.depth - 1 else x
        return x

    def inner_loss(self, weights, batch, episodes):
        logits = self.logits(weights, self.context(weights, episodes), batch["obs"])
        return -np.mean(log_prob(logits, batch["actions"]) * batch["advantages"], axis=-1)

    def inner_gradient(self, variables, accumulated, batch, episodes):
        """(loss, raw gradient, its norm, clipped gradient) by the inner variables."""
        adapted = self.adapted(variables, accumulated)
        theta, phi = ({name: adapted[name] for name in names} for names in (self.inner, self.shared))
        raw = complex_step(lambda point: self.inner_loss(phi | point, batch, episodes), theta)
        norm = np.sqrt(sum(np.sum(g**2) for g in raw.values()))
        scale = 1.0 if norm <= self.config.inner_grad_clip else self.config.inner_grad_clip / norm
        return (
            self.inner_loss(adapted, batch, episodes),
            raw,
            norm,
            {name: g * scale for name, g in raw.items()},
        )

    def outer_terms(self, variables, accumulated, batch, episodes):
        """policy_loss, kl, model_loss, total_loss of one task."""
        weights = self.adapted(variables, accumulated)
        context = self.context(weights, episodes)
        logits = self.logits(weights, context, batch["obs"])
        ratio = np.exp(log_prob(logits, batch["actions"]) - log_prob(batch["logits"], batch["actions"]))
        eps, advantage = self.config.clip_param, batch["advantages"]
        clipped = np.where(below(ratio, 1 - eps), 1 - eps, np.where(below(-ratio, -1 - eps), 1 + eps, ratio))
        plain, limited = advantage * ratio, advantage * clipped
        policy_loss = -np.mean(np.where(np.real(plain) <= np.real(limited), plain, limited), axis=-1)
        kl = np.mean(kl_divergence(batch["logits"], logits), axis=-1)
        model_loss = np.zeros_like(policy_loss) if context is None else np.mean(context**2, axis=-1)
        return {
            "policy_loss": policy_loss,
            "kl": kl,
            "model_loss": model_loss,
            "total_loss": policy_loss + self.eta * model_loss,
        }

    def outer_gradient(self, variables, accumulated, batch, episodes):
        return complex_step(
            lambda point: self.outer_terms(point, accumulated, batch, episodes)["total_loss"], variables
        )


def hard_sigmoid(x):
    return np.where(below(x, -2.5), 0.0, np.where(below(-x, -2.5), 1.0, 0.2 * x + 0.5))


def log_prob(logits, action):
    mean, log_std = np.split(logits, 2, axis=-1)
    squares = np.sum(((action - mean) / np.exp(log_std)) ** 2, axis=-1)
    return -0.5 * squares - 0.5 * action.shape[-1] * np.log(2 * np.pi) - np.sum(log_std, axis=-1)


def kl_divergence(old, new):
    mean0, log_std0 = np.split(old, 2, axis=-1)
    mean1, log_std1 = np.split(new, 2, axis=-1)
    numerator = np.exp(log_std0) ** 2 + (mean0 - mean1) ** 2
    return np.sum(log_std1 - log_std0 + numerator / (2 * np.exp(log_std1) ** 2) - 0.5, axis=-1)


def complex_step(loss, point):
    """Gradient of `loss` by every number of `point`, all perturbed copies in one call."""
    sizes = {name: value.size for name, value in point.items()}
    start, copies, total = 0, {}, sum(sizes.values())
    for name, value in point.items():
        copy = np.tile(value.astype(complex), (total,) + (1,) * value.ndim).reshape(total, -1)
        copy[np.arange(start, start + value.size), np.arange(value.size)] += 1j * _STEP
        copies[name] = copy.reshape(total, *value.shape)
        start += value.size
    # Without a buffer the loss does not depend on an encoder, and has no axis of copies.
    derivative = np.broadcast_to(np.imag(loss(copies)) / _STEP, (total,))
    parts = np.split(derivative, np.cumsum(list(sizes.values()))[:-1])
    return {name: part.reshape(value.shape) for (name, value), part in zip(point.items(), parts, strict=True)}


def episodes_of(group):
    """Encoder inputs [T, O + 2A + 1] of the episodes of a group, in its order."""
    features = np.concatenate([group["obs"], group["logits"], group["rewards"][:, None]], axis=1)
    return [features[group["eps_id"] == i] for i in dict.fromkeys(group["eps_id"].tolist())]


def with_advantages(batch, config):
    """Adds returns, vf_preds and advantages (sections 3.6 and 3.7), episode by episode."""
    episodes = [batch["eps_id"] == i for i in dict.fromkeys(batch["eps_id"].tolist())]
    steps = np.concatenate([np.arange(rows.sum()) for rows in episodes]) / 100
    o = np.clip(batch["obs"], -10, 10)
    phi = np.column_stack([o, o**2, steps, steps**2, steps**3, np.ones_like(steps)])

    def suffix_sums(x, discount):
        result = np.zeros_like(x)
        for rows in episodes:
            total = 0.0
            for t in reversed(np.flatnonzero(rows)):
                total = x[t] + discount * total
                result[t] = total
        return result

    returns = suffix_sums(batch["rewards"], config.gamma)
    coefficients = np.linalg.solve(phi.T @ phi + 1e-5 * np.eye(phi.shape[1]), phi.T @ returns)
    value = phi @ coefficients
    following = np.zeros_like(value)
    for rows in episodes:
        following[np.flatnonzero(rows)[:-1]] = value[np.flatnonzero(rows)[1:]]
    advantages = suffix_sums(batch["rewards"] + config.gamma * following - value, config.gamma * config.lam)
    return batch | {"returns": returns, "vf_preds": value, "advantages": single(advantages)}


class Writer:
    """Collects a file's arrays."""

    def __init__(self, method, sizes, config, seed):
        self.model, self.sizes, self.config = Model(method, sizes, config), sizes, config
        self.rng = np.random.default_rng(seed)
        self.arrays = {f"cfg.{name}": np.float64(value) for name, value in config._asdict().items()}
        self.arrays |= {"cfg.n_evals": np.float64(sizes.evaluations), "cfg.buffer_size": np.float64(sizes.buffer)}
        self.next_id = 7

    def put(self, prefix, tree):
        for name, value in tree.items():
            value = np.asarray(value)
            whole = value.dtype.kind in "iu" or name.endswith("vf_preds")
            self.arrays[prefix + name] = value if whole else value.astype(np.float32)

    def batch(self, weights, context, recorded_noise=0.0):
        """Episodes of unequal length sampled by a policy; the recorded distribution may differ from the policy's."""
        rng, sizes = self.rng, self.sizes
        lengths = rng.integers(1, sizes.longest + 1, size=sizes.episodes + rng.integers(0, 3))
        # Enough rows for the baseline's features.
        lengths[0] = max(lengths[0], 2 * sizes.observation + 8)
        total = int(lengths.sum())
        obs = single(rng.normal(size=(total, sizes.observation)))
        logits = self.model.logits(weights, context, obs)
        logits = single(logits + recorded_noise * rng.normal(size=logits.shape))
        mean, log_std = np.split(logits, 2, axis=-1)
        batch = {
            "obs": obs,
            "actions": single(mean + np.exp(log_std) * rng.normal(size=mean.shape)),
            "rewards": single(rng.normal(-0.5, 1.0, size=total)),
            "logits": logits,
            "eps_id": np.repeat(np.arange(self.next_id, self.next_id + len(lengths)), lengths),
        }
        self.next_id += len(lengths)
        return with_advantages(batch, self.config)

    def extended(self, buffer, batch):
        """The best M of old and new episodes by summed reward, old before new among equals (section 3.8)."""
        names = ("obs", "logits", "rewards", "eps_id")
        for i in dict.fromkeys(batch["eps_id"].tolist()):
            buffer = [*buffer, {name: batch[name][batch["eps_id"] == i] for name in names}]
        ranked = sorted(buffer, key=lambda episode: np.sum(episode["rewards"]), reverse=True)
        return ranked[: self.sizes.buffer]

    @staticmethod
    def joined(buffer):
        return {name: np.concatenate([episode[name] for episode in buffer]) for name in buffer[0]} if buffer else {}

    def encoded(self, buffer):
        return episodes_of(self.joined(buffer)) if buffer else []

    def random_gradient(self):
        return {name: single(self.rng.normal(size=shape)) for name, shape in self.model.inner.items()}

    def random_buffer(self):
        if not self.model.has_encoder:
            return []
        return self.extended([], self.batch(*self.arbitrary_policy()))

    def arbitrary_policy(self):
        weights = {name[2:]: value for name, value in self.model.initial(self.rng).items() if name.startswith("w.")}
        return weights, self.model.context(weights, [])

    def static(self, variables):
        """One evaluation with an arbitrary G, buffer and recorded distribution."""
        model, prefix = self.model, "static."
        accumulated, buffer = self.random_gradient(), self.random_buffer()
        episodes = self.encoded(buffer)
        weights = model.adapted(variables, accumulated)
        context = model.context(weights, episodes)
        batch = self.batch(weights, context, recorded_noise=0.1)
        self.put("static.batch.", batch)
        self.put("static.buffer.", self.joined(buffer))
        self.put("static.G.w.", accumulated)
        self.put("static.adapted.w.", {name: weights[name] for name in model.inner})
        logits = model.logits(weights, context, batch["obs"])
        logp, old = log_prob(logits, batch["actions"]), log_prob(batch["logits"], batch["actions"])
        loss, raw, norm, clipped = model.inner_gradient(variables, accumulated, batch, episodes)
        found = {"logits_new": logits, "logp": logp, "ratio": np.exp(logp - old)}
        found |= {"kl_per_step": kl_divergence(batch["logits"], logits), "inner_loss": loss, "inner_grad_norm": norm}
        if context is not None:
            found["h"] = context[None]
        self.put(prefix, found)
        self.put("static.inner_grad_raw.w.", raw)
        self.put("static.inner_grad.w.", clipped)
        scale = np.float32(3e3 / norm)
        louder = batch | {"advantages": single(batch["advantages"] * float(scale))}
        loss, _, norm, clipped = model.inner_gradient(variables, accumulated, louder, episodes)
        self.put("static.clipcase.", {"advantage_scale": scale, "inner_loss": loss, "norm_before": norm})
        self.put("static.clipcase.inner_grad.w.", clipped)
        terms = model.outer_terms(variables, accumulated, batch, episodes)
        self.put("static.outer.", terms | {"ppo_loss": terms["policy_loss"]})
        self.put("static.outer_grad.", model.outer_gradient(variables, accumulated, batch, episodes))
        if model.has_encoder:
            obs = single(self.rng.normal(size=(4, self.sizes.observation)))
            empty = model.logits(weights, np.zeros(self.sizes.embedding), obs)
            self.put("static.emptybuffer.", {"obs": obs, "logits": empty})

    def adaptation(self, variables, task):
        """Section 3.2, step 3; returns what the outer loop needs: G, P and the final buffer's episodes."""
        model = self.model
        accumulated = {name: np.zeros(shape) for name, shape in model.inner.items()}
        buffer = []
        if model.has_encoder:
            weights = model.adapted(variables, accumulated)
            warmup = self.batch(weights, model.context(weights, []))
            self.put(f"{task}.W.", warmup)
            buffer = self.extended(buffer, warmup)
            self.put(f"{task}.buffer0.", self.joined(buffer))
        for k in range(self.sizes.fast_updates):
            weights, episodes = model.adapted(variables, accumulated), self.encoded(buffer)
            context = model.context(weights, episodes)
            batch = self.batch(weights, context)
            self.put(f"{task}.D{k}.", batch)
            loss, _, _, gradient = model.inner_gradient(variables, accumulated, batch, episodes)
            self.put(f"{task}.", {f"inner_loss{k}": loss})
            self.put(f"{task}.g{k}.w.", gradient)
            accumulated = {name: accumulated[name] + gradient[name] for name in accumulated}
            if model.has_encoder:
                self.put(f"{task}.", {f"h{k}": context[None]})
                buffer = self.extended(buffer, batch)
                self.put(f"{task}.", {f"buffer{k + 1}.eps_id": self.joined(buffer)["eps_id"]})
        # The losses below are to be those of the file's own G.
        accumulated = {name: single(value) for name, value in accumulated.items()}
        self.put(f"{task}.G.w.", accumulated)
        weights, episodes = model.adapted(variables, accumulated), self.encoded(buffer)
        context = model.context(weights, episodes)
        if model.has_encoder:
            self.put(f"{task}.buffer{self.sizes.fast_updates}.", self.joined(buffer))
            self.put(f"{task}.", {f"h{self.sizes.fast_updates}": context[None]})
        batch = self.batch(weights, context)
        self.put(f"{task}.P.", batch)
        return accumulated, batch, episodes

    def frozen(self, variables, task):
        """Arbitrary G, P and buffer; P's recorded distribution is slightly off."""
        accumulated, buffer = self.random_gradient(), self.random_buffer()
        episodes = self.encoded(buffer)
        weights = self.model.adapted(variables, accumulated)
        batch = self.batch(weights, self.model.context(weights, episodes), recorded_noise=0.02)
        self.put(f"{task}.G.w.", accumulated)
        self.put(f"{task}.P.", batch)
        self.put(f"{task}.buffer.", self.joined(buffer))
        return accumulated, batch, episodes

    def outer_loop(self, name, variables, tasks, adam):
        """Section 3.5; returns the selected variables. `adam` is {"m", "v", "t"}, changed in place."""
        best, visited, per_task = None, [], []
        for i in range(self.sizes.evaluations):
            terms = [self.model.outer_terms(variables, *task) for task in tasks]
            gradients = [self.model.outer_gradient(variables, *task) for task in tasks]
            mean = {n: sum(g[n] for g in gradients) / len(tasks) for n in variables}
            info = {n: np.mean([t[n] for t in terms]) for n in terms[0]}
            visited.append(variables)
            per_task.append(terms)
            if i == 0:
                self.put(f"{name}.mean_grad0.", mean)
            better = best is None or info["policy_loss"] < best[1]["policy_loss"]
            if info["kl"] < self.config.kl_limit and better:
                best = (i, info, variables)
            if i < self.sizes.evaluations - 1:
                variables = adam_step(variables, mean, adam, self.config.outer_lr)
        for n in per_task[0][0]:
            self.arrays[f"{name}.per_task.{n}"] = np.array([[t[n] for t in terms] for terms in per_task])
        # Without a candidate the original would crash.
        selected, info, after = best or (-1, {}, visited[0])
        self.put(f"{name}.selected_info.", info)
        self.arrays[f"{name}.selected"] = np.int64(selected)
        for i, point in enumerate(visited):
            if name == "outer1" or i == len(visited) - 1:
                self.put(f"{name}.weights{i}.", point)
        self.put(f"{name}.weights_after.", after)
        return after

    def margin(self):
        """How clear the selections are: the distance of KLs from the limit, and between policy losses."""
        clear = np.inf
        for name in ("outer1", "outer2"):
            kl, loss = (self.arrays[f"{name}.per_task.{n}"].mean(axis=1) for n in ("kl", "policy_loss"))
            gaps = np.abs(loss[:, None] - loss[None])[~np.eye(len(loss), dtype=bool)]
            clear = min(clear, np.min(np.abs(kl - self.config.kl_limit)), np.min(gaps))
        return clear if min(self.arrays[f"{name}.selected"] for name in ("outer1", "outer2")) >= 0 else 0.0

    def everything(self):
        variables = self.model.initial(self.rng)
        self.put("init.", variables)
        self.static(variables)
        names = range(self.sizes.tasks)
        adam = {"m": 0.0, "v": 0.0, "t": 0}
        after = self.outer_loop("outer1", variables, [self.adaptation(variables, f"t{i}") for i in names], adam)
        self.outer_loop("outer2", after, [self.frozen(after, f"u{i}") for i in names], adam)
        self.arrays["adam_steps_total"] = np.int64(adam["t"])


def adam_step(variables, gradient, adam, learning_rate):
    adam["t"] += 1
    rate = learning_rate * np.sqrt(1 - 0.999 ** adam["t"]) / (1 - 0.9 ** adam["t"])
    m = {n: 0.9 * (adam["m"][n] if adam["m"] else 0.0) + 0.1 * g for n, g in gradient.items()}
    v = {n: 0.999 * (adam["v"][n] if adam["v"] else 0.0) + 0.001 * g**2 for n, g in gradient.items()}
    adam["m"], adam["v"] = m, v
    return {n: x - rate * m[n] / (np.sqrt(v[n]) + 1e-8) for n, x in variables.items()}


def adaptation_file(path, method, seed=0, sizes=None, config=None, least_margin=1e-4):
    """A file of the layout `tesp_<method>.npz`; a seed whose selections are unclear is replaced by the next."""
    config = config or Config()
    if method == "maml":
        config = config._replace(inner_lr_bound=np.inf)
    while True:
        writer = Writer(method, sizes or Sizes(), config, seed)
        writer.everything()
        if writer.margin() > least_margin:
            break
        seed += 1000
    np.savez(path, **writer.arrays)
