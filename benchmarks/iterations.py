"""Whole iterations of the MB-MPO family. Shapes: `M` tasks, `R` rollouts per task, `H` horizon, `E` models."""

import itertools
import statistics
from typing import NamedTuple

from benchmarks.imagination import ImaginationSizes, imagination_gflop
from benchmarks.machine import matmul_rate
from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.families import HalfCheetah, PointNavigation
from mbmpo.learner import MBMPOLearner
from mbmpo.maml import MAMLLearner
from mbmpo.meta_updates import MetaTRPO
from mbmpo.policies import GaussianMLPPolicy
from mbmpo.settings import ImaginedData, InnerAdaptation, ModelFit, RealData

# Products of a policy of P weights on a row, in forward passes of 2 P operations: an inner gradient 3; a meta-gradient
# 12: inner gradient 3, gradient after it 3, derivative of the inner gradient along a direction 6; a line search 4.
_INNER, _META, _TRIAL = 3, 12, 4
# The loss's gradient, and two for each of 10 + 1 Hessian-vector products by finite differences.
_GRADIENTS = 23


class Iteration(NamedTuple):
    """A canonical iteration without the fit: seconds, 1e9 operations, their time at the matmul rate, and parts."""

    seconds: float
    gflop: float
    flop_seconds: float
    phases: dict[str, float]


class Small(NamedTuple):
    """Fastest fit and fastest five meta-steps, in seconds."""

    fit_seconds: float
    meta_seconds: float


def canonical(sizes: ImaginationSizes, meta_steps: int) -> Iteration:
    """Two iterations with a fit of one epoch; the second is measured."""
    learner = _learner(sizes, meta_steps, RealData(rollouts_per_task=1, horizon=sizes.horizon), 1)
    learner.run_iteration(_quiet)
    before = matmul_rate(5)
    metrics = {name: value for name, value in learner.run_iteration(_quiet).items() if value is not None}
    rate = statistics.mean([before, matmul_rate(5)])
    trials = metrics["meta/backtrack_index"] + 1
    widths = [17, *sizes.policy_hidden, 6]
    row = 2 * sum(a * b for a, b in itertools.pairwise(widths)) / 1e9
    rows = sizes.tasks * sizes.rollouts * sizes.horizon
    policy = row * rows * (_INNER + _GRADIENTS * _META + trials * _TRIAL)
    gflop = meta_steps * (2 * imagination_gflop(sizes, 17, 6) + policy)
    phases = {
        name.removeprefix("time/imagined_"): meta_steps * value
        for name, value in metrics.items()
        if name.startswith("time/imagined_")
    }
    return Iteration(metrics["time/iteration"] - metrics["time/model_fit"], gflop, gflop / rate, phases)


def small(sizes: ImaginationSizes, rows: int, epochs: int, repetitions: int) -> Small:
    """Iterations on a buffer of constant size; the fit goes on for all its epochs."""
    real = RealData(rollouts_per_task=1, horizon=sizes.horizon, initial_random_steps=rows, buffer_capacity=rows)
    learner = _learner(sizes, 5, real, epochs)
    learner.run_iteration(_quiet)
    found = [learner.run_iteration(_quiet) for _ in range(repetitions)]
    return Small(*(min(metrics[name] or 0.0 for metrics in found) for name in ("time/model_fit", "time/improvement")))


def navigation(M: int, R: int, H: int, repetitions: int) -> tuple[float, dict[str, float]]:
    """Fastest iteration of MAML-TRPO on 2-D navigation with one inner update, and its parts."""
    learner = MAMLLearner(
        policy=GaussianMLPPolicy(hidden_sizes=(64, 64)),
        family=PointNavigation(),
        meta_update=MetaTRPO(),
        meta_batch_size=M,
        rollouts_per_task=R,
        horizon=H,
        adaptation=InnerAdaptation(inner_lr=0.1),
    )
    learner.run_iteration(_quiet)
    found = [learner.run_iteration(_quiet) for _ in range(repetitions)]
    best = min(found, key=lambda metrics: metrics["time/iteration"] or 0.0)
    phases = {name: best[f"time/{name}"] or 0.0 for name in ("env_sampling", "processing", "inner", "outer")}
    return best["time/iteration"] or 0.0, phases


def _learner(sizes: ImaginationSizes, meta_steps: int, real: RealData, epochs: int) -> MBMPOLearner:
    return MBMPOLearner(
        policy=GaussianMLPPolicy(hidden_sizes=sizes.policy_hidden),
        family=HalfCheetah(),
        # With a persistency of 1 the early stop never comes: every epoch is made.
        ensemble=DynamicsEnsemble(num_models=sizes.models, hidden_sizes=sizes.model_hidden, persistency=1.0),
        meta_update=MetaTRPO(),
        meta_batch_size=sizes.tasks,
        meta_steps=meta_steps,
        adaptation=InnerAdaptation(inner_lr=0.001),
        real=real,
        fit=ModelFit(max_epochs=[epochs]),
        imagined=ImaginedData(rollouts_per_task=sizes.rollouts),
        log_real_performance=False,
    )


def _quiet(phase: str) -> None:
    del phase
