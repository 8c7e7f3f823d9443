"""A whole adaptation as the learner runs it, sampling included, against the naive computation in float64.

Everything that a shard does with its sampled rounds (specification, section 3.2, step 3) is computed once more from the
recorded steps: what each round was sampled with, the buffer, the baseline, G, and the outer gradient.
"""

import golden_tools as tools
import naive_fast_adaptation as naive
import numpy as np
import pytest

from metarl.scaling.shard import TaskBatch
from tesp.families.point import Point
from tesp.settings import FastAdaptation, MetaUpdate
from tesp.shard import TespShard

SIZES = naive.Sizes(observation=2, buffer=3, tasks=2)
UPDATES = 3
CASES = {
    **{name: (name, {}) for name in naive.METHODS},
    "last_episodes": ("tesp", {"episode_mode": "last_episodes", "encoder_episode_capacity": 30}),
    "all_episodes": ("tesp", {"episode_mode": "all_episodes", "encoder_episode_capacity": 60}),
    "no warm-up": ("tesp", {"warmup": False}),
    "clipped": ("tesp_adapt_policy", {"inner_grad_clip": 0.3}),
}


def batch_of(steps, task):
    """One task's recorded steps as the naive computation's batch."""
    valid = steps.valid[task]
    last = steps.last[task][valid]
    fields = {"obs": "observation", "actions": "action", "rewards": "reward", "logits": "logits"}
    batch = {name: np.float64(getattr(steps, field)[task][valid]) for name, field in fields.items()}
    return batch | {"eps_id": np.cumsum(last) - last}


def buffer_after(rounds, mode):
    """The buffer of section 3.8 after some rounds, as encoder inputs in order."""
    episodes = [list(zip(naive.episodes_of(b), returns_of(b), strict=True)) for b in rounds]
    if mode == "last_episodes":
        episodes = episodes[-1:]
    found = [pair for one in episodes for pair in one]
    if mode == "episode_buffer":
        found = sorted(found, key=lambda pair: -pair[1])[: SIZES.buffer]
    return [features for features, _ in found]


def returns_of(batch):
    return [np.sum(batch["rewards"][batch["eps_id"] == i]) for i in np.unique(batch["eps_id"])]


@pytest.mark.parametrize("case", CASES)
def test_every_round(case):
    name, settings = CASES[case]
    clip = settings.get("inner_grad_clip", 60.0)
    config = naive.Config(inner_grad_clip=clip, inner_lr_bound=np.inf if name == "maml" else 0.1)
    model = naive.Model(name, SIZES, config)
    variables = model.initial(np.random.default_rng(4))
    arrays = {f"init.{n}": np.float32(x) for n, x in variables.items()}
    arrays |= {f"cfg.{n}": np.float64(x) for n, x in config._asdict().items()}
    method = tools.method_of(arrays)
    parameters = tools.parameters_of(arrays, "init.", method)
    adaptation = FastAdaptation(
        rollouts_per_task=4,
        horizon=8,
        inner_updates=UPDATES,
        buffer_size=SIZES.buffer,
        **settings,
    )
    mode = adaptation.episode_mode
    shard = TespShard(method, Point(arrival_threshold=0.25), adaptation, MetaUpdate(), SIZES.tasks)
    recorded = []
    collect = shard.sampler.collect

    def recording(arguments, *rest, **keywords):
        batch = collect(arguments, *rest, **keywords)
        recorded.append((arguments, batch))
        return batch

    shard.sampler.collect = recording
    goals = np.array([[0.25, -0.2], [-0.4, 0.1]])
    result = shard.collect(parameters, TaskBatch(goals, np.arange(SIZES.tasks)), 3, 0)
    warmups = int(model.has_encoder and adaptation.warmup)
    assert len(recorded) == warmups + UPDATES + 1
    assert [len(r.length) for r in result.rounds] == [len(batch.episodes.length) for _, batch in recorded[warmups:]]
    assert len({len(batch.episodes.length) for _, batch in recorded}) > 1, "no episode ended early"

    outer, terms = shard.evaluate(result.key, parameters, "outer_gradient")
    expected = []
    for task in range(SIZES.tasks):
        batches = [naive.with_advantages(batch_of(batch.steps, task), config) for _, batch in recorded]
        accumulated = {n: np.zeros(shape) for n, shape in model.inner.items()}
        for k, (arguments, _) in enumerate(recorded):
            episodes = buffer_after(batches[:k], mode) if model.has_encoder else []
            weights = model.adapted(variables, accumulated)
            for n in model.inner:
                found = np.asarray(arguments[n][task])
                np.testing.assert_allclose(found, weights[n], rtol=1e-4, atol=1e-5, err_msg=f"round {k} {n}")
            context = model.context(weights, episodes)
            assert ("context" in arguments) == (context is not None)
            if context is not None:
                np.testing.assert_allclose(arguments["context"][task], context, rtol=1e-3, atol=1e-5)
            logits = model.logits(weights, context, batches[k]["obs"])
            np.testing.assert_allclose(batches[k]["logits"], logits, rtol=1e-3, atol=1e-4, err_msg=f"round {k}")
            if warmups <= k < len(recorded) - 1:
                loss, _, norm, gradient = model.inner_gradient(variables, accumulated, batches[k], episodes)
                np.testing.assert_allclose(result.inner_loss[k - warmups, task], loss, rtol=1e-3, atol=1e-4)
                np.testing.assert_allclose(result.inner_grad_norm[k - warmups, task], norm, rtol=1e-3, atol=1e-6)
                accumulated = {n: accumulated[n] + gradient[n] for n in accumulated}
        last = (accumulated, batches[-1], episodes)
        for term, value in model.outer_terms(variables, *last).items():
            np.testing.assert_allclose(getattr(terms, term)[task], value, rtol=1e-3, atol=1e-4, err_msg=term)
        expected.append(model.outer_gradient(variables, *last))
    found = {f"w.{n}": g for part in (outer.inner, outer.shared) for n, g in part.items()}
    found |= {f"alpha.{n}": g for n, g in outer.rates.items()}
    assert set(found) == set(variables)
    for n, gradient in found.items():
        total = sum(one[n] for one in expected)
        np.testing.assert_allclose(gradient, total, rtol=2e-3, atol=2e-3 * np.max(np.abs(total)) + 1e-5, err_msg=n)
