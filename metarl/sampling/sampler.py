"""The sampler: complete episodes of every task until enough steps are reached.

Shapes: `M` tasks, `R` copies per task, `H` horizon, `S` capacity, `O` observation, `A` action, `G` numbers per task.
"""

import concurrent.futures
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from metarl.policies.host import HostPolicy
from metarl.sampling.lane import Lane
from metarl.sampling.noise import NoiseKey, NormalStream, ResetStream, TransitionNoise
from metarl.sampling.policy import CompiledPolicy, LanePolicies, NumpyPolicy, Share, Sizes
from metarl.sampling.quota import make_quota
from metarl.sampling.steps import Batch, Steps, joined
from metarl.sampling.threads import ThreadShares
from metarl.scaling import cores
from metarl.simulation.task_family import TaskFamily

_PROGRESS_SECONDS = 0.2
# Up to so many copies per task, a policy of 256 units takes a fifth of the time in NumPy. The number of tasks does not
# matter, so that the same arithmetic is used however the tasks are split.
_HOST_ROLLOUTS = 8
# Up to so many copies in all, one lane whose physics is shared among the threads is faster than one lane per thread:
# a tick is then so short that lanes mostly wait for each other's interpreter lock.
_ONE_LANE_COPIES = 4


class SamplingSeconds(NamedTuple):
    """Where the time of a round went.

    Attributes:
        policy: acting, in the lane that took longest.
        simulation: steps, resets and observations, in the lane that took longest.
        processing: laying out the episodes.
    """

    policy: float
    simulation: float
    processing: float


class Sampler:
    """Collects one sampling round after another, M tasks at a time.

    Every copy of a task starts afresh, all copies of a task step together, an episode ends by itself or at the horizon
    and its copy begins another one at once; finished episodes are taken in order of completion (within a tick by copy)
    until a task has R*H steps, or, with `stop_rule` "global", until all tasks together have M*R*H (see
    `metarl.sampling.quota`). Running episodes and those finished too late are lost; nothing carries over to the next
    round.

    The tasks are split over *lanes*: each lane is a thread with its own simulation and its own loop of policy and
    physics, so that no tick waits for another lane; when a lane is done, its thread helps with the physics of the
    others. A handful of copies make one lane, whose physics uses all the threads, and so does the global stop rule
    where episodes can end early.
    Results do not depend on the number of lanes as far as the policy's arithmetic does not depend on its batch shape.

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
        host_act: Callable[[Any], HostPolicy] | None = None,
        stop_rule: str = "per_task",
        min_steps: int | None = None,
        record_final: bool = False,
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
            host_act: the same policy in NumPy, used when R is at most 8: called once per lane and round with the lane's
                arguments as arrays ([m, ...], shared ones among them), it returns a function of observation [m, R, O]
                and standard_normal [m, R, A]. Default: `act` serves all sizes.
            stop_rule: "per_task", "global" or "truncate".
            min_steps: steps of all tasks together instead of M*R*H, so that a copy may make many episodes in a row.
            record_final: put what is observed after each episode's last step into the batch's info, as
                FINAL_OBSERVATION; noise on observations is not added to it.

        Raises:
            UserError: an unknown stop rule, or a bad `min_steps`.
        """
        if num_threads is None:
            num_threads = cores.usable()
        self.family, self.num_tasks = family, num_tasks
        self.rollouts_per_task, self.horizon = rollouts_per_task, horizon
        quota = make_quota(stop_rule, num_tasks, rollouts_per_task, horizon, family.ends_early, min_steps)
        self.capacity = quota.capacity
        self._act, self._jit_compile = act, jit_compile
        self._host_act = host_act if rollouts_per_task <= _HOST_ROLLOUTS else None
        one_lane = family.threaded and num_tasks * rollouts_per_task <= _ONE_LANE_COPIES
        num_lanes = 1 if one_lane or quota.in_all is not None else max(1, min(num_threads, num_tasks))
        self._num_slots = m = -(-num_tasks // num_lanes)
        self._lanes = [
            Lane(family, first, min(m, num_tasks - first), m, rollouts_per_task, horizon, quota, record_final)
            for first in range(0, num_tasks, m)
        ]
        self._num_threads = num_threads if family.threaded else 1
        self._threads = concurrent.futures.ThreadPoolExecutor(len(self._lanes), thread_name_prefix="sampler")
        self._policy: LanePolicies | None = None
        self.assembly_seconds = 0.0

    @property
    def num_lanes(self) -> int:
        """How many lanes, and so threads, the tasks are split over."""
        return len(self._lanes)

    @property
    def steps_taken(self) -> int:
        """Environment steps made in the current or last round, those that the stop rule drops included."""
        return sum(lane.steps_taken for lane in self._lanes)

    @property
    def seconds(self) -> SamplingSeconds:
        """Where the time of the last round went."""
        return SamplingSeconds(
            max(lane.policy_seconds for lane in self._lanes),
            max(lane.simulation_seconds for lane in self._lanes),
            self.assembly_seconds,
        )

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
            noise: names the policy's random numbers; resets use the phase with "/reset" appended, the transition
                noise the phase with "/transition".
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
            self._policy = self._make_policy(act_arguments, shared_arguments)
        shares = [Share(lane.first, lane.count) for lane in self._lanes]
        policies = self._policy.bind(act_arguments, shared_arguments, shares)
        cancelled = threading.Event()
        threads = ThreadShares(self._num_threads, len(self._lanes))
        futures = []
        for lane, policy in zip(self._lanes, policies, strict=True):
            rows = slice(lane.first, lane.first + lane.count)
            key = noise._replace(task_indices=noise.task_indices[rows])
            streams = self._transition_streams(key, transition_noise)
            normals = self._stream(key, self.family.action_dim)
            resets = ResetStream(key._replace(phase=key.phase + "/reset"), self.family)
            arguments = (policy, tasks[rows], normals, resets, *streams, cancelled)
            futures.append(self._threads.submit(_run, lane, threads, *arguments))
        self._wait(futures, cancelled, progress)
        begin = time.perf_counter()
        batch = self._assemble()
        self.assembly_seconds = time.perf_counter() - begin
        return batch

    def _make_policy(self, arguments: Any, shared: Mapping[str, Any] | None) -> LanePolicies:
        sizes = Sizes(
            self.num_tasks,
            self._num_slots,
            self.rollouts_per_task,
            self.family.observation_dim,
            self.family.action_dim,
        )
        if self._host_act is not None:
            return NumpyPolicy(self._host_act, sizes, arguments, shared)
        return CompiledPolicy(self._act, self._jit_compile, sizes, arguments, shared)

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
        return Batch(steps, joined(parts), info)


def _run(lane: Lane, threads: ThreadShares, *arguments: Any) -> None:
    try:
        # Non-finite numbers reach the caller, who looks for them; on the way they pass without a warning per tick.
        with np.errstate(over="ignore", invalid="ignore"):
            lane.run(threads, *arguments)
    finally:
        threads.lane_is_done()
