"""Files of the layouts of the MB-MPO family from naive computations: other sizes than the original program's files.

One task, one model, three inner steps, mini-batches with remainders, paths of one step.
"""

import functools

import naive_dynamics as dynamics
import naive_meta_files as meta
import naive_processing as processing

# Name -> (kinds of numbers, writer of the file). Seeds are such that ten iterations of the conjugate gradient in
# float32 stay within the layouts' tolerances: others amplify its rounding to a percent of the direction.
NAIVE = {
    "naive_trpo_1_task_3_steps": (
        ("meta_trpo",),
        # The exact product is left out: its compilation takes most of these tests' time.
        functools.partial(meta.meta_trpo_file, seed=1, inner_steps=3, pre_rows=(17,), post_rows=(9,), with_exact=False),
    ),
    "naive_trpo_3_tasks_2_steps": (
        ("meta_trpo",),
        functools.partial(
            meta.meta_trpo_file,
            seed=2,
            inner_steps=2,
            pre_rows=(13, 20, 7),
            post_rows=(11, 8, 19),
            widths=(3, 6, 2),
        ),
    ),
    "naive_ppo": (("meta_ppo",), meta.ppo_file),
    "naive_ppo_1_task": (("meta_ppo",), functools.partial(meta.ppo_file, seed=1, pre_rows=(14,), post_rows=(9,))),
    "naive_ppo_3_tasks": (
        ("meta_ppo",),
        functools.partial(meta.ppo_file, seed=3, pre_rows=(14, 9, 8), post_rows=(9, 12, 13), widths=(4, 5, 1)),
    ),
    "naive_single_trpo": (("single_trpo",), meta.trpo_file),
    "naive_single_trpo_wide": (
        ("single_trpo",),
        functools.partial(meta.trpo_file, seed=2, rows=60, widths=(4, 5, 3)),
    ),
    "naive_dynamics_1_model": (
        ("dynamics", "early_stopping"),
        functools.partial(
            dynamics.dynamics_file,
            seed=1,
            num_models=1,
            dims=(3, 1),
            hidden=(6, 9),
            rows=(23, 11),
            mini_rows=28,
            batch_size=5,
        ),
    ),
    "naive_dynamics_4_models": (
        ("dynamics", "early_stopping"),
        functools.partial(
            dynamics.dynamics_file,
            seed=2,
            num_models=4,
            dims=(2, 3),
            hidden=(7,),
            rows=(17, 30),
            mini_rows=21,
            batch_size=8,
        ),
    ),
    "naive_mpc": (("mpc",), dynamics.mpc_file),
    "naive_mpc_1_model": (
        ("mpc",),
        functools.partial(
            dynamics.mpc_file, seed=2, states=1, per_state=7, horizon=1, num_models=1, dims=(3, 2), hidden=(5,)
        ),
    ),
    "naive_processing": (("processing",), processing.processing_file),
    "naive_processing_short_paths": (
        ("processing",),
        functools.partial(processing.processing_file, seed=1, lengths=((1, 1, 30), (12,)), dims=(3, 1)),
    ),
}
