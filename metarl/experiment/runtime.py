"""TensorFlow's process-wide settings, and its import without the noise of its C++ libraries."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

import gin

from metarl.experiment import checks
from metarl.experiment.errors import UserError


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Holds back what native code writes to file descriptor 2; shows it if the body raises."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            if failed:
                held.seek(0)
                sys.stderr.write(held.read().decode(errors="replace"))


def import_tensorflow(min_log_level: str = "2") -> None:
    """Imports TensorFlow and lets it look for devices, silently unless TF_CPP_MIN_LOG_LEVEL is set by the user.

    The environment variable alone does not silence the lines that TensorFlow 2.21 writes before its logging starts.

    Args:
        min_log_level: what its libraries may write later: "2" errors, "3" only what ends the process.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or "tensorflow" in sys.modules:
        import tensorflow  # noqa: F401

        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = min_log_level
    with _quiet_stderr():
        import tensorflow as tf

        tf.config.list_physical_devices()


@gin.configurable(module="metarl")
def runtime(intra_op_threads: int = 0, inter_op_threads: int = 0, op_determinism: bool = False) -> None:
    """Sets what TensorFlow allows to be set only before its first operation.

    Args:
        intra_op_threads: threads inside one operation; 0 leaves the choice, as many as cores, to TensorFlow.
        inter_op_threads: operations at once; 0 leaves the choice to TensorFlow.
        op_determinism: refuse operations without a deterministic form. On CPU, runs repeat bit for bit without it
            on the same number of threads.

    Raises:
        UserError: a value is out of range, or TensorFlow has already run an operation with other settings.
    """
    checks.integer("intra_op_threads", intra_op_threads, 0)
    checks.integer("inter_op_threads", inter_op_threads, 0)
    checks.flag("op_determinism", op_determinism)
    import tensorflow as tf

    threading = tf.config.threading
    wanted = (
        (threading.get_intra_op_parallelism_threads, threading.set_intra_op_parallelism_threads, intra_op_threads),
        (threading.get_inter_op_parallelism_threads, threading.set_inter_op_parallelism_threads, inter_op_threads),
    )
    for get, set_, threads in wanted:
        if threads and get() != threads:
            try:
                set_(threads)
            except RuntimeError as error:
                raise UserError("the number of threads cannot change once TensorFlow has started") from error
    if op_determinism:
        tf.config.experimental.enable_op_determinism()
