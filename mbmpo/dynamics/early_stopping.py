"""When each model stops training (MB-MPO specification, section 2, early stopping).

Shapes: `E` models.
"""

import numpy as np


class EarlyStopping:
    """A model stops when the slow average of its validation loss rises, or at the last epoch allowed.

    After epoch 0 the average starts at 1.5 times the loss and its predecessor at twice the loss (for a negative loss at
    the loss divided by these). Then, in every epoch: r <- p r + (1 - p) v; stop if r_prev < r; r_prev <- r.

    Args:
        num_models: E.
        persistency: p.
        max_epochs: epochs allowed.

    Attributes:
        active: [E] bool, models that train in the next epoch.
        last_epoch: [E] 0-based epoch in which each model stopped; that epoch was still trained.
        epochs_run: epochs seen.
    """

    def __init__(self, num_models: int, persistency: float, max_epochs: int):
        self._persistency, self._max_epochs = persistency, max_epochs
        self._average = np.zeros(num_models)
        self._previous = np.zeros(num_models)
        self.active = np.ones(num_models, bool)
        self.last_epoch = np.zeros(num_models, np.int64)
        self.epochs_run = 0

    def update(self, valid_loss: np.ndarray) -> np.ndarray:
        """Takes the losses after an epoch and returns who goes on.

        Args:
            valid_loss: [E]; entries of stopped models are ignored.

        Returns:
            `active` after this epoch.
        """
        loss = np.asarray(valid_loss, np.float64)
        if self.epochs_run == 0:
            self._average = np.where(loss < 0.0, loss / 1.5, 1.5 * loss)
            self._previous = np.where(loss < 0.0, loss / 2.0, 2.0 * loss)
        self._average = self._persistency * self._average + (1.0 - self._persistency) * loss
        last_allowed = self.epochs_run == self._max_epochs - 1
        stopping = self.active & ((self._previous < self._average) | last_allowed)
        self._previous = self._average
        self.last_epoch = np.where(stopping, self.epochs_run, self.last_epoch)
        self.active = self.active & ~stopping
        self.epochs_run += 1
        return self.active

    @property
    def mean_last_epoch(self) -> float:
        """The original's AvgEpochsPerModel, mean of the 0-based last epochs; `model/epochs_mean` is one more."""
        return float(np.mean(self.last_epoch))
