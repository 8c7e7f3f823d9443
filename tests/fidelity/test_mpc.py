"""Random shooting against the original's choices (MB-MPO specification, section 6.2)."""

import mbmpo_golden_tools as tools
import numpy as np
import tensorflow as tf

from mbmpo.dynamics import DynamicsEnsemble, Effective, Normalisation, networks
from mbmpo.planning import best_candidate, candidate_values


def predictor_of(golden):
    """(observation, action, member) -> next observation, by the file's models."""
    weights = tools.stacked_models(golden, "weights.")
    ensemble = DynamicsEnsemble(num_models=weights["layer0.v"].shape[0])
    statistics = [golden[f"norm.{name}.{kind}"] for name in ("obs", "act", "delta") for kind in ("mean", "std")]
    normalisation = Normalisation(*(tf.constant(value, tf.float32) for value in statistics))
    effective = Effective(networks.effective_layers(weights), normalisation, {})
    return lambda o, a, member: ensemble.predict_random(effective, o, a, member)


def test_chosen_actions(mpc_golden):
    golden = mpc_golden
    obs, candidates = golden["obs"], golden["candidates"]
    chosen = np.reshape(golden["chosen_candidate"], -1)
    value = candidate_values(
        predictor_of(golden),
        lambda o, a, following: -tf.reduce_sum(tf.square(following), axis=-1),
        tf.constant(obs, tf.float32),
        tf.constant(candidates, tf.float32),
        tf.constant(golden["model_index"], tf.int32),
        float(golden.get("cfg.discount", golden.get("discount", 0.99))),
    )
    states = np.arange(len(obs))
    found, values = best_candidate(value).numpy(), value.numpy()
    # A candidate that float32 cannot tell from the best one would be as good.
    near = values[states, chosen] >= values[states, found] - 1e-5 * np.abs(values[states, found])
    assert ((found == chosen) | near).all()
    assert (found == chosen).mean() > 0.5
    first = candidates[0].reshape(len(obs), -1, candidates.shape[-1])
    np.testing.assert_allclose(first[states, chosen], golden["chosen"], rtol=1e-6)
