"""Weight initialisers of the original TESP networks, each a pure function of an integer seed.

TESP specification, sections 2.1 (normalised columns) and 2.2 (the GRU conventions of TensorFlow 1). Every draw is
stateless: the same seed and shape give the same numbers, whatever was drawn before.
"""

from typing import Any

import keras
import numpy as np


def _standard_normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _check_seed(seed: int) -> int:
    if seed < 0:
        raise ValueError(f"an initialiser's seed must be at least 0, not {seed}")
    return int(seed)


@keras.saving.register_keras_serializable("metarl")
class Normc(keras.initializers.Initializer):
    """Standard normal draws, every column rescaled to one L2 norm (TESP specification, section 2.1).

    A column of an `[in, out]` kernel holds all weights that feed one unit. A vector (MAESN's latent `[D]`) is rescaled
    as a whole.

    Args:
        scale: the norm of every column; 1.0 for hidden layers, 0.01 for output layers.
        seed: at least 0.

    Raises:
        ValueError: negative seed.
    """

    def __init__(self, scale: float, seed: int):
        self.scale = float(scale)
        self.seed = _check_seed(seed)

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Returns a tensor of `shape`, `[in, out]` or `[D]`."""
        draws = _standard_normal(self.seed, tuple(shape))
        draws *= self.scale / np.sqrt(np.sum(np.square(draws), axis=0, keepdims=True))
        return keras.ops.convert_to_tensor(draws, dtype=dtype or "float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"scale": self.scale, "seed": self.seed}


@keras.saving.register_keras_serializable("metarl")
class GlorotUniformFull(keras.initializers.Initializer):
    """Uniform in +-sqrt(6 / (in + out)) with `out` the full width of the matrix (TESP specification, section 2.2).

    For a GRU kernel `[in, 3U]` the fan-out is `3U`: all gates together, as Keras 2 counted them.

    Args:
        seed: at least 0.

    Raises:
        ValueError: negative seed.
    """

    def __init__(self, seed: int):
        self.seed = _check_seed(seed)

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Returns a tensor of `shape`, `[in, out]`."""
        fan_in, fan_out = shape
        limit = np.sqrt(6.0 / (fan_in + fan_out))
        draws = np.random.default_rng(self.seed).uniform(-limit, limit, (fan_in, fan_out))
        return keras.ops.convert_to_tensor(draws, dtype=dtype or "float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"seed": self.seed}


@keras.saving.register_keras_serializable("metarl")
class OrthogonalFull(keras.initializers.Initializer):
    """Orthogonal over the whole `[U, 3U]` recurrent kernel: its rows are orthonormal (TESP specification, section 2.2).

    Args:
        seed: at least 0.

    Raises:
        ValueError: negative seed.
    """

    def __init__(self, seed: int):
        self.seed = _check_seed(seed)

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Returns a tensor of `shape`, `[rows, columns]`: orthonormal rows, or columns if there are more rows."""
        rows, columns = shape
        # TensorFlow's factorisation: NumPy's spins on all cores, for seconds when the machine is busy.
        draws = _standard_normal(self.seed, (max(rows, columns), min(rows, columns)))
        q, r = (np.asarray(factor) for factor in keras.ops.qr(draws))
        # The signs make the distribution uniform over orthogonal matrices, and independent of the QR routine's habits.
        q = q * np.sign(np.diag(r))
        return keras.ops.convert_to_tensor(q.T if rows < columns else q, dtype=dtype or "float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"seed": self.seed}


def normc(scale: float, seed: int) -> Normc:
    """Returns the initialiser with columns of norm `scale`; see `Normc`."""
    return Normc(scale, seed)


def glorot_uniform_full(seed: int) -> GlorotUniformFull:
    """Returns the Glorot initialiser over the full width; see `GlorotUniformFull`."""
    return GlorotUniformFull(seed)


def orthogonal_full(seed: int) -> OrthogonalFull:
    """Returns the initialiser with orthonormal rows; see `OrthogonalFull`."""
    return OrthogonalFull(seed)
