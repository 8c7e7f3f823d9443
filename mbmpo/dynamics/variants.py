"""The single network and the ensemble of ensembles (MB-MPO specification, section 2, Variants).

Shapes: `E` groups, `B` rows per group, `O` observation, `A` action.
"""

from collections.abc import Sequence

import gin
import numpy as np
import tensorflow as tf

from mbmpo.dynamics.ensemble import DynamicsEnsemble
from mbmpo.dynamics.prediction import Effective
from metarl.experiment import checks


@gin.configurable(module="mbmpo")
class MLPDynamicsModel(DynamicsEnsemble):
    """One network; arguments as in `DynamicsEnsemble`."""

    def __init__(
        self,
        *,
        hidden_sizes: Sequence[int] = (500, 500),
        weight_normalization: bool = True,
        learning_rate: float = 1e-3,
        batch_size: int = 500,
        valid_split_ratio: float = 0.2,
        persistency: float = 0.99,
        normalize_input: bool = True,
        reshuffle_batch_order: bool = False,
    ):
        super().__init__(
            num_models=1,
            hidden_sizes=hidden_sizes,
            weight_normalization=weight_normalization,
            learning_rate=learning_rate,
            batch_size=batch_size,
            valid_split_ratio=valid_split_ratio,
            persistency=persistency,
            normalize_input=normalize_input,
            reshuffle_batch_order=reshuffle_batch_order,
            joint=False,
        )


@gin.configurable(module="mbmpo")
class MetaDynamicsEnsemble(DynamicsEnsemble):
    """Groups of networks: a group is one model for a task, and predicts the mean of its members.

    Args:
        num_ensembles: groups; `num_models` for imagination.
        models_per_ensemble: networks of a group.
        hidden_sizes: this and the others as in `DynamicsEnsemble`.
        weight_normalization: see there.
        learning_rate: see there.
        batch_size: see there.
        valid_split_ratio: see there.
        persistency: see there.
        normalize_input: see there.
        reshuffle_batch_order: see there.
    """

    def __init__(
        self,
        *,
        num_ensembles: int = 5,
        models_per_ensemble: int = 3,
        hidden_sizes: Sequence[int] = (512, 512),
        weight_normalization: bool = True,
        learning_rate: float = 1e-3,
        batch_size: int = 500,
        valid_split_ratio: float = 0.2,
        persistency: float = 0.99,
        normalize_input: bool = True,
        reshuffle_batch_order: bool = False,
    ):
        name = type(self).__name__
        groups = checks.integer(f"{name}.num_ensembles", num_ensembles, minimum=1)
        self.models_per_ensemble = checks.integer(f"{name}.models_per_ensemble", models_per_ensemble, minimum=1)
        super().__init__(
            num_models=groups,
            hidden_sizes=hidden_sizes,
            weight_normalization=weight_normalization,
            learning_rate=learning_rate,
            batch_size=batch_size,
            valid_split_ratio=valid_split_ratio,
            persistency=persistency,
            normalize_input=normalize_input,
            reshuffle_batch_order=reshuffle_batch_order,
            joint=False,
        )
        self.num_members = groups * self.models_per_ensemble

    def predict_blocks(self, effective: Effective, observation: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Mean next observations of block e by the members of group e, [E, B, O]."""
        copies = [tf.repeat(x, self.models_per_ensemble, axis=0) for x in (observation, action)]
        members = super().predict_blocks(effective, *copies)
        rows, width = (-1 if size is None else size for size in observation.shape[1:])
        groups = observation.shape[0]
        return tf.reduce_mean(tf.reshape(members, [groups, self.models_per_ensemble, rows, width]), axis=1)

    def _members_of(self, models: np.ndarray) -> np.ndarray:
        return (models[:, np.newaxis] * self.models_per_ensemble + np.arange(self.models_per_ensemble)).reshape(-1)
