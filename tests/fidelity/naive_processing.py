"""Writes files of the layout of `mbmpo_processing.npz`: NumPy, float64, path by path, nothing of the package."""

import numpy as np

_GAMMA = 0.99


def features(obs):
    o = np.clip(obs, -10, 10)
    t = np.arange(len(o))[:, None] / 100
    return np.concatenate([o, o**2, t, t**2, t**3, np.ones_like(t)], axis=1)


def fitted(paths):
    phi = np.concatenate([features(path["observations"]) for path in paths])
    target = np.concatenate([path["returns"] for path in paths])
    return np.linalg.lstsq(phi.T @ phi + 1e-5 * np.eye(phi.shape[1]), phi.T @ target, rcond=None)[0]


def suffix_sums(x, decay):
    result, total = np.zeros(len(x)), 0.0
    for t in reversed(range(len(x))):
        total = x[t] + decay * total
        result[t] = total
    return result


def case_of(paths, coefficients, lambda_, center, positive):
    values = [features(path["observations"]) @ coefficients for path in paths]
    advantages = np.concatenate(
        [
            suffix_sums(path["rewards"] + _GAMMA * np.append(v[1:], 0) - v, _GAMMA * lambda_)
            for path, v in zip(paths, values, strict=True)
        ]
    )
    if center:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    if positive:
        advantages = advantages - advantages.min() + 1e-8
    return advantages, np.concatenate(values)


def logged(paths, values):
    totals = np.array([path["rewards"].sum() for path in paths])
    returns = np.concatenate([path["returns"] for path in paths])
    entropies = np.concatenate([path["log_std"] for path in paths]) + 0.5 * np.log(2 * np.pi * np.e)
    entropy = entropies.sum(axis=1).mean()
    return {
        "AverageDiscountedReturn": np.mean([path["returns"][0] for path in paths]),
        "AverageReturn": totals.mean(),
        "ExplainedVariance": 1 - np.var(returns - values) / (np.var(returns) + 1e-8),
        "NumTrajs": len(paths),
        "Entropy": entropy,
        "Perplexity": np.exp(entropy),
        "StdReturn": totals.std(),
        "MaxReturn": totals.max(),
        "MinReturn": totals.min(),
    }


def processing_file(path, seed=0, lengths=((20, 7, 20, 15), (15, 20, 20)), dims=(5, 2)):
    rng, arrays, batches = np.random.default_rng(seed), {}, []
    for number, lens in enumerate(lengths, start=1):
        paths = []
        for n in lens:
            one = {"observations": 3 * rng.normal(size=(n, dims[0])), "actions": rng.normal(size=(n, dims[1]))}
            one |= {"rewards": rng.normal(size=n) - 0.5, "mean": rng.normal(size=(n, dims[1]))}
            paths.append(one | {"log_std": 0.3 * rng.normal(size=(n, dims[1]))})
        batch = {name: np.concatenate([one[name] for one in paths]) for name in paths[0]}
        arrays |= {f"batch{number}.{name}": value for name, value in batch.items()}
        arrays[f"batch{number}.lens"] = np.array(lens)
        batches.append([one | {"returns": suffix_sums(one["rewards"], _GAMMA)} for one in paths])
    for order in ("maml", "nonmaml"):
        for center, positive in ((1, 0), (0, 0), (1, 1)):
            coefficients, lambda_ = np.zeros(2 * dims[0] + 4), 1.0 if center else 0.9
            for number, paths in enumerate(batches, start=1):
                new = fitted(paths)
                used = new if order == "maml" else coefficients
                advantages, values = case_of(paths, used, lambda_, center, positive)
                coefficients = new
                found = {"advantages": advantages, "gae_lambda": lambda_}
                if center and not positive:
                    found["returns"] = np.concatenate([one["returns"] for one in paths])
                    found["mean_return"] = np.mean([one["rewards"].sum() for one in paths])
                    found["baseline_coeffs_afterwards"] = new
                    found |= {f"log.{name}": value for name, value in logged(paths, values).items()}
                prefix = f"{order}.center{center}.pos{positive}.batch{number}."
                arrays |= {f"{prefix}{name}": value for name, value in found.items()}
    first = batches[0]
    arrays["dynamics.observations_dynamics"] = np.concatenate([one["observations"][:-1] for one in first])
    arrays["dynamics.next_observations_dynamics"] = np.concatenate([one["observations"][1:] for one in first])
    arrays["dynamics.actions_dynamics"] = np.concatenate([one["actions"][:-1] for one in first])
    arrays["dynamics.timesteps_dynamics"] = np.concatenate([np.arange(len(one["rewards"]) - 1) for one in first])
    np.savez(path, **arrays)
