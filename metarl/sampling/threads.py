"""Who may use how many threads while a round's lanes run."""

import threading


class ThreadShares:
    """The threads of a sampling round: those of a lane that is done go to the lanes that still run.

    Args:
        num_threads: threads of all lanes together.
        num_lanes: lanes that run.

    Attributes:
        each: threads of every lane that still runs, at least 1; a lane looks at it before every tick.
    """

    def __init__(self, num_threads: int, num_lanes: int):
        self._num_threads, self._running = num_threads, num_lanes
        self._lock = threading.Lock()
        self.each = max(1, num_threads // num_lanes)

    def lane_is_done(self) -> None:
        """Divides the threads anew; called once by every lane."""
        with self._lock:
            self._running -= 1
            if self._running:
                self.each = max(1, self._num_threads // self._running)
