"""Model-predictive control: the first action of the best imagined sequence, planned anew at every step (section 6.2).

Shapes: `m` states, `C` candidate sequences per state, `n` = m C rows, state by state, `H` planning horizon, `E` models,
`O` observation, `A` action.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gin
import numpy as np
import tensorflow as tf

from mbmpo.imagination import Dynamics
from metarl.compiled import Compiled
from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.seeding import keyed_generator
from metarl.simulation.imaginable import ImaginableFamily

Predict = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
Reward = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


class Plan(NamedTuple):
    """What was chosen.

    Attributes:
        action: [m, A], the first action of the plan, in normalised units.
        value: [m], discounted imagined return of the best candidate.
    """

    action: Any
    value: Any


def candidate_values(
    predict: Predict,
    reward: Reward,
    observation: tf.Tensor,
    candidates: tf.Tensor,
    members: tf.Tensor,
    discount: float,
) -> tf.Tensor:
    """Discounted imagined return of every candidate sequence, [m, C] (section 6.2: Σ γ^t r, no termination).

    Args:
        predict: (observation [n, O], action [n, A], member [n] int32) -> next observation [n, O].
        reward: the family's batch reward.
        observation: [m, O], current states.
        candidates: [H, n, A].
        members: [H, n] int32, the model that predicts each row's step.
        discount: γ.
    """
    H, n, _ = candidates.shape
    states = observation.shape[0]
    start = tf.repeat(observation, n // states, axis=0)

    def tick(t: tf.Tensor, o: tf.Tensor, value: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, ...]:
        following = tf.ensure_shape(predict(o, candidates[t], members[t]), o.shape)
        value += weight * reward(o, candidates[t], following)
        return t + 1, following, value, weight * discount

    loop = (tf.constant(0), start, tf.zeros([n], start.dtype), tf.ones([], start.dtype))
    _, _, value, _ = tf.while_loop(lambda t, *_: t < H, tick, loop)
    return tf.reshape(value, [states, n // states])


def best_candidate(value: tf.Tensor) -> tf.Tensor:
    """Index of the best candidate of every state, [m] int32, for values [m, C]: the first among equals, never NaN."""
    comparable = tf.where(tf.math.is_nan(value), tf.constant(-np.inf, value.dtype), value)
    return tf.argmax(comparable, axis=1, output_type=tf.int32)


class _Problem(NamedTuple):
    """A chunk of c states: observation [c, O], what `Planner.draw` drew, and a function that values candidates."""

    observation: tf.Tensor
    drawn: list[tuple[tf.Tensor, tf.Tensor]]
    values: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Planner(abc.ABC):
    """Settings of a planner over imagined candidate sequences.

    Attributes:
        horizon: H.
        num_candidates: C.
        discount: γ of the candidates' values.
        max_rows: rows imagined at once; more states are planned for in turn.
        rounds: how often candidates are valued per plan.
    """

    rounds: int = 1

    def __init__(self, horizon: int, num_candidates: int, discount: float, max_rows: int):
        """Checks and stores."""
        name = type(self).__name__
        self.horizon = checks.integer(f"{name}.horizon", horizon, minimum=1)
        self.num_candidates = checks.integer(f"{name}.num_candidates", num_candidates, minimum=1)
        self.discount = checks.real(f"{name}.discount", discount, minimum=0.0, maximum=1.0)
        self.max_rows = checks.integer(f"{name}.max_rows", max_rows, minimum=1)

    @abc.abstractmethod
    def plan(self, problem: _Problem) -> Plan:
        """Plans for the states of one chunk; TensorFlow code."""

    @abc.abstractmethod
    def _numbers(self, shape: list[int], seed: tf.Tensor) -> tf.Tensor:
        """Random numbers that make candidates."""

    def draw(self, seeds: tf.Tensor, num_models: int, action_dim: int) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Per round random numbers of the candidates [H, c, C, A] and members [H, c C], for seeds [c, 2 rounds, 2]."""
        shape, states = [self.horizon, self.num_candidates], tf.unstack(seeds)
        result = []
        for i in range(self.rounds):
            numbers = [self._numbers([*shape, action_dim], seed[2 * i]) for seed in states]
            members = [tf.random.stateless_uniform(shape, seed[2 * i + 1], 0, num_models, tf.int32) for seed in states]
            result.append((tf.stack(numbers, axis=1), tf.concat(members, axis=1)))
        return result


