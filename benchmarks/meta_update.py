"""Whole meta-updates, timed between the machine's yardsticks.

Shapes: `M` tasks, `R` copies per task, `H` horizon, `K` fast-updates, `U` GRU units.
"""

import itertools
import os
import resource
import statistics
import sys
import time
from typing import Any, NamedTuple

from benchmarks.encoder import encoder_gflop
from benchmarks.machine import matmul_rate
from benchmarks.sampling import RawPhysics
from benchmarks.updates import policy_gflop
from tesp.families.wheeled import Wheeled
from tesp.learner import TespLearner
from tesp.methods import MAESN, MAML, TESP, MetaSGD, Method
from tesp.settings import FastAdaptation, MetaUpdate
from tesp.validation import Validation

K = 3


class Sizes(NamedTuple):
    """Sizes of an experiment; the defaults are those of the paper's wheeled experiments.

    Attributes:
        tasks: M.
        copies: R.
        horizon: H.
        hidden: width of the policy's two layers.
        gru_units: U.
        episodes: buffered episodes per task.
        evaluations: n, of the outer loss.
    """

    tasks: int = 20
    copies: int = 25
    horizon: int = 200
    hidden: int = 256
    gru_units: int = 256
    episodes: int = 16
    evaluations: int = 20

    def __str__(self) -> str:
        """M x R x H."""
        return f"{self.tasks} x {self.copies} x {self.horizon}"


def make_method(name: str, sizes: Sizes) -> Method:
    """The method with the sizes' widths and an embedding of 8 numbers."""
    hidden = (sizes.hidden, sizes.hidden)
    context: dict[str, Any] = {"embedding_dim": 8, "embedding_coeff": 0.01}
    return {
        "MAML": lambda: MAML(hidden_sizes=hidden),
        "Meta-SGD": lambda: MetaSGD(hidden_sizes=hidden),
        "MAESN": lambda: MAESN(hidden_sizes=hidden, **context),
        "TESP": lambda: TESP(hidden_sizes=hidden, gru_units=sizes.gru_units, **context),
    }[name]()


def meta_update_gflop(method: Method, sizes: Sizes, observation_dim: int, action_dim: int, simulated: int) -> float:
    """Useful floating-point operations of one meta-update, in 1e9.

    K inner and n - 1 outer gradients over rounds of M R H steps and full buffers, a last outer evaluation without
    gradient, the policy's forward pass for every simulated step, and the encoder's before each of K + 1 rounds.

    Args:
        method: the method.
        sizes: of the experiment.
        observation_dim: O.
        action_dim: A.
        simulated: environment steps of the meta-update.
    """
    widths = [observation_dim + method.context_dim, *method.hidden_sizes, 2 * action_dim]
    rows = sizes.tasks * sizes.copies * sizes.horizon
    gflop = 2 * (simulated + rows) * sum(a * b for a, b in itertools.pairwise(widths)) / 1e9
    gradients = K + sizes.evaluations - 1
    gflop += gradients * policy_gflop(method, observation_dim, action_dim, rows)
    if method.uses_encoder:
        features = method.feature_dim(observation_dim, action_dim)
        gflop += gradients * encoder_gflop(sizes.tasks, sizes.episodes, sizes.horizon, features, sizes.gru_units)
        rows = sizes.tasks * sizes.episodes * sizes.horizon
        gflop += (K + 2) * 2 * rows * 3 * sizes.gru_units * (sizes.gru_units + features) / 1e9
    return gflop


class MetaUpdateReport(NamedTuple):
    """One learner's meta-updates between yardsticks.

    Attributes:
        seconds: of the fastest.
        phases: seconds of it by phase: sampling, inner, outer.
        physics_seconds: its environment steps at the raw physics rate.
        flop_seconds: its floating-point work at the matmul rate.
        budget_ratio: median over the repetitions of seconds / (physics_seconds + flop_seconds), each with the
            yardsticks just before and after it.
        raw_rate: median raw physics rate, environment steps/s.
        matmul_rate: median, GFLOP/s.
    """

    seconds: float
    phases: dict[str, float]
    physics_seconds: float
    flop_seconds: float
    budget_ratio: float
    raw_rate: float
    matmul_rate: float


class Yardsticks:
    """Raw physics and the matrix product, measured together.

    Args:
        num_copies: copies of wheeled.
        horizon: H.
        seconds: of physics at a time.
    """

    def __init__(self, num_copies: int, horizon: int, seconds: float):
        self._physics = RawPhysics(Wheeled(), num_copies, num_cores(), horizon)
        self._seconds = seconds

    def measure(self) -> tuple[float, float]:
        """(environment steps/s, GFLOP/s) now."""
        return self._physics.rate(self._seconds), matmul_rate(3)


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_learner(name: str, sizes: Sizes) -> TespLearner:
    """A learner of the method on wheeled that never validates."""
    return TespLearner(
        method=make_method(name, sizes),
        family=Wheeled(),
        meta_batch_size=sizes.tasks,
        adaptation=FastAdaptation(
            rollouts_per_task=sizes.copies, horizon=sizes.horizon, inner_updates=K, buffer_size=sizes.episodes
        ),
        meta_update=MetaUpdate(num_evaluations=sizes.evaluations),
        validation=Validation(frequency=0),
    )


def time_meta_updates(name: str, sizes: Sizes, repetitions: int, physics_seconds: float = 0.5) -> MetaUpdateReport:
    """Times meta-updates of one method on wheeled, after one that compiles everything.

    Args:
        name: of the method: MAML, Meta-SGD, MAESN or TESP.
        sizes: of the experiment.
        repetitions: timed meta-updates.
        physics_seconds: of raw physics between two of them.
    """
    learner = make_learner(name, sizes)
    family = learner.family
    yardsticks = Yardsticks(sizes.tasks * sizes.copies, sizes.horizon, physics_seconds)
    learner.run_iteration(_unreported)
    marks = [yardsticks.measure()]
    runs: list[tuple[float, dict[str, float]]] = []
    ratios, budgets = [], []
    for _ in range(repetitions):
        begin = time.perf_counter()
        metrics = {name: value for name, value in learner.run_iteration(_unreported).items() if value is not None}
        seconds = time.perf_counter() - begin
        marks.append(yardsticks.measure())
        raw, matmul = (statistics.mean(pair) for pair in zip(*marks[-2:], strict=True))
        steps = int(metrics["env_steps/this_iteration"])
        gflop = meta_update_gflop(learner.method, sizes, family.observation_dim, family.action_dim, steps)
        runs.append((seconds, metrics))
        budgets.append((steps / raw, gflop / matmul))
        ratios.append(seconds / sum(budgets[-1]))
    best = min(range(repetitions), key=lambda i: runs[i][0])
    return MetaUpdateReport(
        seconds=runs[best][0],
        phases={phase: runs[best][1][f"time/{phase}"] for phase in ("sampling", "inner", "outer")},
        physics_seconds=budgets[best][0],
        flop_seconds=budgets[best][1],
        budget_ratio=statistics.median(ratios),
        raw_rate=statistics.median(mark[0] for mark in marks),
        matmul_rate=statistics.median(mark[1] for mark in marks),
    )


def peak_memory_gb() -> float:
    """The largest resident size this process has had, in 1e9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _unreported(phase: str) -> None:
    del phase
