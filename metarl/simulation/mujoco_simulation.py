"""A block of copies of one MuJoCo model, stepped by the calling thread.

Shapes: `n` copies, `nq`, `nv`, `nu` positions, velocities and actuators of the model, `B` tracked bodies.
"""

import math
from collections.abc import Sequence

import mujoco
import numpy as np
from mujoco import batch as mujoco_batch

from metarl.simulation.task_family import Simulation


class MujocoSimulation(Simulation):
    """`n` states of one `MjModel`; subclasses add what a task family observes and rewards.

    One control period is one call of MuJoCo's batch stepper for all copies, `frame_skip` times `mj_step` each. The call
    releases the interpreter lock once, so blocks in different threads run at the same time; its results are those of a
    loop over one `MjData` per copy, bit for bit, however many copies and threads there are. Memory is that of one
    `MjData` per thread.

    Body positions are those the last physics step left in memory, as gymnasium's own MuJoCo environments read them:
    with the Euler integrator they lag `qpos` by one physics step (TESP specification, section 5.1).

    A copy whose state is not finite has diverged: it stays as it is, with NaN body positions, until it is reset. The
    model must therefore disable the engine's automatic reset (`<flag autoreset="disable"/>`).

    Attributes:
        model: the shared `mujoco.MjModel`; the engine has its own copy of it.
        num_copies: n.
        qpos: [n, nq] float64, qvel: [n, nv] float64: the live state; read-only by convention.
        body_positions: [n, B, 3] float64, metres, origins of the tracked bodies' frames in the world.
        fields: the derived `MjData` fields asked for, by name, [n, ...] float64, read-only; they belong to the live
            state as far as `stage` says. A diverged copy keeps its last ones.
        diverged: [n] bool.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_copies: int,
        *,
        frame_skip: int,
        bodies: Sequence[str] = (),
        initial_qpos: Sequence[float] | np.ndarray | None = None,
        fresh_kinematics: bool = False,
        fields: Sequence[str] = (),
        stage: mujoco.mjtStage | None = None,
    ):
        """Makes the copies and resets them.

        Args:
            model: compiled model with `autoreset` disabled.
            num_copies: n, at least 1.
            frame_skip: physics steps per control period.
            bodies: names of the B bodies whose positions are gathered.
            initial_qpos: [nq], state after a reset; default the model's own. Velocities start at 0.
            fresh_kinematics: recompute body positions from the final `qpos` after every control period.
            fields: names of derived `MjData` fields to gather, for example "cvel" or "sensordata".
            stage: how much is computed from the new state after a reset and after every control period, which takes
                the place of `fresh_kinematics`; `mjSTAGE_VEL` brings positions, velocities and their sensors up to
                date, `mjSTAGE_ACC` forces too. Default: `mjSTAGE_VEL` if there are `fields`, else nothing.

        Raises:
            ValueError: the model resets diverged states by itself, or has no body of a given name.
        """
        if not model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_AUTORESET):
            raise ValueError("the model must disable the automatic reset of diverged states (option flag autoreset)")
        initial_qpos = np.array(model.qpos0 if initial_qpos is None else initial_qpos, np.float64)
        if initial_qpos.shape != (model.nq,):
            raise ValueError(f"initial_qpos must have shape {(model.nq,)}, got {initial_qpos.shape}")
        self._body_ids = np.array([_body_id(model, name) for name in bodies], np.intp)
        self.model = model
        self.num_copies = num_copies
        self._frame_skip = frame_skip
        if stage is None:
            stage = mujoco.mjtStage.mjSTAGE_POS if fresh_kinematics else mujoco.mjtStage.mjSTAGE_NONE
            stage = mujoco.mjtStage.mjSTAGE_VEL if fields else stage
        self._stage = int(stage)
        self._field_names = tuple(fields)
        self._quaternions = _quaternion_addresses(model)
        self._data = mujoco.MjData(model)
        self._initial_row, self._initial_positions = self._initial_state(initial_qpos)
        self.body_positions = np.empty((num_copies, len(self._body_ids), 3))
        self.diverged = np.zeros(num_copies, bool)
        self._selected = np.ones(num_copies, bool)
        self._live: np.ndarray | None = None
        self._open(1)
        self.reset()

    @property
    def control_period(self) -> float:
        """Seconds of one control step."""
        return self.model.opt.timestep * self._frame_skip

    def use_threads(self, num_threads: int) -> None:
        """Shares every control period among `num_threads` threads, the caller's included; the state stays."""
        rows = self._rows.copy()
        self._open(num_threads)
        self._rows[:] = rows
        self._refresh(None)

    def _open(self, num_threads: int) -> None:
        """Opens the engine for all copies, in any state."""
        self._batch = mujoco_batch.Batch(self.model, self.num_copies, num_threads)
        # MuJoCo writes a log file at the first warning of each kind. Divergence is visible in the numbers themselves,
        # so the counters start above the value that triggers the log.
        self._batch.warning[..., 1] = 1
        self._rows = self._batch.state
        self.qpos, self.qvel = self._batch.bind("qpos"), self._batch.bind("qvel")
        self._controls = self._batch.bind("ctrl")
        self._xpos = self._batch.bind("xpos") if len(self._body_ids) else None
        self.fields = {name: self._batch.bind(name) for name in self._field_names}
        self._motion = self._rows[:, _motion_columns(self.model)]

    def reset(self, indices: np.ndarray | None = None, numbers: np.ndarray | None = None) -> None:
        """Puts the copies `indices` (int [k], default all) into the initial state, with nothing left of the old one.

        Args:
            indices: copies to reset.
            numbers: not used here; a subclass whose resets are random passes their outcome on to `place`.
        """
        chosen = slice(None) if indices is None else indices
        self._rows[chosen] = self._initial_row
        self.body_positions[chosen] = self._initial_positions
        self.diverged[chosen] = False
        if self._live is not None:
            self._update_live()
        if numbers is None:
            self._refresh(indices)

    def place(self, indices: np.ndarray | None, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Puts copies that were just reset into the state `qpos` [k, nq], `qvel` [k, nv], taken as it is.

        Body positions and derived fields follow.
        """
        chosen = slice(None) if indices is None else indices
        self.qpos[chosen], self.qvel[chosen] = qpos, qvel
        if self._xpos is not None:
            copies = np.arange(self.num_copies) if indices is None else indices
            self._locate_bodies(copies.tolist())
        self._refresh(indices)

    def _refresh(self, indices: np.ndarray | None) -> None:
        """Computes the derived fields of the copies `indices` from their state."""
        if self.fields:
            # MuJoCo wants its ids sorted.
            self._batch.forward(None if indices is None else np.unique(indices).astype(np.int32), self._stage)

    def _locate_bodies(self, copies: list[int]) -> None:
        for copy in copies:
            self._data.qpos[:] = self.qpos[copy]
            mujoco.mj_kinematics(self.model, self._data)
            self.body_positions[copy] = self._data.xpos[self._body_ids]

    def select(self, copies: np.ndarray | None) -> None:
        """Steps only `copies` (int [k]; None: all) from now on; the rows of the others keep their last state."""
        self._selected[:] = copies is None
        if copies is not None:
            self._selected[copies] = True
        self._update_live()

    def advance(self, controls: np.ndarray) -> None:
        """Holds `controls` ([n, nu], in actuator units) for one control period and gathers the new state."""
        self._controls[:] = controls
        live = self._live
        self._batch.step(live, self._frame_skip, self._stage)
        if self._xpos is None:
            pass
        elif live is None:
            self._xpos.take(self._body_ids, axis=1, out=self.body_positions, mode="clip")
        else:
            self.body_positions[live] = self._xpos[live[:, None], self._body_ids]
        self._freeze_diverged()

    def perturb_state(self, noise: np.ndarray) -> None:
        """Adds `noise` ([n, nq + nv]) to positions, then velocities; quaternions are normalised again.

        Body positions are recomputed, so that what is observed next belongs to the perturbed state.
        """
        noise = np.asarray(noise, np.float64)
        expected = (self.num_copies, self.model.nq + self.model.nv)
        if noise.shape != expected:
            raise ValueError(f"noise must have shape {expected}, got {noise.shape}")
        moved = np.flatnonzero(self._selected & ~self.diverged)
        qpos = self.qpos[moved] + noise[moved, : self.model.nq]
        for start in self._quaternions:
            quaternion = qpos[:, start : start + 4]
            quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
        self.qpos[moved] = qpos
        self.qvel[moved] += noise[moved, self.model.nq :]
        if self._xpos is not None:
            self._locate_bodies(moved.tolist())
        self._refresh(moved)
        self._freeze_diverged()

    def _initial_state(self, initial_qpos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the engine's row of a copy that was just reset, and its body positions [B, 3]."""
        data = self._data
        data.qpos[:] = initial_qpos
        mujoco.mj_forward(self.model, data)
        row = np.empty(mujoco.mj_stateSize(self.model, int(mujoco.mjtState.mjSTATE_INTEGRATION)))
        mujoco.mj_getState(self.model, data, row, int(mujoco.mjtState.mjSTATE_INTEGRATION))
        return row, data.xpos[self._body_ids]

    def _freeze_diverged(self) -> None:
        # One sum tells whether anything is wrong in the usual case that nothing is.
        if math.isfinite(self._motion.sum()):
            return
        np.logical_not(np.isfinite(self._motion).all(axis=1), out=self.diverged)
        self.body_positions[self.diverged] = np.nan
        self._update_live()

    def _update_live(self) -> None:
        live = self._selected & ~self.diverged
        self._live = None if live.all() else np.flatnonzero(live).astype(np.int32)


def _body_id(model: mujoco.MjModel, name: str) -> int:
    body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
    if body < 0:
        raise ValueError(f"the model has no body {name!r}")
    return body


def _quaternion_addresses(model: mujoco.MjModel) -> list[int]:
    """Returns where in `qpos` the quaternions of free and ball joints begin."""
    offset_of_kind = {int(mujoco.mjtJoint.mjJNT_FREE): 3, int(mujoco.mjtJoint.mjJNT_BALL): 0}
    return [
        address + offset_of_kind[kind]
        for address, kind in zip(model.jnt_qposadr.tolist(), model.jnt_type.tolist(), strict=True)
        if kind in offset_of_kind
    ]


def _motion_columns(model: mujoco.MjModel) -> slice:
    """Returns where in a row of the engine's state positions and velocities are, which follow each other."""
    before = mujoco.mj_stateSize(model, int(mujoco.mjtState.mjSTATE_TIME))
    return slice(before, before + model.nq + model.nv)
