"""The sampler's two ways to call a policy once per tick: a compiled function, or NumPy for a few rows.

Shapes: `M` tasks, `m` task slots of a lane, `R` copies per task, `O` observation, `A` action.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from metarl.compiled import flat_call
from metarl.policies.host import HostPolicy


class Share(NamedTuple):
    """A lane's part of the tasks: `size` of them from `first`; slots beyond repeat the last one."""

    first: int
    size: int


class Sizes(NamedTuple):
    """What a policy is built for."""

    num_tasks: int
    num_slots: int
    rollouts_per_task: int
    observation_dim: int
    action_dim: int


class LanePolicies(Protocol):
    """A policy that a round's arguments can be bound to."""

    def bind(
        self, arguments: Any, shared: Mapping[str, Any] | None, shares: Sequence[Share]
    ) -> list[Callable[[np.ndarray], np.ndarray]]:
        """Returns per lane a function of packed observations and normals, [m, R, O + A] -> [m, R, 3A]."""


class NumpyPolicy:
    """A policy of NumPy arrays; a call into TensorFlow costs more than the arithmetic of a few rows."""

    def __init__(
        self,
        host_act: Callable[[Any], HostPolicy],
        sizes: Sizes,
        arguments: Any,
        shared: Mapping[str, Any] | None,
    ):
        """Notes the arguments' shapes, which stay the same in all rounds.

        Args:
            host_act: a lane's arguments as arrays [m, ...] -> the policy of one round.
            sizes: M, m, R, O, A.
            arguments: the first round's arguments, [M, ...].
            shared: the first round's shared arguments.
        """
        self._host_act, self._sizes = host_act, sizes
        self._specs = _Specs(arguments, shared, sizes.num_tasks)

    def bind(
        self, arguments: Any, shared: Mapping[str, Any] | None, shares: Sequence[Share]
    ) -> list[Callable[[np.ndarray], np.ndarray]]:
        """See `LanePolicies`; the weights are prepared here, once per round."""
        self._specs.check(arguments, shared)
        arguments = tf.nest.map_structure(np.asarray, arguments)
        shared = tf.nest.map_structure(np.asarray, shared) if shared is not None else None
        return [self._caller(arguments, shared, share) for share in shares]

    def _caller(
        self, arguments: Any, shared: Mapping[str, Any] | None, share: Share
    ) -> Callable[[np.ndarray], np.ndarray]:
        rows = _rows(share, self._sizes.num_slots)
        mine = tf.nest.map_structure(lambda leaf: leaf[rows], arguments)
        policy = self._host_act(mine if shared is None else {**mine, **shared})
        observed = self._sizes.observation_dim
        return lambda packed: policy(packed[..., :observed], packed[..., observed:])


class CompiledPolicy:
    """The policy as one compiled function of flat tensors, made for being called very often with small inputs."""

    def __init__(
        self,
        act: Callable[[Any, tf.Tensor, tf.Tensor], tf.Tensor],
        jit_compile: bool,
        sizes: Sizes,
        arguments: Any,
        shared: Mapping[str, Any] | None,
    ):
        """Traces and compiles `act`; arguments as in `NumpyPolicy`."""
        m, A, observed = sizes.num_slots, sizes.action_dim, sizes.observation_dim
        self._sizes = sizes
        self._input_shape = (m, sizes.rollouts_per_task, observed + A)
        self._specs = _Specs(arguments, shared, sizes.num_tasks)
        num_arguments = len(self._specs.split)
        expected = (m, sizes.rollouts_per_task, 3 * A)

        def packed_act(*flat: tf.Tensor) -> tf.Tensor:
            leaves, packed = flat[:-1], flat[-1]
            structured = tf.nest.pack_sequence_as(arguments, leaves[:num_arguments])
            if shared is not None:
                structured = {**structured, **tf.nest.pack_sequence_as(shared, leaves[num_arguments:])}
            output = tf.convert_to_tensor(act(structured, packed[..., :observed], packed[..., observed:]))
            if output.shape != expected or output.dtype != tf.float32:
                raise ValueError(f"act must return float32 {expected}, got {output.dtype.name} {output.shape}")
            return output

        signature = [tf.TensorSpec((m, *shape[1:]), dtype) for shape, dtype in self._specs.split]
        signature += [tf.TensorSpec(shape, dtype) for shape, dtype in self._specs.shared]
        signature += [tf.TensorSpec(self._input_shape, tf.float32)]
        function = tf.function(packed_act, jit_compile=jit_compile, autograph=False)
        self._concrete = function.get_concrete_function(*signature)

    def bind(
        self, arguments: Any, shared: Mapping[str, Any] | None, shares: Sequence[Share]
    ) -> list[Callable[[np.ndarray], np.ndarray]]:
        """See `LanePolicies`."""
        self._specs.check(arguments, shared)
        leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(arguments)]
        shared_leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(shared)] if shared is not None else []
        return [self._caller([self._part(leaf, share) for leaf in leaves] + shared_leaves) for share in shares]

    def _part(self, leaf: tf.Tensor, share: Share) -> tf.Tensor:
        if share.size == self._sizes.num_tasks == self._sizes.num_slots:
            return leaf
        if share.size == self._sizes.num_slots:
            return leaf[share.first : share.first + share.size]
        return tf.gather(leaf, _rows(share, self._sizes.num_slots))

    def _caller(self, leaves: list[tf.Tensor]) -> Callable[[np.ndarray], np.ndarray]:
        call_concrete, from_dlpack = flat_call(self._concrete), tf.experimental.dlpack.from_dlpack
        # DLPack shares the buffer with TensorFlow, a tenth of the cost of a conversion; the result is read before the
        # buffer is written again.
        shared_input = _aligned_zeros(self._input_shape)

        def call(packed: np.ndarray) -> np.ndarray:
            shared_input[...] = packed
            return call_concrete([*leaves, from_dlpack(shared_input.__dlpack__())]).numpy()

        return call


def _aligned_zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Returns float32 zeros that begin at a multiple of 64 bytes, which TensorFlow insists on for memory it is lent."""
    size = int(np.prod(shape)) * 4
    buffer = np.zeros(size + 64, np.uint8)
    begin = -buffer.ctypes.data % 64
    return buffer[begin : begin + size].view(np.float32).reshape(shape)


class _Specs:
    """Shapes and types of the arguments, the same in every round: `split` [M, ...] over the lanes, and `shared`."""

    def __init__(self, arguments: Any, shared: Mapping[str, Any] | None, num_tasks: int):
        self.split, self.shared = _leaf_specs(arguments), _leaf_specs(shared)
        for shape, _ in self.split:
            if shape[:1] != (num_tasks,):
                raise ValueError(f"every act argument needs a leading axis of {num_tasks} tasks, got shape {shape}")

    def check(self, arguments: Any, shared: Mapping[str, Any] | None) -> None:
        split, together = _leaf_specs(arguments), _leaf_specs(shared)
        if split != self.split or together != self.shared:
            raise ValueError(f"act arguments changed from {self.split + self.shared} to {split + together}")


def _leaf_specs(nest: Any) -> list[tuple[tuple[int, ...], tf.DType]]:
    if nest is None:
        return []
    return [(tuple(leaf.shape), tf.as_dtype(leaf.dtype)) for leaf in tf.nest.flatten(nest)]


def _rows(share: Share, num_slots: int) -> np.ndarray:
    """Returns the tasks [m] of a lane's slots."""
    return share.first + np.minimum(np.arange(num_slots), share.size - 1)
