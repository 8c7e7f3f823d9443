"""Looking at the models of a saved run: fresh real rollouts, figures, tables and a summary in a new folder.

A look writes a folder under `plots/` of the run and changes nothing else:

open_loop_<i>.png, .csv     rollout i, predicted from its start with its own actions
error_by_step.png, .csv     the open loop's errors against the number of steps, per dimension
one_step.png                one-step errors over the buffer, of which the CSV files hold:
one_step_error.csv          each model's by dimension, over the buffer and over the fresh rollouts
one_step_by_age.csv, one_step_by_change.csv, one_step_histogram.csv
plasticity.png, .npz        of a run with a `PointPlasticity`: the latest maps, and all as kl, std and extent
inspection.json             the logged table with the checkpoint, the settings and the versions; written last
"""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from matplotlib.figure import Figure

from mbmpo import inspection, inspection_plots, training_plots
from mbmpo.inspection import HISTOGRAM_EDGES, OneStep, OpenLoop, RealRollouts
from mbmpo.inspection_request import InspectionRequest
from mbmpo.mbmpc import MBMPCLearner
from mbmpo.model_based import ModelBasedLearner
from mbmpo.real_data import draw_tasks, policy_sampler, tiled
from metarl.experiment import saved_run
from metarl.experiment.errors import UserError
from metarl.experiment.learner import Report
from metarl.experiment.metrics import aligned
from metarl.experiment.result_folder import require_writable, result_folder
from metarl.experiment.run_directory import RunDirectory, csv_text, versions, write_atomically
from metarl.experiment.saved_run import SavedRun
from metarl.sampling.noise import NoiseKey
from metarl.sampling.random_actions import collect_random

FOLDER = "plots"
SUMMARY = "inspection.json"


def run(saved: SavedRun, request: InspectionRequest) -> int:
    """Inspects the models of a run as a checkpoint holds them; shows and writes the result.

    Args:
        saved: the run, which may be in training.
        request: what to look at.

    Returns:
        The exit code, 0.

    Raises:
        UserError: the run learns no models or has not fitted them yet, or the request does not fit; nothing was
            written.
    """
    require_writable(RunDirectory(saved.root).path(FOLDER))
    learner = saved_run.build_learner(saved)
    if not isinstance(learner, ModelBasedLearner):
        raise UserError(
            f"--run={saved.root} is a run of {type(learner).__name__}, which learns no dynamics models; "
            "those of MB-MPO, ME-TRPO and MB-MPC do"
        )
    if not len(learner.buffer.observation):
        raise UserError(f"{saved.checkpoint.path} is from before the first model fit: there is nothing to inspect")
    with result_folder(saved, FOLDER) as folder:
        rollouts = real_rollouts(learner, request, _show_phase)
        _show_phase("predicting")
        effective = learner.ensemble.effective(learner.models)
        loop = inspection.open_loop(
            learner.ensemble, effective, rollouts, inspection.spread_of(learner.buffer.observation)
        )
        scale = inspection.change_scale(learner.buffer)
        buffer = inspection.one_step(learner.ensemble, effective, learner.buffer, scale)
        fresh = inspection.one_step(learner.ensemble, effective, inspection.transitions_of(rollouts), scale)
        table = inspection.summary(loop, buffer, fresh)
        _show_phase("drawing")
        try:
            _write(folder, saved, request, learner, loop, buffer, fresh, table)
        except OSError as error:
            raise UserError(f"cannot write the result: {error}") from error
    logging.info(
        "meta-update %d of %s, %s on %s; errors in standard deviations, of the change for one step, of the observation "
        "for the open loop\n%s",
        saved.checkpoint.iteration, saved.root, type(learner).__name__, learner.family.name, aligned(table),
    )  # fmt: skip
    logging.info("written to %s", folder)
    return 0


def real_rollouts(learner: ModelBasedLearner, request: InspectionRequest, report: Report) -> RealRollouts:
    """Fresh real rollouts; random numbers are keyed by (seed, completed iterations, "inspection", rollout).

    Random actions and the resets under them are keyed by iteration 0 instead: they are the same for all checkpoints.

    Raises:
        UserError: a planner is asked for more steps than its episodes have, or no rollout has two steps.
    """
    seed = learner.seed if request.seed is None else request.seed
    horizon = learner.real.horizon if request.horizon is None else request.horizon
    family, phase, n = learner.family, "inspection", request.rollouts
    tasks = draw_tasks(family, n, seed, learner.iteration, f"{phase}/tasks")
    report(f"{n} real rollouts")
    # One step more than predicted: what is observed after an episode's last step is not among its steps.
    if request.actions == "random":
        batch = collect_random(family, n * (horizon + 1), n, horizon + 1, seed, phase, tasks.tasks)
    elif isinstance(learner, MBMPCLearner):
        longest = learner.real.horizon - 1
        if request.horizon is not None and request.horizon > longest:
            raise UserError(
                f"--horizon={request.horizon}: planned episodes of this run allow {longest} steps; "
                "--actions=random any number"
            )
        horizon = min(horizon, longest)
        batch = learner.planned_rollouts(tasks, seed, phase, report)
    else:
        own: Any = learner
        sampler = policy_sampler(own.policy, family, n, 1, horizon + 1)
        weights = tiled(own.objective.policy_weights(own.parameters), n)
        batch = sampler.collect(weights, tasks.tasks, NoiseKey(seed, learner.iteration, phase, tasks.indices))
    rollouts = inspection.first_episodes(batch, horizon)
    if not rollouts.valid.any():
        raise UserError("every real rollout ended after one step: there is nothing to predict")
    return rollouts


