"""Trains one experiment with several values and seeds, each run in its own folder; the same command again goes on.

python -m launchers.sweep --gin_file=configs/mbmpo_point_laptop.gin --sweep="INNER_LR=[1e-3,1e-2]" --seeds=1,2 --jobs=2

Several --sweep multiply; values that change together are --sweep="(HORIZON, META_BATCH_SIZE)=[(200, 20), (500, 8)]".
"""

from absl import app, flags

from launchers.command_line import parse, show

_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "Config to run; repeat to add overlays, the last binding wins.")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "gin binding of every run; repeatable.")
_SWEEP = flags.DEFINE_multi_string(
    "sweep", [], "NAME=[value, ...] or (NAME, NAME)=[(value, value), ...]; repeatable; header: the config's own."
)
_FROM_HEADER = flags.DEFINE_bool("from_header", False, "The sweep and seeds lines of the config's header.")
_SEEDS = flags.DEFINE_string("seeds", None, "Such as 1,2,3; default the header's with --from_header, else SEED.")
_JOBS = flags.DEFINE_integer("jobs", None, "Runs at once; default 1, or on Ray all.", lower_bound=1)
_LOGDIR = flags.DEFINE_string("logdir", None, "Folder of the sweep; default runs/<config>/sweep_<names>_<hash>.")
_RAY_ADDRESS = flags.DEFINE_string("ray_address", None, "Run on a Ray cluster: auto, local, or host:port.")
_CPUS_PER_RUN = flags.DEFINE_integer(
    "cpus_per_run", None, "Threads of each run, on Ray also its CPUs; default on Ray 1, else all cores.", lower_bound=1
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only show the runs.")
flags.DEFINE_alias("gin_bindings", "gin_param")


def main(argv: list[str]) -> int:
    """Delegates; nothing heavy is imported before the flags are parsed, and TensorFlow not at all."""
    from metarl.experiment import front_door, sweep_command
    from metarl.experiment.errors import UserError

    def sweep() -> int:
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}; every option begins with --")
        request = sweep_command.Request(
            gin_files=tuple(_GIN_FILE.value),
            gin_params=tuple(_GIN_PARAM.value),
            sweeps=tuple(_SWEEP.value),
            from_header=_FROM_HEADER.value,
            seeds=_SEEDS.value,
            jobs=_JOBS.value,
            logdir=_LOGDIR.value,
            ray_address=_RAY_ADDRESS.value,
            cpus_per_run=_CPUS_PER_RUN.value,
        )
        if _DRY_RUN.value:
            show(sweep_command.dry_run(request))
            return 0
        return sweep_command.run(request)

    return front_door.exit_code(sweep)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
