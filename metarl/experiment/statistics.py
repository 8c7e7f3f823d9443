"""Confidence intervals over independent units, such as the tasks of an evaluation.

The interval of a mean is Student's: with few units it is as wide as it must be, where resampling the units
(the percentile bootstrap) comes out too narrow, and it needs no random numbers.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean and where the mean of the population lies with the stated confidence; None with fewer than two units."""

    mean: float
    low: float | None
    high: float | None


def mean_interval(values: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """Returns the mean of independent units and its two-sided t-interval: mean ± t · s / √n.

    Args:
        values: [n], one number per unit, n >= 1; s is their standard deviation with n - 1 in the denominator.
        confidence: in (0, 1).

    Raises:
        ValueError: there are no values.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"needs one number per unit and at least one unit, got shape {values.shape}")
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, None, None)
    half_width = student_t_quantile(0.5 + confidence / 2.0, len(values) - 1) * float(np.std(values, ddof=1))
    half_width /= math.sqrt(len(values))
    return Interval(mean, mean - half_width, mean + half_width)


@functools.lru_cache
def student_t_quantile(probability: float, degrees: int) -> float:
    """Returns t with P(T <= t) = `probability` for Student's distribution with `degrees` (integer) of freedom.

    With t = √ν · tan θ the distribution function is a finite sum in cos θ (Abramowitz & Stegun, 26.7.3 and 26.7.4),
    whose inverse is found by bisection over θ.

    Raises:
        ValueError: the probability is not in (0, 1), or there are no degrees of freedom.
    """
    if not 0.0 < probability < 1.0 or degrees < 1:
        raise ValueError(f"no quantile {probability} with {degrees} degrees of freedom")
    wanted = abs(2.0 * probability - 1.0)
    low, high = 0.0, math.pi / 2.0
    for _ in range(100):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _central_probability(middle, degrees) < wanted else (low, middle)
    return math.copysign(math.sqrt(degrees) * math.tan(low), probability - 0.5)


def _central_probability(theta: float, degrees: int) -> float:
    """P(|T| <= √ν · tan θ)."""
    cosine = math.cos(theta)
    index = np.arange(1, degrees // 2 if degrees % 2 == 0 else (degrees - 1) // 2)
    if degrees % 2 == 0:
        terms = np.cumprod(np.concatenate([[1.0], (2 * index - 1) / (2 * index) * cosine**2]))
        return math.sin(theta) * float(np.sum(terms))
    terms = np.cumprod(np.concatenate([[cosine], 2 * index / (2 * index + 1) * cosine**2]))
    return 2.0 / math.pi * (theta + (math.sin(theta) * float(np.sum(terms)) if degrees > 1 else 0.0))
