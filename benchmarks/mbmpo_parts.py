"""The parts of `python -m benchmarks.mbmpo`, each a list of rows with the requirements they have to meet.

The original programs' seconds were measured on a machine whose matrix product reached about 430 GFLOP/s: beside every
speed-up stands what this machine does now. Shapes: `M` tasks, `R` rollouts per task, `H` horizon, `E` models.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from benchmarks import iterations, meta_trpo
from benchmarks.ensemble_fit import FitSizes, fit_rate, random_prediction_rate
from benchmarks.imagination import SMALL, ImaginationSizes, imagination_rate
from benchmarks.machine import matmul_rate
from benchmarks.meta_update import num_cores, peak_memory_gb
from benchmarks.report import Row, flop_row

# Seconds of other programs on two cores: fit and five meta-steps of the original MB-MPO; one iteration of MAML-TRPO on
# 2-D navigation in ProMP.
ORIGINAL_FIT, ORIGINAL_META_STEPS, PROMP_ITERATION = 9.2, 6.6, 5.7
MAML_LIMIT = 1.1


class Scale(NamedTuple):
    """How large and how often.

    Attributes:
        sizes: of the canonical parts.
        small: of the comparison with the original.
        model_hidden: widths of the models.
        rows: transitions of the comparison's fit.
        epochs: of the comparison's fit.
        random_rows: predicted by random members.
        meta_steps: of the canonical iteration.
        navigation: M, R and H of MAML on 2-D navigation.
        repetitions: of everything that takes less than a few seconds.
        judged: whether the sizes are those that the requirements speak of.
    """

    sizes: ImaginationSizes = ImaginationSizes()
    small: ImaginationSizes = SMALL
    rows: int = 6000
    epochs: int = 30
    random_rows: int = 20_000
    meta_steps: int = 30
    navigation: tuple[int, int, int] = (20, 20, 100)
    repetitions: int = 5
    judged: bool = True


_TINY = ImaginationSizes(tasks=4, rollouts=2, horizon=10, models=2, model_hidden=(8, 8), policy_hidden=(4, 4))
QUICK = Scale(
    _TINY, _TINY, rows=200, epochs=2, random_rows=100, meta_steps=2, navigation=(2, 2, 10), repetitions=1, judged=False
)


def machine(scale: Scale) -> list[Row]:
    """The yardstick itself."""
    return [Row("matmul 2048^3 float32", matmul_rate(5 * scale.repetitions), "GFLOP/s", note=f"{num_cores()} cores")]


def iteration(scale: Scale) -> list[Row]:
    """A canonical iteration, model fit aside, against its floating-point work, and the peak memory up to here."""
    found = iterations.canonical(scale.sizes, scale.meta_steps)
    phases = ", ".join(f"{name} {seconds:.3g}" for name, seconds in found.phases.items())
    return [
        Row(
            f"iteration, half-cheetah {scale.sizes.tasks} x {scale.sizes.rollouts} x {scale.sizes.horizon}",
            found.seconds,
            "s",
            found.flop_seconds,
            found.seconds / found.flop_seconds,
            at_most=4.0,
            note=f"{scale.meta_steps} meta-steps, without the fit; {phases}; {found.gflop:,.0f} GFLOP",
        ),
        # The requirement is on gigabytes, which is the ratio to one.
        Row("peak memory up to here", peak_memory_gb(), "GB", 1.0, peak_memory_gb(), at_most=6.0),
    ]


def imagination(scale: Scale) -> list[Row]:
    """A phase of imagination against the matrix product."""
    sizes = scale.sizes
    what = f"imagination, {sizes.tasks} x {sizes.rollouts} x {sizes.horizon}, {sizes.models} models"
    return [flop_row(what, imagination_rate(sizes, scale.repetitions), 0.55)]


def fit(scale: Scale) -> list[Row]:
    """A fit, and predictions by random members as random shooting asks for them, against the matrix product."""
    sizes = scale.sizes
    fit_sizes = FitSizes(sizes.models, sizes.model_hidden[0], rows=scale.rows, epochs=scale.epochs)
    fitted = fit_rate(fit_sizes, min(3, scale.repetitions))
    predicted = random_prediction_rate(fit_sizes, scale.random_rows, scale.repetitions)
    return [
        flop_row(f"fit, {sizes.models} models, {scale.epochs} epochs of {scale.rows} rows", fitted, 0.4),
        flop_row(f"random members, {scale.random_rows} rows", predicted, None),
    ]


def meta_update(scale: Scale) -> list[Row]:
    """A meta-TRPO update in meta-gradients, and a meta-gradient in plain policy gradients."""
    sizes = scale.sizes
    return meta_trpo.rows(sizes.tasks, sizes.rollouts * sizes.horizon, min(3, scale.repetitions), scale.judged)


def original(scale: Scale) -> list[Row]:
    """The work that the original program was timed with."""
    found = iterations.small(scale.small, scale.rows, scale.epochs, scale.repetitions)
    now = f"now {matmul_rate(5):.0f} GFLOP/s"
    rows = []
    for what, seconds, reference, at_least in (
        (f"fit, {scale.epochs} epochs of {scale.rows} rows", found.fit_seconds, ORIGINAL_FIT, 1.3),
        ("5 meta-TRPO steps, 10 tasks x 10 x 100", found.meta_seconds, ORIGINAL_META_STEPS, 7.0),
    ):
        rows.append(Row(what, seconds, "s", reference, reference / seconds, at_least=at_least, note=now))
    steps = 2 * 5 * scale.small.tasks * scale.small.rollouts * scale.small.horizon
    return [*rows, Row("imagined steps in those", steps / found.meta_seconds, "steps/s")]


def maml(scale: Scale) -> list[Row]:
    """An iteration of MAML-TRPO on real 2-D navigation."""
    M, R, H = scale.navigation
    seconds, phases = iterations.navigation(M, R, H, scale.repetitions)
    note = ", ".join(f"{name} {value:.3g}" for name, value in phases.items())
    return [
        Row(
            f"MAML-TRPO iteration, 2-D navigation {M} x {R} x {H} x 2",
            seconds,
            "s",
            PROMP_ITERATION,
            PROMP_ITERATION / seconds,
            at_least=PROMP_ITERATION / MAML_LIMIT,
            note=f"{note}; yardstick: ProMP (pytorch-maml-rl: 10.7 s); now {matmul_rate(5):.0f} GFLOP/s",
        )
    ]


# The command runs them in this order: the iteration is early, so that the peak memory is its own.
PARTS: Mapping[str, Callable[[Scale], list[Row]]] = {
    part.__name__: part for part in (machine, iteration, imagination, fit, meta_update, original, maml)
}
