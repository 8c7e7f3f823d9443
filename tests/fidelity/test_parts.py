"""Baseline, advantages, distributions, GRU and episode buffer against numbers of the original program."""

import golden_tools as tools
import numpy as np
import pytest
import tensorflow as tf
from kinds import kinds_of

from metarl.networks import gru
from metarl.policies import gaussian
from metarl.returns import linear_baseline
from metarl.returns.advantages import discounted_returns, generalized_advantages
from tesp.episode_buffer import Episode, EpisodeBuffer


def test_file_is_recognised(golden_path):
    assert kinds_of(golden_path), f"{golden_path.name} holds no known group of arrays"


class TestBaseline:
    @pytest.fixture(params=["a", "b", "c"])
    def case(self, request, baseline_golden):
        arrays = tools.group(baseline_golden, f"{request.param}.")
        dummy = {"actions": np.zeros((len(arrays["rewards"]), 1)), "logits": np.zeros((len(arrays["rewards"]), 2))}
        return arrays, tools.steps_of([{**arrays, **dummy}])

    def test_fit_predict_and_advantages(self, case):
        arrays, steps = case
        n = len(arrays["rewards"])
        gamma, lambda_ = float(arrays["gamma"]), float(arrays["lam"])
        reward = tf.cast(steps.reward, tf.float64)
        returns = discounted_returns(reward, steps.last, gamma, 64)
        tools.assert_close(returns[0, :n], arrays["returns"], rtol=1e-6)
        phi = linear_baseline.features(steps.observation, steps.time)
        coefficients = linear_baseline.fit(phi, returns, steps.valid)
        tools.assert_close(coefficients[0], arrays["coeffs"], rtol=1e-5, atol_of_largest=1e-5)
        value = linear_baseline.predict(phi, coefficients)
        np.testing.assert_allclose(value[0, :n], arrays["vf_preds"], rtol=1e-6)
        advantage = generalized_advantages(reward, value, steps.last, gamma, lambda_, 64)
        tools.assert_close(advantage[0, :n], arrays["advantages"], rtol=0, atol_of_largest=1e-5)
        tools.assert_close((advantage + value)[0, :n], arrays["value_targets"], rtol=0, atol_of_largest=1e-5)


class TestDistribution:
    def test_log_prob_and_kl(self, gru_golden):
        new, old = gru_golden["dist.logits_new"], gru_golden["dist.logits_old"]
        logp = gaussian.log_prob(new, gru_golden["dist.actions"])
        np.testing.assert_allclose(logp, gru_golden["dist.logp_new"], rtol=1e-5)
        np.testing.assert_allclose(gaussian.kl_divergence(old, new), gru_golden["dist.kl_old_new"], rtol=1e-5)

    def test_entropy_is_the_correct_one(self, gru_golden):
        logits = gru_golden["dist.logits_new"]
        log_std = logits[:, logits.shape[1] // 2 :]
        expected = np.sum(log_std + 0.5 * np.log(2 * np.pi * np.e), axis=1)
        np.testing.assert_allclose(gaussian.entropy(logits), expected, rtol=1e-5)


class TestGRU:
    def test_hard_sigmoid(self, gru_golden):
        y = gru.hard_sigmoid(tf.constant(gru_golden["hard_sigmoid.x"]))
        np.testing.assert_allclose(y, gru_golden["hard_sigmoid.y"], rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("differentiable", ["fast", "plain"])
    def test_sequence_and_gradient_through_time(self, gru_golden, differentiable):
        weights = {name: tf.constant(gru_golden[name]) for name in ("kernel", "recurrent_kernel", "bias")}
        inputs, lengths = gru_golden["seq"][np.newaxis], gru_golden["seq_lens"][np.newaxis].astype(np.int32)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            final = gru.gru_final_state(weights, tf.constant(inputs), tf.constant(lengths), differentiable)
            loss = tf.reduce_sum(final[0] * gru_golden["weight"])
        tools.assert_close(final[0], gru_golden["seq_final"], rtol=1e-5)
        tools.assert_close(loss, gru_golden["loss"], rtol=1e-5)
        for name, gradient in tape.gradient(loss, weights).items():
            tools.assert_close(gradient, gru_golden[f"grad.{name}"], rtol=1e-5, err_msg=name)

    def test_one_step(self, gru_golden):
        projected = gru_golden["x"] @ gru_golden["kernel"] + gru_golden["bias"]
        state = gru.gru_step(gru_golden["recurrent_kernel"][np.newaxis], projected[np.newaxis], gru_golden["s0"][None])
        tools.assert_close(state[0], gru_golden["s1"], rtol=1e-5)

    def test_unit_check(self, gru_golden):
        ones = {"kernel": (1, 3), "recurrent_kernel": (1, 3)}
        weights = {name: tf.ones(shape) for name, shape in ones.items()}
        state = gru.gru_step(weights["recurrent_kernel"][tf.newaxis], tf.ones((1, 1, 3)), tf.fill((1, 1, 1), 0.5))
        np.testing.assert_allclose(state[0], gru_golden["unit_check.s1"], rtol=1e-5)


class TestEpisodeBuffer:
    @staticmethod
    def batches(golden):
        """[(ids, episodes)] of the three stored batches."""
        result = []
        for i in (1, 2, 3):
            group = tools.group(golden, f"batch{i}.")
            ids = list(dict.fromkeys(group["eps_id"].tolist()))
            result.append((ids, [Episode(*episode) for episode in tools.split_episodes(group)]))
        return result

    @pytest.mark.parametrize("mode", ["episode_buffer", "last_episodes", "all_episodes"])
    @pytest.mark.parametrize("size", [4, 16])
    def test_contents_and_order(self, buffer_golden, mode, size):
        buffer = EpisodeBuffer(1, mode, size)
        ids_of = {}
        for n, (ids, episodes) in enumerate(self.batches(buffer_golden), start=1):
            ids_of.update({id(episode): i for i, episode in zip(ids, episodes, strict=True)})
            buffer.extend(0, episodes)
            found = [ids_of[id(episode)] for episode in buffer.episodes(0)]
            assert found == buffer_golden[f"{mode}.M{size}.after{n}"].tolist()

    def test_padded(self, buffer_golden):
        buffer = EpisodeBuffer(1, "episode_buffer", 4)
        for _, episodes in self.batches(buffer_golden):
            buffer.extend(0, episodes)
        expected = buffer_golden["padded.features"]
        padded = buffer.padded(6, expected.shape[1] + 2, expected.shape[2])
        np.testing.assert_array_equal(padded.lengths[0, :4], buffer_golden["padded.seq_lens"])
        np.testing.assert_array_equal(padded.features[0, :4, : expected.shape[1]], expected)
        assert not padded.features[0, :, expected.shape[1] :].any()
        assert not padded.lengths[0, 4:].any()
