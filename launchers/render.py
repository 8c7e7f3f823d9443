"""Films a saved run: one rollout before and after each fast-update, side by side, as an mp4 file.

python -m launchers.render --run=runs/tesp_wheeled_laptop/seed_1 --goal=0.5,-0.3

The run may still be in training; nothing in its folder changes but a new file under videos/. Needs the extra [video].
"""

from absl import app, flags

from launchers.command_line import parse

_RUN = flags.DEFINE_string("run", None, "Folder of the run, finished or going on.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Which weights: latest, an iteration, or a file.")
_GOAL = flags.DEFINE_string(
    "goal", None, "The task, x,y in metres or the family's numbers; default the first of D', or a draw of the family."
)
_FAST_UPDATES = flags.DEFINE_integer("fast_updates", None, "K, one panel more than that; default as in training.")
_SEED = flags.DEFINE_integer("seed", None, "Of all random numbers; default the run's.")
_OUTPUT = flags.DEFINE_string("output", None, "The mp4 file; default a new one under RUN/videos/.")
_ALLOW_UNTRAINED = flags.DEFINE_bool("allow_untrained", False, "Accept the weights from before training.")


def main(argv: list[str]) -> int:
    """Delegates; nothing heavy is imported before the flags are parsed."""
    from metarl.experiment import evaluation, front_door, runtime, saved_run
    from metarl.experiment.errors import UserError
    from metarl.experiment.learner import EvaluationRequest
    from metarl.rendering import backend

    def render() -> int:
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}; every option begins with --")
        request = EvaluationRequest(
            tasks=evaluation.parse_tasks([] if _GOAL.value is None else [_GOAL.value], "--goal"),
            fast_updates=_FAST_UPDATES.value,
            seed=_SEED.value,
        )
        saved = saved_run.find(_RUN.value, _CHECKPOINT.value, allow_untrained=_ALLOW_UNTRAINED.value)
        backend.require_video_writer()
        renderer = backend.disable_here()  # before MuJoCo is imported
        runtime.import_tensorflow()
        from metarl.rendering import run

        return run.run(saved, request, _OUTPUT.value, renderer)

    return front_door.exit_code(render)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
