"""The settings of an MB-MPO-family experiment, each checked where it is made (MB-MPO specification, 1.1 and 13)."""

from collections.abc import Mapping, Sequence
from typing import Any

import gin

from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.sampling.quota import STOP_RULES

COLLECT_WITH = ("stale", "readapted", "pre")


@gin.configurable(module="mbmpo")
class RealData:
    """How real data are gathered and how long they are kept (section 1.2, step 3).

    Args:
        rollouts_per_task: R, copies of the environment per task; a round takes R * H steps per task.
        horizon: H, control steps after which a real episode is cut; a cut counts as an end (O-8).
        initial_random_steps: steps asked for with uniformly random actions in the first iteration; None asks for one
            ordinary round, also of random actions (O-24). Full sweeps of episodes are made, so more are collected.
        exact_random_steps: drop whole episodes beyond the number asked for (O-6); the original keeps them.
        true_counting: count the steps of all episodes that a round stores; False: the number asked for, as the original
            does (O-6).
        buffer_capacity: newest transitions kept, None for all.
        store_last_transition: keep the transition into an episode's last observation (O-7); the original drops it.
        collect_with: which parameters act: "stale", those that the last inner step of the iteration before left behind
            (O-2); "readapted", adapted afresh to the models from the present meta-parameters; "pre", unadapted. For
            methods that adapt.
        reset_policy_std: set the policy's standard deviation to 1 before every round; with MB-MPO that of the
            meta-policy, the adapted ones keep theirs. For methods with a policy. (ME-TRPO's original prepares this and
            never does it, section 6.1.)
        num_threads: simulation threads; default: the cores this process may use. MB-MPC has one.
        stop_rule: when a round ends where episodes can end early: "global", when the finished ones of all tasks hold
            the steps asked for, running ones being lost (the original); "per_task", each task by itself (random actions
            have no tasks: as "global"); "truncate": after H steps of every copy, running ones being cut and kept
            (O-23).
    """

    def __init__(
        self,
        *,
        rollouts_per_task: int = 10,
        horizon: int = 100,
        initial_random_steps: int | None = None,
        exact_random_steps: bool = False,
        buffer_capacity: int | None = 100_000,
        store_last_transition: bool = False,
        collect_with: str = "stale",
        reset_policy_std: bool = False,
        num_threads: int | None = None,
        stop_rule: str = "global",
        true_counting: bool = False,
    ):
        name = "RealData"
        self.rollouts_per_task = checks.integer(f"{name}.rollouts_per_task", rollouts_per_task, minimum=1)
        self.horizon = checks.integer(f"{name}.horizon", horizon, minimum=2)
        self.initial_random_steps = _optional(f"{name}.initial_random_steps", initial_random_steps)
        self.exact_random_steps = checks.flag(f"{name}.exact_random_steps", exact_random_steps)
        self.buffer_capacity = _optional(f"{name}.buffer_capacity", buffer_capacity)
        self.store_last_transition = checks.flag(f"{name}.store_last_transition", store_last_transition)
        self.collect_with = checks.choice(f"{name}.collect_with", collect_with, COLLECT_WITH)
        self.reset_policy_std = checks.flag(f"{name}.reset_policy_std", reset_policy_std)
        self.num_threads = _optional(f"{name}.num_threads", num_threads)
        self.stop_rule = checks.choice(f"{name}.stop_rule", stop_rule, STOP_RULES)
        self.true_counting = checks.flag(f"{name}.true_counting", true_counting)


def require_unset(learner: str, real: RealData, meaningless: Mapping[str, Any]) -> None:
    """Passes if the settings that a method can do nothing with have been left alone.

    Args:
        learner: its name.
        real: as configured.
        meaningless: names of such settings, with the values that mean nothing.

    Raises:
        UserError: one has another value.
    """
    for name, value in meaningless.items():
        if getattr(real, name) != value:
            raise UserError(
                f"RealData.{name} = {getattr(real, name)!r} has no effect with {learner}; leave it at {value!r}"
            )


