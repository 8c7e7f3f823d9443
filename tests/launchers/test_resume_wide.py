"""Stop and resume in another process at the paper's network sizes, where products and sums are spread over threads."""

from experiment_tools import final_state, launch, rows

SMALL = [
    "META_BATCH_SIZE=4",
    "ROLLOUTS_PER_TASK=9",
    "HORIZON=60",
    "Validation.frequency=0",
    "FinalTable.num_goals=0",
    "Experiment.checkpoint_every=1",
]


def train(logdir, iterations):
    bindings = [f"--gin_param={binding}" for binding in [*SMALL, f"ITERATIONS={iterations}"]]
    arguments = ["--gin_file=configs/tesp_wheeled.gin", f"--logdir={logdir}", *bindings]
    done = launch("launchers.train", *arguments, timeout=300)
    assert done.returncode == 0, done.stderr


def test_resume_in_another_process_is_bit_identical(tmp_path):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train(straight, 3)
    train(resumed, 1)
    train(resumed, 3)
    assert rows(straight) == rows(resumed)
    assert len(rows(straight)) == 3
    assert final_state(straight) == final_state(resumed)
