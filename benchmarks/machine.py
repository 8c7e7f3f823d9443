"""What the machine can do, and a clock that compares floating-point work with it.

The yardstick is TensorFlow's 2048 x 2048 x 2048 float32 product on all cores. Work and yardstick are timed in turn in
one process, so that a machine that is busy with something else slows both.
"""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

MATMUL_SIZE = 2048
MATMUL_GFLOP = 2 * MATMUL_SIZE**3 / 1e9


class FlopReport(NamedTuple):
    """Floating-point work against the matrix product.

    Attributes:
        seconds: the fastest repetition.
        gflop: useful floating-point operations of one repetition, in 1e9.
        rate: gflop / seconds, GFLOP/s.
        matmul_rate: the fastest product, GFLOP/s.
        ratio: rate / matmul_rate, best against best.
        paired_ratio: median over the repetitions of the rate over that of the products just before and after it.
    """

    seconds: float
    gflop: float
    rate: float
    matmul_rate: float
    ratio: float
    paired_ratio: float


@functools.cache
def _matmul() -> Callable[[], float]:
    """Returns a function that multiplies once and returns the seconds it took."""
    operand = tf.random.stateless_normal((MATMUL_SIZE, MATMUL_SIZE), seed=(0, 0))
    product = tf.function(lambda: tf.matmul(operand, operand))
    product()

    def timed() -> float:
        return timed_call(product)

    return timed


def timed_call(work: Callable[[], Any]) -> float:
    """Seconds from the call until every tensor of the result is there."""
    start = time.perf_counter()
    for value in tf.nest.flatten(work()):
        if tf.is_tensor(value):
            value.numpy()
    return time.perf_counter() - start


def matmul_rate(repetitions: int = 5) -> float:
    """GFLOP/s of the 2048^3 float32 product on all cores, the best of `repetitions`."""
    return MATMUL_GFLOP / min(_matmul()() for _ in range(repetitions))


def compare_with_matmul(work: Callable[[], Any], gflop: float, repetitions: int = 7) -> FlopReport:
    """Times `work` between matrix products.

    Args:
        work: a compiled function; it is called once before the clock runs.
        gflop: useful floating-point operations of one call, in 1e9.
        repetitions: of work; products are timed before and after each.

    Returns:
        The report.
    """
    timed_call(work)
    rates = [matmul_rate(2)]
    seconds, paired = [], []
    for _ in range(repetitions):
        seconds.append(timed_call(work))
        rates.append(matmul_rate(2))
        paired.append(gflop / seconds[-1] / statistics.mean(rates[-2:]))
    rate = gflop / min(seconds)
    return FlopReport(min(seconds), gflop, rate, max(rates), rate / max(rates), statistics.median(paired))