def _show_phase(phase: str) -> None:
    logging.info("%s", phase)


def _write(
    folder: Path,
    saved: SavedRun,
    request: InspectionRequest,
    learner: ModelBasedLearner,
    loop: OpenLoop,
    buffer: OneStep,
    fresh: OneStep,
    table: list[dict[str, Any]],
) -> None:
    """Writes all files, the summary last."""
    E = learner.ensemble.num_models
    about = f"{learner.family.name}, {E} models, meta-update {saved.checkpoint.iteration}"
    for i in range(min(request.drawn, request.rollouts)):
        if loop.real.valid[i].any():
            title = f"open loop of rollout {i}: {about}"
            _save_figure(folder / f"open_loop_{i}.png", inspection_plots.rollout_figure(loop, i, title))
            write_atomically(folder / f"open_loop_{i}.csv", csv_text(_rollout_rows(loop, i)))
    n = request.rollouts
    _save_figure(
        folder / "error_by_step.png",
        inspection_plots.error_by_step_figure(loop, f"open loop of {n} rollouts: {about}"),
    )
    write_atomically(folder / "error_by_step.csv", csv_text(_error_rows(loop)))
    _save_figure(
        folder / "one_step.png",
        inspection_plots.one_step_figure(buffer, fresh, f"one-step predictions over the buffer: {about}"),
    )
    rows = [row for data, found in (("buffer", buffer), ("fresh", fresh)) for row in _dimension_rows(data, found)]
    write_atomically(folder / "one_step_error.csv", csv_text(rows))
    ages = [{"age": age, **_by_model(errors)} for age, errors in zip(buffer.age, buffer.rmse_by_age, strict=True)]
    write_atomically(folder / "one_step_by_age.csv", csv_text(ages))
    changes = [
        {"predicted_change": change, **_by_model(errors), "spread": spread}
        for change, errors, spread in zip(buffer.change, buffer.rmse_by_change, buffer.spread_by_change, strict=True)
    ]
    write_atomically(folder / "one_step_by_change.csv", csv_text(changes))
    shares = [
        {"from": HISTOGRAM_EDGES[i], "to": HISTOGRAM_EDGES[i + 1], **_by_model(share, "share")}
        for i, share in enumerate(buffer.histogram)
    ]
    write_atomically(folder / "one_step_histogram.csv", csv_text(shares))
    maps = getattr(learner, "plasticity_maps", None)
    if maps is not None and len(maps.kl):
        _save_figure(folder / "plasticity.png", training_plots.plasticity_figure(maps, f"plasticity: {about}"))
        arrays = io.BytesIO()
        np.savez(arrays, allow_pickle=False, **maps._asdict())
        _save_bytes(folder / "plasticity.npz", arrays.getvalue())
    summary = {
        "run": str(saved.root),
        "checkpoint": str(saved.checkpoint.path),
        "iteration": saved.checkpoint.iteration,
        "method": type(learner).__name__,
        "family": learner.family.name,
        "models": E,
        "rollouts": n,
        "horizon": loop.rmse.shape[0],
        "actions": request.actions,
        "seed": learner.seed if request.seed is None else request.seed,
        "buffer_rows": buffer.num_rows,
        "versions": versions(),
        "trained_with": saved.trained_with,
        "table": table,
    }
    write_atomically(folder / SUMMARY, json.dumps(summary, indent=2, allow_nan=False) + "\n")


def _save_figure(path: Path, figure: Figure) -> None:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=130)
    _save_bytes(path, image.getvalue())


def _save_bytes(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _rollout_rows(loop: OpenLoop, rollout: int) -> list[dict[str, Any]]:
    """One row per step and dimension."""
    rows = []
    for step in range(int(loop.real.valid[rollout].sum()) + 1):
        for dimension in range(loop.scale.size):
            at = (rollout, step, dimension)
            models = loop.predicted[rollout, step, :, dimension]
            rows.append(
                {
                    "step": step,
                    "dimension": dimension,
                    "real": float(loop.real.observation[at]),
                    **{f"model_{k}": float(value) for k, value in enumerate(models)},
                    "mean": float(loop.mean[at]),
                    "spread": float(loop.spread[at]),
                }
            )
    return rows


def _error_rows(loop: OpenLoop) -> list[dict[str, Any]]:
    """One row per number of steps and dimension, in the units of the observation."""
    rows = []
    for step in range(int(np.count_nonzero(loop.num_rollouts))):
        for dimension, scale in enumerate(loop.scale):
            rows.append(
                {
                    "step": step + 1,
                    "dimension": dimension,
                    "rollouts": int(loop.num_rollouts[step]),
                    **_by_model(loop.rmse[step, :, dimension]),
                    "spread": loop.mean_spread[step, dimension],
                    "rmse_no_change": loop.rmse_no_change[step, dimension],
                    "scale": scale,
                }
            )
    return rows


def _dimension_rows(data: str, found: OneStep) -> list[dict[str, Any]]:
    """One row per dimension, in the units of the observation."""
    return [
        {
            "data": data,
            "dimension": dimension,
            "rows": found.num_rows,
            **_by_model(found.rmse[:, dimension]),
            "spread": found.spread[dimension],
            "rmse_no_change": found.rmse_no_change[dimension],
            "scale": scale,
        }
        for dimension, scale in enumerate(found.scale)
    ]


def _by_model(values: np.ndarray, what: str = "rmse") -> dict[str, float]:
    """Columns of every model's value and, last, the mean's."""
    columns = {f"{what}_model_{k}": float(value) for k, value in enumerate(values[:-1])}
    return columns | {f"{what}_mean": float(values[-1])}
