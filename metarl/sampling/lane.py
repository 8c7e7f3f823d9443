"""One lane of the sampler: a thread's share of the tasks, from reset to the last complete episode.

A lane's end depends on its own tasks alone, so lanes never wait for each other; where all tasks end together there is
one lane. Shapes: `m` task slots of a lane, `R` copies per task, `n` = m R, `H` horizon, `S` capacity, `O` observation,
`A` action; a *tick* is one control step of every copy.
"""

import threading
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import numpy as np

from metarl.sampling.noise import NormalStream, ResetStream
from metarl.sampling.quota import Quota
from metarl.sampling.steps import FINAL_OBSERVATION, Episodes, Steps
from metarl.sampling.threads import ThreadShares
from metarl.simulation.task_family import TaskFamily


class _Ended(NamedTuple):
    """The episodes that ended, in order of completion (tick, then copy); each array is [episodes]."""

    copy: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    terminated: np.ndarray


class Lane:
    """Task slots `first` to `first + count - 1` of the batch; slots beyond `count` are padding and never stepped.

    Attributes:
        steps_taken: environment steps made in the current or last round.
        policy_seconds: time in the policy, of the same round.
        simulation_seconds: time in steps, resets and observations, of the same round.
    """

    def __init__(
        self,
        family: TaskFamily,
        first: int,
        count: int,
        num_slots: int,
        rollouts_per_task: int,
        horizon: int,
        quota: Quota,
        record_final: bool = False,
    ):
        """Makes the lane's copies and its recording.

        Args:
            family: what to simulate.
            first: index in the batch of the lane's first task.
            count: tasks of this lane, 1 to `num_slots`.
            num_slots: m, the same for all lanes so that one compiled policy serves them all.
            rollouts_per_task: R.
            horizon: H.
            quota: when the lane's tasks are done.
            record_final: whether what is observed after an episode's last step is kept, as the info entry
                FINAL_OBSERVATION.
        """
        self.first, self.count, self.num_slots = first, count, num_slots
        self.steps_taken = 0
        self.policy_seconds = self.simulation_seconds = 0.0
        self._family, self._R, self._H, self._quota = family, rollouts_per_task, horizon, quota
        self._num_copies = num_slots * rollouts_per_task
        self._simulation = family.make_simulation(self._num_copies)
        self._num_threads = 1
        T, R, A = quota.max_ticks, rollouts_per_task, family.action_dim
        self._inputs = np.zeros((T, num_slots, R, family.observation_dim + A), np.float32)
        self._outputs = np.zeros((T, num_slots, R, 3 * A), np.float32)
        self._reward = np.zeros((T, self._num_copies), np.float64)
        self._info: dict[str, np.ndarray] = {}
        if record_final:
            self._info[FINAL_OBSERVATION] = np.zeros((T, self._num_copies, family.observation_dim), np.float32)
        self._ended = _Ended(*(np.zeros(0, np.int64),) * 4)

    def run(
        self,
        threads: ThreadShares,
        policy: Callable[[np.ndarray], np.ndarray],
        tasks: np.ndarray,
        normals: NormalStream,
        resets: ResetStream,
        observation_noise: tuple[float, NormalStream] | None,
        state_noise: tuple[float, NormalStream] | None,
        cancelled: threading.Event,
    ) -> None:
        """Samples until the quota is met; the recording stays in the lane.

        Args:
            threads: how many of them the physics uses.
            policy: [m, R, O + A] observations and standard normals -> [m, R, 3A] logits and action.
            tasks: [count, G].
            normals: the policy's random numbers.
            resets: the random numbers of resets.
            observation_noise: standard deviation and random numbers of the noise on observations, if any.
            state_noise: the same for the noise on states.
            cancelled: set from outside to give up within one tick.

        Raises:
            RuntimeError: if a family that promised not to end early does.
        """
        R, A, observed = self._R, self._family.action_dim, self._family.observation_dim
        simulation = self._simulation
        slots = np.minimum(np.arange(self.num_slots), self.count - 1)
        tasks_of_copies = np.repeat(tasks[slots], R, axis=0)
        quota = self._quota
        remaining = np.where(np.arange(self.num_slots) < self.count, quota.per_task, 0)
        remaining_in_all = quota.in_all
        live = np.repeat(remaining > 0, R)
        num_live = int(live.sum())
        start = np.zeros(self._num_copies, np.int64)
        next_due = self._H
        nothing = np.zeros(0, np.int64)
        ended: list[_Ended] = []
        self.steps_taken = 0
        self.policy_seconds = self.simulation_seconds = 0.0
        if FINAL_OBSERVATION in self._info:
            self._info[FINAL_OBSERVATION].fill(0.0)

        began = perf_counter()
        simulation.assign_tasks(tasks_of_copies)
        simulation.reset(None, resets.draw(np.repeat(np.arange(self.num_slots), R)))
        simulation.select(None if live.all() else np.flatnonzero(live))
        observation = simulation.observe()
        self.simulation_seconds += perf_counter() - began
        for tick in range(quota.max_ticks):
            if cancelled.is_set():
                return
            if threads.each != self._num_threads:
                self._num_threads = threads.each
                simulation.use_threads(self._num_threads)
            packed = self._inputs[tick]
            packed[..., :observed] = observation.reshape(self.num_slots, R, observed)
            packed[..., observed:] = normals.at(tick)
            output = self._outputs[tick]
            began = perf_counter()
            output[...] = policy(packed)
            acted = perf_counter()
            self.policy_seconds += acted - began
            outcome = simulation.step(output[..., 2 * A :].astype(np.float64).reshape(-1, A), tasks_of_copies)
            self.simulation_seconds += perf_counter() - acted
            self._reward[tick] = outcome.reward
            self._record_info(tick, outcome.info)
            self.steps_taken += num_live
            if state_noise is not None:
                simulation.perturb_state(state_noise[0] * state_noise[1].at(tick).reshape(self._num_copies, -1))

            ending = nothing
            if tick + 1 >= next_due or outcome.terminated.any():
                ending = np.flatnonzero(live & (outcome.terminated | (tick + 1 - start >= self._H)))
            cut = quota.truncates and tick + 1 == quota.max_ticks
            if cut:
                ending = np.flatnonzero(live)
            if ending.size:
                ended.append(_Ended(ending, start[ending], np.full(ending.size, tick + 1), outcome.terminated[ending]))
                if FINAL_OBSERVATION in self._info:
                    self._info[FINAL_OBSERVATION][tick, ending] = simulation.observe()[ending]
                if cut:
                    break
                completed = tick + 1 - start[ending]
                start[ending] = tick + 1
                if remaining_in_all is not None:
                    remaining_in_all -= int(completed.sum())
                    if remaining_in_all <= 0:
                        break
                else:
                    np.subtract.at(remaining, ending // R, completed)
                    still = np.repeat(remaining > 0, R)
                    if not still.any():
                        break
                    if (still != live).any():
                        live, num_live = still, int(still.sum())
                        simulation.select(np.flatnonzero(live))
                restarting = ending[live[ending]]
                began = perf_counter()
                simulation.reset(restarting, resets.draw(restarting // R))
                self.simulation_seconds += perf_counter() - began
                next_due = int(start[live].min()) + self._H
            began = perf_counter()
            observation = simulation.observe()
            self.simulation_seconds += perf_counter() - began
            if observation_noise is not None:
                exact = observation[ending]
                observation = observation + observation_noise[0] * observation_noise[1].at(tick).reshape(-1, observed)
                observation[ending] = exact
        else:
            raise RuntimeError(f"task family {self._family.name!r} took more than {quota.max_ticks} ticks")
        self._ended = _Ended(*(np.concatenate(field) for field in zip(*ended, strict=True)))
        if not self._family.ends_early and self._ended.terminated.any():
            raise RuntimeError(f"task family {self._family.name!r} says ends_early = False, but an episode terminated")

    def _record_info(self, tick: int, info: dict[str, np.ndarray]) -> None:
        for name in self._family.info_keys:
            value = info[name]
            if name not in self._info:
                self._info[name] = np.zeros((self._quota.max_ticks, *value.shape), value.dtype)
            self._info[name][tick] = value

    def info_layout(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns per info entry the shape of one copy's value and its type, known after `run`."""
        return {name: (record.shape[2:], record.dtype) for name, record in self._info.items()}

    def assemble(self, steps: Steps, info: dict[str, np.ndarray]) -> Episodes:
        """Writes the episodes that the stop rule keeps into this lane's rows of the batch.

        Args:
            steps: the whole batch's arrays [M, S, ...], zero.
            info: the same for the family's info.

        Returns:
            The statistics of this lane's episodes, `task` counting from the start of the batch.
        """
        R, A, n, observed = self._R, self._family.action_dim, self._num_copies, self._family.observation_dim
        slot = self._ended.copy // R
        # Stable, so that within a task the order of completion stays.
        order = np.argsort(slot, kind="stable")
        copy, start, stop, terminated = (field[order] for field in self._ended)
        slot, length = slot[order], stop - start
        # Steps of the same task taken before each episode; a task is done with the first episode that reaches its
        # quota. The quota of all together has nothing left to drop.
        total = np.cumsum(length) - length
        first_of_slot = np.searchsorted(slot, np.arange(self.num_slots))
        before = total - total[first_of_slot[slot]]
        kept = before < self._quota.per_task
        copy, start, terminated, slot, length, before = (
            array[kept] for array in (copy, start, terminated, slot, length, before)
        )

        episode_of_step = np.repeat(np.arange(length.size), length)
        ends = np.cumsum(length)
        time = np.arange(ends[-1]) - (ends - length)[episode_of_step]
        source = (start[episode_of_step] + time) * n + copy[episode_of_step]
        last = np.zeros(time.size, bool)
        last[ends - 1] = True
        recorded_input = _rows(self._inputs, n, source)
        recorded_output = _rows(self._outputs, n, source)
        reward = _rows(self._reward, n, source)
        values = {
            "observation": recorded_input[:, :observed],
            "action": recorded_output[:, 2 * A :],
            "reward": reward,
            "logits": recorded_output[:, : 2 * A],
            "time": time,
            "valid": np.ones(time.size, bool),
            "last": last,
        }
        recorded_info = {name: _rows(record, n, source) for name, record in self._info.items()}
        steps_of_slot = np.bincount(slot, weights=length, minlength=self.count).astype(np.int64)
        stop_of_slot = np.cumsum(steps_of_slot)
        for i in range(self.count):
            rows = slice(stop_of_slot[i] - steps_of_slot[i], stop_of_slot[i])
            for name, value in values.items():
                with np.errstate(over="ignore", invalid="ignore"):
                    getattr(steps, name)[self.first + i, : steps_of_slot[i]] = value[rows]
            for name, value in recorded_info.items():
                info[name][self.first + i, : steps_of_slot[i]] = value[rows]
        scalars = {name: value for name, value in recorded_info.items() if value.ndim == 1}
        begins = ends - length
        return Episodes(
            task=self.first + slot,
            episode_return=np.add.reduceat(reward, begins),
            length=length,
            terminated=terminated,
            start=before,
            sums={name: np.add.reduceat(value.astype(np.float64), begins) for name, value in scalars.items()},
            final={name: value[ends - 1].astype(np.float64) for name, value in scalars.items()},
        )


def _rows(record: np.ndarray, num_copies: int, source: np.ndarray) -> np.ndarray:
    """Returns the rows `source` (tick * n + copy) of a recording whose leading axes hold ticks and copies."""
    ticks = record.shape[0]
    width = record.size // (ticks * num_copies)
    taken = np.take(record.reshape(ticks * num_copies, width), source, axis=0)
    scalar = record.ndim == 2
    return taken[:, 0] if scalar else taken
