"""Everything of this port that a gin file may name, in one import."""

from mbmpo.dynamics import BadDynamicsEnsemble, DynamicsEnsemble, FakePointEnsemble, MetaDynamicsEnsemble
from mbmpo.learner import MBMPOLearner
from mbmpo.maml import MAMLLearner
from mbmpo.mbmpc import MBMPCLearner
from mbmpo.meta_ppo import MetaPPO
from mbmpo.meta_updates import TRPO, MetaTRPO, MetaVPG
from mbmpo.metrpo import METRPOLearner
from mbmpo.planning import CrossEntropyMethod, RandomShooting
from mbmpo.policies import GaussianMLPPolicy
from mbmpo.trpo import TRPOLearner

__all__ = [
    "TRPO",
    "BadDynamicsEnsemble",
    "CrossEntropyMethod",
    "DynamicsEnsemble",
    "FakePointEnsemble",
    "GaussianMLPPolicy",
    "MAMLLearner",
    "MBMPCLearner",
    "MBMPOLearner",
    "METRPOLearner",
    "MetaDynamicsEnsemble",
    "MetaPPO",
    "MetaTRPO",
    "MetaVPG",
    "RandomShooting",
    "TRPOLearner",
]