@gin.configurable(module="mbmpo")
class RandomShooting(Planner):
    """The best of uniformly random sequences (section 6.2, after Nagabandi et al.).

    The prototype controller of the original program is horizon=5, discount=1.0.
    """

    def __init__(
        self,
        *,
        horizon: int = 10,
        num_candidates: int = 1000,
        discount: float = 0.99,
        max_rows: int = 4000,
    ):
        """Checks and stores the settings.

        Args:
            horizon: H.
            num_candidates: C, sequences per state, uniform in the action box [-1, 1].
            discount: γ.
            max_rows: rows imagined at once, at least one state's; it bounds the memory and changes no number.

        Raises:
            UserError: a value of the wrong type or range.
        """
        super().__init__(horizon, num_candidates, discount, max_rows)

    def plan(self, problem: _Problem) -> Plan:
        """See `Planner`."""
        [(candidates, members)] = problem.drawn
        value = problem.values(_as_rows(candidates), members)
        best = best_candidate(value)
        return Plan(tf.gather(candidates[0], best, batch_dims=1), tf.gather(value, best, batch_dims=1))

    def _numbers(self, shape: list[int], seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform(shape, seed, -1.0, 1.0)


@gin.configurable(module="mbmpo")
class CrossEntropyMethod(Planner):
    """Sequences drawn around those that were best so far; beyond the original, which has random shooting only.

    A diagonal Gaussian over sequences, clipped to the action box, is fitted to its best candidates again and again; the
    first action of its final mean is executed.
    """

    def __init__(
        self,
        *,
        horizon: int = 10,
        num_candidates: int = 200,
        discount: float = 0.99,
        iterations: int = 5,
        elite_fraction: float = 0.1,
        initial_std: float = 0.5,
        min_std: float = 0.05,
        max_rows: int = 4000,
    ):
        """Checks and stores the settings; the defaults take as many model steps as random shooting's.

        Args:
            horizon: H.
            num_candidates: C, sequences per state and iteration.
            discount: γ.
            iterations: fits of the Gaussian.
            elite_fraction: share of the candidates that it is fitted to, in (0, 1]; at least one is taken.
            initial_std: standard deviation of the first iteration; its mean is 0.
            min_std: the standard deviation does not fall below.
            max_rows: rows imagined at once, at least one state's.

        Raises:
            UserError: a value of the wrong type or range.
        """
        super().__init__(horizon, num_candidates, discount, max_rows)
        name = type(self).__name__
        self.iterations = checks.integer(f"{name}.iterations", iterations, minimum=1)
        fraction = checks.real(f"{name}.elite_fraction", elite_fraction, minimum=0.0, maximum=1.0)
        if fraction == 0.0:
            raise UserError(f"{name}.elite_fraction must be above 0, got {elite_fraction!r}")
        self.num_elites = max(1, round(fraction * self.num_candidates))
        self.initial_std = checks.real(f"{name}.initial_std", initial_std, minimum=0.0)
        self.min_std = checks.real(f"{name}.min_std", min_std, minimum=0.0)
        self.rounds = self.iterations

    def plan(self, problem: _Problem) -> Plan:
        """See `Planner`."""
        H, states, _, A = problem.drawn[0][0].shape
        mean, std = tf.zeros([H, states, 1, A]), tf.fill([H, states, 1, A], self.initial_std)
        best = tf.zeros([states])
        for normals, members in problem.drawn:
            sequences = tf.clip_by_value(mean + std * normals, -1.0, 1.0)
            value = problem.values(_as_rows(sequences), members)
            value = tf.where(tf.math.is_nan(value), tf.constant(-np.inf), value)
            top, elites = tf.math.top_k(value, self.num_elites)
            chosen = tf.gather(sequences, tf.tile(elites[tf.newaxis], [H, 1, 1]), batch_dims=2)
            mean = tf.reduce_mean(chosen, axis=2, keepdims=True)
            std = tf.maximum(tf.math.reduce_std(chosen, axis=2, keepdims=True), self.min_std)
            best = top[:, 0]
        return Plan(mean[0, :, 0], best)

    def _numbers(self, shape: list[int], seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_normal(shape, seed)


class ModelPredictiveController:
    """Plans for all current states in one compiled call; no termination, no clipping of predictions (section 6.2).

    Args:
        planner: how.
        family: gives the reward.
        ensemble: predicts.
        num_states: m.
        jit_compile: compile with XLA; for batches as large as these it gains nothing.
    """

    def __init__(
        self,
        planner: Planner,
        family: ImaginableFamily,
        ensemble: Dynamics,
        num_states: int,
        jit_compile: bool = False,
    ):
        """Notes the sizes; the first call compiles."""
        self._planner, self._family, self._ensemble = planner, family, ensemble
        self._num_states = num_states
        at_once = min(num_states, max(1, planner.max_rows // planner.num_candidates))
        self._chunks = -(-num_states // at_once)
        # Chunks of equal size: the fewest states that are planned for in vain.
        self._at_once = -(-num_states // self._chunks)
        self._chunk = tf.function(self._plan_chunk, jit_compile=jit_compile, autograph=False)
        self._compiled = Compiled(self._plan)

    @property
    def tracing_count(self) -> int:
        """How often a whole plan has been traced."""
        return self._compiled.experimental_get_tracing_count()

    def plan(
        self,
        effective: Any,
        observation: np.ndarray,
        *,
        seed: int,
        iteration: int,
        phase: str,
        step: int,
        state_indices: Sequence[int] | None = None,
    ) -> Plan:
        """Plans one step ahead of every state.

        Args:
            effective: what the ensemble predicts with.
            observation: [m, O].
            seed: of the experiment.
            iteration: 0-based.
            phase: of the iteration.
            step: number of the control step in the phase.
            state_indices: [m], what keys each state's random numbers beside the others; default 0..m-1.

        Returns:
            Actions [m, A] and values [m], NumPy float32.
        """
        m, draws = self._num_states, 2 * self._planner.rounds
        indices = range(m) if state_indices is None else state_indices
        limit = np.iinfo(np.int32).max
        seeds = np.stack(
            [
                keyed_generator(seed, iteration, f"{phase}/plan_{step}", int(i)).integers(limit, size=(draws, 2))
                for i in indices
            ]
        ).astype(np.int32)
        rows = np.minimum(np.arange(self._chunks * self._at_once), m - 1)
        observation = np.asarray(observation, np.float32)
        plan = self._compiled(effective, observation[rows], seeds[rows])
        return Plan(*(np.asarray(part)[:m] for part in plan))

    def _plan(self, effective: Any, observation: tf.Tensor, seeds: tf.Tensor) -> Plan:
        def one(chunk: list[tf.Tensor]) -> Plan:
            # Random numbers stay outside of XLA, whose generator is another one.
            drawn = self._planner.draw(chunk[1], self._ensemble.num_models, self._family.action_dim)
            return Plan(*self._chunk(effective, chunk[0], drawn))

        if self._chunks == 1:
            return one([observation, seeds])
        by_chunk = [tf.reshape(x, [self._chunks, self._at_once, *x.shape[1:]]) for x in (observation, seeds)]

        shapes = ([self._at_once, self._family.action_dim], [self._at_once])
        signature = Plan(*(tf.TensorSpec(shape, tf.float32) for shape in shapes))
        plans = tf.map_fn(one, by_chunk, fn_output_signature=signature, parallel_iterations=1)
        return Plan(*(tf.reshape(part, [-1, *part.shape[2:]]) for part in plans))

    def _plan_chunk(self, effective: Any, observation: tf.Tensor, drawn: list[tuple[tf.Tensor, tf.Tensor]]) -> Plan:
        def predict(o: tf.Tensor, action: tf.Tensor, member: tf.Tensor) -> tf.Tensor:
            return self._ensemble.predict_random(effective, o, action, member)

        def values(candidates: tf.Tensor, members: tf.Tensor) -> tf.Tensor:
            return candidate_values(
                predict, self._family.reward, observation, candidates, members, self._planner.discount
            )

        return self._planner.plan(_Problem(observation, drawn, values))


def _as_rows(candidates: tf.Tensor) -> tf.Tensor:
    """Joins states and candidates: [H, c, C, A] -> [H, c C, A]."""
    return tf.reshape(candidates, [candidates.shape[0], -1, candidates.shape[-1]])
