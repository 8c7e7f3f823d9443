"""The parts of `python -m benchmarks.tesp`, each a list of rows with the requirements they have to meet.

Required are, on two cores, shares of the machine's own rates, and speed-ups over the original program. The latter's
seconds per meta-update were measured on a machine whose matrix product reached about 430 GFLOP/s and whose raw physics
67,000 steps/s (wheeled, two threads): beside every speed-up stands what this machine does now.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from benchmarks.encoder import encoder_gradient_rate
from benchmarks.machine import matmul_rate
from benchmarks.meta_update import Sizes, make_method, num_cores, peak_memory_gb, time_meta_updates
from benchmarks.report import Row, flop_row
from benchmarks.sampling import raw_physics_rate, sampler_rates
from benchmarks.updates import Updates
from tesp.families.ant import Ant
from tesp.families.wheeled import Wheeled


class Original(NamedTuple):
    """A meta-update of the original program: method, M tasks, R copies, its seconds, and the speed-up asked for."""

    method: str
    tasks: int
    copies: int
    seconds: float
    speed_up: float


ORIGINALS = (
    Original("TESP", 4, 4, 23.6, 7.0),
    Original("MAML", 4, 4, 3.0, 5.0),
    Original("Meta-SGD", 4, 4, 3.4, 5.0),
    Original("MAESN", 4, 4, 2.4, 5.0),
    Original("TESP", 4, 25, 29.3, 5.0),
    Original("MAML", 4, 25, 10.6, 5.0),
)


class Scale(NamedTuple):
    """How large and how often.

    Attributes:
        sizes: of the paper-scale parts.
        small_horizon: H of the comparison with the original.
        repetitions: of everything that takes less than a few seconds.
        paper_repetitions: of the paper-scale meta-update.
        physics_seconds: of one measurement of raw physics.
        judged: whether the sizes are those that the requirements speak of.
    """

    sizes: Sizes = Sizes()
    small_horizon: int = 200
    repetitions: int = 7
    paper_repetitions: int = 3
    physics_seconds: float = 0.5
    judged: bool = True


QUICK = Scale(
    sizes=Sizes(tasks=2, copies=2, horizon=20, hidden=16, gru_units=16, episodes=3, evaluations=3),
    small_horizon=20,
    repetitions=1,
    paper_repetitions=1,
    physics_seconds=0.05,
    judged=False,
)


def machine(scale: Scale) -> list[Row]:
    """The yardsticks themselves."""
    sizes, cores = scale.sizes, num_cores()
    rows = [
        Row(
            f"raw physics, {family.name}",
            max(
                raw_physics_rate(family, sizes.tasks * sizes.copies, cores, scale.physics_seconds)
                for _ in range(min(3, scale.repetitions))
            ),
            "steps/s",
            note=f"{cores} threads",
        )
        for family in (Wheeled(), Ant())
    ]
    return [*rows, Row("matmul 2048^3 float32", matmul_rate(5 * scale.repetitions), "GFLOP/s", note=f"{cores} cores")]


def paper(scale: Scale) -> list[Row]:
    """A whole TESP meta-update against its physics and its floating-point work, and the peak memory up to here."""
    found = time_meta_updates("TESP", scale.sizes, scale.paper_repetitions, scale.physics_seconds)
    phases = ", ".join(f"{name} {seconds:.3g}" for name, seconds in found.phases.items())
    return [
        Row(
            f"TESP meta-update, wheeled {scale.sizes}",
            found.seconds,
            "s",
            found.physics_seconds + found.flop_seconds,
            found.budget_ratio,
            at_most=2.5,
            note=f"{phases}; budget: physics {found.physics_seconds:.3g}, arithmetic {found.flop_seconds:.3g}",
        ),
        # The requirement is on gigabytes, which is the ratio to one.
        Row("peak memory up to here", peak_memory_gb(), "GB", 1.0, peak_memory_gb(), at_most=4.0),
    ]


def sampling(scale: Scale) -> list[Row]:
    """The sampler, policy included, against raw physics."""
    rows = []
    for family, at_least in ((Wheeled(), 0.65), (Ant(), 0.85)):
        sizes = scale.sizes
        found = sampler_rates(
            family, sizes.tasks, sizes.copies, sizes.horizon, num_cores(), scale.repetitions, sizes.hidden
        )
        rows.append(
            Row(
                f"sampler, {family.name} {sizes}",
                found.sampler_rate,
                "steps/s",
                found.raw_rate,
                found.ratio,
                at_least=at_least,
                note=f"{found.kept_rate:,.0f} kept by the stop rule",
            )
        )
    return rows


def inner(scale: Scale) -> list[Row]:
    """Gradients of one fast-update of all tasks against the matrix product."""
    return [
        flop_row(f"inner gradient, {name} {scale.sizes}", _updates(name, scale).inner(scale.repetitions), None)
        for name in ("MAML", "TESP")
    ]


def encoder(scale: Scale) -> list[Row]:
    """The GRU encoder's gradient, weights per task, against the matrix product."""
    sizes = scale.sizes
    found = encoder_gradient_rate(
        sizes.tasks, sizes.episodes, sizes.horizon, U=sizes.gru_units, repetitions=scale.repetitions
    )
    what = f"encoder gradient, {sizes.tasks} x {sizes.episodes} x {sizes.horizon}, {sizes.gru_units} units"
    return [flop_row(what, found, 0.3)]


def outer(scale: Scale) -> list[Row]:
    """One evaluation of the PPO loss with its gradient: weights per task, shared weights, shared with encoder."""
    return [
        flop_row(f"PPO outer step, {name} {scale.sizes}", _updates(name, scale).outer(scale.repetitions), 0.6)
        for name in ("MAML", "MAESN", "TESP")
    ]


def original(scale: Scale) -> list[Row]:
    """Whole meta-updates at the sizes at which the original program was measured."""
    rows = []
    for case in ORIGINALS:
        sizes = scale.sizes._replace(tasks=case.tasks, copies=case.copies, horizon=scale.small_horizon)
        found = time_meta_updates(case.method, sizes, scale.repetitions, scale.physics_seconds)
        phases = ", ".join(f"{name} {seconds:.3g}" for name, seconds in found.phases.items())
        rows.append(
            Row(
                f"{case.method} meta-update, wheeled {sizes}",
                found.seconds,
                "s",
                case.seconds,
                case.seconds / found.seconds,
                at_least=case.speed_up,
                note=f"{phases}; physics alone {found.physics_seconds:.3g};"
                f" now {found.raw_rate:,.0f} steps/s, {found.matmul_rate:.0f} GFLOP/s",
            )
        )
    return rows


# The command runs them in this order: the paper-scale meta-update is early, so that the peak memory is its own.
PARTS: Mapping[str, Callable[[Scale], list[Row]]] = {
    part.__name__: part for part in (machine, paper, sampling, inner, encoder, outer, original)
}


def _updates(name: str, scale: Scale) -> Updates:
    family, sizes = Wheeled(), scale.sizes
    return Updates(
        make_method(name, sizes),
        family.observation_dim,
        family.action_dim,
        sizes.tasks,
        sizes.copies,
        sizes.horizon,
        sizes.episodes,
    )
