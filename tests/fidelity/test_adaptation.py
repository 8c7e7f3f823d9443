"""The whole adaptation and meta-update against numbers of the original program, for whichever method a file is of."""

import re

import golden_tools as tools
import numpy as np
import pytest
import tensorflow as tf

from metarl.optim.adam import adam_init
from metarl.optim.ppo import best_iterate_loop
from metarl.policies import gaussian
from tesp.computation import Computation, Objective
from tesp.episode_buffer import Episode, EpisodeBuffer

# Of the largest entry of an array: what two float32 programs that sum in other orders can differ by.
GRADIENT_ROUNDING = 3e-6


@pytest.fixture(scope="module")
def golden(adaptation_golden):
    return adaptation_golden


@pytest.fixture(scope="module")
def method(golden):
    return tools.method_of(golden)


@pytest.fixture(scope="module")
def initial(golden, method):
    return tools.parameters_of(golden, "init.", method)


def computation_of(golden, method, replay_inner=False, second_order=False):
    objective = Objective(
        gamma=float(golden["cfg.gamma"]),
        lambda_=float(golden["cfg.lam"]),
        inner_grad_clip=float(golden["cfg.inner_grad_clip"]),
        clip_param=float(golden["cfg.clip_param"]),
        replay_inner=replay_inner,
        second_order=second_order,
    )
    longest = max(len(value) for name, value in golden.items() if name.endswith(".rewards"))
    return Computation(method, objective, max_length=longest)


@pytest.fixture(scope="module")
def computation(golden, method):
    return computation_of(golden, method)


def by_file_name(parameters):
    """Parameters, or gradients like them, by the names of the files."""
    found = {f"w.{n}": x for part in (parameters.inner, parameters.shared) for n, x in part.items()}
    return found | {f"alpha.{n}": x for n, x in parameters.rates.items()}


@pytest.fixture(scope="module")
def static(golden):
    data = tools.round_of(
        golden, [tools.group(golden, "static.batch.")], tools.encoder_input_of(golden, ["static.buffer"])
    )
    accumulated = tools.accumulated_of(golden, ["static.G."])
    return data, accumulated


class TestStatic:
    """One evaluation with an arbitrary accumulated gradient, buffer and recorded distribution."""

    @staticmethod
    def assert_mean(actual, expected, advantage, err_msg=""):
        """A mean of terms in proportion to the advantages, which may nearly cancel."""
        atol = 1e-6 * np.max(np.abs(advantage))
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=atol, err_msg=err_msg)

    def test_forward(self, golden, method, initial, computation, static):
        data, accumulated = static
        n = len(golden["static.logp"])
        adapted, context = computation.prepare(initial, accumulated, data.episodes)
        for name, expected in tools.group(golden, "static.adapted.w.").items():
            tools.assert_close(adapted[name][0], expected, err_msg=name)
        if "static.h" in golden:
            tools.assert_close(context, golden["static.h"])
        logits = method.logits({**initial.shared, **adapted}, data.steps.observation, context)
        tools.assert_close(logits[0, :n], golden["static.logits_new"])
        logp = gaussian.log_prob(logits, data.steps.action)
        tools.assert_close(logp[0, :n], golden["static.logp"])
        old = gaussian.log_prob(data.steps.logits, data.steps.action)
        tools.assert_close(tf.exp(logp - old)[0, :n], golden["static.ratio"])
        tools.assert_close(gaussian.kl_divergence(data.steps.logits, logits)[0, :n], golden["static.kl_per_step"])

    def test_empty_buffer(self, golden, method, initial, computation, static):
        if not method.uses_encoder:
            assert "static.emptybuffer.obs" not in golden
            return
        data, accumulated = static
        empty = data.episodes._replace(lengths=tf.zeros_like(data.episodes.lengths))
        adapted, context = computation.prepare(initial, accumulated, empty)
        np.testing.assert_array_equal(context, np.zeros_like(context))
        observation = tf.constant(golden["static.emptybuffer.obs"])[tf.newaxis]
        logits = method.logits({**initial.shared, **adapted}, observation, context)
        tools.assert_close(logits[0], golden["static.emptybuffer.logits"])

    @pytest.mark.parametrize("case", ["plain", "clipped"])
    def test_inner_gradient(self, golden, initial, computation, static, case):
        data, accumulated = static
        prefix, norm = "static.", "static.inner_grad_norm"
        if case == "clipped":
            prefix, norm = "static.clipcase.", "static.clipcase.norm_before"
            data = data._replace(advantage=data.advantage * float(golden["static.clipcase.advantage_scale"]))
        total, loss, before = computation.inner_step(initial, accumulated, data)
        self.assert_mean(loss[0], golden[f"{prefix}inner_loss"], data.advantage)
        tools.assert_close(before[0], golden[norm])
        for name, expected in tools.group(golden, f"{prefix}inner_grad.w.").items():
            # G + g - G loses digits, so the comparison is on the scale of G + g.
            scale = max(np.max(np.abs(expected)), np.max(np.abs(accumulated[name])))
            actual = (total[name] - accumulated[name])[0]
            np.testing.assert_allclose(
                np.asarray(actual).reshape(expected.shape),
                expected,
                rtol=1e-4,
                atol=GRADIENT_ROUNDING * scale,
                err_msg=name,
            )

    def test_outer_gradient(self, golden, initial, computation, static):
        data, accumulated = static
        gradient, terms = computation.outer_gradient(initial, accumulated, data, ())
        for name in ("policy_loss", "kl", "model_loss", "total_loss"):
            self.assert_mean(getattr(terms, name)[0], golden[f"static.outer.{name}"], data.advantage, name)
        found = by_file_name(gradient)
        expected = tools.group(golden, "static.outer_grad.")
        assert set(found) == set(expected)
        for name, value in expected.items():
            tools.assert_close(found[name], value, atol_of_largest=GRADIENT_ROUNDING, err_msg=name)


