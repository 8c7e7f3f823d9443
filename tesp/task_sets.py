"""The three sets of tasks of an experiment, and the stream of its meta-batches, for any family with a distribution.

For goal families they are the specification's (section 5.7). Other families, such as those of directions, velocities
or physical parameters, have one distribution and nothing that lies "farther out": their three sets are independent
draws from it. Shapes: `N` tasks per set, `G` numbers per task.
"""

import numpy as np

from metarl.experiment.errors import UserError
from metarl.seeding import keyed_generator
from metarl.simulation.task_family import TaskFamily
from tesp.families import goals
from tesp.families.goal_family import GoalFamily
from tesp.families.goals import GoalSets


def require_tasks(name: str, family: TaskFamily) -> None:
    """Checks that there is something to adapt to.

    Args:
        name: of the binding, for the message.
        family: any.

    Raises:
        UserError: the family has one task only, or no distribution of tasks of its own.
    """
    if family.task_dim == 0:
        raise UserError(
            f"{name}: {family.name} has a single task, described by no number, so that there is nothing to adapt to; "
            "meta-training takes a family with a distribution of tasks, such as @Wheeled() or @HalfCheetahDirection()"
        )
    try:
        family.draw_task(np.random.RandomState(0))
    except NotImplementedError as error:
        raise UserError(f"{name}: {error}; meta-training takes a family that draws its tasks") from error


def draw_task_sets(family: TaskFamily, seed: int, num_tasks: int) -> GoalSets:
    """Returns the three sets that `seed` draws, each [N, G] float64.

    With another N the sets are others: the goals of all sets come from one stream, so that only D is continued.

    Raises:
        UserError: goals that do not fit into the plane.
    """
    if isinstance(family, GoalFamily):
        return goals.draw_goal_sets(family, seed, num_tasks)
    sets = []
    for name in GoalSets._fields:
        rng = keyed_generator(seed, 0, f"tasks/{name}")
        sets.append(np.stack([family.draw_task(rng) for _ in range(num_tasks)]))
    return GoalSets(*sets)


def task_batch_stream(family: TaskFamily, seed: int, num_tasks: int) -> np.random.RandomState:
    """Returns the stream that draws a run's meta-batches, see `tesp.families.goals.draw_task_batch`."""
    if isinstance(family, GoalFamily):
        return goals.task_batch_stream(family, seed, num_tasks)
    return np.random.RandomState(seed)


def task_columns(family: TaskFamily, task: np.ndarray) -> dict[str, float]:
    """The numbers of a task [G] under the names that tables give them: goal_x and goal_y, or task_0, task_1, ..."""
    names = ("goal_x", "goal_y") if isinstance(family, GoalFamily) else [f"task_{i}" for i in range(len(task))]
    return dict(zip(names, task.tolist(), strict=True))
