"""The Gymnasium face of a task family: one copy, one hidden task per episode."""

from typing import Any

import gymnasium
import numpy as np

from metarl.simulation.task_family import TaskFamily


class GymnasiumEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """Any `TaskFamily` as a Gymnasium environment.

    The action space is the box [-1, 1]^A of the policy's normalised units: larger actions are allowed and act as
    their clipped values. The observation space is unbounded, float64.

    The task is not observed. `reset(options={task_key: task})` chooses it, where `task_key` is the family's ("goal"
    for goal families); without it, a reset draws a new task from the family's distribution. `info` holds the task under
    `task_key` and every entry of the family's info.

    `terminated` is the family's; a time limit is the business of the registration. Stepping goes on after termination.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  (Gymnasium's own convention)

    def __init__(self, family: TaskFamily, render_mode: str | None = None):
        """Makes one copy of `family`.

        Raises:
            ValueError: a `render_mode` other than None.
        """
        if render_mode is not None:
            raise ValueError(f"{family.name} cannot be rendered, got render_mode={render_mode!r}")
        self.render_mode = None
        self.family = family
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (family.action_dim,), np.float32)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (family.observation_dim,), np.float64)
        self._simulation = family.make_simulation(1)
        self._task: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; see the class for `options`.

        Raises:
            ValueError: an unknown option, or a task that is not `task_dim` finite numbers.
        """
        super().reset(seed=seed)
        task = self._chosen_task(options or {})
        self._task = self.family.draw_task(self.np_random) if task is None else task
        self._simulation.assign_tasks(self._task[None])
        self._simulation.reset(None, self.family.draw_reset(self.np_random, 1))
        return self._simulation.observe()[0], {self.family.task_key: self._task.copy()}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Applies one action ([A], normalised units) for one control period.

        Raises:
            ValueError: an action of another shape, or a step before the first reset.
        """
        if self._task is None:
            raise ValueError("reset the environment before the first step")
        action = np.asarray(action, np.float64)
        if action.shape != self.action_space.shape:
            raise ValueError(f"action must have shape {self.action_space.shape}, got {action.shape}")
        outcome = self._simulation.step(action[None], self._task[None])
        info: dict[str, Any] = {self.family.task_key: self._task.copy()}
        for name, values in outcome.info.items():
            info[name] = values[0] if values.ndim > 1 else float(values[0])
        return self._simulation.observe()[0], float(outcome.reward[0]), bool(outcome.terminated[0]), False, info

    def _chosen_task(self, options: dict[str, Any]) -> np.ndarray | None:
        key, size = self.family.task_key, self.family.task_dim
        unknown = sorted(str(option) for option in options if option != key)
        if unknown:
            raise ValueError(f"unknown reset option {unknown[0]!r}; the only option is {key!r}")
        if key not in options:
            return None
        problem = f"option {key!r} must be {size} finite numbers, got {options[key]!r}"
        try:
            task = np.array(options[key], np.float64)
        except (TypeError, ValueError):
            raise ValueError(problem) from None
        if task.shape != (size,) or not np.isfinite(task).all():
            raise ValueError(problem)
        return task
