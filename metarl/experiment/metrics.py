"""Where numbers go: a CSV file for programs, TensorBoard events for eyes. Both can be rewound to a checkpoint.

A writer is called in this order: `rewind` before the first row, `write` once per meta-update, `sync` before a
checkpoint, `close`.
"""

import contextlib
import csv
import errno
import io
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from absl import logging
from matplotlib.figure import Figure

from metarl.experiment.errors import UserError
from metarl.experiment.learner import Metrics
from metarl.experiment.run_directory import write_atomically


class Writer(Protocol):
    """The interface of everything that metrics are written to."""

    def rewind(self, iteration: int) -> None:
        """Drops whatever was written after `iteration`; the run goes on from there."""

    def write(self, iteration: int, metrics: Metrics, figures: Mapping[str, Figure]) -> None:
        """Writes the numbers and figures of one completed meta-update, so that they survive a kill."""

    def sync(self) -> None:
        """Makes what was written durable; called before the checkpoint that covers it."""

    def close(self) -> None:
        """Finishes."""


class CsvWriter:
    """`progress.csv`: the column 'iteration', then one per metric; None is an empty cell, floats keep every bit.

    Args:
        path: of the file; made at the first row.
    """

    def __init__(self, path: Path):
        self._path = path
        self._columns: list[str] | None = None  # of the file; those measured in this session come first
        self._num_measured = 0
        self._file: Any = None

    def rewind(self, iteration: int) -> None:
        """Keeps the rows 1..iteration, each once; says what it drops and what is missing."""
        if not self._path.exists():
            lines = []
        else:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        if not lines or not lines[0].endswith("\n"):  # killed while the header was written
            if self._path.exists():
                self._path.unlink()
            if iteration:
                logging.warning("%s is missing; it will begin after meta-update %d", self._path, iteration)
            return
        self._columns = next(csv.reader(lines[:1]))
        rows: dict[int, str] = {}
        for line in lines[1:]:
            number = line.partition(",")[0]
            if line.endswith("\n") and number.isdecimal():
                rows.setdefault(int(number), line)
        kept = [rows[number] for number in range(1, iteration + 1) if number in rows]
        if len(kept) < iteration:
            logging.warning("%s lacks %d rows up to meta-update %d", self._path, iteration - len(kept), iteration)
        later = [number for number in rows if number > iteration]
        if later:
            span = str(later[0]) if len(later) == 1 else f"{min(later)} to {max(later)}"
            logging.info("done again, because it came after the last checkpoint: meta-update %s", span)
        if lines[1:] != kept:
            write_atomically(self._path, "".join(lines[:1] + kept))

    def write(self, iteration: int, metrics: Metrics, figures: Mapping[str, Figure]) -> None:
        """Appends a row.

        A run that another version began may have other columns: the file gets cells for those that are measured only
        now, empty in the older rows, and keeps those that no longer are, empty from here on.

        Raises:
            UserError: the metrics are others than in the row before.
        """
        columns = ["iteration", *metrics]
        if self._file is None:
            if self._columns is not None and self._columns != columns:
                self._take_over(columns)
            self._file = self._path.open("a", newline="", encoding="utf-8")
            self._num_measured = len(columns)
        if self._columns is None:
            self._columns = columns
            csv.writer(self._file, lineterminator="\n").writerow(columns)
        measured = self._columns[: self._num_measured]
        if measured != columns:
            odd = sorted(set(columns) ^ set(measured)) or columns
            raise UserError(f"{self._path} has other columns than the metrics measured now: {', '.join(odd)}")
        cells = [iteration, *("" if value is None else plain_number(value) for value in metrics.values())]
        cells += [""] * (len(self._columns) - len(columns))
        csv.writer(self._file, lineterminator="\n").writerow(cells)
        self._file.flush()

    def _take_over(self, columns: list[str]) -> None:
        """Writes the file anew with these columns, then those that only its rows have."""
        with self._path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        before = self._columns or []
        self._columns = [*columns, *(name for name in before if name not in columns)]
        if self._columns == before:
            return
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self._path, text.getvalue())
        new, old = len(set(columns) - set(before)), len(set(before) - set(columns))
        logging.info("%s gets %d new columns, %d are no longer measured", self._path, new, old)

    def sync(self) -> None:
        """Makes the rows durable."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class TensorBoardWriter:
    """Event files in `tensorboard/`, one per session; the step is the iteration.

    The events are written as records, not by `tf.summary`, whose scalars and images need the separate TensorBoard
    package even to write.

    Args:
        folder: of the event files; made at the first event.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer: Any = None

    def rewind(self, iteration: int) -> None:
        """Cuts every event file before its first event that is of a later iteration, incomplete or unreadable."""
        import tensorflow as tf
        from google.protobuf.message import DecodeError

        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.glob("events.out.tfevents.*")):
            data = path.read_bytes()
            end = 0
            while len(data) >= end + 12:
                size = struct.unpack_from("<Q", data, end)[0]
                record = data[end + 12 : end + 12 + size]
                try:
                    if len(data) < end + 16 + size or tf.compat.v1.Event.FromString(record).step > iteration:
                        break
                except DecodeError:
                    logging.warning("%s is damaged; its events are cut off from byte %d on", path, end)
                    break
                end += 16 + size
            if end < len(data):
                os.truncate(path, end)

    def write(self, iteration: int, metrics: Metrics, figures: Mapping[str, Figure]) -> None:
        """Writes a scalar per measured metric and an image per figure."""
        import tensorflow as tf

        if self._writer is None:
            self._folder.mkdir(exist_ok=True)
            name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{iteration}"
            with _disk_errors():
                self._writer = tf.io.TFRecordWriter(str(self._folder / name))
            self._record(tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2"))
        values = [
            tf.compat.v1.Summary.Value(tag=name, simple_value=value)
            for name, value in metrics.items()
            if value is not None
        ]
        for name, figure in figures.items():
            png = io.BytesIO()
            figure.savefig(png, format="png")
            width, height = (round(inches * figure.dpi) for inches in figure.get_size_inches())
            image = tf.compat.v1.Summary.Image(
                height=height, width=width, colorspace=4, encoded_image_string=png.getvalue()
            )
            values.append(tf.compat.v1.Summary.Value(tag=name, image=image))
        summary = tf.compat.v1.Summary(value=values)
        self._record(tf.compat.v1.Event(wall_time=time.time(), step=iteration, summary=summary))

    def _record(self, event: Any) -> None:
        with _disk_errors():
            self._writer.write(event.SerializeToString())
            self._writer.flush()

    def sync(self) -> None:
        """Leaves durability to the system: events repeat what `progress.csv` holds."""

    def close(self) -> None:
        """Closes the event file."""
        if self._writer is not None:
            with _disk_errors():
                self._writer.close()
            self._writer = None


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """TensorFlow's errors of a file as Python's."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        full = isinstance(error, tf.errors.ResourceExhaustedError)
        raise OSError(errno.ENOSPC if full else errno.EIO, error.message) from error


def plain_number(value: Any) -> int | float:
    """Returns a Python number of the same value, whose text form reads back as the same bits."""
    return int(value) if isinstance(value, int) or getattr(value, "dtype", None) in _INTEGERS else float(value)


_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")


def aligned(rows: list[dict[str, Any]]) -> str:
    """Returns rows as a text table: columns aligned, floats with four significant digits, None as '-'."""

    def text(value: Any) -> str:
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = [columns] + [[text(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table)