class TestAdaptation:
    """Every task from warm-up to the accumulated gradient, all tasks in one batch."""

    def test_inner_gradients_buffer_and_embedding(self, golden, method, initial, computation):
        tasks, fast_updates = tools.task_names(golden, "t"), tools.fast_updates_of(golden)
        assert tasks
        assert fast_updates > 0
        accumulated = {name: tf.zeros([len(tasks), *value.shape]) for name, value in initial.inner.items()}
        buffer = EpisodeBuffer(len(tasks), "episode_buffer", int(golden["cfg.buffer_size"]))
        encoder_input = None

        def extend(batches, suffix):
            for i, task in enumerate(tasks):
                buffer.extend(i, [Episode(*episode) for episode in tools.split_episodes(batches[i])])
                self.check_buffer(golden, buffer, i, f"{task}.{suffix}")

        def check_recorded(batches, context):
            """The recorded distributions are those of the policy that sampled the batch."""
            adapted, _ = computation.prepare(initial, accumulated, encoder_input)
            observation = tf.constant(tools.steps_of(batches, tools.capacity_of(golden)).observation)
            logits = method.logits({**initial.shared, **adapted}, observation, context)
            for i, batch in enumerate(batches):
                tools.assert_close(logits[i, : len(batch["logits"])], batch["logits"])

        if method.uses_encoder:
            warmup = [tools.group(golden, f"{task}.W.") for task in tasks]
            encoder_input = self.padded(golden, buffer, initial)
            _, context = computation.prepare(initial, accumulated, encoder_input)
            np.testing.assert_array_equal(context, np.zeros_like(context))
            check_recorded(warmup, context)
            extend(warmup, "buffer0")
        for k in range(fast_updates):
            if method.uses_encoder:
                encoder_input = self.padded(golden, buffer, initial)
            _, context = computation.prepare(initial, accumulated, encoder_input)
            batches = [tools.group(golden, f"{task}.D{k}.") for task in tasks]
            check_recorded(batches, context)
            data = tools.round_of(golden, batches, encoder_input)
            for i, task in enumerate(tasks):
                if f"{task}.h{k}" in golden:
                    tools.assert_close(context[i], golden[f"{task}.h{k}"].reshape(-1))
            total, loss, _ = computation.inner_step(initial, accumulated, data)
            for i, task in enumerate(tasks):
                TestStatic.assert_mean(loss[i], golden[f"{task}.inner_loss{k}"], data.advantage[i])
                for name, expected in tools.group(golden, f"{task}.g{k}.w.").items():
                    scale = max(np.max(np.abs(expected)), np.max(np.abs(accumulated[name][i])))
                    actual = np.asarray(total[name] - accumulated[name])[i].reshape(expected.shape)
                    np.testing.assert_allclose(
                        actual, expected, rtol=1e-4, atol=GRADIENT_ROUNDING * scale, err_msg=name
                    )
            if method.uses_encoder:
                extend(batches, f"buffer{k + 1}")
            accumulated = total
        for i, task in enumerate(tasks):
            for name, expected in tools.group(golden, f"{task}.G.w.").items():
                tools.assert_close(accumulated[name][i], expected, atol_of_largest=GRADIENT_ROUNDING, err_msg=name)
        if method.uses_encoder:
            _, context = computation.prepare(initial, accumulated, self.padded(golden, buffer, initial))
            for i, task in enumerate(tasks):
                tools.assert_close(context[i], golden[f"{task}.h{fast_updates}"].reshape(-1))

    @staticmethod
    def padded(golden, buffer, initial):
        width = initial.inner["gru.kernel"].shape[0]
        return tf.nest.map_structure(tf.constant, buffer.padded(*tools.room_of(golden), width))

    @staticmethod
    def stored(golden, task):
        """Every episode of a task's batches by id: its features, for telling buffered episodes apart."""
        batches = [tools.group(golden, name) for name in tools.batch_prefixes(golden, task)]
        return {
            int(batch["eps_id"][start]): features
            for batch in batches
            for start, features in tools.episode_starts(batch)
        }

    def check_buffer(self, golden, buffer, task, prefix):
        """The episodes' ids, in order, and their contents."""
        name = prefix.partition(".")[0]
        ids = golden[f"{prefix}.eps_id"]
        expected = ids[np.concatenate([[True], ids[1:] != ids[:-1]])].tolist()
        known = self.stored(golden, name)
        found = [
            next(i for i, features in known.items() if np.array_equal(features, episode.features))
            for episode in buffer.episodes(task)
        ]
        assert found == expected

    def test_recorded_logits_are_the_policys(self, golden, method, initial, computation):
        tasks, last = tools.task_names(golden, "t"), f"buffer{tools.fast_updates_of(golden)}"
        batches = [tools.group(golden, f"{task}.P.") for task in tasks]
        data = tools.round_of(golden, batches, tools.encoder_input_of(golden, [f"{task}.{last}" for task in tasks]))
        accumulated = tools.accumulated_of(golden, [f"{task}.G." for task in tasks])
        adapted, context = computation.prepare(initial, accumulated, data.episodes)
        logits = method.logits({**initial.shared, **adapted}, data.steps.observation, context)
        for i, batch in enumerate(batches):
            tools.assert_close(logits[i, : len(batch["rewards"])], batch["logits"])

    def test_advantages(self, golden, computation):
        prefixes = [
            prefix
            for task in tools.task_names(golden, "t")
            for prefix in [*tools.batch_prefixes(golden, task), f"{task}.P."]
        ]
        batches = [tools.group(golden, prefix) for prefix in prefixes]
        steps = tools.steps_of(batches, tools.capacity_of(golden))
        advantages = computation.advantages(tf.nest.map_structure(tf.constant, steps))
        for i, batch in enumerate(batches):
            # A few short episodes are fitted almost exactly: advantages are small differences of returns.
            atol = 1e-6 * np.max(np.abs(batch["returns"]))
            found = advantages[i, : len(batch["rewards"])]
            np.testing.assert_allclose(found, batch["advantages"], rtol=1e-4, atol=atol)


