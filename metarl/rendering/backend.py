"""Which off-screen renderer MuJoCo uses here. Imports neither MuJoCo nor TensorFlow: the choice comes before both.

MuJoCo reads MUJOCO_GL when it is imported and fails in native code where a library is missing or broken, so every
candidate is tried in a process of its own.
"""

import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Callable

from metarl.experiment.errors import UserError

VARIABLE = "MUJOCO_GL"
# A GPU's or Mesa's EGL first: it is the faster one.
_KNOWN = ("egl", "osmesa")
CANDIDATES = _KNOWN if platform.system() == "Linux" else ("",)
_OFF = "disable"
_SECONDS = 60.0
_LIBRARIES = ("imageio", "imageio_ffmpeg")
_PICTURE = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 3'/><geom type='sphere' size='1'/></worldbody></mujoco>"
)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data)
    assert renderer.render().any()
"""


def draws(backend: str) -> bool:
    """Whether MuJoCo can draw a picture with MUJOCO_GL=`backend`, tried in a process of its own (1 to 3 s)."""
    environment = dict(os.environ, **{VARIABLE: backend})
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PICTURE], env=environment, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def disable_here() -> str | None:
    """Turns drawing off in this process, before MuJoCo is imported; returns the renderer that the user has asked for.

    Only a process of its own draws: TensorFlow and Mesa's software renderer bring two versions of LLVM, which do not
    get along in one process. And with a renderer that is broken MuJoCo could not even be imported.
    """
    asked = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = _OFF
    return asked


def choose(asked: str | None = None, works: Callable[[str], bool] | None = None) -> str:
    """Returns the value of MUJOCO_GL that draws: the one asked for, else the first candidate.

    Args:
        asked: the only value to try, if any.
        works: tells whether a value draws; default `draws`.

    Raises:
        UserError: none does; one line says what to install.
    """
    works = works or draws
    for backend in CANDIDATES if asked is None else (asked,):
        if works(backend):
            return backend
    if asked is not None:
        raise UserError(
            f"{VARIABLE}={asked} draws no picture here; leave it unset, and what works is found: {' or '.join(_KNOWN)}"
        )
    raise UserError(
        "no off-screen renderer works here, neither EGL nor OSMesa: install one, on Debian and Ubuntu with "
        "`apt-get install libegl1 libgl1` (by the GPU's driver, or libgl1-mesa-dri in software) or "
        "`apt-get install libosmesa6`"
    )


def require_video_writer() -> None:
    """Raises UserError if the libraries of the extra `[video]` are missing; imports none of them."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"writing a video needs {' and '.join(missing).replace('_', '-')}: "
            'pip install -c constraints.txt -e ".[video]"'
        )
