"""Sensors added to a model for quantities that MuJoCo computes only on demand."""

import mujoco


def add_com_sensors(spec: mujoco.MjSpec, body: str) -> None:
    """Makes the first six numbers of `sensordata` the centre of mass (m) of the body's subtree and its velocity (m/s).

    For a root body that is the whole animal: what the original environments call the body's com and comvel.
    """
    for name, kind in (
        ("com", mujoco.mjtSensor.mjSENS_SUBTREECOM),
        ("com_velocity", mujoco.mjtSensor.mjSENS_SUBTREELINVEL),
    ):
        spec.add_sensor(name=name, type=kind, objtype=mujoco.mjtObj.mjOBJ_BODY, objname=body)


def add_contact_force_trigger(spec: mujoco.MjSpec, body: str) -> None:
    """Adds a sensor of the body's acceleration: with it, stage `mjSTAGE_ACC` computes `cfrc_ext` too."""
    spec.add_sensor(
        name="acceleration",
        type=mujoco.mjtSensor.mjSENS_FRAMELINACC,
        objtype=mujoco.mjtObj.mjOBJ_BODY,
        objname=body,
    )
