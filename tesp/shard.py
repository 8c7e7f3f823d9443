"""One shard of a TESP-family meta-update: sampling and fast adaptation of its tasks (TESP specification, 3.2 and 4).

Shapes: `M` tasks, `R` copies per task, `H` horizon, `S` steps per task, `K` fast-updates, `D` context.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from metarl.experiment.learner import NonFiniteError
from metarl.sampling.noise import NoiseKey, TransitionNoise
from metarl.sampling.sampler import Sampler
from metarl.sampling.steps import Batch, Episodes, Steps
from metarl.scaling.shard import Shard, TaskBatch
from metarl.simulation.task_family import TaskFamily
from tesp.computation import Computation, Objective
from tesp.episode_buffer import EpisodeBuffer, encoder_features
from tesp.methods import MetaParameters, Method
from tesp.methods.base import Weights
from tesp.objectives import OuterTerms, Round
from tesp.settings import FastAdaptation, MetaUpdate


class Trajectory(NamedTuple):
    """A few paths of one task for the eye.

    Attributes:
        task: [G].
        goal: [2] or more, the place that the family shows for the task, or None.
        before: positions [T, 2] of some episodes before adaptation.
        after: the same after it.
    """

    task: np.ndarray
    goal: np.ndarray | None
    before: list[np.ndarray]
    after: list[np.ndarray]


class Adaptation(NamedTuple):
    """What the adaptation of a shard's tasks gave.

    Attributes:
        key: names the data kept for `TespShard.evaluate`.
        rounds: the episodes sampled after 0 .. K fast-updates (the warm-up round is not among them).
        inner_loss: [K, M].
        inner_grad_norm: [K, M], before clipping.
        context_norm: [M], L2 norm of the final context; zeros for methods without.
        simulated_steps: environment steps made, warm-up and lost episodes included.
        trajectories: of the first tasks.
        seconds: wall-clock by phase, "sampling" and "inner".
    """

    key: Any
    rounds: list[Episodes]
    inner_loss: np.ndarray
    inner_grad_norm: np.ndarray
    context_norm: np.ndarray
    simulated_steps: int
    trajectories: list[Trajectory]
    seconds: dict[str, float]


class _Kept(NamedTuple):
    accumulated: Weights
    data: Round
    rounds: tuple[Round, ...]


class TespShard(Shard[Adaptation]):
    """Samples and adapts M tasks with one method.

    Args:
        method: which variables are adapted, and the context.
        family: the tasks' simulation.
        adaptation: settings of sampling and fast-updates.
        meta_update: settings of the outer loss.
        num_tasks: M.
        paths_shown: tasks, and episodes of each, whose paths are returned.
    """

    def __init__(
        self,
        method: Method,
        family: TaskFamily,
        adaptation: FastAdaptation,
        meta_update: MetaUpdate,
        num_tasks: int,
        paths_shown: tuple[int, int] = (6, 3),
    ):
        self.num_tasks = num_tasks
        self._method = method
        self._settings = adaptation
        self._family = family
        self._replay = meta_update.replay_inner
        self._paths_shown = paths_shown
        objective = Objective(
            gamma=adaptation.gamma,
            lambda_=adaptation.lambda_,
            inner_grad_clip=adaptation.inner_grad_clip,
            clip_param=meta_update.clip_param,
            replay_inner=meta_update.replay_inner,
            second_order=meta_update.second_order,
        )
        self.computation = Computation(method, objective, adaptation.horizon)
        self.sampler = Sampler(
            family,
            self.computation.act,
            num_tasks,
            adaptation.rollouts_per_task,
            adaptation.horizon,
            adaptation.num_threads,
            host_act=self.computation.host_act,
        )
        self._feature_dim = method.feature_dim(family.observation_dim, family.action_dim) if method.uses_encoder else 0
        self._cache: dict[Any, _Kept] = {}
        self._bad: Steps | None = None

    def collect(
        self,
        parameters: MetaParameters,
        tasks: TaskBatch,
        seed: int,
        iteration: int,
        *,
        phase: str = "train",
        transition_noise: TransitionNoise | None = None,
        keep: bool = True,
        report: Callable[[str], None] | None = None,
    ) -> Adaptation:
        """The adaptation of section 3.2, step 3, for all tasks of the shard.

        Args:
            parameters: meta-parameters.
            tasks: M tasks and their indices.
            seed: of the experiment.
            iteration: 0-based meta-update.
            phase: what the adaptation is for; with seed, iteration and task index it keys all random numbers.
            transition_noise: noise on transitions (section 6.2); never used in training.
            keep: store what `evaluate` needs, in place of what was stored before. Without, the caller looks for
                returns that are not finite.
            report: is told what is being done.

        Raises:
            NonFiniteError: an episode's return is not finite, and the round was to be kept.
        """
        settings, method, compute = self._settings, self._method, self.computation
        updates = settings.inner_updates
        seconds = {"sampling": 0.0, "inner": 0.0}
        simulated = 0
        buffer = EpisodeBuffer(self.num_tasks, settings.episode_mode, settings.buffer_size)
        accumulated = {name: tf.zeros([self.num_tasks, *theta.shape]) for name, theta in parameters.inner.items()}
        rounds: list[Round] = []
        episodes: list[Episodes] = []
        losses, norms = [], []
        encoder_input = self._encode_input(buffer)
        first_batch: Batch | None = None

        def sample(name: str) -> tuple[Batch, Any]:
            nonlocal simulated
            if report:
                report(f"sampling {name}")
            started = time.perf_counter()
            adapted, context = compute.prepare(parameters, accumulated, encoder_input)
            arguments = dict(adapted) if context is None else {**adapted, "context": context}
            counts: list[int] = []
            batch = self.sampler.collect(
                arguments,
                tasks.tasks,
                NoiseKey(seed, iteration, f"{phase}/{name}", tasks.indices),
                transition_noise,
                progress=counts.append,
                shared_arguments=parameters.shared or None,
            )
            self._look_for_bad_returns(batch, f"{phase}/{name}", tasks, keep)
            simulated += sum(counts)
            seconds["sampling"] += time.perf_counter() - started
            return batch, context

        if method.uses_encoder and settings.warmup:
            batch, _ = sample("warm-up")
            buffer.extend_batch(batch, encoder_features(batch.steps, method.encoder_action_feature))
            encoder_input = self._encode_input(buffer)
        for k in range(updates):
            batch, _ = sample(f"round {k}")
            first_batch = first_batch or batch
            started = time.perf_counter()
            if report:
                report(f"fast-update {k + 1}")
            data = self._round(batch.steps, encoder_input)
            accumulated, loss, norm = compute.inner_step(parameters, accumulated, data)
            losses.append(loss.numpy())
            norms.append(norm.numpy())
            episodes.append(batch.episodes)
            if self._replay and keep:
                rounds.append(data)
            if method.uses_encoder:
                buffer.extend_batch(batch, encoder_features(batch.steps, method.encoder_action_feature))
                encoder_input = self._encode_input(buffer)
            seconds["inner"] += time.perf_counter() - started
        batch, context = sample(f"round {updates}")
        episodes.append(batch.episodes)
        key = (phase, iteration)
        if keep:
            started = time.perf_counter()
            data = self._round(batch.steps, encoder_input)
            self._cache = {key: _Kept(accumulated, data, tuple(rounds))}
            seconds["inner"] += time.perf_counter() - started
        context_norm = np.zeros(self.num_tasks) if context is None else np.linalg.norm(context.numpy(), axis=1)
        return Adaptation(
            key,
            episodes,
            np.reshape(losses, (updates, self.num_tasks)),
            np.reshape(norms, (updates, self.num_tasks)),
            context_norm,
            simulated,
            self._trajectories(tasks, first_batch or batch, batch),
            seconds,
        )

    def evaluate(self, key: Any, parameters: MetaParameters, what: str) -> tuple[MetaParameters | None, OuterTerms]:
        """Gradient of the outer loss summed over the shard's tasks, and its terms per task, on the kept data.

        For "outer_terms" instead of "outer_gradient" there is no gradient, at a third of the cost.
        """
        if what not in ("outer_gradient", "outer_terms"):
            raise ValueError(f"a TESP shard evaluates 'outer_gradient' or 'outer_terms', not {what!r}")
        kept = self._cache[key]
        if what == "outer_terms":
            return None, self.computation.outer_terms(parameters, *kept)
        return self.computation.outer_gradient(parameters, *kept)

    def kept_arrays(self, key: Any) -> dict[str, np.ndarray]:
        """Evidence after a crash as named arrays: the data kept under `key`, and the round that was not finite."""
        bad = {} if self._bad is None else {f"not_finite/{name}": x for name, x in self._bad._asdict().items()}
        kept = self._cache.get(key)
        if kept is None:
            return bad
        arrays = bad | {f"accumulated/{name}": value for name, value in kept.accumulated.items()}
        arrays |= {f"steps/{name}": value for name, value in kept.data.steps._asdict().items()}
        arrays["advantage"] = kept.data.advantage
        return {name: np.asarray(value) for name, value in arrays.items()}

    def _look_for_bad_returns(self, batch: Batch, phase: str, tasks: TaskBatch, stop: bool) -> None:
        """Keeps the first round with one as evidence, and may stop there: later rounds would be bad everywhere."""
        bad = np.flatnonzero(~np.isfinite(batch.episodes.episode_return))
        if not len(bad):
            return
        self._bad = batch.steps if self._bad is None else self._bad
        if stop:
            index = tasks.indices[batch.episodes.task[bad[0]]]
            value = batch.episodes.episode_return[bad[0]]
            raise NonFiniteError(f"not finite: a return on task {index} is {value} in {phase}")

    def _round(self, steps: Steps, encoder_input: Any) -> Round:
        tensors = tf.nest.map_structure(tf.convert_to_tensor, steps)
        return Round(tensors, self.computation.advantages(tensors), encoder_input)

    def _encode_input(self, buffer: EpisodeBuffer) -> Any:
        if not self._method.uses_encoder:
            return None
        settings = self._settings
        padded = buffer.padded(settings.encoder_episode_capacity, settings.horizon, self._feature_dim)
        return tf.nest.map_structure(tf.convert_to_tensor, padded)

    def _trajectories(self, tasks: TaskBatch, before: Batch, after: Batch) -> list[Trajectory]:
        num_tasks, num_paths = self._paths_shown
        position = before.info.get("position")
        if position is None or position.shape[2:] != (2,):
            return []  # not a path in the plane
        return [
            Trajectory(
                tasks.tasks[task],
                self._family.scene(tasks.tasks[task]).goal,
                _paths(before, task, num_paths),
                _paths(after, task, num_paths),
            )
            for task in range(min(num_tasks, self.num_tasks))
        ]


def _paths(batch: Batch, task: int, count: int) -> list[np.ndarray]:
    mine = np.flatnonzero(batch.episodes.task == task)[:count]
    starts, lengths = batch.episodes.start[mine], batch.episodes.length[mine]
    return [batch.info["position"][task, s : s + n].copy() for s, n in zip(starts, lengths, strict=True)]
