"""Imagined rollouts against a naive executor, and the rules of sections 5.2 and 5.3 one by one."""

import numpy as np
import pytest
import tensorflow as tf
from imagination_tools import CountingEnsemble, CountingFamily, LinearPolicy, naive_rollouts

from mbmpo import imagination_resets
from mbmpo.imagination import Imagination
from mbmpo.transitions import Transitions
from metarl.experiment.errors import UserError

KEY = {"seed": 3, "iteration": 1, "phase": "meta_step_0/pre"}


def imagine(family, *sizes, models=2, buffer=None, std=1.0, key=KEY, **options):
    """(result as arrays, the object)."""
    ensemble = CountingEnsemble(models)
    imagination = Imagination(LinearPolicy(std), family, ensemble, *sizes, **options)
    weights = {"shift": tf.cast(tf.stack(list(imagination.task_indices)), tf.float32)}
    result = imagination.run(weights, ensemble.effective(), buffer=buffer, **key)
    return tf.nest.map_structure(np.asarray, result), imagination


def buffer_of(times, observation):
    times = np.asarray(times, np.int32)
    return Transitions(observation, np.zeros((len(times), 1), np.float32), observation, times)


def row_episodes(steps, task, rows):
    """Episodes (observation [t, 2], time [t]) of each row of a task, read back from the masks."""
    result = []
    for part in np.split(np.arange(steps.valid.shape[1]), rows):
        own, begin = [], 0
        valid = steps.valid[task, part]
        assert not valid[valid.sum() :].any()
        for i in np.flatnonzero(steps.last[task, part]):
            own.append((steps.observation[task, part][begin : i + 1], steps.time[task, part][begin : i + 1]))
            begin = i + 1
        assert begin == valid.sum()
        result.append(own)
    return result


