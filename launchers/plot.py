"""Draws learning curves of runs and sweeps, with intervals over seeds: PNG, PDF, and the numbers as CSV.

python -m launchers.plot runs/mbmpo_point_laptop --x=env_steps --y=return --group_by=INNER_LR

Folders are searched for runs, finished or going on; nothing in them changes.
"""

from absl import app, flags

from launchers.command_line import parse

flags.FLAGS.set_gnu_getopt(True)  # flags may follow the folders
_X = flags.DEFINE_string("x", "env_steps", "env_steps, iteration, time (of training), or a column of progress.csv.")
_Y = flags.DEFINE_multi_string(
    "y",
    ["return"],
    "A column; repeatable. return: before adaptation, else of the data collected, else after all fast-updates.",
)
_GROUP_BY = flags.DEFINE_list("group_by", ["method"], "method, family, macros or bindings, such as INNER_LR.")
_WHERE = flags.DEFINE_multi_string("where", [], "Only runs with NAME=value; repeatable.")
_LAYOUT = flags.DEFINE_string(
    "layout", "columns", "columns: --y against --x; tesp, mbmpo: the papers' figures, which need neither."
)
_STATISTIC = flags.DEFINE_string(
    "statistic", "both", "mean, iqm (interquartile mean), or both; the CSV has both. Not with --layout=mbmpo."
)
_POINTS = flags.DEFINE_integer("points", 200, "At most so many per curve. Not with --layout=mbmpo.")
_OUTPUT = flags.DEFINE_string("output", "plots", "Folder for the files.")
_NAME = flags.DEFINE_string("name", None, "Of the files; default made of what they show.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace files that exist.")


def main(argv: list[str]) -> int:
    """Delegates; nothing heavy is imported before the flags are parsed, and TensorFlow not at all."""
    from metarl.experiment import front_door
    from metarl.experiment.errors import UserError

    def plot() -> int:
        from metarl.reporting import layouts, plot_command

        idle = layouts.IDLE_FLAGS.get(_LAYOUT.value, ())
        given = [f"--{flag.name}" for flag in (_X, _Y, _STATISTIC, _POINTS) if flag.name in idle and flag.present]
        if given:
            raise UserError(f"--layout={_LAYOUT.value} says what is drawn; leave {', '.join(given)} away")
        return plot_command.run(
            plot_command.Request(
                patterns=tuple(argv[1:]),
                x=_X.value,
                y=tuple(_Y.value),
                group_by=tuple(name.strip() for name in _GROUP_BY.value),
                where=tuple(_WHERE.value),
                layout=_LAYOUT.value,
                statistic=_STATISTIC.value,
                points=_POINTS.value,
                output=_OUTPUT.value,
                name=_NAME.value,
                overwrite=_OVERWRITE.value,
            )
        )

    return front_door.exit_code(plot)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
