"""The fidelity tests of adaptation and meta-update on files that an independent computation writes.

For the methods that no public golden file covers, and in sizes that differ from the goldens': the tests must take every
size from the arrays.
"""

import naive_fast_adaptation as naive
import numpy as np
import pytest
from kinds import kinds_of
from test_adaptation import (  # noqa: F401  (the tests, and the fixtures behind them)
    TestAdaptation,
    TestOuterLoops,
    TestStatic,
    computation,
    initial,
    method,
    static,
)

FILES = {
    "metasgd": ("metasgd", naive.Sizes()),
    "metasgd-unbounded-one-layer": ("metasgd", naive.Sizes(hidden=(6,), fast_updates=1, tasks=3, evaluations=3)),
    "maesn": ("maesn", naive.Sizes(observation=4, action=1, hidden=(5, 4, 3), embedding=1, fast_updates=4)),
    "tesp": ("tesp", naive.Sizes(observation=2, action=3, units=5, embedding=1, buffer=2, fast_updates=3, tasks=3)),
    "tesp_adapt_policy": ("tesp_adapt_policy", naive.Sizes()),
}


@pytest.fixture(scope="module", params=FILES)
def golden(request, tmp_path_factory):
    name, sizes = FILES[request.param]
    path = tmp_path_factory.mktemp("golden") / f"tesp_{name}.npz"
    config = naive.Config(inner_lr_bound=np.inf) if "unbounded" in request.param else naive.Config()
    naive.adaptation_file(path, name, sizes=sizes, config=config)
    assert kinds_of(path) == ["adaptation"]
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}