class TestOuterLoops:
    """Two consecutive outer loops that share Adam's moments."""

    def run(self, golden, computation, name, tasks, buffer_name, parameters, adam):
        """One loop on the frozen sets of `tasks`; returns what it leaves and what every evaluation saw."""
        data = tools.round_of(
            golden,
            [tools.group(golden, f"{task}.P.") for task in tasks],
            tools.encoder_input_of(golden, [f"{task}.{buffer_name}" for task in tasks]),
        )
        accumulated = tools.accumulated_of(golden, [f"{task}.G." for task in tasks])
        visited = []

        def evaluate(parameters):
            gradient, terms = computation.outer_gradient(parameters, accumulated, data, ())
            mean = tf.nest.map_structure(lambda x: x / len(tasks), gradient)
            visited.append((parameters, mean, terms))
            return gradient, {term: float(np.mean(value)) for term, value in terms._asdict().items()}

        best = best_iterate_loop(
            evaluate,
            parameters,
            adam,
            num_evaluations=int(golden["cfg.n_evals"]),
            learning_rate=float(golden["cfg.outer_lr"]),
            kl_limit=float(golden["cfg.kl_limit"]),
            num_tasks=len(tasks),
        )
        assert len(visited) == int(golden["cfg.n_evals"])
        return best, visited

    def check(self, golden, method, name, best, visited, leeway):
        """Compares everything that the file holds of a loop."""
        left = {}
        for i, (parameters, gradient, terms) in enumerate(visited):
            if any(key.startswith(f"{name}.weights{i}.") for key in golden):
                self.check_weights(golden, f"{name}.weights{i}.", method, parameters, leeway.allowed)
            gradient = by_file_name(gradient)
            # What weights that are off by their leeway change in a task's loss.
            moved = np.sqrt(sum(np.sum(np.square(x * leeway.allowed.get(n, 0.0))) for n, x in gradient.items()))
            if i == best.selected:
                left = dict(leeway.allowed)
            if i < len(visited) - 1:
                leeway.step(gradient)
            for term, values in tools.group(golden, f"{name}.per_task.").items():
                if term not in terms._fields:
                    continue
                atol = 1e-6 * max(1.0, np.max(np.abs(values))) + moved * values.shape[1]
                np.testing.assert_allclose(
                    getattr(terms, term), values[i], rtol=1e-4, atol=atol, err_msg=f"{name} {term} {i}"
                )
        assert best.selected == int(golden.get(f"{name}.selected", best.selected))
        for term, expected in tools.group(golden, f"{name}.selected_info.").items():
            if term in best.info:
                np.testing.assert_allclose(best.info[term], expected, rtol=1e-4, atol=1e-6, err_msg=f"{name} {term}")
        self.check_weights(golden, f"{name}.weights_after.", method, best.parameters, left)
        leeway.allowed = left

    def test_both_loops(self, golden, method, initial, computation):
        leeway = Leeway(float(golden["cfg.outer_lr"]))
        last = f"buffer{tools.fast_updates_of(golden)}"
        tasks = tools.task_names(golden, "t")
        first, visited = self.run(golden, computation, "outer1", tasks, last, initial, adam_init(initial))
        assert golden["outer1.per_task.kl"].shape == (len(visited), len(tasks))
        gradient = by_file_name(visited[0][1])
        for name, expected in tools.group(golden, "outer1.mean_grad0.").items():
            tools.assert_close(gradient[name], expected, atol_of_largest=GRADIENT_ROUNDING, err_msg=name)
        self.check(golden, method, "outer1", first, visited, leeway)

        tasks = tools.task_names(golden, "u")
        second, visited = self.run(golden, computation, "outer2", tasks, "buffer", first.parameters, first.adam)
        assert any(re.match(r"outer2\.weights\d", key) for key in golden)
        self.check(golden, method, "outer2", second, visited, leeway)
        steps = 2 * (len(visited) - 1)
        assert second.adam.step == steps == int(golden.get("adam_steps_total", steps))

    @staticmethod
    def check_weights(golden, prefix, method, parameters, allowed):
        found = by_file_name(parameters)
        for name, expected in by_file_name(tools.parameters_of(golden, prefix, method)).items():
            difference = np.abs(np.asarray(found[name]) - expected)
            limit = 5e-6 + 1e-4 * np.abs(expected) + allowed.get(name, 0.0)
            worst = np.unravel_index(np.argmax(difference - limit), difference.shape)
            assert (difference <= limit).all(), f"{prefix}{name}{list(map(int, worst))} is off by {difference[worst]}"


class Leeway:
    """How far rounding alone may move each weight: Adam divides a gradient by its own size, however small that is.

    A gradient may differ by GRADIENT_ROUNDING of its array's largest entry, or by 1e-7 of the largest of all. Where it
    is that small itself, a step is anything within the learning rate. Exact zeros, those of rates beyond the bound,
    leave none.
    """

    def __init__(self, learning_rate):
        self.learning_rate, self.steps = learning_rate, 0
        self.allowed, self.squares = {}, {}

    def step(self, gradients):
        self.steps += 1
        largest = max(np.max(np.abs(gradient)) for gradient in gradients.values())
        for name, gradient in gradients.items():
            self.squares[name] = self.squares.get(name, 0.0) + np.square(np.float64(gradient))
            size = np.sqrt(self.squares[name] / self.steps)
            rounding = max(GRADIENT_ROUNDING * np.max(np.abs(gradient)), 1e-7 * largest)
            share = np.where(size > 0, np.minimum(2.0, rounding / np.maximum(size, 1e-30)), 0.0)
            self.allowed[name] = self.allowed.get(name, 0.0) + self.learning_rate * share
