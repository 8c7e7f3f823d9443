"""Faults that shards suffer on demand, told by files: workers in other processes find them.

Before a method a shard looks for `<folder>/<method>_<first task>` and does what is written there: `kill`, `hang`,
`raise`, ... once, or `always`, or in the n-th call from then on (`kill 3`).
"""

import os
import time
from pathlib import Path

from metarl.experiment.errors import UserError
from metarl.experiment.learner import NonFiniteError


def suffer(folder, method, first):
    path = Path(folder, f"{method}_{first}")
    if not folder or not path.exists():
        return
    fault = path.read_text()
    kind, _, number = fault.partition(" ")
    if number.isdecimal() and int(number) > 1:
        path.write_text(f"{kind} {int(number) - 1}")
        return
    if kind != "always":
        path.unlink()
    if "kill" in fault:
        os._exit(9)
    if "hang" in fault:
        time.sleep(600)
    if "raise" in fault:
        raise ZeroDivisionError("a toy divided by zero")
    if "not_finite" in fault:
        raise NonFiniteError("a toy is infinite")
    if "user" in fault:
        raise UserError("a toy is misused")
