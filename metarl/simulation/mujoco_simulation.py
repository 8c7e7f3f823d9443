"""A block of copies of one MuJoCo model, stepped by the calling thread.

Shapes: `n` copies, `nq`, `nv`, `nu` positions, velocities and actuators of the model, `B` tracked bodies.
"""

import math
from collections.abc import Sequence

import mujoco
import numpy as np

from metarl.simulation.task_family import Simulation


class MujocoSimulation(Simulation):
    """`n` `MjData` of one `MjModel`; subclasses add what a task family observes and rewards.

    One control period is one `mj_step` call of `frame_skip` physics steps per copy. The call releases the
    interpreter lock, so blocks in different threads run at the same time; the model is only read and may be shared.

    Body positions are those the last physics step left in memory, as gymnasium's own MuJoCo environments read them:
    with the Euler integrator they lag `qpos` by one physics step (TESP specification, section 5.1).

    A copy whose state is not finite has diverged: it stays as it is, with NaN body positions, until it is reset. The
    model must therefore disable the engine's automatic reset (`<flag autoreset="disable"/>`).

    Attributes:
        model: the shared `mujoco.MjModel`.
        num_copies: n.
        qpos: [n, nq] float64, qvel: [n, nv] float64: gathered after every step and reset; read-only by convention.
        body_positions: [n, B, 3] float64, metres, origins of the tracked bodies' frames in the world.
        diverged: [n] bool.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_copies: int,
        *,
        frame_skip: int,
        bodies: Sequence[str],
        initial_qpos: Sequence[float] | np.ndarray | None = None,
        fresh_kinematics: bool = False,
    ):
        """Makes the copies and resets them.

        Args:
            model: compiled model with `autoreset` disabled.
            num_copies: n, at least 1.
            frame_skip: physics steps per control period.
            bodies: names of the B bodies whose positions are gathered.
            initial_qpos: [nq], state after a reset; default the model's own. Velocities start at 0.
            fresh_kinematics: recompute body positions from the final `qpos` after every control period.

        Raises:
            ValueError: the model resets diverged states by itself, or has no body of a given name.
        """
        if not model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_AUTORESET):
            raise ValueError("the model must disable the automatic reset of diverged states (option flag autoreset)")
        self.model = model
        self.num_copies = num_copies
        self._frame_skip = frame_skip
        self._fresh_kinematics = fresh_kinematics
        self._initial_qpos = np.array(model.qpos0 if initial_qpos is None else initial_qpos, np.float64)
        if self._initial_qpos.shape != (model.nq,):
            raise ValueError(f"initial_qpos must have shape {(model.nq,)}, got {self._initial_qpos.shape}")
        body_ids = [_body_id(model, name) for name in bodies]
        nq, nv = model.nq, model.nv
        self._gathered = np.empty((num_copies, nq + nv + 3 * len(body_ids)))
        self.qpos = self._gathered[:, :nq]
        self.qvel = self._gathered[:, nq : nq + nv]
        self.body_positions = self._gathered[:, nq + nv :].reshape(num_copies, len(body_ids), 3)
        self.diverged = np.zeros(num_copies, bool)
        self._controls = np.zeros((num_copies, model.nu))
        self._quaternions = _quaternion_addresses(model)
        self._data = [mujoco.MjData(model) for _ in range(num_copies)]
        # Creating an array view costs as much as copying it: every view that a step needs is made once.
        self._rows = [(data, data.ctrl, self._controls[i]) for i, data in enumerate(self._data)]
        self._sources = [[data.qpos, data.qvel, *(data.xpos[body] for body in body_ids)] for data in self._data]
        self._all_sources = [view for views in self._sources for view in views]
        self._all_targets = self._gathered.reshape(-1)
        self._selected = np.ones(num_copies, bool)
        self._live_rows = self._rows
        self.reset()

    def reset(self, indices: np.ndarray | None = None) -> None:
        """Puts the copies `indices` (int [k], default all) into the initial state, with nothing left of the old one."""
        chosen = range(self.num_copies) if indices is None else np.asarray(indices).tolist()
        for copy in chosen:
            data = self._data[copy]
            mujoco.mj_resetData(self.model, data)
            # MuJoCo writes a log file at the first warning of each kind after a reset. Divergence is visible in the
            # numbers themselves, so the counters start above the value that triggers the log.
            data.warning.number[:] = 1
            data.qpos[:] = self._initial_qpos
            mujoco.mj_forward(self.model, data)
            self._gather_copy(copy)
            self.diverged[copy] = False
        if len(self._live_rows) != self.num_copies:
            self._update_live_rows()

    def select(self, copies: np.ndarray | None) -> None:
        """Steps only `copies` (int [k]; None: all) from now on; the rows of the others keep their last state."""
        self._selected[:] = copies is None
        if copies is not None:
            self._selected[copies] = True
        self._update_live_rows()

    def advance(self, controls: np.ndarray) -> None:
        """Holds `controls` ([n, nu], in actuator units) for one control period and gathers the new state."""
        self._controls[:] = controls
        model, frame_skip, mj_step = self.model, self._frame_skip, mujoco.mj_step
        # The lock is held between two calls of mj_step, and a thread that finds it taken sleeps for longer than a
        # whole call: as little as possible happens here.
        for data, control, wanted in self._live_rows:
            control[:] = wanted
            mj_step(model, data, frame_skip)
        if self._fresh_kinematics:
            for data, _, _ in self._live_rows:
                mujoco.mj_kinematics(model, data)
        np.concatenate(self._all_sources, out=self._all_targets)
        self._freeze_diverged()

    def perturb_state(self, noise: np.ndarray) -> None:
        """Adds `noise` ([n, nq + nv]) to positions, then velocities; quaternions are normalised again.

        Body positions are recomputed, so that what is observed next belongs to the perturbed state.
        """
        noise = np.asarray(noise, np.float64)
        expected = (self.num_copies, self.model.nq + self.model.nv)
        if noise.shape != expected:
            raise ValueError(f"noise must have shape {expected}, got {noise.shape}")
        qpos = self.qpos + noise[:, : self.model.nq]
        for start in self._quaternions:
            quaternion = qpos[:, start : start + 4]
            quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
        qvel = self.qvel + noise[:, self.model.nq :]
        self._write_state(qpos, qvel)

    def _write_state(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        for copy in np.flatnonzero(self._selected & ~self.diverged).tolist():
            data = self._data[copy]
            data.qpos[:] = qpos[copy]
            data.qvel[:] = qvel[copy]
            mujoco.mj_kinematics(self.model, data)
            self._gather_copy(copy)
        self._freeze_diverged()

    def _gather_copy(self, copy: int) -> None:
        np.concatenate(self._sources[copy], out=self._gathered[copy])

    def _freeze_diverged(self) -> None:
        # One sum tells whether anything is wrong in the usual case that nothing is.
        if math.isfinite(self._all_targets.sum()):
            return
        state = self._gathered[:, : self.model.nq + self.model.nv]
        np.logical_not(np.isfinite(state).all(axis=1), out=self.diverged)
        self.body_positions[self.diverged] = np.nan
        self._update_live_rows()

    def _update_live_rows(self) -> None:
        live = self._selected & ~self.diverged
        self._live_rows = self._rows if live.all() else [self._rows[i] for i in np.flatnonzero(live).tolist()]


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
