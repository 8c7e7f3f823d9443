"""The five task families and their goal sets (TESP specification, section 5)."""

from tesp.families.ant import Ant
from tesp.families.goals import GoalParameters, GoalSets, draw_goal_sets, draw_task_batch, task_batch_stream
from tesp.families.point import Point
from tesp.families.reacher import Reacher2Link, Reacher4Link
from tesp.families.wheeled import Wheeled

__all__ = [
    "Ant",
    "GoalParameters",
    "GoalSets",
    "Point",
    "Reacher2Link",
    "Reacher4Link",
    "Wheeled",
    "draw_goal_sets",
    "draw_task_batch",
    "task_batch_stream",
]
