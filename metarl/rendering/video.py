"""Panels side by side, labelled, frame by frame, into an mp4 file.

Imports imageio, of the extra `[video]`.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from metarl.rendering.painters import Painter
from metarl.rendering.rounds import Recording

PANEL = 480
"""Pixels of a panel's side, without its label; what MuJoCo's off-screen buffer holds."""
_STRIP = 64  # pixels of the label above a panel; all sizes are multiples of 16, as the codec wants them
_PANELS_PER_ROW = 4
_MOST_FRAMES_PER_SECOND = 50.0
_HOLD_SECONDS = 1.0
_FONT = "DejaVuSans.ttf"
_DARK, _LIGHT, _GREY = (25, 25, 30), (245, 245, 245), (170, 170, 175)


def frames(
    painter: Painter, recordings: Sequence[Recording], caption: str, period: float
) -> tuple[Iterator[np.ndarray], float]:
    """Draws all recordings at the same time; an episode that has ended shows its last state.

    Args:
        painter: draws a state.
        recordings: one per panel.
        caption: below every label.
        period: seconds per step.

    Returns:
        The frames [height, width, 3] uint8, and how many there are per second: the video runs in real time.
    """
    stride = max(1, math.ceil(1.0 / (period * _MOST_FRAMES_PER_SECOND)))
    rate = 1.0 / (period * stride)
    return _frames(painter, recordings, caption, period, stride, round(_HOLD_SECONDS * rate)), rate


def _frames(
    painter: Painter, recordings: Sequence[Recording], caption: str, period: float, stride: int, hold: int
) -> Iterator[np.ndarray]:
    steps = max(len(recording.rewards) for recording in recordings)
    ticks = [*range(0, steps, stride), *[steps] * (1 + hold)]
    ended: dict[int, np.ndarray] = {}
    frame = np.zeros(0)
    for index, tick in enumerate(ticks):
        if index and tick == ticks[index - 1]:
            yield frame
            continue
        panels = []
        for number, recording in enumerate(recordings):
            if number not in ended:
                panel = _panel(painter, recording, tick, caption, period)
                if tick >= len(recording.rewards):
                    ended[number] = panel
            panels.append(ended.get(number, panel))
        frame = _tiled(panels)
        yield frame


def _panel(painter: Painter, recording: Recording, tick: int, caption: str, period: float) -> np.ndarray:
    """One panel: the strip with label, return and time, and the picture."""
    step = min(tick, len(recording.rewards))
    picture = painter.paint(recording, step)
    strip = Image.new("RGB", (picture.shape[1], _STRIP), _DARK)
    draw = ImageDraw.Draw(strip)
    end = f", {recording.end}" if step == len(recording.rewards) else ""
    draw.text((12, 7), f"{recording.label}, return {recording.episode_return:.1f}", fill=_LIGHT, font=_font(23))
    line = f"{step * period:.1f} s, so far {recording.rewards[:step].sum():.1f}{end}"
    draw.text((12, 38), line, fill=_GREY, font=_font(17))
    if caption:
        draw.text((picture.shape[1] - 12, 38), caption, fill=_GREY, font=_font(17), anchor="ra")
    return np.concatenate([np.asarray(strip), picture])


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", _FONT), size)


def _tiled(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Panels in rows of at most four, the last row filled up with black."""
    columns = min(len(panels), _PANELS_PER_ROW)
    missing = -len(panels) % columns
    filled = [*panels, *[np.zeros_like(panels[0])] * missing]
    return np.concatenate(
        [np.concatenate(filled[row : row + columns], axis=1) for row in range(0, len(filled), columns)]
    )


def encode(path: Path, pictures: Iterable[np.ndarray], rate: float) -> int:
    """Writes an mp4 file.

    Args:
        path: replaced if it is there.
        pictures: frames [height, width, 3] uint8.
        rate: frames per second.

    Returns:
        The number of frames.
    """
    count = 0
    # A path that begins with '/' is neither an option nor a protocol to the encoder.
    writer: Any
    with imageio.get_writer(
        path.resolve(),
        format="FFMPEG",
        fps=rate,
        codec="libx264",
        quality=7,
        macro_block_size=16,
        output_params=["-preset", "veryfast"],
    ) as writer:
        for picture in pictures:
            writer.append_data(picture)
            count += 1
    return count
