"""The parts of `python -m benchmarks.scaling`, each a list of rows with the requirements they have to meet."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks import scaling_model
from benchmarks.meta_update import num_cores
from benchmarks.report import Row
from metarl.experiment import gin_front_door
from metarl.scaling.process_pool import ProcessPool
from metarl.scaling.sharded_learner import split_sizes
from metarl.scaling.supervised_pool import Traffic

_TIMEOUT = 600.0
_MANY = 64
_MOST_SLOWER = 1.1
_LEAST_OF_MODEL = 0.8  # of the measured seconds: a model that promises more is wrong


class Experiment(NamedTuple):
    """A config and bindings that bring it to a size worth measuring."""

    config: str
    bindings: tuple[str, ...]


TESP = Experiment("configs/tesp_wheeled.gin", ("ROLLOUTS_PER_TASK = 5", "HORIZON = 50", "Validation.frequency = 0"))
MBMPO = Experiment(
    "configs/mbmpo_half_cheetah.gin",
    (
        "META_STEPS = 3", "IMAGINED_ROLLOUTS_PER_TASK = 10", "ModelFit.max_epochs = [1]",
        "MBMPOLearner.log_real_performance = False",
    ),
)  # fmt: skip
_TINY_TESP = Experiment(
    "configs/tesp_point.gin",
    (
        "META_BATCH_SIZE = 2", "ROLLOUTS_PER_TASK = 2", "HORIZON = 5", "HIDDEN_SIZES = [4, 4]", "GRU_UNITS = 4",
        "Validation.frequency = 0", "INNER_UPDATES = 1", "MetaUpdate.num_evaluations = 2",
    ),
)  # fmt: skip


class Scale(NamedTuple):
    """How large and how often.

    Attributes:
        tesp: an experiment of the TESP family.
        mbmpo: one whose tasks are imagined.
        iterations: of each way, after the first.
        megabytes: of the message whose rate is measured.
        repetitions: of messages.
        judged: whether the sizes are those that the requirements speak of.
    """

    tesp: Experiment = TESP
    mbmpo: Experiment = MBMPO
    iterations: int = 6
    megabytes: int = 16
    repetitions: int = 200
    judged: bool = True


QUICK = Scale(_TINY_TESP, _TINY_TESP, iterations=1, megabytes=1, repetitions=3, judged=False)


class Measured(NamedTuple):
    """The best iteration of one way, and what its calls cost."""

    seconds: float
    traffic: Traffic


def messages(scale: Scale) -> list[Row]:
    """What a call costs without work."""
    costs = _costs(scale)
    return [
        Row("a call of one worker", 1e3 * (costs.call + costs.worker), "ms"),
        Row("a further worker of the same call", 1e3 * costs.worker, "ms"),
        Row("bytes to and from workers", costs.rate / 1e6, "MB/s"),
    ]


def tesp(scale: Scale) -> list[Row]:
    """A meta-update of TESP."""
    return _experiment("TESP", scale.tesp, scale)


def mbmpo(scale: Scale) -> list[Row]:
    """An iteration of MB-MPO with few meta-steps and a fit of one epoch; fit and real data stay with the learner."""
    return _experiment("MB-MPO", scale.mbmpo, scale)


PARTS: Mapping[str, Callable[[Scale], list[Row]]] = {"messages": messages, "tesp": tesp, "mbmpo": mbmpo}


def _experiment(name: str, experiment: Experiment, scale: Scale) -> list[Row]:
    one, single, double = _taking_turns(experiment, (0, 1, 2), scale.iterations)
    costs = _costs(scale)
    found = scaling_model.from_one_worker(
        single.seconds,
        single.traffic.waiting,
        single.traffic.calls,
        single.traffic.sent + single.traffic.received,
        costs,
    )
    two, many = (scaling_model.seconds(found, costs, count) for count in (2, _MANY))
    total = sum(many.values())
    bound = max(many, key=lambda term: many[term])
    moved = double.traffic
    return [
        Row(f"{name}, one process", one.seconds, "s", note=f"{num_cores()} cores"),
        Row(f"{name}, one worker on half the cores", single.seconds, "s", one.seconds, single.seconds / one.seconds),
        Row(
            f"{name}, two workers",
            double.seconds,
            "s",
            one.seconds,
            double.seconds / one.seconds,
            at_most=_MOST_SLOWER,
            note=f"efficiency over one worker {single.seconds / (2 * double.seconds):.2f}",
        ),
        Row(f"{name}, moved", (moved.sent + moved.received) / 1e6, "MB", note=f"{moved.calls} calls, two workers"),
        Row(f"{name}, learner waits", moved.waiting, "s", double.seconds, moved.waiting / double.seconds),
        Row(
            f"{name}, model of two workers",
            sum(two.values()),
            "s",
            double.seconds,
            sum(two.values()) / double.seconds,
            at_least=_LEAST_OF_MODEL,
        ),
        Row(
            f"{name}, model of {_MANY} workers",
            total,
            "s",
            single.seconds,
            total / single.seconds,
            note=f"bound by {bound}: " + ", ".join(f"{term} {value:.2g} s" for term, value in many.items()),
        ),
    ]


def _taking_turns(experiment: Experiment, ways: tuple[int, ...], iterations: int) -> list[Measured]:
    """The best iteration of every way; 0 workers are one process."""
    with contextlib.ExitStack() as stack:
        learners = []
        for workers in ways:
            config = gin_front_door.parse([experiment.config], experiment.bindings, 1)
            learner = gin_front_door.build(config, all_used=False).learner
            if workers:
                text = gin_front_door.gin.operative_config_str()
                pool = ProcessPool(
                    text, split_sizes(learner.num_units, workers), timeout=_TIMEOUT, threads=max(1, num_cores() // 2)
                )
                stack.callback(pool.close)
                learner.use_pool(pool)
            learner.run_iteration(_quiet)
            learner.run_iteration(_quiet)  # the first iteration of a model-based method has no policy to compile
            learners.append(learner)
        found: list[list[Measured]] = [[] for _ in ways]
        for _ in range(iterations):
            for mine, learner in zip(found, learners, strict=True):
                mine.append(_iteration(learner))
    return [min(mine, key=lambda one: one.seconds) for mine in found]


def _iteration(learner: Any) -> Measured:
    pool = learner.pool if isinstance(learner.pool, ProcessPool) else None
    if pool is not None:
        pool.traffic.calls = pool.traffic.sent = pool.traffic.received = 0
        pool.traffic.waiting = 0.0
    began = time.perf_counter()
    learner.run_iteration(_quiet)
    seconds = time.perf_counter() - began
    traffic = Traffic() if pool is None else pool.traffic
    return Measured(seconds, Traffic(traffic.calls, traffic.sent, traffic.received, traffic.waiting))


def _costs(scale: Scale) -> scaling_model.Costs:
    """Of calls that do nothing, on one worker and on two."""
    best = {}
    rate = 0.0
    for workers in (1, 2):
        with _idle_pool(workers) as pool:
            best[workers] = _asked(pool, b"", scale.repetitions)
            if workers == 1:
                data = bytes(scale.megabytes * 1_000_000)
                rate = len(data) / max(1e-9, _asked(pool, data, 5) - best[1])
    worker = max(0.0, best[2] - best[1])
    return scaling_model.Costs(max(0.0, best[1] - worker), worker, rate)


@contextlib.contextmanager
def _idle_pool(workers: int) -> Iterator[ProcessPool]:
    config = gin_front_door.parse([_TINY_TESP.config], _TINY_TESP.bindings, 1)
    gin_front_door.build(config, all_used=False)
    text = gin_front_door.gin.operative_config_str()
    pool = ProcessPool(text, (1,) * workers, timeout=_TIMEOUT)
    try:
        pool.start()
        yield pool
    finally:
        pool.close()


def _asked(pool: ProcessPool, data: bytes, repetitions: int) -> float:
    """Seconds of the quickest call that carries these bytes and asks for nothing."""
    found = []
    for _ in range(repetitions):
        began = time.perf_counter()
        pool.call("kept_arrays", [{"key": data}] * len(pool.sizes))
        found.append(time.perf_counter() - began)
    return min(found)


def _quiet(phase: str) -> None:
    del phase
