"""What one process, two replicas, two processes and two actors must agree on, as the design words it.

As a program, `python scaling_agreement.py <strategy> <file> <case>...`, it runs cases on replicas, which cannot be made
in a process that has used TensorFlow before, and writes what they gave.
"""

import os
import sys

import gin
import numpy as np

_FAST_ADAPTATION = """
include 'configs/{}_point.gin'
META_BATCH_SIZE = 3
ROLLOUTS_PER_TASK = 2
HORIZON = 10
ITERATIONS = 2
Validation.frequency = 2
Validation.num_goals = 3
FinalTable.num_goals = 0
"""
_MODEL_BASED = """
include 'configs/{}_half_cheetah.gin'
ITERATIONS = 2
META_BATCH_SIZE = 4
NUM_MODELS = 2
HORIZON = 20
INITIAL_RANDOM_STEPS = 200
META_STEPS = 1
MODEL_MAX_EPOCHS = 3
MODEL_HIDDEN_SIZES = [16, 16]
"""
CASES = {
    **{name: _FAST_ADAPTATION.format(name) for name in ("tesp", "maml", "metasgd", "maesn", "tesp_adapt_policy")},
    "mbmpo": _MODEL_BASED.format("mbmpo") + "IMAGINED_ROLLOUTS_PER_TASK = 3\n",
    "metrpo": _MODEL_BASED.format("metrpo") + "IMAGINED_STEPS = 200\n",
    "real_maml": """
include 'configs/maml_trpo_point_navigation.gin'
META_BATCH_SIZE = 3
ROLLOUTS_PER_TASK = 4
HORIZON = 10
ITERATIONS = 2
MAMLLearner.stop_rule = 'per_task'
""",
}


def run(cases, make_pool=None):
    """Two iterations of each case: first batch, first gradient and returns by name.

    Args:
        cases: their names.
        make_pool: (gin text, number of tasks) -> pool; None: one shard of this process.
    """
    from metarl.experiment import gin_front_door

    found = {}
    for name in cases:
        learner = gin_front_door.build(gin_front_door.parse((), [CASES[name]])).learner
        if make_pool is not None:
            learner.require_split(2)
            learner.use_pool(make_pool(gin.operative_config_str(), learner.num_units))
        tape = _record(learner.pool)
        metrics = [learner.run_iteration(lambda _: None) for _ in range(2)]
        learner.pool.close()
        found[f"{name}/tasks"] = np.concatenate([part.tasks for part in tape["tasks"]])
        found[f"{name}/first_batch"] = _first_batch(tape["collect"])
        found[f"{name}/gradient"] = _flat(tape["evaluate"]) / (len(tape["collect"]) if name == "metrpo" else 1)
        found[f"{name}/returns"] = np.array(
            [
                value
                for one in metrics
                for key, value in sorted(one.items())
                if "return" in key and "std" not in key and value is not None
            ]
        )
    return found


def assert_lost_workers_change_nothing(name, make_pool, folder, faults):
    """A case whose shards can fail, undisturbed and with faults ({method_first task: fault}): equal bits.

    `folder` is that of `failing_shards.FOLDER` in the workers' environment.
    """

    def make_failing(text, num_tasks):
        return make_pool("import failing_shards\n" + text, num_tasks)

    undisturbed = run([name], make_failing)
    for where, fault in faults.items():
        (folder / where).write_text(fault)
    disturbed = run([name], make_failing)
    assert not list(folder.iterdir())
    for key, value in undisturbed.items():
        np.testing.assert_array_equal(disturbed[key], value, err_msg=key)
    return undisturbed


def assert_agree(cases, one, other):
    for name in cases:
        np.testing.assert_array_equal(other[f"{name}/tasks"], one[f"{name}/tasks"])
        np.testing.assert_allclose(other[f"{name}/first_batch"], one[f"{name}/first_batch"], rtol=1e-6)
        gradient = one[f"{name}/gradient"]
        np.testing.assert_allclose(
            other[f"{name}/gradient"], gradient, rtol=1e-4, atol=1e-4 * np.sqrt(np.mean(gradient**2))
        )
        assert np.linalg.norm(gradient) > 0
        assert len(one[f"{name}/returns"]) >= 4
        np.testing.assert_allclose(other[f"{name}/returns"], one[f"{name}/returns"], rtol=1e-3)


def _record(pool):
    """Notes the tasks, results and sums of the pool's first collection and evaluation."""
    tape, collect, evaluate = {}, pool.collect, pool.evaluate

    def recorded_collect(tasks, **arguments):
        results = collect(tasks, **arguments)
        tape.setdefault("tasks", pool.parts(tasks))
        tape.setdefault("collect", results)
        return results

    def recorded_evaluate(own=None, **arguments):
        sums, scalars = evaluate(own, **arguments)
        tape.setdefault("evaluate", sums)
        return sums, scalars

    pool.collect, pool.evaluate = recorded_collect, recorded_evaluate
    return tape


def _first_batch(results):
    """Returns of the episodes before any adaptation."""
    if hasattr(results[0], "rounds"):
        return np.concatenate([part.rounds[0].episode_return for part in results])
    if hasattr(results[0], "rollouts"):  # of ME-TRPO, which does not adapt
        return np.average([part.mean for part in results], weights=[part.rollouts for part in results])
    counts = [part.statistics[0]["num_paths"] for part in results]
    return np.array([np.average([part.statistics[0]["average_return"] for part in results], weights=counts)])


def _flat(nest):
    import tensorflow as tf

    return np.concatenate([np.asarray(leaf).reshape(-1) for leaf in tf.nest.flatten(nest)])


def _on_replicas(strategy, path, cases):
    from metarl.experiment import gin_front_door, runtime
    from metarl.scaling import cluster_config, distributed

    runtime.import_tensorflow()
    from metarl.scaling.replicas import ReplicaPool, Replicas

    if strategy == "mirrored":
        replicas = Replicas(distributed.mirrored(distributed.local_devices(2)))
    else:
        replicas = Replicas(distributed.multi_worker(cluster_config.require_cluster(os.environ), 60.0))

    def make_pool(text, num_tasks):
        def make_shard(first, count):
            config = gin_front_door.parse((), [text])
            return gin_front_door.build(config, all_used=False).learner.make_part(first, count)

        return ReplicaPool(replicas, num_tasks, make_shard)

    found = run(cases, make_pool)
    np.savez(f"{path}_{replicas.first}.npz", **found)


if __name__ == "__main__":
    _on_replicas(sys.argv[1], sys.argv[2], sys.argv[3:])
