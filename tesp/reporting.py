"""Metrics, the log line and the figure of a TESP-family run (TESP specification, section 3.9)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from metarl.experiment.learner import Metrics
from metarl.sampling.steps import Episodes
from tesp.shard import Adaptation, Trajectory

# Parts of the reward whose sums over episodes are reported, where a family's info has them.
_REWARD_PARTS = ("dist_reward", "reward_run")


def statistics(info_keys: Sequence[str]) -> tuple[str, ...]:
    """What is reported of a round's episodes, for a family with `info_keys`: names of `pooled`'s result."""
    return ("return", "length", "episodes", *(name for name in _REWARD_PARTS if name in info_keys))


def pooled(episodes: Sequence[Episodes]) -> dict[str, float]:
    """Means over all episodes of several shards or chunks: tasks with shorter episodes weigh more.

    Returns:
        return, length (steps), terminated (share of episodes that the horizon did not cut), episodes (their number);
        and where the family's info has them: dist_reward or reward_run (that part of the reward, summed), arrived and
        unhealthy (shares of episodes that ended so).
    """
    returns = np.concatenate([part.episode_return for part in episodes])
    result = {
        "return": float(np.mean(returns)),
        "length": float(np.mean(np.concatenate([part.length for part in episodes]))),
        "terminated": float(np.mean(np.concatenate([part.terminated for part in episodes]))),
        "episodes": float(len(returns)),
    }
    for names, source in ((_REWARD_PARTS, "sums"), (("arrived", "unhealthy"), "final")):
        for name in names:
            parts = [getattr(part, source)[name] for part in episodes if name in getattr(part, source)]
            if parts:
                result[name] = float(np.mean(np.concatenate(parts)))
    return result


def adaptation_metrics(adaptations: Sequence[Adaptation]) -> Metrics:
    """Metrics of the sampling and the fast-updates; `adaptations` are the shards', in task order.

    Keys ending in `fast_update_<k>` are measured after k fast-updates. For methods with a warm-up, k = 0 is measured
    after it, so it is not "zero data" (D12 of the specification).
    """
    metrics: Metrics = {}
    rounds = [pooled([shard.rounds[k] for shard in adaptations]) for k in range(len(adaptations[0].rounds))]
    for statistic in statistics(list(rounds[0])):
        for k, values in enumerate(rounds):
            metrics[f"{statistic}/fast_update_{k}"] = values[statistic]
    ends = ("arrived", "unhealthy") if "arrived" in rounds[-1] else ("terminated",)
    metrics |= {f"ends/{name}": rounds[-1][name] for name in ends}
    losses = np.concatenate([shard.inner_loss for shard in adaptations], axis=1)
    norms = np.concatenate([shard.inner_grad_norm for shard in adaptations], axis=1)
    for k in range(len(losses)):
        metrics[f"inner/loss_{k}"] = float(np.mean(losses[k]))
        metrics[f"inner/grad_norm_{k}"] = float(np.mean(norms[k]))
    metrics["embedding/norm"] = float(np.mean(np.concatenate([shard.context_norm for shard in adaptations])))
    return metrics


def rate_metrics(rates: dict[str, np.ndarray], constant: float) -> Metrics:
    """Smallest, median and largest learned rate (unclipped), or the constant one."""
    if not rates:
        return {"rates/min": constant, "rates/median": constant, "rates/max": constant}
    flat = np.concatenate([np.ravel(rate) for rate in rates.values()])
    return {"rates/min": float(flat.min()), "rates/median": float(np.median(flat)), "rates/max": float(flat.max())}


def validation_metrics(
    set_name: str, rounds: Sequence[dict[str, float]] | None, num_rounds: int, names: Sequence[str]
) -> Metrics:
    """Metrics `names` of one goal set after 0 .. K fast-updates; None for each when it was not validated this time."""
    return {
        f"validation_{set_name}/{statistic}_{k}": None if rounds is None else rounds[k][statistic]
        for statistic in names
        for k in range(num_rounds)
    }


def summary_line(metrics: Metrics) -> str:
    """One line per meta-update: return per fast-update, KL, speed."""
    returns: list[str] = []
    while f"return/fast_update_{len(returns)}" in metrics:
        returns.append(f"{metrics[f'return/fast_update_{len(returns)}']:.1f}")
    line = (
        f"return by fast-update {' '.join(returns)}  kl {metrics['outer/kl']:.4f}"
        f" (iterate {metrics['outer/selected']:.0f})  {metrics['time/steps_per_second']:,.0f} steps/s"
    )
    last = len(returns) - 1
    validated = [
        f"{key.split('/')[0].removeprefix('validation_')} {value:.1f}"
        for key, value in metrics.items()
        if key.startswith("validation_") and key.endswith(f"/return_{last}") and value is not None
    ]
    return f"{line}  validation: {', '.join(validated)}" if validated else line


def trajectory_figure(trajectories: Sequence[Trajectory]) -> Figure:
    """Paths of a few tasks in the plane, before and after adaptation, with the goal if there is one; in metres."""
    columns = min(3, len(trajectories))
    rows = -(-len(trajectories) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.2 * rows), layout="constrained")
    for index, trajectory in enumerate(trajectories):
        axes = figure.add_subplot(rows, columns, index + 1)
        for label, paths, colour in (("before", trajectory.before, "0.65"), ("after", trajectory.after, "tab:blue")):
            for i, path in enumerate(paths):
                axes.plot(path[:, 0], path[:, 1], color=colour, linewidth=1.2, label=label if i == 0 else None)
        if trajectory.goal is not None:
            axes.plot(*trajectory.goal[:2], marker="*", markersize=12, color="tab:red", linestyle="none", label="goal")
        kind = "task" if trajectory.goal is None else "goal"
        axes.set_title(f"{kind} ({', '.join(f'{number:.2f}' for number in trajectory.task)})", fontsize=9)
        axes.set_aspect("equal", adjustable="datalim")
        axes.tick_params(labelsize=7)
        if index == 0:
            axes.legend(fontsize=7, loc="best")
    return figure
