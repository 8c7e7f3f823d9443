"""Baseline, advantages, distributions, GRU and episode buffer against numbers of the original program."""

import re

import golden_tools as tools
import numpy as np
import pytest
import tensorflow as tf
from kinds import kinds_of

from metarl.networks import gru
from metarl.policies import gaussian
from metarl.returns import linear_baseline
from metarl.returns.advantages import discounted_returns, generalized_advantages
from tesp.episode_buffer import EPISODE_MODES, Episode, EpisodeBuffer


def test_file_is_recognised(golden_path):
    assert kinds_of(golden_path), f"{golden_path.name} holds no known group of arrays"


def test_baseline_and_advantages(baseline_golden):
    names = sorted(name.removesuffix(".coeffs") for name in baseline_golden if name.endswith(".coeffs"))
    assert names
    for name in names:
        check_baseline(tools.group(baseline_golden, f"{name}."))


def check_baseline(arrays):
    n = len(arrays["rewards"])
    steps = tools.steps_of([{**arrays, "actions": np.zeros((n, 1)), "logits": np.zeros((n, 2))}])
    gamma, lambda_ = float(arrays["gamma"]), float(arrays["lam"])
    reward = tf.cast(steps.reward, tf.float64)
    returns = discounted_returns(reward, steps.last, gamma, n)
    tools.assert_close(returns[0, :n], arrays["returns"], rtol=1e-6)
    phi = linear_baseline.features(steps.observation, steps.time)
    coefficients = linear_baseline.fit(phi, returns, steps.valid)
    tools.assert_close(coefficients[0], arrays["coeffs"], rtol=1e-5, atol_of_largest=1e-5)
    value = linear_baseline.predict(phi, coefficients)
    np.testing.assert_allclose(value[0, :n], arrays["vf_preds"], rtol=1e-6)
    advantage = generalized_advantages(reward, value, steps.last, gamma, lambda_, n)
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

    def test_finished_episodes_copy_their_state_through(self, gru_golden):
        weights = {name: tf.constant(gru_golden[name]) for name in ("kernel", "recurrent_kernel", "bias")}
        inputs, lengths = tf.constant(gru_golden["seq"][np.newaxis]), gru_golden["seq_lens"]
        for t in range(gru_golden["seq"].shape[1]):
            final = gru.gru_final_state(weights, inputs, np.minimum(t + 1, lengths)[np.newaxis].astype(np.int32))
            # The original's outputs behind the end of a sequence are 0.
            running = (t < lengths)[:, np.newaxis]
            tools.assert_close(np.where(running, final[0], 0.0), gru_golden["seq_outputs"][:, t], rtol=1e-5)

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
        """[(ids, episodes)] of the stored batches."""
        result = []
        while f"batch{len(result) + 1}.obs" in golden:
            group = tools.group(golden, f"batch{len(result) + 1}.")
            ids = list(dict.fromkeys(group["eps_id"].tolist()))
            result.append((ids, [Episode(*episode) for episode in tools.split_episodes(group)]))
        return result

    @pytest.mark.parametrize("mode", EPISODE_MODES)
    def test_contents_and_order(self, buffer_golden, mode):
        sizes = {int(m[1]) for m in (re.match(rf"{mode}\.M(\d+)\.after1$", name) for name in buffer_golden) if m}
        assert sizes
        for size in sizes:
            buffer = EpisodeBuffer(1, mode, size)
            ids_of = {}
            for n, (ids, episodes) in enumerate(self.batches(buffer_golden), start=1):
                ids_of.update({id(episode): i for i, episode in zip(ids, episodes, strict=True)})
                buffer.extend(0, episodes)
                found = [ids_of[id(episode)] for episode in buffer.episodes(0)]
                assert found == buffer_golden[f"{mode}.M{size}.after{n}"].tolist()

    def test_padded(self, buffer_golden):
        expected = buffer_golden["padded.features"]
        count, longest, width = expected.shape
        buffer = EpisodeBuffer(1, "episode_buffer", count)
        for _, episodes in self.batches(buffer_golden):
            buffer.extend(0, episodes)
        padded = buffer.padded(count + 2, longest + 2, width)
        np.testing.assert_array_equal(padded.lengths[0, :count], buffer_golden["padded.seq_lens"])
        np.testing.assert_array_equal(padded.features[0, :count, :longest], expected)
        assert not padded.features[0, :, longest:].any()
        assert not padded.lengths[0, count:].any()
