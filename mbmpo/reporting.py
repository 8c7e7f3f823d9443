"""Metrics of MB-MPO-family runs under readable names (MB-MPO specification, section 1.3).

The original's columns: EnvTrajs- is `real/`, PrePolicy- `pre_update/`, PostPolicy- `post_update/`, DynTrajs{m}a and b
`imagined/pre_update_<m>` and `imagined/post_update_<m>`, AvgModelEpochTime, AvgEpochsPerModel and StdEpochsPerModel
`time/model_epoch`, `model/epochs_mean` (one more than the original's, which counts from 0) and `model/epochs_std`,
mean_inner_stepsize `inner/mean_step_size`, n_timesteps `env_steps/counted`, Iteration `iteration`. PolicyExecTime,
EnvExecTime and ProcessExecTime of a sampler are `time/<sampler>_policy`, `_simulation` and `_processing`, where the
sampler is `real`, `pre_update` or `post_update`. Time-EnvSampling, -ModelFit and -MAMLSteps are `time/env_sampling`,
`model_fit` and `improvement`; Time-DynSampling, -DynSampleProc, -InnerStep and -OuterStep `time/imagined_sampling`,
`_processing`, `_inner` and `_outer`; Time-Itr and -Overall `time/iteration` and `time/overall`.

Shapes: `E` models.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mbmpo import history
from mbmpo.policies import Weights
from metarl.experiment.learner import Metrics, Report
from metarl.sampling.sampler import SamplingSeconds
from metarl.sampling.steps import Batch

if TYPE_CHECKING:
    from mbmpo.dynamics import FitReport

_PATHS = {
    "average_return": "return",
    "average_discounted_return": "discounted_return",
    "std_return": "return_std",
    "max_return": "return_max",
    "min_return": "return_min",
    "num_paths": "num_paths",
    "explained_variance": "explained_variance",
    "entropy": "entropy",
    "perplexity": "perplexity",
}


def episode_metrics(prefix: str, batch: Batch, gamma: float) -> Metrics:
    """Returns, lengths and their spread over all episodes of a batch."""
    episodes, steps = batch.episodes, batch.steps
    discounted = np.where(steps.valid, steps.reward * gamma ** steps.time.astype(np.float64), 0.0)
    count = len(episodes.episode_return)
    return {
        f"{prefix}/return": float(np.mean(episodes.episode_return)),
        f"{prefix}/discounted_return": float(discounted.sum() / count),
        f"{prefix}/return_std": float(np.std(episodes.episode_return)),
        f"{prefix}/return_max": float(np.max(episodes.episode_return)),
        f"{prefix}/return_min": float(np.min(episodes.episode_return)),
        f"{prefix}/num_paths": count,
        f"{prefix}/length": float(np.mean(episodes.length)),
    }


def path_metrics(prefix: str, statistics: Mapping[str, float] | None) -> Metrics:
    """The columns of `processing.path_statistics`; None for each if there are no statistics this time."""
    return {f"{prefix}/{column}": None if statistics is None else statistics[name] for name, column in _PATHS.items()}


def sampler_metrics(prefix: str, shards: Sequence[SamplingSeconds]) -> Metrics:
    """Where a sampler's time went, of the slowest shard; None if it did not sample this time."""
    fields = zip(*shards, strict=True) if shards else ((None,),) * len(SamplingSeconds._fields)
    return {f"time/{prefix}_{name}": max(values) for name, values in zip(SamplingSeconds._fields, fields, strict=True)}


def fit_metrics(result: "FitReport") -> Metrics:
    """Epochs, and every model's losses after its last epoch."""
    epochs = np.asarray(result.last_epoch, np.float64) + 1.0
    metrics: Metrics = {
        "model/epochs_run": int(result.epochs_run),
        "model/epochs_mean": float(epochs.mean()),
        "model/epochs_std": float(epochs.std()),
        "time/model_epoch": result.seconds / max(1, result.epochs_run),
    }
    for kind, losses in (("train", result.train_loss), ("validation", result.valid_loss)):
        last = [float(losses[int(epoch), member]) for member, epoch in enumerate(result.last_epoch)]
        metrics |= {f"model/{kind}_loss_{member}": value for member, value in enumerate(last)}
        metrics[f"model/{kind}_loss_mean"] = float(np.mean(last))
    return metrics


