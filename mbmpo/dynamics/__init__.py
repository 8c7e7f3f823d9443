"""Learned dynamics: an ensemble of networks that predict normalised changes of the observation (specification, 2)."""

from mbmpo.dynamics.bad_models import BadDynamicsEnsemble, FakePointEnsemble
from mbmpo.dynamics.early_stopping import EarlyStopping
from mbmpo.dynamics.ensemble import DynamicsEnsemble, EnsembleState
from mbmpo.dynamics.fit import FitReport
from mbmpo.dynamics.normalisation import Normalisation
from mbmpo.dynamics.prediction import Effective
from mbmpo.dynamics.variants import MetaDynamicsEnsemble, MLPDynamicsModel

__all__ = [
    "BadDynamicsEnsemble",
    "DynamicsEnsemble",
    "EarlyStopping",
    "Effective",
    "EnsembleState",
    "FakePointEnsemble",
    "FitReport",
    "MLPDynamicsModel",
    "MetaDynamicsEnsemble",
    "Normalisation",
]
