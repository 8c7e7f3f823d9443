"""TESP specification, sections 1 and 10: variables, adaptation, first- and second-order derivatives, rate bound."""

import numpy as np
import pytest
import tensorflow as tf

from metarl.experiment.errors import UserError
from metarl.optim.adam import adam_init
from metarl.optim.ppo import best_iterate_loop, masked_mean
from metarl.sampling.steps import Steps
from tesp import objectives
from tesp.computation import Computation, Objective
from tesp.methods import MAESN, MAML, TESP, EncoderInput, MetaParameters, MetaSGD, TESPAdaptivePolicy
from tesp.objectives import Round

O, A, M, S, B, H = 3, 2, 2, 9, 3, 4  # noqa: E741
SMALL = {"hidden_sizes": (5, 4)}
CONTEXT = {"embedding_dim": 3, "embedding_coeff": 0.1}
METHODS = {
    "MAML": lambda: MAML(**SMALL, inner_lr=0.05),
    "MetaSGD": lambda: MetaSGD(**SMALL, inner_lr=0.05),
    "MAESN": lambda: MAESN(**SMALL, **CONTEXT, inner_lr=0.05),
    "TESP": lambda: TESP(**SMALL, **CONTEXT, gru_units=4, inner_lr=0.05),
    "TESPAdaptivePolicy": lambda: TESPAdaptivePolicy(**SMALL, **CONTEXT, gru_units=4, inner_lr=0.05),
}
OBJECTIVE = Objective(gamma=0.99, lambda_=0.97, inner_grad_clip=60.0, clip_param=0.15)


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]()


def random_parameters(method, seed=0, dtype=tf.float32):
    """Meta-parameters away from their initialisers (whose output layer is nearly zero)."""
    rng = np.random.default_rng(seed)
    initial = method.initial_parameters(0, O, A)
    noisy = tf.nest.map_structure(lambda x: tf.constant(rng.normal(0, 0.4, x.shape), dtype), initial)
    rates = {name: tf.constant(rng.uniform(-0.09, 0.09, x.shape), dtype) for name, x in initial.rates.items()}
    return noisy._replace(rates=rates)


def random_round(method, seed=0, dtype=tf.float32):
    rng = np.random.default_rng(100 + seed)
    count = [S, S - 3]
    valid = np.arange(S) < np.array(count)[:, None]
    last = np.zeros((M, S), bool)
    for task, n in enumerate(count):
        last[task, [2, n - 1]] = True
    normal = lambda *shape: tf.constant(rng.normal(size=shape), dtype)  # noqa: E731
    steps = Steps(
        observation=normal(M, S, O),
        action=normal(M, S, A),
        reward=normal(M, S),
        logits=0.3 * normal(M, S, 2 * A),
        time=tf.zeros((M, S), tf.int32),
        valid=tf.constant(valid),
        last=tf.constant(last),
    )
    episodes = None
    if method.uses_encoder:
        lengths = tf.constant([[4, 2, 0], [3, 4, 1]], tf.int32)
        episodes = EncoderInput(normal(M, B, H, method.feature_dim(O, A)), lengths)
    return Round(steps, normal(M, S), episodes)


def random_accumulated(method, parameters, seed=0):
    rng = np.random.default_rng(200 + seed)
    return {n: tf.constant(rng.normal(size=(M, *x.shape)), x.dtype) for n, x in parameters.inner.items()}


def test_partition_of_variables():
    names = {key: tuple(set(part) for part in make().initial_parameters(0, O, A)) for key, make in METHODS.items()}
    policy = {f"mlp{i}.{kind}" for i in range(3) for kind in ("kernel", "bias")}
    encoder = {"gru.kernel", "gru.recurrent_kernel", "gru.bias", "proj.kernel", "proj.bias"}
    assert names["MAML"] == (policy, set(), set())
    assert names["MetaSGD"] == (policy, set(), policy)
    assert names["MAESN"] == ({"z"}, policy, {"z"})
    assert names["TESP"] == (encoder, policy, encoder)
    assert names["TESPAdaptivePolicy"] == (encoder | policy, set(), encoder | policy)


