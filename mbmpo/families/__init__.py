"""MB-MPO's task families (specification, section 7)."""

from mbmpo.families.ant import Ant
from mbmpo.families.goal_families import (
    AntDirection,
    AntGoal,
    HalfCheetahDirection,
    HalfCheetahVelocity,
    SwimmerVelocity,
)
from mbmpo.families.half_cheetah import HalfCheetah
from mbmpo.families.hopper import Hopper
from mbmpo.families.humanoid import Humanoid
from mbmpo.families.inverted_pendulum import InvertedPendulum
from mbmpo.families.point import Point2D, PointNavigation
from mbmpo.families.pr2_reach import PR2Reach
from mbmpo.families.random_parameters import RandomParameters
from mbmpo.families.reacher import Reacher, Reacher5DoF
from mbmpo.families.snake import Snake
from mbmpo.families.swimmer import Swimmer
from mbmpo.families.walker2d import Walker2D

__all__ = [
    "Ant",
    "AntDirection",
    "AntGoal",
    "HalfCheetah",
    "HalfCheetahDirection",
    "HalfCheetahVelocity",
    "Hopper",
    "Humanoid",
    "InvertedPendulum",
    "PR2Reach",
    "Point2D",
    "PointNavigation",
    "RandomParameters",
    "Reacher",
    "Reacher5DoF",
    "Snake",
    "Swimmer",
    "SwimmerVelocity",
    "Walker2D",
]
