"""Column norms, limits and orthonormality of the initialisers (TESP specification, sections 2.1 and 2.2)."""

import numpy as np
import pytest

from metarl.networks import initializers


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_normc_columns_have_the_norm(scale):
    kernel = np.asarray(initializers.normc(scale, seed=3)((37, 64)))
    assert kernel.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), scale, rtol=1e-6)
    assert abs(kernel.mean()) < scale / 37  # centred, not merely normalised
    assert not np.allclose(np.linalg.norm(kernel, axis=1), np.linalg.norm(kernel, axis=1)[0])


def test_normc_vector_is_one_column():
    latent = np.asarray(initializers.normc(0.01, seed=0)((8,)))
    assert latent.shape == (8,)
    np.testing.assert_allclose(np.linalg.norm(latent), 0.01, rtol=1e-6)
    assert np.unique(latent).size == 8


def test_glorot_counts_all_gates_as_fan_out():
    kernel = np.asarray(initializers.glorot_uniform_full(seed=1)((14, 768)))
    limit = np.sqrt(6 / (14 + 768))
    assert np.abs(kernel).max() <= limit
    assert np.abs(kernel).max() > 0.999 * limit
    np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.02)


def test_orthogonal_rows_are_orthonormal():
    kernel = np.asarray(initializers.orthogonal_full(seed=5)((64, 192)))
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(64), atol=1e-5)
    tall = np.asarray(initializers.orthogonal_full(seed=5)((192, 64)))
    np.testing.assert_allclose(tall.T @ tall, np.eye(64), atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: initializers.normc(1.0, seed),
        initializers.glorot_uniform_full,
        initializers.orthogonal_full,
    ],
)
def test_a_seed_names_its_numbers(make):
    first = np.asarray(make(7)((12, 36)))
    np.random.seed(99)
    make(8)((5, 15))
    np.testing.assert_array_equal(first, np.asarray(make(7)((12, 36))))
    assert not np.array_equal(first, np.asarray(make(8)((12, 36))))
    rebuilt = type(make(7)).from_config(make(7).get_config())
    np.testing.assert_array_equal(first, np.asarray(rebuilt((12, 36))))
    assert np.asarray(make(7)((12, 36), dtype="float64")).dtype == np.float64
    with pytest.raises(ValueError, match="at least 0"):
        make(-1)