@pytest.mark.parametrize(
    ("env", "sizes", "encoder", "with_context", "without"),
    [
        ("wheeled", (9, 2, (256, 256), 8), 210_184, 71_428, 69_380),
        ("ant", (29, 8, (512, 512), 32), 240_928, 302_608, 286_224),
        ("reacher_2-link", (8, 2, (256, 256), 8), 209_416, 71_172, 69_124),
        ("reacher_4-link", (14, 4, (512, 512), 16), 219_152, 282_632, 274_440),
    ],
)
def test_parameter_counts(env, sizes, encoder, with_context, without):
    observation, action, hidden, dim = sizes
    count = lambda weights: sum(int(np.prod(x.shape)) for x in weights.values())  # noqa: E731
    tesp = TESP(hidden_sizes=hidden, embedding_dim=dim, embedding_coeff=0.0).initial_parameters(1, observation, action)
    maml = MAML(hidden_sizes=hidden).initial_parameters(1, observation, action)
    assert (count(tesp.inner), count(tesp.shared), count(maml.inner)) == (encoder, with_context, without)
    np.testing.assert_allclose(np.linalg.norm(tesp.shared["mlp0.kernel"], axis=0), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(tesp.shared["mlp2.kernel"], axis=0), 0.01, rtol=1e-5)
    assert not np.any(tesp.shared["mlp1.bias"])


def test_latent_vector_has_norm_one_hundredth():
    z = METHODS["MAESN"]().initial_parameters(3, O, A).inner["z"]
    np.testing.assert_allclose(np.linalg.norm(z), 0.01, rtol=1e-5)


def test_seeds_give_different_networks():
    first, same, other = (METHODS["TESP"]().initial_parameters(seed, O, A) for seed in (1, 1, 2))
    for a, b, c in zip(*map(tf.nest.flatten, (first, same, other)), strict=True):
        np.testing.assert_array_equal(a, b)
        if np.ptp(a.numpy()) > 0:
            assert not np.array_equal(a, c)


def test_accumulated_gradient_equals_sequential_sgd(method):
    parameters = random_parameters(method)
    rounds = [random_round(method, seed) for seed in range(3)]
    compute = Computation(method, OBJECTIVE, H)
    accumulated = {n: tf.zeros((M, *x.shape)) for n, x in parameters.inner.items()}
    rates = method.effective_rates(parameters)
    sequential = {n: tf.tile(x[tf.newaxis], [M] + [1] * x.shape.rank) for n, x in parameters.inner.items()}
    for data in rounds:
        gradient, _, _ = objectives.inner_gradient(method, sequential, parameters.shared, data, 60.0)
        sequential = {n: x - rates[n] * gradient[n] for n, x in sequential.items()}
        accumulated, _, _ = compute.inner_step(parameters, accumulated, data)
    for name, value in method.adapted_params(parameters, accumulated).items():
        np.testing.assert_allclose(value, sequential[name], rtol=1e-4, atol=1e-5)


def test_tasks_do_not_mix(method):
    """The gradients of a batch are those of each task alone."""
    parameters, data = random_parameters(method), random_round(method)
    adapted = method.adapted_params(parameters, random_accumulated(method, parameters))
    both, loss, norm = objectives.inner_gradient(method, adapted, parameters.shared, data, 0.5)
    for task in range(M):
        one = lambda x, task=task: None if x is None else x[task : task + 1]  # noqa: E731
        alone = objectives.inner_gradient(
            method, tf.nest.map_structure(one, adapted), parameters.shared, tf.nest.map_structure(one, data), 0.5
        )
        for name, value in alone[0].items():
            np.testing.assert_allclose(both[name][task], value[0], rtol=2e-4, atol=1e-6)
        np.testing.assert_allclose([loss[task], norm[task]], [alone[1][0], alone[2][0]], rtol=1e-5)


