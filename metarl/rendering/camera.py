"""A camera that stands still and sees everything that moves, and the goal.

Shapes: `P` points in the world, metres.
"""

import math
from typing import NamedTuple

import numpy as np

_AZIMUTH = 90.0  # x to the right, y into the picture
_FLAT_ELEVATION, _TALL_ELEVATION = -50.0, -30.0
# What moves in a plane is seen from above: its height is below this share of its width.
_FLAT = 0.35
_FILLED = 0.9  # of the picture, by what must be seen


class Camera(NamedTuple):
    """MuJoCo's free camera.

    Attributes:
        lookat: [3] point in the middle of the picture.
        distance: metres from it.
        azimuth, elevation: degrees.
    """

    lookat: np.ndarray
    distance: float
    azimuth: float
    elevation: float


def fitted(points: np.ndarray, radii: np.ndarray, field_of_view: float, from_above: bool = False) -> Camera:
    """Returns the camera nearest to spheres that sees them all in a square picture.

    Args:
        points: [P, 3], their centres.
        radii: [P], metres.
        field_of_view: degrees.
        from_above: look down, whatever the height of what is seen; what is flat is always seen so.
    """
    low, high = (points - radii[:, None]).min(axis=0), (points + radii[:, None]).max(axis=0)
    size = high - low
    flat = from_above or size[2] < _FLAT * max(size[0], size[1])
    elevation = _FLAT_ELEVATION if flat else _TALL_ELEVATION
    forward, right, up = _axes(_AZIMUTH, elevation)
    lookat = 0.5 * (low + high)
    reach = math.tan(math.radians(0.5 * field_of_view)) * _FILLED
    for _ in range(8):  # perspective shifts the middle; a few corrections centre it
        offset = points - lookat
        depth, across, above = offset @ forward, offset @ right, offset @ up
        distance = float(max(np.max((np.abs(side) + radii) / reach - depth) for side in (across, above)))
        scale = distance + depth
        for axis, side in ((right, across), (up, above)):
            top, bottom = np.max((side + radii) / scale), np.min((side - radii) / scale)
            lookat = lookat + 0.5 * (top + bottom) * distance * axis
    offset = points - lookat
    depth = offset @ forward
    distance = float(max(np.max((np.abs(offset @ axis) + radii) / reach - depth) for axis in (right, up)))
    return Camera(lookat, max(distance, 0.1), _AZIMUTH, elevation)


def _axes(azimuth: float, elevation: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The unit vectors into the picture, to its right and to its top."""
    a, e = math.radians(azimuth), math.radians(elevation)
    forward = np.array([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])
    right = np.array([math.sin(a), -math.cos(a), 0.0])
    return forward, right, np.cross(right, forward)
