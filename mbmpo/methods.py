"""Everything of this port that a gin file may name, in one import."""

from mbmpo.learner import MBMPOLearner
from mbmpo.maml import MAMLLearner
from mbmpo.meta_ppo import MetaPPO
from mbmpo.meta_updates import TRPO, MetaTRPO, MetaVPG
from mbmpo.policies import GaussianMLPPolicy

__all__ = ["TRPO", "GaussianMLPPolicy", "MAMLLearner", "MBMPOLearner", "MetaPPO", "MetaTRPO", "MetaVPG"]