def imagined_metrics(returns: Sequence[tuple[float, float]], num_steps: int) -> Metrics:
    """Imagined returns before and after adaptation of every meta-step; None for those that were not made."""
    metrics: Metrics = {}
    for step in range(num_steps):
        made = step < len(returns)
        metrics[f"imagined/pre_update_{step + 1}"] = returns[step][0] if made else None
        metrics[f"imagined/post_update_{step + 1}"] = returns[step][1] if made else None
    return metrics


def numbered_metrics(made: Sequence[Metrics], num_steps: int) -> Metrics:
    """Metrics of every meta-step, '<name>_<meta-step>' from 1 on; None for those that were not made; none for none."""
    return {
        f"{name}_{step + 1}": made[step][name] if step < len(made) else None
        for name in (made[0] if made else ())
        for step in range(num_steps)
    }


def update_metrics(infos: Sequence[Mapping[str, float]], names: Sequence[str]) -> Metrics:
    """Means over the meta-steps of an iteration of what the meta-update reports; None for what it leaves out."""
    found = {name: [info[name] for info in infos if name in info] for name in names}
    return {f"meta/{name}": float(np.mean(values)) if values else None for name, values in found.items()}


def mean_step_size(theta: Weights, inner_lr: float) -> float:
    """Mean of the trained step sizes, or the constant one."""
    rates = [np.ravel(value) for name, value in theta.items() if name.startswith("step_size/")]
    return float(np.mean(np.concatenate(rates), dtype=np.float64)) if rates else inner_lr


def summary_line(metrics: Metrics) -> str:
    """One line per iteration: real returns before and after adaptation, imagined ones, KL, models, samples, time."""

    def shown(label: str, *names: str) -> list[str]:
        values = [metrics[name] for name in names if metrics.get(name) is not None]
        return [f"{label} " + " -> ".join(f"{value:.4g}" for value in values)] if values else []

    imagined = history.imagined_returns(metrics)
    parts = [
        *shown("real", "real/return"),
        *shown("pre/post-update", "pre_update/return", "post_update/return"),
        *([f"imagined {imagined[0]:.4g} -> {imagined[-1]:.4g}"] if imagined else []),
        *shown("kl", "meta/kl_after"),
        *shown("model epochs", "model/epochs_mean"),
        *shown("validation loss", "model/validation_loss_mean"),
        *shown("steps", "env_steps/counted" if "env_steps/counted" in metrics else "env_steps/total"),
        *shown("seconds", "time/iteration"),
    ]
    return "  ".join(parts)


def step_progress(
    report: Report, what: str, total: int, done: int = 0, steps: int | None = None
) -> Callable[[int], None]:
    """Tells of steps as they are made, "<what> 1200/4000", which lets the time left be shown.

    Args:
        report: is told, at once and by every call of the result with the steps made since the one before.
        what: is being done.
        total: steps of all rounds together.
        done: in the rounds before this one.
        steps: of this round; None for all that are left. Those beyond, where episodes end early, are not told of.
    """
    made, last = done, total if steps is None else done + steps

    def progress(more: int) -> None:
        nonlocal made
        made = min(made + more, last)
        report(f"{what} {made}/{total}")

    progress(0)
    return progress


class Stopwatch:
    """Seconds since it was made or restarted."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def restart(self) -> None:
        """Begins again at 0."""
        self._started = time.perf_counter()

    def elapsed(self) -> float:
        """Returns the seconds."""
        return time.perf_counter() - self._started


class Laps:
    """Seconds of an iteration's parts, one after the other."""

    def __init__(self) -> None:
        self._lap = Stopwatch()
        self._seconds: Metrics = {}

    def lap(self, name: str) -> None:
        """Books the time since the last lap under a name."""
        self._seconds[f"time/{name}"] = self._lap.elapsed()
        self._lap.restart()

    def metrics(self) -> Metrics:
        """Returns 'time/<name>' of all laps."""
        return dict(self._seconds)
