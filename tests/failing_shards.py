"""Makes MB-MPO's shards fail on demand: `import failing_shards` in a config; see `shard_faults`."""

import os

from shard_faults import suffer

from mbmpo.learner import MBMPOLearner

FOLDER = "SHARD_FAULTS"  # environment variable with the folder of the faults: workers and actors inherit it


class FailingShard:
    """Another shard, and what it suffers before each call."""

    def __init__(self, shard, first):
        self._shard, self._first = shard, first

    def __getattr__(self, name):
        found = getattr(self._shard, name)
        if not callable(found):
            return found

        def call(**arguments):
            suffer(os.environ.get(FOLDER), name, self._first)
            return found(**arguments)

        return call


def _failing(make_part):
    def make(self, first, count):
        shard = make_part(self, first, count)
        return FailingShard(shard, first) if os.environ.get(FOLDER) else shard

    return make


MBMPOLearner.make_part = _failing(MBMPOLearner.make_part)
