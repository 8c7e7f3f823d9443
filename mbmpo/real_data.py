"""Real rollouts: tasks, random actions, and policies with their own weights per task (MB-MPO specification, 1.2, 5.1).

Shapes: `M` tasks, `R` rollouts per task, `H` horizon, `G` task numbers.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from mbmpo.finite import not_finite
from mbmpo.policies import GaussianMLPPolicy, Weights
from mbmpo.shard import Account
from metarl.sampling.noise import NoiseKey
from metarl.sampling.random_actions import collect_random
from metarl.sampling.sampler import Sampler, SamplingSeconds
from metarl.sampling.steps import Batch, Episodes, Steps
from metarl.scaling.shard import TaskBatch
from metarl.seeding import keyed_generator
from metarl.simulation.task_family import TaskFamily


def draw_tasks(family: TaskFamily, num_tasks: int, seed: int, iteration: int, phase: str = "tasks") -> TaskBatch:
    """Tasks of the family's own distribution, each by its own key; [M, G]."""
    drawn = [family.draw_task(keyed_generator(seed, iteration, phase, index)) for index in range(num_tasks)]
    return TaskBatch(np.reshape(np.asarray(drawn, np.float64), (num_tasks, family.task_dim)), np.arange(num_tasks))


def policy_sampler(
    policy: GaussianMLPPolicy,
    family: TaskFamily,
    num_tasks: int,
    rollouts_per_task: int,
    horizon: int,
    *,
    num_threads: int | None = None,
    stop_rule: str = "global",
    record_final: bool = False,
    copies_per_task: int | None = None,
) -> Sampler:
    """A sampler of complete episodes with policy weights [M, ...], until M * R * H steps (section 5.1).

    Args:
        policy: acts.
        family: what to simulate.
        num_tasks: M.
        rollouts_per_task: R.
        horizon: H.
        num_threads: see `Sampler`.
        stop_rule: see `Sampler`.
        record_final: see `Sampler`.
        copies_per_task: copies that make the R * H steps of a task; None: R, side by side.
    """
    return Sampler(
        family,
        policy.act,
        num_tasks,
        copies_side_by_side(rollouts_per_task, copies_per_task),
        horizon,
        num_threads,
        host_act=policy.host_act,
        stop_rule=stop_rule,
        min_steps=num_tasks * rollouts_per_task * horizon,
        record_final=record_final,
    )


def copies_side_by_side(rollouts_per_task: int, copies_per_task: int | None) -> int:
    """Copies of a task that are stepped together, of R rollouts."""
    return rollouts_per_task if copies_per_task is None else min(copies_per_task, rollouts_per_task)


class RealCollector:
    """Phases of real steps for a `MetaShard`.

    Args:
        sampler: of the shard's tasks.
        round_steps: that it is to make, M * R * H.
        remember: keep the batches of the phases until `forget`.
    """

    def __init__(self, sampler: Sampler, round_steps: int, *, remember: bool = False):
        self._sampler, self._remember = sampler, remember
        self.round_steps = round_steps
        self._batches: list[Batch] = []
        self._account = Account()

    def __call__(
        self,
        weights: Weights,
        tasks: TaskBatch,
        seed: int,
        iteration: int,
        phase: str,
        progress: Callable[[int], None] | None = None,
    ) -> Steps:
        """One phase; see `mbmpo.shard.Collector`."""
        key = NoiseKey(seed, iteration, phase, tasks.indices)
        batch = self._sampler.collect(weights, tasks.tasks, key, progress=progress)
        steps, bad, seconds = self._account
        self._account = Account(
            steps + int(batch.episodes.length.sum()),
            bad or not_finite(batch.steps),
            (*seconds, self._sampler.seconds),
        )
        if self._remember:
            self._batches.append(batch)
        return batch.steps

    def account(self) -> Account:
        """What was sampled since the last account."""
        account, self._account = self._account, Account()
        return account

    def forget(self) -> list[Batch]:
        """Returns the batches and starts a new list."""
        batches, self._batches = self._batches, []
        return batches


def random_batch(
    family: TaskFamily,
    asked: int,
    round_steps: int,
    horizon: int,
    seed: int,
    *,
    exact: bool,
    record_final: bool = False,
    truncate: bool = False,
    watch: Callable[[SamplingSeconds], None] | None = None,
    num_threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Batch:
    """Rollouts of uniformly random actions in [-1, 1]^A (section 1.2, step 3, first iteration).

    clip(round_steps / H, 1, 100) copies go on until the finished paths hold the steps asked for: with 20 copies and
    H = 200, asking for 5,000 gives 8,000.

    Args:
        family: the tasks; every copy draws its own.
        asked: steps asked for.
        round_steps: B_env, steps of an ordinary round.
        horizon: H.
        seed: of the experiment.
        exact: keep only the first paths that reach the number asked for, the last one whole (O-6).
        record_final: record what is observed after the last step of each path (O-7).
        truncate: cut and keep the paths that are running when the steps asked for have been made (O-23).
        watch: told where the time went.
        num_threads: simulation threads; None: the cores this process may use.
        progress: see `Sampler.collect`.
    """
    batch = collect_random(
        family,
        asked,
        round_steps // horizon,
        horizon,
        seed,
        record_final=record_final,
        stop_rule="truncate" if truncate else "global",
        watch=watch,
        num_threads=num_threads,
        progress=progress,
    )
    return _first_paths(batch, asked) if exact else batch


def _first_paths(batch: Batch, asked: int) -> Batch:
    """Drops the paths of the highest copies, once those before hold `asked` steps."""
    episodes = batch.episodes
    kept = np.cumsum(episodes.length) - episodes.length < asked
    valid = np.zeros_like(batch.steps.valid)
    for task, start, length in zip(episodes.task[kept], episodes.start[kept], episodes.length[kept], strict=True):
        valid[task, start : start + length] = True
    chosen = {name: getattr(episodes, name)[kept] for name in Episodes._fields if name not in ("sums", "final")}
    for name in ("sums", "final"):
        chosen[name] = {key: value[kept] for key, value in getattr(episodes, name).items()}
    return Batch(batch.steps._replace(valid=valid, last=batch.steps.last & valid), Episodes(**chosen), batch.info)


def tiled(weights: Weights, num_tasks: int) -> Weights:
    """The same weights for every task, [M, ...]."""
    return {name: tf.repeat(value[tf.newaxis], num_tasks, axis=0) for name, value in weights.items()}


def tiled_nothing(num_tasks: int) -> Weights:
    """Arguments of a policy without weights: the sampler wants a row per task."""
    return {"nothing": tf.zeros([num_tasks, 1])}
