"""A learner of a few numbers, for tests of the experiment floor: exact, quick, and able to misbehave."""

import os
import signal
import time

import gin
import numpy as np
from matplotlib.figure import Figure

from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.experiment.learner import Learner
from metarl.seeding import keyed_generator


@gin.configurable(module="toy")
class Hill:
    def __init__(self, steepness=1.0, height=0.0):
        self.steepness = checks.real("steepness", steepness, 0.0)
        self.height = checks.real("height", height)


@gin.configurable(module="toy")
class Valley:
    def __init__(self, steepness=1.0):
        self.steepness = -checks.real("steepness", steepness, 0.0)
        self.height = 0.0


@gin.configurable(module="toy")
class ToyLearner(Learner):
    def __init__(
        self,
        task=gin.REQUIRED,
        seed=gin.REQUIRED,
        meta_batch_size=4,
        learning_rate=0.1,
        size=6,
        not_finite_at=0,
        not_finite_weights_at=0,
        pause=0.0,
        signal_at=0,
    ):
        self.task = checks.instance("task", task, (Hill, Valley), "a toy task, such as @Hill()")
        self.seed = checks.integer("seed", seed, 0)
        self.meta_batch_size = checks.integer("meta_batch_size", meta_batch_size, 1, 10)
        self.learning_rate = checks.real("learning_rate", learning_rate, 0.0)
        self.iteration = 0
        self.weights = keyed_generator(seed, 0, "init").normal(size=size).astype(np.float32)
        self.momentum = np.zeros(size)
        self.not_finite_at, self.not_finite_weights_at = not_finite_at, not_finite_weights_at
        self.pause, self.signal_at = pause, signal_at

    def run_iteration(self, report):
        start = time.perf_counter()
        report("sampling")
        noise = keyed_generator(self.seed, self.iteration, "train").normal(
            size=(self.meta_batch_size, len(self.weights))
        )
        self.momentum = 0.9 * self.momentum + noise.mean(0) * self.task.steepness
        self.weights = (self.weights - self.learning_rate * self.momentum).astype(np.float32)
        self.iteration += 1
        time.sleep(self.pause)
        if self.iteration == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.iteration == self.not_finite_weights_at:
            self.weights[0] = np.inf
        value = float("nan") if self.iteration == self.not_finite_at else float(np.sum(self.weights.astype(float) ** 2))
        return {
            "train/return": value,
            "train/steps": self.iteration * 100,
            "validation/return": np.float32(value) if self.iteration % 3 == 0 else None,
            "time/sampling": time.perf_counter() - start,
        }

    def summary_line(self, metrics):
        return f"return {metrics['train/return']:.3f}"

    def state(self):
        return {
            "weights": self.weights,
            "optimizer/momentum": self.momentum,
            "iteration": np.asarray(self.iteration),
        }

    def restore(self, arrays):
        mine = self.state()
        for name in mine.keys() ^ arrays.keys():
            raise UserError(f"the checkpoint and the learner differ in {name}")
        for name, array in mine.items():
            if array.shape != arrays[name].shape:
                raise UserError(f"{name} has shape {arrays[name].shape} in the checkpoint and {array.shape} here")
        self.weights, self.momentum = arrays["weights"], arrays["optimizer/momentum"]
        self.iteration = int(arrays["iteration"])

    def figures(self):
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot(self.weights)
        return {"figure/weights": figure}

    def final_table(self, report):
        report("final table")
        return [{"set": name, "return": float(self.weights[i]), "episodes": 3} for i, name in enumerate(("D", "D'"))]

    def crash_evidence(self):
        return {"weights": self.weights, "momentum": self.momentum}
