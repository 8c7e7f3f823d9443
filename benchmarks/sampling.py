"""How much of the machine's physics rate the sampler reaches, policy included.

Both sides are timed in one process, alternating, so that a busy machine slows both. Shapes: `M` tasks, `R` copies per
task, `H` horizon, `n` copies, `O` observation, `A` action.
"""

import concurrent.futures
import itertools
import statistics
import time
from typing import Any, NamedTuple

import mujoco
import numpy as np
import tensorflow as tf

from metarl.networks.mlp import mlp
from metarl.policies import gaussian, host
from metarl.sampling.noise import NoiseKey
from metarl.sampling.sampler import Sampler
from tesp.families.goal_family import FRAME_SKIP, MujocoGoalFamily


class SamplingReport(NamedTuple):
    """Medians over the repetitions.

    Attributes:
        raw_rate: environment steps/s of the bare engine on all threads.
        sampler_rate: simulated environment steps/s of the sampler.
        kept_rate: the same, counting only the steps that the stop rule keeps.
        ratio: median of the repetitions' sampler_rate / raw_rate.
        assembly_share: part of a round spent on laying the episodes out.
    """

    raw_rate: float
    sampler_rate: float
    kept_rate: float
    ratio: float
    assembly_share: float


class RawPhysics:
    """The engine alone: recorded controls and resets of a noise policy, replayed with nothing but `mj_step`."""

    def __init__(self, family: MujocoGoalFamily, num_copies: int, num_threads: int, horizon: int, seed: int = 0):
        """Records H ticks of `num_copies` copies under actions N(0, 1), the policy's distribution before training."""
        self._model = family.model
        initial = family.initial_qpos
        self._initial_qpos = np.array(family.model.qpos0 if initial is None else initial, np.float64)
        rng = np.random.default_rng(seed)
        simulation = family.make_simulation(num_copies)
        tasks = np.stack([family.draw_goal(rng) for _ in range(num_copies)])
        scale = family.model.actuator_ctrlrange[:, 1]
        self._controls = np.empty((horizon, num_copies, family.model.nu))
        self._resets: list[np.ndarray] = []
        for tick in range(horizon):
            actions = rng.standard_normal((num_copies, family.action_dim))
            self._controls[tick] = scale * np.clip(actions, -1.0, 1.0)
            ended = np.flatnonzero(simulation.step(actions, tasks).terminated)
            simulation.reset(ended)
            self._resets.append(ended)
        self._data = [mujoco.MjData(self._model) for _ in range(num_copies)]
        self._pool = concurrent.futures.ThreadPoolExecutor(num_threads)
        self._shares = np.array_split(np.arange(num_copies), num_threads)

    def rate(self, seconds: float) -> float:
        """Returns environment steps/s of all threads together, measured for about `seconds`."""
        futures = [self._pool.submit(self._replay, share, seconds) for share in self._shares]
        return sum(future.result() for future in futures)

    def _reset(self, copy: int) -> None:
        mujoco.mj_resetData(self._model, self._data[copy])
        self._data[copy].qpos[:] = self._initial_qpos
        mujoco.mj_forward(self._model, self._data[copy])

    def _replay(self, share: np.ndarray, seconds: float) -> float:
        model, copies = self._model, [(self._data[copy], self._data[copy].ctrl, copy) for copy in share]
        mine = [np.intersect1d(ended, share).tolist() for ended in self._resets]
        steps, begin = 0, time.perf_counter()
        while True:
            for _, _, copy in copies:
                self._reset(copy)
            for controls, ended in zip(self._controls, mine, strict=True):
                for data, control, copy in copies:
                    control[:] = controls[copy]
                    mujoco.mj_step(model, data, FRAME_SKIP)
                for copy in ended:
                    self._reset(copy)
                steps += len(copies)
                elapsed = time.perf_counter() - begin
                if elapsed > seconds:
                    return steps / elapsed


def raw_physics_rate(family: MujocoGoalFamily, num_copies: int, num_threads: int, seconds: float) -> float:
    """Returns environment steps/s of bare `mj_step` calls on `num_threads` threads, H = 200."""
    return RawPhysics(family, num_copies, num_threads, 200).rate(seconds)


def mlp_act(arguments: dict[str, Any], observation: tf.Tensor, standard_normal: tf.Tensor) -> tf.Tensor:
    """A tanh MLP with weights per task, as adapted policies have, and its sampled action; [M, R, 3A]."""
    logits = mlp(arguments, observation, arguments["context"])
    return tf.concat([logits, gaussian.sample(logits, standard_normal)], axis=-1)


def mlp_host_act(arguments: dict[str, Any]) -> host.HostPolicy:
    """The same for small rounds, in NumPy."""
    return host.gaussian_mlp(arguments, arguments["context"])


def mlp_arguments(
    family: MujocoGoalFamily, num_tasks: int, hidden_units: int = 256, embedding_dim: int = 8
) -> dict[str, tf.Tensor]:
    """Returns weights for `mlp_act` whose output is near zero, so that actions are near N(0, 1)."""
    rng = np.random.default_rng(0)
    widths = [family.observation_dim + embedding_dim, hidden_units, hidden_units, 2 * family.action_dim]
    arguments = {"context": rng.standard_normal((num_tasks, embedding_dim))}
    for layer, (rows, columns) in enumerate(itertools.pairwise(widths)):
        scale = 0.01 if layer == 2 else 1.0
        kernel = rng.standard_normal((num_tasks, rows, columns))
        arguments[f"mlp{layer}.kernel"] = scale * kernel / np.linalg.norm(kernel, axis=1, keepdims=True)
        arguments[f"mlp{layer}.bias"] = np.zeros((num_tasks, columns))
    return {name: tf.constant(value, tf.float32) for name, value in arguments.items()}


def sampler_rates(
    family: MujocoGoalFamily,
    num_tasks: int,
    rollouts_per_task: int,
    horizon: int = 200,
    num_threads: int = 2,
    repetitions: int = 5,
    hidden_units: int = 256,
) -> SamplingReport:
    """Times bare physics and sampling rounds in turn.

    Args:
        family: what to simulate.
        num_tasks: M.
        rollouts_per_task: R.
        horizon: H.
        num_threads: threads of both sides.
        repetitions: pairs of measurements, after one uncounted round that compiles the policy.
        hidden_units: width of the policy's two layers.
    """
    rng = np.random.default_rng(1)
    sampler = Sampler(family, mlp_act, num_tasks, rollouts_per_task, horizon, num_threads, host_act=mlp_host_act)
    raw = RawPhysics(family, num_tasks * rollouts_per_task, num_threads, horizon)
    arguments = mlp_arguments(family, num_tasks, hidden_units)
    rows = []
    for repetition in range(repetitions + 1):
        tasks = np.stack([family.draw_goal(rng) for _ in range(num_tasks)])
        begin = time.perf_counter()
        batch = sampler.collect(arguments, tasks, NoiseKey(0, repetition, "benchmark", range(num_tasks)))
        seconds = time.perf_counter() - begin
        if repetition:
            taken, kept = sampler.steps_taken, np.count_nonzero(batch.steps.valid)
            rows.append((raw.rate(seconds), taken / seconds, kept / seconds, sampler.assembly_seconds / seconds))
    return SamplingReport(
        raw_rate=statistics.median(row[0] for row in rows),
        sampler_rate=statistics.median(row[1] for row in rows),
        kept_rate=statistics.median(row[2] for row in rows),
        ratio=statistics.median(row[1] / row[0] for row in rows),
        assembly_share=statistics.median(row[3] for row in rows),
    )
