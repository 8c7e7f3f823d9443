"""The compiled functions of a TESP-family experiment, each traced once for the experiment's one shape.

Shapes: `M` tasks, `R` copies per task, `S` steps per task, `O` observation, `A` action, `D` context.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from metarl.compiled import Compiled
from metarl.policies import gaussian, host
from metarl.returns import linear_baseline
from metarl.returns.advantages import discounted_returns, generalized_advantages
from metarl.sampling.steps import Steps
from tesp import objectives
from tesp.methods import EncoderInput, MetaParameters, Method
from tesp.methods.base import Weights
from tesp.objectives import OuterTerms, Round


class Objective(NamedTuple):
    """Constants of the inner and outer losses.

    Attributes:
        gamma: discount of rewards.
        lambda_: of the generalised advantages.
        inner_grad_clip: largest global norm of an inner gradient.
        clip_param: PPO's epsilon.
        replay_inner: recompute the inner gradients at every outer evaluation (D5).
        second_order: differentiate through them; implies replay_inner.
    """

    gamma: float
    lambda_: float
    inner_grad_clip: float
    clip_param: float
    replay_inner: bool = False
    second_order: bool = False


class Computation:
    """Compiled functions for one method, one objective and one set of shapes.

    Args:
        method: the method.
        objective: constants of the losses.
        max_length: the longest possible episode, H.
    """

    def __init__(self, method: Method, objective: Objective, max_length: int):
        self.method = method
        self.objective = objective
        self._max_length = max_length
        self.prepare = Compiled(self._prepare)
        self.advantages = Compiled(self._advantages)
        self.inner_step = Compiled(self._inner_step)
        self.outer_gradient = Compiled(self._outer_gradient)
        self.outer_terms = Compiled(self._outer_terms)

    def _prepare(
        self, parameters: MetaParameters, accumulated: Weights, episodes: EncoderInput | None
    ) -> tuple[Weights, tf.Tensor | None]:
        """What sampling needs: (theta' by name [M, ...], context [M, D] or None), held fixed during a round."""
        adapted = self.method.adapted_params(parameters, accumulated)
        return adapted, self.method.context({**parameters.shared, **adapted}, episodes, plain=False)

    def act(self, arguments: Mapping[str, Any], observation: tf.Tensor, standard_normal: tf.Tensor) -> tf.Tensor:
        """Policy inference for one tick; compiled by the sampler.

        Args:
            arguments: adapted and shared weights by name, and "context" [M, D] for methods that have one.
            observation: [M, R, O].
            standard_normal: [M, R, A].

        Returns:
            [M, R, 3A]: logits, then the sampled action.
        """
        logits = self.method.logits(arguments, observation, arguments.get("context"), task_by_task=False)
        return tf.concat([logits, gaussian.sample(logits, standard_normal)], axis=-1)

    def host_act(self, arguments: Mapping[str, np.ndarray]) -> host.HostPolicy:
        """`act` in NumPy: a function of observation and standard_normal, for the same `arguments` as arrays."""
        return host.gaussian_mlp(arguments, arguments.get("context"))

    def _advantages(self, steps: Steps) -> tf.Tensor:
        """Baseline fitted on this round and advantages from it, [M, S] float32, 0 on padding (3.6, 3.7)."""
        reward = tf.cast(steps.reward, tf.float64)
        last = tf.cast(steps.last, tf.bool)
        returns = discounted_returns(reward, last, self.objective.gamma, self._max_length)
        phi = linear_baseline.features(steps.observation, steps.time)
        value = linear_baseline.predict(phi, linear_baseline.fit(phi, returns, steps.valid))
        advantage = generalized_advantages(
            reward, value, last, self.objective.gamma, self.objective.lambda_, self._max_length
        )
        return tf.cast(tf.where(steps.valid, advantage, tf.zeros_like(advantage)), tf.float32)

    def _inner_step(
        self, parameters: MetaParameters, accumulated: Weights, data: Round
    ) -> tuple[Weights, tf.Tensor, tf.Tensor]:
        """One fast-update: (G + g, inner loss [M], gradient norm before clipping [M])."""
        adapted = self.method.adapted_params(parameters, accumulated)
        gradient, loss, norm = objectives.inner_gradient(
            self.method, adapted, parameters.shared, objectives.without_padding(data), self.objective.inner_grad_clip
        )
        return {name: accumulated[name] + gradient[name] for name in accumulated}, loss, norm

    def _outer_gradient(
        self, parameters: MetaParameters, accumulated: Weights, data: Round, rounds: Sequence[Round]
    ) -> tuple[MetaParameters, OuterTerms]:
        """Gradient of the summed outer loss of the tasks, and its terms per task.

        Args:
            parameters: where to evaluate.
            accumulated: G, frozen since the adaptation; unused when the inner gradients are replayed.
            data: the post-adaptation round.
            rounds: the adaptation's rounds; empty unless the inner gradients are replayed.
        """
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            terms = self._outer_terms(parameters, accumulated, data, rounds)
            total = tf.reduce_sum(terms.total_loss)
        gradient = tape.gradient(total, parameters, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return gradient, terms

    def _outer_terms(
        self, parameters: MetaParameters, accumulated: Weights, data: Round, rounds: Sequence[Round]
    ) -> OuterTerms:
        """The terms alone; arguments as in `_outer_gradient`."""
        second_order = self.objective.second_order
        data, *rounds = (objectives.without_padding(one) for one in (data, *rounds))
        if rounds:
            accumulated = objectives.replayed_adaptation(
                self.method, parameters, rounds, self.objective.inner_grad_clip, second_order
            )
        return objectives.outer_terms(
            self.method, parameters, accumulated, data, self.objective.clip_param, plain=second_order
        )