@gin.configurable(module="mbmpo")
class ModelFit:
    """How often and how long the dynamics models are fitted (section 1.2, step 5).

    Args:
        max_epochs: largest number of epochs of the first, second, ... fit; the last entry is for all later ones.
        reinit_cycle: re-initialise the models every so many iterations, with the first entry's epochs; 0: never.
    """

    def __init__(self, *, max_epochs: Sequence[int] = (1000, 1000), reinit_cycle: int = 0):
        name = "ModelFit"
        if not isinstance(max_epochs, list | tuple) or not max_epochs:
            raise UserError(f"{name}.max_epochs must be a list of numbers of epochs, got {max_epochs!r}")
        self.max_epochs = tuple(checks.integer(f"{name}.max_epochs", epochs, minimum=1) for epochs in max_epochs)
        self.reinit_cycle = checks.integer(f"{name}.reinit_cycle", reinit_cycle, minimum=0)

    def plan(self, iteration: int) -> tuple[int, bool]:
        """Returns (largest number of epochs, whether to re-initialise first) of the 0-based iteration's fit."""
        fresh = self.reinit_cycle > 0 and iteration % self.reinit_cycle == 0
        return self.max_epochs[0 if fresh else min(iteration, len(self.max_epochs) - 1)], fresh


@gin.configurable(module="mbmpo")
class InnerAdaptation:
    """The inner steps of the meta-update (section 3.2, 3.3).

    Args:
        inner_lr: step size of every parameter, the log-std included.
        inner_updates: inner steps per task.
        trainable_inner_lr: meta-learn a step size per parameter, starting from `inner_lr`.
        first_order: do not differentiate through the inner gradient (`stop_grad`).
    """

    def __init__(
        self,
        *,
        inner_lr: float = 0.1,
        inner_updates: int = 1,
        trainable_inner_lr: bool = False,
        first_order: bool = False,
    ):
        name = "InnerAdaptation"
        self.inner_lr = checks.real(f"{name}.inner_lr", inner_lr, minimum=0.0)
        self.inner_updates = checks.integer(f"{name}.inner_updates", inner_updates, minimum=1)
        self.trainable_inner_lr = checks.flag(f"{name}.trainable_inner_lr", trainable_inner_lr)
        self.first_order = checks.flag(f"{name}.first_order", first_order)


def _optional(name: str, value: int | None) -> int | None:
    """A number of at least 1, or None."""
    return None if value is None else checks.integer(name, value, minimum=1)


@gin.configurable(module="mbmpo")
class ImaginedData:
    """How rollouts are imagined (section 5.2).

    Args:
        rollouts_per_task: imagined rollouts asked for, per task and phase.
        horizon: H, where imagined rollouts are cut; None: the real horizon.
        clip_observation: limit of predicted observations' entries; None for none (O-29).
        reset: where rollouts start: "environment", at the family's resets, or "buffer", mostly at observations of the
            buffer (`reset_from_env_traj`).
        rows_from: "real_horizon": as many rows as the steps asked for fill at the real horizon, as the original;
            "imagined_horizon": one row per rollout (O-10).
        inherit_time: rollouts that start at a buffered observation go on at its time index, so that they end sooner;
            False starts them at 0 (O-10).
        stop_rule: "global": rows go on until the finished rollouts of all tasks hold the steps asked for; "per_task":
            each task by itself, which is what lets tasks whose rollouts end early be spread over workers.
        resets_per_row: resets of the family drawn at a time for every row that can end early; a phase in which a row
            needs more is imagined again with more.
    """

    def __init__(
        self,
        *,
        rollouts_per_task: int = 100,
        horizon: int | None = None,
        clip_observation: float | None = 1000.0,
        reset: str = "environment",
        rows_from: str = "real_horizon",
        inherit_time: bool = True,
        resets_per_row: int = 4,
        stop_rule: str = "global",
    ):
        name = "ImaginedData"
        self.rollouts_per_task = checks.integer(f"{name}.rollouts_per_task", rollouts_per_task, minimum=1)
        self.horizon = _optional(f"{name}.horizon", horizon)
        self.clip_observation = (
            None if clip_observation is None else checks.real(f"{name}.clip_observation", clip_observation, minimum=0.0)
        )
        self.reset = checks.choice(f"{name}.reset", reset, ("environment", "buffer"))
        self.rows_from = checks.choice(f"{name}.rows_from", rows_from, ("real_horizon", "imagined_horizon"))
        self.inherit_time = checks.flag(f"{name}.inherit_time", inherit_time)
        self.resets_per_row = checks.integer(f"{name}.resets_per_row", resets_per_row, minimum=1)
        self.stop_rule = checks.choice(f"{name}.stop_rule", stop_rule, ("global", "per_task"))


def part(name: str, value: Any, kind: type) -> Any:
    """`value`, or the default of its kind."""
    if value is None:
        return kind()
    return checks.instance(name, value, kind, f"@{kind.__name__}()")
