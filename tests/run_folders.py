"""Synthetic run folders, as a training would leave them, for tests of what reads them."""

import csv

CONFIGS = {
    "TESP": """import tesp.learner

# Macros:
ITERATIONS = 600
SEED = {seed}
INNER_LR = {inner_lr}

Experiment.learner = @tesp.TespLearner()
TespLearner.family = @tesp.{family}()
TespLearner.method = @tesp.TESP()
TespLearner.seed = %SEED
TESP.inner_lr = %INNER_LR
TESP.hidden_sizes = [32, 32]
""",
    "MBMPO": """ITERATIONS = 600
SEED = {seed}
INNER_LR = {inner_lr}
FAMILY = @mbmpo.{family}()

Experiment.learner = @mbmpo.MBMPOLearner()
MBMPOLearner.family = %FAMILY
InnerAdaptation.inner_lr = %INNER_LR
""",
}
CONFIGS["MAML"] = CONFIGS["TESP"].replace("@tesp.TESP()", "@tesp.MAML()").replace("TESP.inner_lr", "MAML.inner_lr")
CONFIGS["MAML"] = CONFIGS["MAML"].replace("TESP.hidden_sizes", "MAML.hidden_sizes")
CONFIGS["METRPO"] = CONFIGS["MBMPO"].replace("MBMPOL", "METRPOL").replace("InnerAdaptation.inner_lr", "Dummy.rate")
CONFIGS["TRPO"] = CONFIGS["METRPO"].replace("METRPOL", "TRPOL")


def make(folder, rows, *, method="TESP", seed=1, inner_lr=0.001, family="HalfCheetah", final=None, torn=""):
    """Writes a run's folder; `rows` are dicts, None an empty cell, `torn` what a kill left of the next row."""
    folder.mkdir(parents=True)
    config = CONFIGS[method].format(seed=seed, inner_lr=inner_lr, family=family)
    (folder / "operative_config.gin").write_text(config)
    for name, table in (("progress.csv", rows), ("final.csv", final or [])):
        if table:
            with (folder / name).open("w", newline="") as file:
                writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(table)
                file.write(torn if name == "progress.csv" else "")
    return folder


def progress(returns, steps=100, name="return", column="env_steps/total", **more):
    """Rows with a return per iteration and evenly growing steps."""
    return [
        {"iteration": i, name: value, column: i * steps, **{key: values[i - 1] for key, values in more.items()}}
        for i, value in enumerate(returns, 1)
    ]