def test_clipped_gradient_has_the_limit_as_norm(method):
    parameters, data = random_parameters(method), random_round(method)
    adapted = method.adapted_params(parameters, random_accumulated(method, parameters))
    free, _, norm = objectives.inner_gradient(method, adapted, parameters.shared, data, 1e9)
    limit = 0.5 * float(tf.reduce_min(norm))
    clipped, _, _ = objectives.inner_gradient(method, adapted, parameters.shared, data, limit)
    squares = sum(np.sum(np.square(g.numpy()).reshape(M, -1), axis=1) for g in clipped.values())
    np.testing.assert_allclose(np.sqrt(squares), limit, rtol=1e-4)
    for name, gradient in free.items():
        scale = tf.reshape(limit / norm, [-1] + [1] * (gradient.shape.rank - 1))
        np.testing.assert_allclose(clipped[name], gradient * scale, rtol=1e-4, atol=1e-7)


def test_padding_has_no_influence(method):
    parameters, data = random_parameters(method), random_round(method)
    accumulated = random_accumulated(method, parameters)
    compute = Computation(method, OBJECTIVE, H)
    gradient, terms = compute.outer_gradient(parameters, accumulated, data, ())
    padded = ~np.asarray(data.steps.valid)
    poison = lambda x, value: tf.where(padded.reshape(M, S, *[1] * (x.shape.rank - 2)), tf.cast(value, x.dtype), x)  # noqa: E731
    steps = data.steps._replace(observation=poison(data.steps.observation, 3.0), action=poison(data.steps.action, -2.0))
    poisoned, poisoned_terms = compute.outer_gradient(parameters, accumulated, data._replace(steps=steps), ())
    np.testing.assert_allclose(terms.total_loss, poisoned_terms.total_loss, rtol=1e-5)
    for a, b in zip(tf.nest.flatten(gradient), tf.nest.flatten(poisoned), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_rate_gradient_is_first_order_and_zero_outside_the_bound():
    """dL/dalpha = -(dL/dtheta') G inside and on the bound, 0 outside (section 3.4)."""
    method = METHODS["MetaSGD"]()
    parameters = random_parameters(method)
    kernel = parameters.rates["mlp0.kernel"].numpy()
    kernel[0] = [0.1, -0.1, 0.100001, -0.2, 0.05]
    parameters.rates["mlp0.kernel"] = tf.constant(kernel)
    data, accumulated = random_round(method), random_accumulated(method, parameters)
    gradient, _ = Computation(method, OBJECTIVE, H).outer_gradient(parameters, accumulated, data, ())
    adapted = method.adapted_params(parameters, accumulated)
    with tf.GradientTape() as tape:
        tape.watch(adapted)
        logits = method.logits(adapted, data.steps.observation, None)
        log_ratio = objectives.gaussian.log_prob(logits, data.steps.action) - objectives.gaussian.log_prob(
            data.steps.logits, data.steps.action
        )
        surrogate = objectives.clipped_surrogate(log_ratio, data.advantage, 0.15)
        loss = -tf.reduce_sum(masked_mean(surrogate, data.steps.valid))
    by_adapted = tape.gradient(loss, adapted)
    for name, direct in by_adapted.items():
        inside = np.abs(parameters.rates[name].numpy()) <= np.float32(0.1)
        expected = -np.sum((direct * accumulated[name]).numpy(), axis=0) * inside
        np.testing.assert_allclose(gradient.rates[name], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(gradient.inner[name], tf.reduce_sum(direct, axis=0), rtol=1e-4, atol=1e-6)
    outside = np.abs(kernel) > np.float32(0.1)
    assert outside.sum() == 2
    assert not np.any(gradient.rates["mlp0.kernel"].numpy()[outside])
    assert np.all(gradient.rates["mlp0.kernel"].numpy()[0, :2] != 0)


def test_without_adaptation_the_outer_gradient_is_plain_ppo():
    method = METHODS["MetaSGD"]()
    parameters = random_parameters(method)
    parameters = parameters._replace(rates=tf.nest.map_structure(tf.zeros_like, parameters.rates))
    data = random_round(method)
    compute = Computation(method, OBJECTIVE, H)
    with_g, _ = compute.outer_gradient(parameters, random_accumulated(method, parameters), data, ())
    no_g = {n: tf.zeros((M, *x.shape)) for n, x in parameters.inner.items()}
    without, _ = compute.outer_gradient(parameters, no_g, data, ())
    for name in parameters.inner:
        np.testing.assert_allclose(with_g.inner[name], without.inner[name], rtol=1e-6)
        assert not np.any(without.rates[name])


class TestReplay:
    """The options `replay_inner` and `second_order` (D5)."""

    def loss(self, method, parameters, rounds, data, second_order=True):
        accumulated = objectives.replayed_adaptation(method, parameters, rounds, 60.0, second_order)
        terms = objectives.outer_terms(method, parameters, accumulated, data, 0.15, plain=second_order)
        return tf.reduce_sum(terms.total_loss)

    def test_replay_at_the_starting_point_equals_the_frozen_gradient(self, method):
        parameters = random_parameters(method)
        rounds = tuple(random_round(method, seed) for seed in range(2))
        data = random_round(method, 7)
        compute = Computation(method, OBJECTIVE, H)
        accumulated = {n: tf.zeros((M, *x.shape)) for n, x in parameters.inner.items()}
        for one in rounds:
            accumulated, _, _ = compute.inner_step(parameters, accumulated, one)
        frozen, frozen_terms = compute.outer_gradient(parameters, accumulated, data, ())
        replaying = Computation(method, OBJECTIVE._replace(replay_inner=True), H)
        replayed, terms = replaying.outer_gradient(parameters, accumulated, data, rounds)
        np.testing.assert_allclose(terms.total_loss, frozen_terms.total_loss, rtol=1e-5, atol=1e-6)
        for a, b in zip(tf.nest.flatten(frozen), tf.nest.flatten(replayed), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)

    def test_second_order_by_finite_differences(self, method):
        """The gradient along random directions against central differences, in float64."""
        method.inner_lr_bound = None
        parameters = random_parameters(method, dtype=tf.float64)
        rounds = [random_round(method, seed, tf.float64) for seed in range(2)]
        data = random_round(method, 7, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            loss = self.loss(method, parameters, rounds, data)
        gradient = tape.gradient(loss, parameters, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        rng = np.random.default_rng(5)
        for _ in range(3):
            direction = tf.nest.map_structure(lambda x: tf.constant(rng.normal(size=x.shape)), parameters)
            step = 1e-6
            shifted = [
                tf.nest.map_structure(lambda x, d, shift=sign * step: x + shift * d, parameters, direction)
                for sign in (1, -1)
            ]
            numeric = (self.loss(method, shifted[0], rounds, data) - self.loss(method, shifted[1], rounds, data)) / (
                2 * step
            )
            analytic = sum(
                tf.reduce_sum(g * d) for g, d in zip(tf.nest.flatten(gradient), tf.nest.flatten(direction), strict=True)
            )
            np.testing.assert_allclose(analytic, numeric, rtol=1e-5)

    def test_second_order_differs_from_first_order(self, method):
        parameters = random_parameters(method)
        rounds = tuple(random_round(method, seed) for seed in range(2))
        data = random_round(method, 7)
        unused = random_accumulated(method, parameters)
        first, _ = Computation(method, OBJECTIVE._replace(replay_inner=True), H).outer_gradient(
            parameters, unused, data, rounds
        )
        second, _ = Computation(method, OBJECTIVE._replace(replay_inner=True, second_order=True), H).outer_gradient(
            parameters, unused, data, rounds
        )
        differences = [float(tf.reduce_max(tf.abs(first.inner[n] - second.inner[n]))) for n in parameters.inner]
        assert max(differences) > 1e-4


class TestOuterLoop:
    """Section 3.5: selection, persistent moments, and the first evaluation."""

    def run(self, method, rollback=False, limit=0.01, without_gradient=False):
        parameters, data = random_parameters(method), random_round(method)
        compute = Computation(method, OBJECTIVE, H)
        accumulated = random_accumulated(method, parameters)
        adapted, context = compute.prepare(parameters, accumulated, data.episodes)
        recorded = method.logits({**parameters.shared, **adapted}, data.steps.observation, context)
        data = data._replace(steps=data.steps._replace(logits=recorded))
        visited = []

        def evaluate(current):
            gradient, terms = compute.outer_gradient(current, accumulated, data, ())
            visited.append(current)
            return gradient, {name: float(np.mean(value)) for name, value in terms._asdict().items()}

        def evaluate_last(current):
            assert len(visited) == 19
            return evaluate(current)[1]

        best = best_iterate_loop(
            evaluate,
            parameters,
            adam_init(parameters),
            num_evaluations=20,
            learning_rate=3e-3,
            kl_limit=limit,
            num_tasks=1,
            rollback_adam=rollback,
            evaluate_last=evaluate_last if without_gradient else None,
        )
        return best, visited, data

    def test_first_evaluation_and_selection(self, method):
        best, visited, data = self.run(method)
        assert abs(best.history[0]["kl"]) < 1e-6
        np.testing.assert_allclose(
            best.history[0]["policy_loss"],
            -np.mean(masked_mean(data.advantage, data.steps.valid)),
            rtol=1e-5,
            atol=1e-6,
        )
        assert len(visited) == 20
        assert best.adam.step == 19
        for a, b in zip(tf.nest.flatten(best.parameters), tf.nest.flatten(visited[best.selected]), strict=True):
            np.testing.assert_array_equal(a, b)
        candidates = [i for i, info in enumerate(best.history) if info["kl"] < 0.01]
        assert best.selected == min(candidates, key=lambda i: best.history[i]["policy_loss"])

    def test_the_last_evaluation_may_be_another_function(self):
        best, visited, _ = self.run(METHODS["MAML"](), without_gradient=True)
        other, _, _ = self.run(METHODS["MAML"]())
        assert len(visited) == 20
        assert best.history == other.history
        assert (best.selected, best.adam.step) == (other.selected, 19)

    def test_rolled_back_adam_is_the_selected_iterates(self):
        best, _, _ = self.run(METHODS["MAML"](), rollback=True)
        assert best.selected < 19
        assert best.adam.step == best.selected

    def test_no_candidate_leaves_the_parameters(self):
        best, visited, _ = self.run(METHODS["MAML"](), limit=-1.0)
        assert best.selected == 0
        assert best.adam.step == 19
        for a, b in zip(tf.nest.flatten(best.parameters), tf.nest.flatten(visited[0]), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MAML(**SMALL, adaptive_inner_lr=True), "MetaSGD"),
        (lambda: MetaSGD(**SMALL, adaptive_inner_lr=False), "MAML"),
        (lambda: MAESN(**SMALL, **CONTEXT, adaptive_inner_lr=False), "MAESN.adaptive_inner_lr"),
        (lambda: MAML(**SMALL, inner_lr=-0.1), "MAML.inner_lr must be at least 0"),
        (lambda: MAML(hidden_sizes=(8, 0)), "MAML.hidden_sizes"),
        (lambda: TESP(**SMALL, **CONTEXT, encoder_action_feature="actions"), "did you mean 'action'"),
    ],
)
def test_bad_settings_are_one_line(make, words):
    with pytest.raises(UserError) as error:
        make()
    # gin appends a line of its own that names the configurable; the front door shows the first one.
    assert words in str(error.value).splitlines()[0]


def test_tesp_accepts_constant_rates():
    method = TESP(**SMALL, **CONTEXT, gru_units=4, adaptive_inner_lr=False)
    assert method.initial_parameters(0, O, A).rates == {}
    assert isinstance(method.initial_parameters(0, O, A), MetaParameters)
