"""From the flags of the sweep launcher to a sweep."""

import contextlib
from pathlib import Path
from typing import NamedTuple

from metarl.experiment import project, sweep_check, sweep_lines, sweep_processes, sweep_runner, sweeps
from metarl.experiment.errors import UserError
from metarl.experiment.gin_bindings import MACRO, Key
from metarl.experiment.sweep_index import SweepIndex
from metarl.experiment.sweep_ray import RayLauncher

_HEADER = "header"


class Request(NamedTuple):
    """A command line.

    Attributes:
        gin_files: configs of every run.
        gin_params: bindings of every run.
        sweeps: sweep lines, or "header".
        from_header: read the configs' own sweep and seeds lines.
        seeds: "1,2,3", or None for the header's or the config's.
        jobs: runs at once, or None for 1, on Ray for all.
        logdir: the sweep's folder, or None.
        ray_address: a cluster, or None for this machine.
        cpus_per_run: threads of each run, and on Ray the CPUs that it takes; None for 1 on Ray, else all cores.
    """

    gin_files: tuple[str, ...]
    gin_params: tuple[str, ...] = ()
    sweeps: tuple[str, ...] = ()
    from_header: bool = False
    seeds: str | None = None
    jobs: int | None = None
    logdir: str | None = None
    ray_address: str | None = None
    cpus_per_run: int | None = None


def make_index(request: Request) -> SweepIndex:
    """Returns the runs and what is known of them; only reads.

    Raises:
        UserError: one line that names the mistake.
    """
    if not request.gin_files:
        raise UserError("which experiment? Give --gin_file=configs/<name>.gin; launchers.train --list shows them")
    paths = [project.find_gin_file(name, "--gin_file") for name in request.gin_files]
    bound = sweeps.bound_keys(request.gin_files, request.gin_params)
    axes = [sweep_lines.parse(line, "--sweep") for line in request.sweeps if line != _HEADER]
    seeds = None
    if request.from_header or _HEADER in request.sweeps:
        from_header, seeds = sweep_lines.of_header(paths)
        axes = from_header + axes
        if not from_header and seeds is None:
            raise UserError(f"--from_header: {request.gin_files[-1]} has no line '# sweep: NAME=[...]' in its header")
    if request.seeds is not None:
        seeds = sweep_lines.parse_seeds(request.seeds, "--seeds")
    if seeds is None:
        own = bound.get(Key("SEED", MACRO, "value"), 1)
        seeds = (own,) if isinstance(own, int) else (1,)
    if not axes and request.seeds is None and not (request.from_header or _HEADER in request.sweeps):
        raise UserError('what is to be swept? Give --sweep="NAME=[value, ...]", --seeds=1,2,3 or --from_header')
    axes = sweeps.resolve_names(axes, bound)
    root = (
        Path(request.logdir).expanduser()
        if request.logdir
        else sweeps.default_folder(request.gin_files, request.gin_params, axes)
    )
    common = sweeps.configuration(bound, [name for axis in axes for name in axis.names])
    index = SweepIndex(root, request.gin_files, request.gin_params, sweeps.plan(axes, seeds), common)
    if index.suspicious:
        sweep_check.require_same(request.gin_files, request.gin_params, index.samples())
    return index


def dry_run(request: Request) -> str:
    """Returns the list of runs as text; changes nothing."""
    return sweep_runner.describe(make_index(request))


def run(request: Request) -> int:
    """Runs the sweep; returns the exit code of `sweep_runner.run_sweep`.

    Raises:
        UserError: one line that names the mistake, before any run.
    """
    index = make_index(request)
    launcher: sweep_processes.Launcher
    if request.ray_address is None:
        launcher, jobs = sweep_processes.LocalLauncher(request.cpus_per_run), request.jobs or 1
    else:
        launcher, jobs = RayLauncher(request.ray_address, request.cpus_per_run or 1), request.jobs or len(index.runs)
    with contextlib.ExitStack() as mistaken:
        mistaken.callback(launcher.close)
        if all(run.state in (sweeps.PENDING, sweeps.FAILED) for run in index.runs):  # else one could be built before
            sweep_check.require_buildable(request.gin_files, request.gin_params, index.runs)
        mistaken.pop_all()
    return sweep_runner.run_sweep(index, request.gin_files, request.gin_params, launcher, jobs)
