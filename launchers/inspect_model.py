"""Shows how well a run's dynamics models predict: many steps from real starts, and one step over the buffer.

python -m launchers.inspect_model --run=runs/mbmpo_half_cheetah/seed_1 --rollouts=10 --horizon=100

The run may still be in training; nothing in its folder changes but a new folder under plots/.
"""

from absl import app, flags

from launchers.command_line import parse

_RUN = flags.DEFINE_string("run", None, "Folder of the run, finished or going on.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Which models: latest, an iteration, or a file.")
_ROLLOUTS = flags.DEFINE_integer("rollouts", 10, "Fresh real rollouts to predict.")
_HORIZON = flags.DEFINE_integer("horizon", None, "Steps to predict; default the length of the run's real episodes.")
_ACTIONS = flags.DEFINE_string("actions", "own", "Whose: own (the run's policy or planner) or random.")
_DRAWN = flags.DEFINE_integer("drawn", 2, "Rollouts that get a figure of their own.")
_SEED = flags.DEFINE_integer("seed", None, "Of the rollouts; default the run's.")


def main(argv: list[str]) -> int:
    """Delegates; nothing heavy is imported before the flags are parsed."""
    from mbmpo.inspection_request import InspectionRequest
    from metarl.experiment import front_door, runtime, saved_run
    from metarl.experiment.errors import UserError

    def inspect() -> int:
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}; every option begins with --")
        request = InspectionRequest(
            rollouts=_ROLLOUTS.value,
            horizon=_HORIZON.value,
            actions=_ACTIONS.value,
            drawn=_DRAWN.value,
            seed=_SEED.value,
        )
        # A state that was never trained is refused by what it lacks.
        saved = saved_run.find(_RUN.value, _CHECKPOINT.value, allow_untrained=True)
        runtime.import_tensorflow()
        from mbmpo import inspection_run

        return inspection_run.run(saved, request)

    return front_door.exit_code(inspect)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
