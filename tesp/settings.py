"""The settings of a TESP-family experiment, each checked where it is made (TESP specification, section 7)."""

import copy
import math

import gin

from metarl.experiment import checks
from metarl.experiment.errors import UserError
from tesp.episode_buffer import EPISODE_MODES

_ENCODER_DEFAULTS = {"episode_mode": "episode_buffer", "warmup": True}


@gin.configurable(module="tesp")
class FastAdaptation:
    """How a task is sampled and adapted (sections 3.2, 3.3, 3.6 to 3.8 and 4).

    Args:
        rollouts_per_task: R, copies of the environment per task; a round takes complete episodes until R*H steps.
        horizon: H, control steps after which an episode is cut.
        inner_updates: K, fast-updates per task; 0 for none.
        inner_grad_clip: largest global norm of an inner gradient.
        gamma: discount.
        lambda_: of the generalised advantages.
        episode_mode: what the task encoder reads: the best episodes so far ("episode_buffer"), those of the latest
            round ("last_episodes") or all ("all_episodes").
        buffer_size: episodes kept per task in mode "episode_buffer".
        encoder_episode_capacity: episodes per task that the compiled encoder has room for; more are an error. Default:
            the buffer's size, or twice what complete rounds of full length give in the other modes.
        warmup: methods with an encoder sample one round before the first fast-update, to have something to encode
            (D12); without, the embedding is zero in the first round.
        num_threads: simulation threads; default: the cores this process may use.
    """

    def __init__(
        self,
        *,
        rollouts_per_task: int = 25,
        horizon: int = 200,
        inner_updates: int = 3,
        inner_grad_clip: float = 60.0,
        gamma: float = 0.99,
        lambda_: float = 0.97,
        episode_mode: str = "episode_buffer",
        buffer_size: int = 16,
        encoder_episode_capacity: int | None = None,
        warmup: bool = True,
        num_threads: int | None = None,
    ):
        name = "FastAdaptation"
        self.rollouts_per_task = checks.integer(f"{name}.rollouts_per_task", rollouts_per_task, minimum=1)
        self.horizon = checks.integer(f"{name}.horizon", horizon, minimum=1)
        self.inner_updates = checks.integer(f"{name}.inner_updates", inner_updates, minimum=0)
        self.inner_grad_clip = checks.positive(f"{name}.inner_grad_clip", inner_grad_clip)
        self.gamma = checks.real(f"{name}.gamma", gamma, minimum=0.0, maximum=1.0)
        self.lambda_ = checks.real(f"{name}.lambda_", lambda_, minimum=0.0, maximum=1.0)
        self.episode_mode = checks.choice(f"{name}.episode_mode", episode_mode, EPISODE_MODES)
        self.buffer_size = checks.integer(f"{name}.buffer_size", buffer_size, minimum=1)
        self.warmup = checks.flag(f"{name}.warmup", warmup)
        self.num_threads = (
            None if num_threads is None else checks.integer(f"{name}.num_threads", num_threads, minimum=1)
        )
        if encoder_episode_capacity is None:
            self.encoder_episode_capacity = self._default_capacity()
        else:
            self.encoder_episode_capacity = checks.integer(
                f"{name}.encoder_episode_capacity", encoder_episode_capacity, minimum=self._least_capacity()
            )

    def resized(self, *, rollouts_per_task: int | None = None, inner_updates: int | None = None) -> "FastAdaptation":
        """Returns these settings with other numbers of copies and fast-updates, and room for the encoder to match.

        Args:
            rollouts_per_task: R; default: as it is.
            inner_updates: K; default: as it is.
        """
        other = copy.copy(self)
        if rollouts_per_task is not None:
            other.rollouts_per_task = checks.integer("rollouts_per_task", rollouts_per_task, minimum=1)
        if inner_updates is not None:
            other.inner_updates = checks.integer("inner_updates", inner_updates, minimum=0)
        growth = max(1.0, other._default_capacity() / self._default_capacity())
        other.encoder_episode_capacity = math.ceil(growth * self.encoder_episode_capacity)
        return other

    def require_effect(self, method: str) -> None:
        """Refuses changes of what is sampled for the encoder, for a method without one.

        Raises:
            UserError: there is one.
        """
        for name, default in _ENCODER_DEFAULTS.items():
            value = getattr(self, name)
            if value != default:
                raise UserError(f"FastAdaptation.{name} = {value!r} has no effect with {method}: it has no encoder")

    def _least_capacity(self) -> int:
        """The fewest episodes that the encoder is certain to read: a round has at least one of every copy."""
        if self.episode_mode == "episode_buffer":
            return self.buffer_size
        rounds = self.inner_updates + self.warmup
        return max(1, self.rollouts_per_task * (min(rounds, 1) if self.episode_mode == "last_episodes" else rounds))

    def _default_capacity(self) -> int:
        return {
            "episode_buffer": self.buffer_size,
            "last_episodes": 2 * self.rollouts_per_task,
            "all_episodes": 2 * self.rollouts_per_task * (self.inner_updates + 1),
        }[self.episode_mode]


@gin.configurable(module="tesp")
class MetaUpdate:
    """How the meta-parameters are trained on the post-adaptation data (sections 3.4 and 3.5).

    Args:
        outer_lr: Adam's learning rate.
        num_evaluations: n: evaluations of the outer loss, with n - 1 Adam steps between them.
        clip_param: PPO's epsilon.
        kl_limit: largest mean KL(old || new) of a selectable iterate, exclusive.
        replay_inner: recompute the inner gradients at every evaluation instead of keeping them frozen (D5).
        second_order: differentiate through the recomputed inner gradients; implies replay_inner (D5).
        rollback_adam: Adam's state goes back to the selected iterate's (D13).
    """

    def __init__(
        self,
        *,
        outer_lr: float = 3e-4,
        num_evaluations: int = 20,
        clip_param: float = 0.15,
        kl_limit: float = 0.01,
        replay_inner: bool = False,
        second_order: bool = False,
        rollback_adam: bool = False,
    ):
        name = "MetaUpdate"
        self.outer_lr = checks.real(f"{name}.outer_lr", outer_lr, minimum=0.0)
        self.num_evaluations = checks.integer(f"{name}.num_evaluations", num_evaluations, minimum=1)
        self.clip_param = checks.positive(f"{name}.clip_param", clip_param)
        self.kl_limit = checks.positive(f"{name}.kl_limit", kl_limit)
        self.second_order = checks.flag(f"{name}.second_order", second_order)
        self.replay_inner = checks.flag(f"{name}.replay_inner", replay_inner) or self.second_order
        self.rollback_adam = checks.flag(f"{name}.rollback_adam", rollback_adam)
