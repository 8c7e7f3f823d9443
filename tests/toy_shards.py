"""A learner of a few numbers whose tasks can be spread, and whose shards fail on demand."""

import gin
import numpy as np
import tensorflow as tf
from shard_faults import suffer

from metarl.scaling.shard import Shard, TaskBatch
from metarl.scaling.sharded_learner import ShardedLearner
from metarl.seeding import keyed_generator


class ToyShard(Shard):
    """Collects noise of its tasks; evaluates a gradient on it; fails as `shard_faults` says."""

    def __init__(self, first, count, faults):
        self.first, self.num_tasks, self.faults = first, count, faults
        self.kept = {}

    def collect(self, parameters, tasks, seed, iteration, *, report=None):
        suffer(self.faults, "collect", self.first)
        if report is not None:
            report("collecting")
        noise = [keyed_generator(seed, iteration, "toy", int(i)).normal(size=3) for i in tasks.indices]
        self.kept = {iteration: np.asarray(noise, np.float32) + tasks.tasks + np.asarray(parameters["w"])}
        return self.kept[iteration].sum(axis=1)

    def evaluate(self, key, parameters, what, argument=1.0):
        suffer(self.faults, "evaluate", self.first)
        data = self.kept[key]
        gradient = {"w": tf.constant((data * argument - np.asarray(parameters["w"])).sum(axis=0))}
        return (None if what == "scalars" else gradient), {"loss": data[:, 0], "pair": data[:, :2]}


@gin.configurable(module="toy")
class ToyShardedLearner(ShardedLearner):
    def __init__(self, meta_batch_size=5, seed=1, faults=""):
        self.num_tasks, self.seed, self.faults = meta_batch_size, seed, faults
        self.parameters = {"w": tf.constant([1.0, 2.0, 3.0])}
        self.iteration = 0

    @property
    def num_units(self):
        return self.num_tasks

    def make_part(self, first, count):
        return ToyShard(first, count, self.faults)

    def run_iteration(self, report):
        tasks = TaskBatch(np.arange(self.num_tasks, dtype=np.float32)[:, None], np.arange(self.num_tasks))
        found = self.pool.collect(
            tasks, parameters=self.parameters, seed=self.seed, iteration=self.iteration, report=report
        )
        for argument in (1.0, 0.5):
            sums, terms = self.pool.evaluate(
                key=self.iteration, parameters=self.parameters, what="gradient", argument=argument
            )
            self.parameters = {"w": self.parameters["w"] - 0.1 * sums["w"] / self.num_tasks}
        self.iteration += 1
        loss = np.concatenate([part["loss"] for part in terms])
        pair = np.concatenate([part["pair"] for part in terms])
        return {
            "toy/return": float(np.concatenate(found).sum()),
            "toy/loss": float(loss.sum()),
            "toy/pair": float((pair * np.arange(self.num_tasks)[:, None]).sum()),
        }

    def summary_line(self, metrics):
        return f"return {metrics['toy/return']:.3f}"

    def state(self):
        return {"w": self.parameters["w"].numpy(), "iteration": np.asarray(self.iteration)}

    def restore(self, arrays):
        self.parameters, self.iteration = {"w": tf.constant(arrays["w"])}, int(arrays["iteration"])

    def final_table(self, report):
        return [{"set": "toy", "w": float(self.parameters["w"][0])}]

    def crash_evidence(self):
        return self.state()


TOY_SHARDS = """import metarl.experiment.experiment
import toy_shards

SEED = 1
ITERATIONS = 3
Experiment.learner = @ToyShardedLearner()
Experiment.iterations = %ITERATIONS
Experiment.checkpoint_every = 1
ToyShardedLearner.seed = %SEED
"""
