"""Families simulated by MuJoCo with the rules that MB-MPO's environments share (specification, section 7.1).

Shapes: `n` copies, `k` resets, `O` observation, `A` action, `G` task numbers, `nq`, `nv` positions and velocities.
"""

import abc
import functools
import importlib.resources
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from mbmpo.families.random_parameters import ModelScaling, RandomParameters
from metarl.experiment import checks
from metarl.simulation.imaginable import ImaginableFamily
from metarl.simulation.mujoco_simulation import MujocoSimulation
from metarl.simulation.task_family import Simulation, StepOutcome, TaskFamily

# Real and imagined rewards of most families stay within these bounds: the "(c)" of section 7.2.
REWARD_LIMIT = 1000.0

RESET_QPOS_STD = 0.01
RESET_QVEL_STD = 0.1


class MujocoTaskFamily(TaskFamily):
    """A MuJoCo model, an observation of its state, and what a step earns; subclasses fill in the rest.

    A reset adds independent Gaussian noise to every position (0.01) and velocity (0.1) of the initial state, the root
    and quaternions included; quaternions are not normalised again. Actions are normalised: -1 and 1 are the ends of
    every actuator's range, anything beyond acts as the end (section 5.5).

    Attributes:
        model_file: MJCF file; among gymnasium's assets, or this package's if `own_model`.
        own_model: where the file lies.
        frame_skip: physics steps per control period.
        timestep: seconds per physics step, or None for the file's.
        memory: bytes of the model's arena, which holds contacts and constraints of one copy at a time.
        initial_qpos: [nq] state before the reset noise, or None for the model's own.
        fields: derived `MjData` fields that observation or reward read, from `simulation.fields`.
        stage: what is computed after resets and steps for them; None: positions and velocities if there are fields.
    """

    task_dim = 0
    threaded = True
    ends_early = False
    info_keys: tuple[str, ...] = ("reward_run", "reward_ctrl")
    model_file: str
    own_model: bool = False
    frame_skip: int = 1
    timestep: float | None = None
    memory: int = 1 << 20
    initial_qpos: Sequence[float] | None = None
    fields: tuple[str, ...] = ()
    stage: mujoco.mjtStage | None = None
    _scaling: ModelScaling | None = None

    def __init__(self, *, random_parameters: RandomParameters | None = None):
        """Checks and stores the choice.

        Args:
            random_parameters: physical parameters that a task changes; default none, and there is one task. For
                families whose tasks are nothing else.

        Raises:
            UserError: not a `RandomParameters`.
        """
        if random_parameters is None:
            return
        name = f"{type(self).__name__}.random_parameters"
        checks.instance(name, random_parameters, RandomParameters, "a RandomParameters")
        if random_parameters.log_scale_limit > 0:
            self._scaling = ModelScaling(random_parameters, self.model)
            self.task_dim = self._scaling.task_dim

    @functools.cached_property
    def model(self) -> mujoco.MjModel:
        """The compiled model, shared by all simulations of this family."""
        package, folder = ("mbmpo.families", "assets") if self.own_model else ("gymnasium", "envs/mujoco/assets")
        source = importlib.resources.files(package).joinpath(folder, self.model_file)
        spec = mujoco.MjSpec.from_string(source.read_text(encoding="utf-8"))
        if self.timestep is not None:
            spec.option.timestep = self.timestep
        spec.option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        spec.nstack = -1  # superseded by `memory`; only one of the two may be set
        spec.memory = self.memory
        self.edit(spec)
        return _compile(spec)

    def edit(self, spec: mujoco.MjSpec) -> None:
        """Changes the model before it is compiled."""

    @functools.cached_property
    def start_qpos(self) -> np.ndarray:
        """[nq] float64, positions before the reset noise; velocities start at 0."""
        return np.array(self.model.qpos0 if self.initial_qpos is None else self.initial_qpos, np.float64)

    @property
    def state_dim(self) -> int:  # type: ignore[override]
        """Positions and velocities of the model."""
        return self.model.nq + self.model.nv

    @property
    def reset_dim(self) -> int:  # type: ignore[override]
        """One number per position and velocity."""
        return self.model.nq + self.model.nv

    def make_simulation(self, num_copies: int) -> Simulation:
        """Returns `num_copies` fresh copies, reset without noise."""
        return MujocoFamilySimulation(self, num_copies)

    def draw_task(self, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
        """Returns the only task, [0], or the multipliers of random parameters, [G] float64."""
        return np.zeros(0) if self._scaling is None else self._scaling.draw(rng)

    @property
    def scaling(self) -> ModelScaling | None:
        """Applies tasks that change physical parameters, if they do."""
        return self._scaling

    def draw_reset(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Returns standard normal numbers, [count, reset_dim]."""
        return rng.standard_normal((count, self.reset_dim))

    def reset_state(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The states of resets with the given random numbers.

        Args:
            numbers: [k, reset_dim], see `draw_reset`.

        Returns:
            qpos [k, nq] and qvel [k, nv], float64.
        """
        nq, nv = self.model.nq, self.model.nv
        qpos = self.start_qpos + RESET_QPOS_STD * numbers[:, :nq]
        return qpos, RESET_QVEL_STD * numbers[:, nq : nq + nv]

    @abc.abstractmethod
    def observation(self, qpos: np.ndarray, qvel: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Returns a new array [n, O] float64 from positions [n, nq], velocities [n, nv] and the family's `fields`."""

    def remember(self, simulation: "MujocoFamilySimulation") -> Any:
        """Returns what `settle` needs to know about the state before a step; a copy, never a view.

        This one returns the first coordinate of all copies, [n]: where planar runners and the ant are along x.
        """
        return simulation.qpos[:, 0].copy()

    @abc.abstractmethod
    def settle(
        self, simulation: "MujocoFamilySimulation", before: Any, controls: np.ndarray, tasks: np.ndarray
    ) -> StepOutcome:
        """Returns what a step earned.

        Args:
            simulation: in the state after the step.
            before: what `remember` returned before it.
            controls: [n, A] float64, the clipped actions in actuator units.
            tasks: [n, G].
        """

    @property
    def control_period(self) -> float:
        """Seconds per control step."""
        return self.model.opt.timestep * self.frame_skip


class MujocoFamily(MujocoTaskFamily, ImaginableFamily):
    """A `MujocoTaskFamily` that can be imagined: `reward` and, if it can end, `termination` remain to be written."""

    def initial_observations(self, numbers: np.ndarray) -> np.ndarray:
        """See `ImaginableFamily`; without derived fields no simulation is needed."""
        if self.fields:
            return super().initial_observations(numbers)
        return self.observation(*self.reset_state(numbers), {})


class MujocoFamilySimulation(MujocoSimulation):
    """Copies of a `MujocoTaskFamily`'s model."""

    def __init__(self, family: MujocoTaskFamily, num_copies: int):
        """Makes `num_copies` copies for `family`, reset without noise."""
        self._family = family
        self._assigned: np.ndarray | None = None
        super().__init__(
            family.model,
            num_copies,
            frame_skip=family.frame_skip,
            initial_qpos=family.start_qpos,
            fields=family.fields,
            stage=family.stage,
        )
        low, high = self.model.actuator_ctrlrange.T
        self._low, self._high = low.copy(), high.copy()
        self._middle, self._half_range = (high + low) / 2.0, (high - low) / 2.0
        self._action_shape = (num_copies, self.model.nu)

    def _open(self, num_threads: int) -> None:
        super()._open(num_threads)
        if self._assigned is not None:
            tasks, self._assigned = self._assigned, None
            self.assign_tasks(tasks)

    def assign_tasks(self, tasks: np.ndarray) -> None:
        """Gives the copies the physical parameters of their tasks ([n, G]), before a reset."""
        scaling = self._family.scaling
        if scaling is None or (self._assigned is not None and np.array_equal(tasks, self._assigned)):
            return
        scaling.apply(self._batch, tasks)
        self._assigned = np.array(tasks)

    def reset(self, indices: np.ndarray | None = None, numbers: np.ndarray | None = None) -> None:
        """Puts the copies `indices` (int [k], default all) into the initial state plus the noise of `numbers`."""
        super().reset(indices, numbers)
        if numbers is not None:
            self.place(indices, *self._family.reset_state(np.asarray(numbers, np.float64)))

    def observe(self) -> np.ndarray:
        """Returns the observations of all copies, [n, O] float64."""
        return self._family.observation(self.qpos, self.qvel, self.fields)

    def step(self, actions: np.ndarray, tasks: np.ndarray) -> StepOutcome:
        """Applies normalised actions [n, A] for one control period; tasks [n, G]."""
        if actions.shape != self._action_shape:
            raise ValueError(f"actions must have shape {self._action_shape}, got {actions.shape}")
        controls = self._middle + np.asarray(actions, np.float64) * self._half_range
        np.minimum(np.maximum(controls, self._low, out=controls), self._high, out=controls)
        before = self._family.remember(self)
        self.advance(controls)
        return self._family.settle(self, before, controls, tasks)


def clip_reward(reward: np.ndarray) -> np.ndarray:
    """Returns `reward` within ±1000; NaN stays NaN."""
    return np.minimum(np.maximum(reward, -REWARD_LIMIT), REWARD_LIMIT)


def _compile(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """Compiles; a total mass asked for is reached by scaling densities, MuJoCo's own way being deprecated."""
    total_mass = spec.compiler.settotalmass
    if total_mass <= 0:
        return spec.compile()
    spec.compiler.settotalmass = -1
    scale = total_mass / spec.compile().body_mass.sum()
    for geom in spec.geoms:
        geom.density *= scale
    return spec.compile()
