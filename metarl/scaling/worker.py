"""A worker process: builds its shard and answers the learner's calls until the learner is gone.

Light to import, so that the number of threads is set before any numerical library is loaded.

The learner sends (number, method, own arguments, reports) and then the common arguments; the worker answers with any
number of (REPORT, number, phrase), and then (RESULT, number, result) or (RAISED, number, error, traceback).
"""

import os
import signal
import threading
import traceback
from multiprocessing import connection, parent_process
from typing import Any

from metarl.scaling.part import Part

READY, REPORT, RESULT, RAISED = "ready", "report", "result", "raised"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main(channel: connection.Connection, part: Part, threads: int) -> None:
    """Works until the channel is closed.

    Args:
        channel: to the learner.
        part: the shard.
        threads: of every library, this worker's share of the cores.
    """
    # Ctrl-C and SIGTERM reach the whole group; the learner decides when its workers end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    threading.Thread(target=_end_with_the_learner, daemon=True).start()
    os.environ |= dict.fromkeys(_THREADS, str(threads))
    try:
        shard = build(part, threads)
    except Exception as error:
        channel.send_bytes(raised(0, error))
        return
    from metarl.scaling import messages

    channel.send_bytes(messages.dumps((READY, 0, tuple(shard.remembered))))
    while True:
        try:
            number, method, own, told = messages.loads(channel.recv_bytes())
            common = messages.loads(channel.recv_bytes())
        except EOFError:
            return

        def report(phrase: str, number: int = number) -> None:
            channel.send_bytes(messages.dumps((REPORT, number, phrase)))

        arguments = {**common, **own} | ({"report": report} if told else {})
        try:
            answer = messages.dumps((RESULT, number, getattr(shard, method)(**arguments)))
        except Exception as error:
            answer = raised(number, error)
        del common, own, arguments
        channel.send_bytes(answer)


def build(part: Part, threads: int) -> Any:
    """The shard, in a process that has not used TensorFlow yet; the libraries use so many threads."""
    from metarl.experiment import runtime
    from metarl.scaling import cores

    cores.limit(threads)
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") in ("2", "3"):
        del os.environ["TF_CPP_MIN_LOG_LEVEL"]  # as the learner's own quiet import left it behind
    runtime.import_tensorflow()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return part.build()


def raised(number: int, error: Exception) -> bytes:
    """Errors that the learner is to see as they are travel whole; of all others, the traceback."""
    from metarl.experiment.errors import UserError
    from metarl.experiment.learner import NonFiniteError
    from metarl.scaling import messages

    known = type(error)(str(error)) if type(error) in (UserError, NonFiniteError) else None
    return messages.dumps((RAISED, number, known, traceback.format_exc()))


def _end_with_the_learner() -> None:
    learner = parent_process()
    if learner is not None:
        connection.wait([learner.sentinel])
        os._exit(1)
