"""The sampler: complete episodes of every task until R*H steps are reached (TESP specification, section 4).

Shapes: `M` tasks, `R` copies per task, `H` horizon, `S` capacity, `O` observation, `A` action, `G` numbers per task.
"""

import concurrent.futures
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from metarl.sampling.lane import Lane
from metarl.sampling.noise import NoiseKey, NormalStream, TransitionNoise
from metarl.sampling.steps import Batch, Episodes, Steps, steps_capacity
from metarl.simulation.task_family import TaskFamily

_PROGRESS_SECONDS = 0.2


class Sampler:
    """Collects one sampling round after another, M tasks at a time.

    Every copy of a task starts afresh, all copies of a task step together, an episode ends by itself or at the horizon
    and its copy begins another one at once; finished episodes are taken in order of completion (within a tick by copy)
    until a task has R*H steps. Running episodes and those finished too late are lost; nothing carries over to the next
    round.

    The tasks are split over *lanes*: each lane is a thread with its own simulation and its own loop of policy and
    physics, so that no tick waits for another lane. Results do not depend on the number of lanes as far as the policy's
    arithmetic does not depend on its batch shape.

    Attributes:
        capacity: S.
        assembly_seconds: time that laying out the last round's episodes took.
    """

    def __init__(
        self,
        family: TaskFamily,
        act: Callable[[Any, tf.Tensor, tf.Tensor], tf.Tensor],
        num_tasks: int,
        rollouts_per_task: int,
        horizon: int,
        num_threads: int | None = None,
        jit_compile: bool = True,
    ):
        """Makes the simulations and threads; the policy is compiled by the first round.

        Args:
            family: what to simulate.
            act: the policy, (arguments, observation [m, R, O], standard_normal [m, R, A]) -> [m, R, 3A]: mean, log_std
                and sampled action. TensorFlow code; it is traced once, with the arguments of one lane ([m, ...]).
            num_tasks: M.
            rollouts_per_task: R.
            horizon: H.
            num_threads: upper limit of the lanes; default: the machine's cores that this process may use.
            jit_compile: compile the policy with XLA, which halves the cost of calling it.
        """
        if num_threads is None:
            num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.family, self.num_tasks = family, num_tasks
        self.rollouts_per_task, self.horizon = rollouts_per_task, horizon
        self.capacity = steps_capacity(rollouts_per_task, horizon, family.ends_early)
        self._act, self._jit_compile = act, jit_compile
        self._num_slots = -(-num_tasks // max(1, min(num_threads, num_tasks)))
        self._lanes = [
            Lane(family, first, min(self._num_slots, num_tasks - first), self._num_slots, rollouts_per_task, horizon)
            for first in range(0, num_tasks, self._num_slots)
        ]
        self._threads = concurrent.futures.ThreadPoolExecutor(len(self._lanes), thread_name_prefix="sampler")
        self._policy: _PackedPolicy | None = None
        self.assembly_seconds = 0.0

    @property
    def num_lanes(self) -> int:
        """How many lanes, and so threads, the tasks are split over."""
        return len(self._lanes)

    @property
    def steps_taken(self) -> int:
        """Environment steps made in the current or last round, those that the stop rule drops included."""
        return sum(lane.steps_taken for lane in self._lanes)

    def collect(
        self,
        act_arguments: Any,
        tasks: np.ndarray,
        noise: NoiseKey,
        transition_noise: TransitionNoise | None = None,
        progress: Callable[[int], None] | None = None,
        shared_arguments: Mapping[str, Any] | None = None,
    ) -> Batch:
        """Samples one round.

        Args:
            act_arguments: nest of tensors [M, ...] for `act`, for example adapted weights; split over the lanes.
            tasks: [M, G].
            noise: names the policy's random numbers; the transition noise uses the phase with "/transition" appended.
            transition_noise: noise on transitions, none by default.
            progress: called now and then, in the calling thread, with the environment steps made since the last call.
            shared_arguments: tensors that all tasks share; `act` then gets one dictionary with both kinds, and
                `act_arguments` must be a dictionary too.

        Returns:
            The batch: steps [M, S, ...] with padding zero, episodes and info.

        Raises:
            ValueError: if the arguments do not have M rows, or other shapes than in the first round.
        """
        M = self.num_tasks
        tasks = np.asarray(tasks, np.float64)
        if tasks.shape != (M, self.family.task_dim) or len(noise.task_indices) != M:
            raise ValueError(
                f"expected {M} tasks of {self.family.task_dim} numbers and {M} task indices, "
                f"got {tasks.shape} and {len(noise.task_indices)}"
            )
        if self._policy is None:
            self._policy = _PackedPolicy(self, act_arguments, shared_arguments)
        policies = self._policy.bind(act_arguments, shared_arguments, self._lanes)
        cancelled = threading.Event()
        futures = []
        for lane, policy in zip(self._lanes, policies, strict=True):
            rows = slice(lane.first, lane.first + lane.count)
            key = noise._replace(task_indices=noise.task_indices[rows])
            streams = self._transition_streams(key, transition_noise)
            normals = self._stream(key, self.family.action_dim)
            futures.append(self._threads.submit(_run, lane, policy, tasks[rows], normals, *streams, cancelled))
        self._wait(futures, cancelled, progress)
        begin = time.perf_counter()
        batch = self._assemble()
        self.assembly_seconds = time.perf_counter() - begin
        return batch

    def _stream(self, key: NoiseKey, width: int) -> NormalStream:
        return NormalStream(key, self._num_slots, self.rollouts_per_task, width, self.horizon)

    def _transition_streams(
        self, key: NoiseKey, transition_noise: TransitionNoise | None
    ) -> tuple[tuple[float, NormalStream] | None, tuple[float, NormalStream] | None]:
        if transition_noise is None or transition_noise.sigma == 0:
            return None, None
        key = key._replace(phase=key.phase + "/transition")
        if transition_noise.kind == "observation":
            return (transition_noise.sigma, self._stream(key, self.family.observation_dim)), None
        return None, (transition_noise.sigma, self._stream(key, self.family.state_dim))

    def _wait(
        self,
        futures: list[concurrent.futures.Future],
        cancelled: threading.Event,
        progress: Callable[[int], None] | None,
    ) -> None:
        """Waits for all lanes; whatever goes wrong, here or in a lane, stops the others within one tick."""
        reported, waiting = 0, set(futures)
        try:
            while waiting:
                done, waiting = concurrent.futures.wait(
                    waiting, _PROGRESS_SECONDS, return_when=concurrent.futures.FIRST_EXCEPTION
                )
                for future in done:
                    future.result()
                if progress is not None:
                    taken = self.steps_taken
                    progress(taken - reported)
                    reported = taken
        except BaseException:
            cancelled.set()
            concurrent.futures.wait(futures)
            raise

    def _assemble(self) -> Batch:
        M, S, A = self.num_tasks, self.capacity, self.family.action_dim
        steps = Steps(
            observation=np.zeros((M, S, self.family.observation_dim), np.float32),
            action=np.zeros((M, S, A), np.float32),
            reward=np.zeros((M, S), np.float32),
            logits=np.zeros((M, S, 2 * A), np.float32),
            time=np.zeros((M, S), np.int32),
            valid=np.zeros((M, S), bool),
            last=np.zeros((M, S), bool),
        )
        layout = self._lanes[0].info_layout()
        info = {name: np.zeros((M, S, *shape), dtype) for name, (shape, dtype) in layout.items()}
        parts = list(self._threads.map(lambda lane: lane.assemble(steps, info), self._lanes))
        names = parts[0].sums
        episodes = Episodes(
            task=np.concatenate([part.task for part in parts]),
            episode_return=np.concatenate([part.episode_return for part in parts]),
            length=np.concatenate([part.length for part in parts]),
            terminated=np.concatenate([part.terminated for part in parts]),
            start=np.concatenate([part.start for part in parts]),
            sums={name: np.concatenate([part.sums[name] for part in parts]) for name in names},
            final={name: np.concatenate([part.final[name] for part in parts]) for name in names},
        )
        return Batch(steps, episodes, info)


def _run(lane: Lane, *arguments: Any) -> None:
    # Non-finite numbers reach the caller, who looks for them; on the way they pass without a warning per tick.
    with np.errstate(over="ignore", invalid="ignore"):
        lane.run(*arguments)


class _PackedPolicy:
    """The policy as one compiled function of flat tensors, made for being called very often with small inputs."""

    def __init__(self, sampler: Sampler, arguments: Any, shared: Mapping[str, Any] | None):
        M, m = sampler.num_tasks, sampler._num_slots
        A, observed = sampler.family.action_dim, sampler.family.observation_dim
        self._num_tasks, self._num_slots = M, m
        self._input_shape = (m, sampler.rollouts_per_task, observed + A)
        self._arguments_specs = _specs(arguments)
        self._shared_specs = _specs(shared)
        for shape, _ in self._arguments_specs:
            if shape[:1] != (M,):
                raise ValueError(f"every act argument needs a leading axis of {M} tasks, got shape {shape}")
        num_arguments = len(self._arguments_specs)
        expected = (m, sampler.rollouts_per_task, 3 * A)

        def packed_act(*flat: tf.Tensor) -> tf.Tensor:
            leaves, packed = flat[:-1], flat[-1]
            structured = tf.nest.pack_sequence_as(arguments, leaves[:num_arguments])
            if shared is not None:
                structured = {**structured, **tf.nest.pack_sequence_as(shared, leaves[num_arguments:])}
            output = tf.convert_to_tensor(sampler._act(structured, packed[..., :observed], packed[..., observed:]))
            if output.shape != expected or output.dtype != tf.float32:
                raise ValueError(f"act must return float32 {expected}, got {output.dtype.name} {output.shape}")
            return output

        signature = [tf.TensorSpec((m, *shape[1:]), dtype) for shape, dtype in self._arguments_specs]
        signature += [tf.TensorSpec(shape, dtype) for shape, dtype in self._shared_specs]
        signature += [tf.TensorSpec(self._input_shape, tf.float32)]
        function = tf.function(packed_act, jit_compile=sampler._jit_compile, autograph=False)
        self._concrete = function.get_concrete_function(*signature)

    def bind(self, arguments: Any, shared: Mapping[str, Any] | None, lanes: list[Lane]) -> list[Callable]:
        """Returns per lane a NumPy function [m, R, O + A] -> [m, R, 3A] that holds the lane's arguments."""
        if _specs(arguments) != self._arguments_specs or _specs(shared) != self._shared_specs:
            raise ValueError(
                f"act arguments changed from {self._arguments_specs + self._shared_specs} "
                f"to {_specs(arguments) + _specs(shared)}"
            )
        leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(arguments)]
        shared_leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(shared)] if shared is not None else []
        return [self._caller([self._share(leaf, lane) for leaf in leaves] + shared_leaves) for lane in lanes]

    def _share(self, leaf: tf.Tensor, lane: Lane) -> tf.Tensor:
        if lane.count == self._num_tasks == self._num_slots:
            return leaf
        if lane.count == self._num_slots:
            return leaf[lane.first : lane.first + lane.count]
        # The last lane repeats its last task to fill the slots.
        rows = lane.first + np.minimum(np.arange(self._num_slots), lane.count - 1)
        return tf.gather(leaf, rows)

    def _caller(self, leaves: list[tf.Tensor]) -> Callable[[np.ndarray], np.ndarray]:
        call_concrete, from_dlpack = _flat_call(self._concrete), tf.experimental.dlpack.from_dlpack
        # DLPack shares the buffer with TensorFlow, a tenth of the cost of a conversion; the result is read before the
        # buffer is written again.
        shared_input = _aligned_zeros(self._input_shape)

        def call(packed: np.ndarray) -> np.ndarray:
            shared_input[...] = packed
            return call_concrete([*leaves, from_dlpack(shared_input.__dlpack__())]).numpy()

        return call


def _flat_call(concrete: Any) -> Callable[[list[tf.Tensor]], tf.Tensor]:
    """Returns `concrete` as a function of a list of tensors, by the shortest way that this TensorFlow has.

    Binding arguments to names and nests costs a public call as much as all the rest of it: 0.1 ms under the interpreter
    lock, at every tick. `_PackedPolicy.bind` has checked the shapes.
    """
    call_flat = getattr(concrete, "_call_flat", None)
    if call_flat is None:
        return lambda tensors: concrete(*tensors)
    captured = concrete.captured_inputs
    return lambda tensors: call_flat(tensors, captured)


def _aligned_zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Returns float32 zeros that begin at a multiple of 64 bytes, which TensorFlow insists on for memory it is lent."""
    size = int(np.prod(shape)) * 4
    buffer = np.zeros(size + 64, np.uint8)
    begin = -buffer.ctypes.data % 64
    return buffer[begin : begin + size].view(np.float32).reshape(shape)


def _specs(nest: Any) -> list[tuple[tuple[int, ...], tf.DType]]:
    if nest is None:
        return []
    return [(tuple(leaf.shape), tf.as_dtype(leaf.dtype)) for leaf in tf.nest.flatten(nest)]
