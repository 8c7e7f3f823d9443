"""Steps of uniformly random actions, with which a model's data begins (MB-MPO specification, section 1.2).

Shapes: `n` copies, `R` copies per task, `S` capacity, `O` observation, `A` action, `G` numbers per task.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from metarl.sampling.noise import NoiseKey
from metarl.sampling.sampler import Sampler, SamplingSeconds
from metarl.sampling.steps import Batch
from metarl.seeding import keyed_generator
from metarl.simulation.task_family import TaskFamily

# The original never steps more copies than this when it acts at random.
MAX_COPIES = 100


def uniform_actions(arguments: Mapping[str, Any], observation: tf.Tensor, standard_normal: tf.Tensor) -> tf.Tensor:
    """A policy for `Sampler` without weights: every action uniform in [-1, 1].

    Args:
        arguments: not used; may be empty.
        observation: [m, R, O], not used.
        standard_normal: [m, R, A].

    Returns:
        [m, R, 3A]: zeros where a Gaussian's mean and log_std would be, then the actions.
    """
    action = tf.math.erf(standard_normal * np.float32(np.sqrt(0.5)))
    nothing = tf.zeros_like(action)
    return tf.concat([nothing, nothing, action], axis=-1)


def collect_random(
    family: TaskFamily,
    min_steps: int,
    num_copies: int,
    horizon: int,
    seed: int,
    phase: str = "random_actions",
    tasks: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
    record_final: bool = False,
    stop_rule: str = "global",
    watch: Callable[[SamplingSeconds], None] | None = None,
    num_threads: int | None = None,
) -> Batch:
    """Steps all copies with uniform actions until their finished episodes hold `min_steps` steps.

    Whole sweeps are taken: 20 copies and a horizon of 200 give 8,000 steps when 5,000 are asked for (O-6).

    Args:
        family: what to simulate.
        min_steps: steps wanted, at least 1.
        num_copies: n, limited to 1 to 100; the original takes one per real rollout of an iteration.
        horizon: H.
        seed: the experiment's seed.
        phase: names the random numbers, together with the copy's index.
        tasks: [n', G], copy i works on row i modulo n'; default: each copy's own draw from the family.
        progress: called now and then with the environment steps made since the last call.
        record_final: as in `Sampler`.
        stop_rule: "global", or "truncate": running episodes are cut and kept (O-23).
        watch: told where the time went.
        num_threads: as in `Sampler`.

    Returns:
        The batch with one row per copy, [n, S, ...].

    Raises:
        UserError: a bad `min_steps`.
    """
    num_copies = min(max(num_copies, 1), MAX_COPIES)
    if tasks is None:
        generators = (keyed_generator(seed, 0, phase + "/task", copy) for copy in range(num_copies))
        tasks = np.stack([family.draw_task(generator) for generator in generators])
    else:
        tasks = tasks[np.arange(num_copies) % len(tasks)]
    sampler = Sampler(
        family,
        uniform_actions,
        num_copies,
        1,
        horizon,
        num_threads,
        stop_rule=stop_rule,
        min_steps=min_steps,
        record_final=record_final,
    )
    batch = sampler.collect({}, tasks, NoiseKey(seed, 0, phase, range(num_copies)), progress=progress)
    if watch is not None:
        watch(sampler.seconds)
    return batch
