"""Stop and resume in another process at the paper's network sizes, where products and sums are spread over threads."""

import csv
import subprocess
import sys

from metarl.experiment.checkpoints import list_checkpoints, load_checkpoint

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
    command = [sys.executable, "-m", "launchers.train", "--gin_file=configs/tesp_wheeled.gin", f"--logdir={logdir}"]
    subprocess.run([*command, *bindings], check=True, capture_output=True, timeout=300)


def rows(logdir):
    with open(logdir / "progress.csv", newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


def test_resume_in_another_process_is_bit_identical(tmp_path):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train(straight, 3)
    train(resumed, 1)
    train(resumed, 3)
    assert rows(straight) == rows(resumed)
    assert len(rows(straight)) == 3
    first, second = (load_checkpoint(list_checkpoints(logdir)[3]).arrays for logdir in (straight, resumed))
    assert set(first) == set(second)
    for name, value in first.items():
        assert value.tobytes() == second[name].tobytes(), name
