"""Tests a trained meta-policy: returns before and after 0 .. K fast-updates, per goal and pooled.

python -m launchers.evaluate --run=runs/tesp_wheeled/seed_1 --goal_set=test_1 --goal=0.5,-0.3 --fast_updates=3

The run may still be in training; nothing in its folder changes but a new folder under evaluations/.
"""

from absl import app, flags

from launchers.command_line import parse

_RUN = flags.DEFINE_string("run", None, "Folder of the run, finished or going on.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Which weights: latest, an iteration, or a file.")
_GOAL_SET = flags.DEFINE_multi_string(
    "goal_set",
    [],
    "train, test_1, test_2 or all (TESP's methods), drawn or all (MB-MPO's); repeatable; default all, or none if there "
    "is a --goal.",
)
_GOAL = flags.DEFINE_multi_string("goal", [], "A task of your own, x,y in metres or the family's numbers; repeatable.")
_NUM_GOALS = flags.DEFINE_integer(
    "num_goals",
    None,
    "The first so many goals of each set, default all; with MB-MPO's methods so many draws, default 20.",
)
_FAST_UPDATES = flags.DEFINE_integer("fast_updates", None, "K; default as in training.")
_EPISODES = flags.DEFINE_integer(
    "episodes", None, "Copies of the environment per goal, which are also the data of each fast-update."
)
_NOISE_SIGMA = flags.DEFINE_float("noise_sigma", None, "Transition noise on all but the training goals.")
_NOISE_KIND = flags.DEFINE_string("noise_kind", None, "What the noise is added to: observation or state.")
_SEED = flags.DEFINE_integer("seed", None, "Of all random numbers; default the run's.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the result; default a new one under RUN/evaluations/.")
_ALLOW_UNTRAINED = flags.DEFINE_bool("allow_untrained", False, "Accept the weights from before training.")


def main(argv: list[str]) -> int:
    """Delegates; nothing heavy is imported before the flags are parsed."""
    from metarl.experiment import evaluation, front_door
    from metarl.experiment.errors import UserError
    from metarl.experiment.learner import EvaluationRequest

    def evaluate() -> int:
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}; every option begins with --")
        request = EvaluationRequest(
            task_sets=tuple(_GOAL_SET.value),
            tasks=evaluation.parse_tasks(_GOAL.value, "--goal"),
            num_tasks=_NUM_GOALS.value,
            fast_updates=_FAST_UPDATES.value,
            episodes=_EPISODES.value,
            noise_sigma=_NOISE_SIGMA.value,
            noise_kind=_NOISE_KIND.value,
            seed=_SEED.value,
        )
        return evaluation.run(
            _RUN.value, _CHECKPOINT.value, request, output=_OUTPUT.value, allow_untrained=_ALLOW_UNTRAINED.value
        )

    return front_door.exit_code(evaluate)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