def test_without_early_ends_every_row_finishes_once():
    (steps, mean_return, episodes), imagination = imagine(CountingFamily(spread=5), 4, 3, 6)
    assert imagination.capacity == 18
    assert steps.valid.shape == (4, 18)
    assert steps.valid.all()
    assert (episodes == 3).all()
    np.testing.assert_array_equal(steps.time[0], np.tile(np.arange(6), 3))
    np.testing.assert_array_equal(steps.last[0], np.tile(np.arange(6) == 5, 3))
    starts = imagination_resets.family_resets(CountingFamily(spread=5), 3, [1], task_indices=range(4), **KEY)[:, :, 0]
    for task in range(4):
        for row in range(3):
            # Tasks 0 and 1 live in model 0, tasks 2 and 3 in model 1.
            expected = starts[task, row] + np.arange(6)[:, None] * [1, task // 2 + 1]
            np.testing.assert_allclose(steps.observation[task, 6 * row : 6 * row + 6], expected)
    np.testing.assert_allclose(steps.reward, 1 + steps.action[..., 0], rtol=1e-6)
    np.testing.assert_allclose(mean_return, steps.reward.sum(1) / 3, rtol=1e-5)
    np.testing.assert_array_equal(steps.logits[..., 0], np.broadcast_to(np.arange(4)[:, None], (4, 18)))


def test_actions_are_normal_keyed_and_unclipped():
    (steps, _, _), _ = imagine(CountingFamily(), 2, 50, 40, models=1)
    noise = steps.action[..., 0] - steps.logits[..., 0]
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05
    assert np.abs(steps.action).max() > 3
    assert abs(np.corrcoef(noise)[0, 1]) < 0.06
    again, _ = imagine(CountingFamily(), 2, 50, 40, models=1)
    np.testing.assert_array_equal(again[0].action, steps.action)
    for name, other in {"seed": 4, "iteration": 2, "phase": "other"}.items():
        changed, _ = imagine(CountingFamily(), 2, 50, 40, models=1, key={**KEY, name: other})
        assert (changed[0].action != steps.action).mean() > 0.99


def test_clips_predictions_and_only_them():
    (steps, _, _), _ = imagine(CountingFamily(spread=5), 2, 2, 8, clip_observation=4.5)
    assert steps.observation[..., 0].max() == 4.5
    (steps, _, _), _ = imagine(CountingFamily(spread=5), 2, 2, 8, clip_observation=None)
    assert steps.observation[..., 0].max() > 7


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("resets_per_row", [1, 20])
def test_early_ends_follow_the_naive_executor(jit_compile, resets_per_row):
    family, M, R, H = CountingFamily(end=9, spread=9), 4, 3, 7
    (steps, mean_return, episodes), imagination = imagine(
        family, M, R, H, jit_compile=jit_compile, resets_per_row=resets_per_row
    )
    assert imagination.capacity == R * (2 * H - 1)
    # No row uses a reset twice: blocks of them are drawn until there are enough.
    counts = [1 + resets_per_row, *[resets_per_row] * (40 // resets_per_row)]
    pool = imagination_resets.family_resets(family, R, counts, task_indices=range(M), **KEY)
    pool = pool.reshape(M * R, sum(counts), 2)
    used = [0] * (M * R)

    def reset(row):
        used[row] += 1
        return pool[row, used[row]], 0

    members = [row // (M * R // 2) for row in range(M * R)]
    expected = naive_rollouts(pool[:, 0], members, 9, H, M * R * H, reset)
    for task in range(M):
        got = row_episodes(steps, task, R)
        for row in range(R):
            wanted = expected[task * R + row]
            assert len(got[row]) == len(wanted)
            for (observation, time), reference in zip(got[row], wanted, strict=True):
                np.testing.assert_allclose(observation, reference)
                np.testing.assert_array_equal(time, np.arange(len(reference)))
        assert episodes[task] == sum(map(len, got))
        np.testing.assert_allclose(mean_return[task], steps.reward[task].sum() / episodes[task], rtol=1e-5)
    assert max(used) >= 2
    assert imagination.tracing_count == (1 if max(used) <= resets_per_row else 2)
    invalid = ~steps.valid
    assert invalid.any()
    assert not steps.observation[invalid].any()
    assert not steps.reward[invalid].any()
    assert not steps.action[invalid].any()


def test_per_task_rule_gives_each_task_its_share_however_tasks_are_split():
    family = CountingFamily(end=9, spread=9)
    (whole, _, _), _ = imagine(family, 4, 3, 7, stop_rule="per_task")
    counts = whole.valid.sum(1)
    assert (counts >= 21).all()
    assert (counts < 21 + 3 * 7).all()
    for first, size in ((0, 1), (1, 3), (2, 2)):
        (part, _, _), _ = imagine(family, 4, 3, 7, stop_rule="per_task", first_task=first, shard_size=size)
        for name in whole._fields:
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[first : first + size], err_msg=name)
    with pytest.raises(UserError, match="per_task"):
        imagine(family, 4, 3, 7, shard_size=2)


def test_equal_horizons_start_anywhere_in_the_buffer_at_time_zero():
    buffer = buffer_of(np.arange(300) % 7, np.stack([1000.0 + np.arange(300), np.zeros(300)], 1).astype(np.float32))
    (steps, _, _), imagination = imagine(
        CountingFamily(), 2, 100, 4, buffer=buffer, reset="buffer", clip_observation=None
    )
    assert imagination.capacity == 400
    assert steps.valid.all()
    starts = steps.observation[:, ::4, 0]
    assert starts.min() >= 1000
    assert starts.max() <= 1299
    assert len(np.unique(starts)) > 80
    assert starts.min() < 1030
    assert starts.max() > 1270
    (steps, _, _), _ = imagine(CountingFamily(), 2, 100, 4, buffer=None, reset="buffer")
    assert (steps.observation[:, ::4, 0] == 0).all()


@pytest.mark.parametrize("inherit_time", [True, False])
def test_long_horizon_resets_inherit_the_time_of_recent_observations(inherit_time):
    """Real horizon 20, imagined 10: half the rows, which start again twice as often (O-10)."""
    N, H, M, rollouts = 12_000, 10, 4, 60
    times = np.arange(N) % 20
    observation = np.stack([1000.0 + np.arange(N), np.zeros(N)], 1).astype(np.float32)
    (steps, _, _), imagination = imagine(
        CountingFamily(), M, rollouts, H, 20, reset="buffer", buffer=buffer_of(times, observation),
        inherit_time=inherit_time, clip_observation=None, resets_per_row=3,
    )  # fmt: skip
    rows = rollouts * H // 20
    assert imagination.rows_per_task == rows
    fresh = recent = old = 0
    for task in range(M):
        for row in row_episodes(steps, task, rows):
            for number, (o, time) in enumerate(row):
                np.testing.assert_array_equal(time, np.arange(len(o)))
                if number == 0:
                    old += o[0, 0] < 1000 + 2000
                    assert o[0, 0] >= 1000
                    assert len(o) == H
                elif o[0, 0] == 0:
                    fresh += 1
                    assert len(o) == H
                else:
                    recent += 1
                    index = int(o[0, 0]) - 1000
                    assert index >= N - 10_000
                    assert len(o) == (max(1, H - times[index]) if inherit_time else H)
    finished = steps.valid.sum()
    assert M * rollouts * H <= finished < M * rollouts * H + M * rows * H
    assert old > 0
    assert 0.02 < fresh / (fresh + recent) < 0.2


def test_random_members_change_with_every_row_and_step_and_gather_whole_sweeps():
    """50,000 steps with 100 rows of horizon 200 become 60,000 (section 5.3), here a tenth of it."""
    (steps, _, episodes), imagination = imagine(
        CountingFamily(spread=9), 1, 250, 20, models=5, member="random", clip_observation=None
    )
    assert imagination.rows_per_task == 100
    assert imagination.capacity == 6000
    assert steps.valid.all()
    assert episodes[0] == 300
    rows = steps.observation[0].reshape(100, 3, 20, 2)
    member = np.diff(rows[..., 1], axis=2).astype(int) - 1
    shares = np.bincount(member.ravel(), minlength=5) / member.size
    assert shares.shape == (5,)
    assert np.abs(shares - 0.2).max() < 0.03
    assert (member[:, :, 1:] == member[:, :, :-1]).mean() < 0.25
    assert (member[1:] == member[:-1]).mean() < 0.25
    pool = imagination_resets.family_resets(CountingFamily(spread=9), 100, [3], task_indices=[0], **KEY)
    np.testing.assert_array_equal(rows[:, :, 0], pool[0])


def test_few_requested_steps_make_one_random_row():
    (_, _, _), imagination = imagine(CountingFamily(), 1, 1, 20, models=2, member="random", requested_steps=7)
    assert imagination.rows_per_task == 1
    assert imagination.capacity == 20


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((5, 3, 6), {}, "multiple of the number of models, got 5 tasks and 2 models; the next one is 6"),
        ((4, 1, 5, 20), {}, "imagined rows"),
        ((4, 3, 6), {"member": "rand"}, "random"),
        ((4, 3, 6), {"reset": "bufer"}, "buffer"),
        ((4, 0, 6), {}, "rollouts_per_task"),
    ],
)
def test_refuses_sizes_that_do_not_fit(sizes, options, message):
    with pytest.raises(UserError, match=message):
        imagine(CountingFamily(), *sizes, **options)


def test_is_traced_once():
    ensemble = CountingEnsemble(2)
    imagination = Imagination(LinearPolicy(), CountingFamily(end=5), ensemble, 2, 2, 4, reset="buffer")
    for rows in (0, 10, 10_010):
        buffer = buffer_of(np.zeros(rows), np.zeros((rows, 2), np.float32))
        for phase in ("a", "b"):
            weights = {"shift": tf.zeros(2)}
            imagination.run(weights, ensemble.effective(), seed=0, iteration=0, phase=phase, buffer=buffer)
    assert imagination.tracing_count == 1
