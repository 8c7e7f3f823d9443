"""The MuJoCo families against the reference trajectories, and the rules of TESP specification section 5."""

import importlib.resources
import json
import pathlib

import gin
import mujoco
import numpy as np
import pytest

from metarl.experiment.errors import UserError
from tesp import families

REFERENCE = json.loads((pathlib.Path(__file__).parents[1] / "data" / "tesp_env_trajectories.json").read_text())
MUJOCO_FAMILIES = {
    "wheeled": families.Wheeled,
    "ant": families.Ant,
    "reacher_2-link": families.Reacher2Link,
    "reacher_4-link": families.Reacher4Link,
}
ALL_FAMILIES = (*MUJOCO_FAMILIES.values(), families.Point)
GOAL = np.array([0.6, 0.5])


@pytest.fixture(params=MUJOCO_FAMILIES)
def case(request):
    return MUJOCO_FAMILIES[request.param], REFERENCE["trajectories"][request.param]


def reference_actions(t, action_dim):
    return 0.5 * np.sin(0.1 * t + np.arange(action_dim))


def goals_for(simulation, goal=GOAL):
    return np.tile(goal, (simulation.num_copies, 1))


def roll(simulation, action_dim, steps, goal=GOAL):
    """Steps every copy through the reference's actions; yields (step number, outcome)."""
    for t in range(steps):
        actions = np.tile(reference_actions(t, action_dim), (simulation.num_copies, 1))
        yield t + 1, simulation.step(actions, goals_for(simulation, goal))


def assert_five_digits(actual, expected):
    # The reference has 6 digits, so 5e-6 of the tolerance is its own rounding.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=0.0)


def six_digits(values):
    return [float(f"{value:.6g}") for value in np.ravel(values)]


class TestReference:
    def test_sizes(self, case):
        make, reference = case
        family = make()
        model = family.model
        assert (model.nq, model.nv, model.nu) == (reference["nq"], reference["nv"], reference["nu"])
        assert family.observation_dim == reference["obs_dim"]
        assert family.action_dim == reference["nu"]
        assert family.state_dim == reference["nq"] + reference["nv"]

    def test_masses_and_inertias(self, case):
        make, reference = case
        model = make().model
        names = [model.body(i).name or f"body_{i}" for i in range(1, model.nbody)]
        masses = {name: float(f"{mass:.6g}") for name, mass in zip(names, model.body_mass[1:], strict=True)}
        assert masses == reference["body_mass"]
        assert model.body_mass.sum() == pytest.approx(24.0, rel=1e-12)
        for name, inertia in zip(names, model.body_inertia[1:], strict=True):
            assert six_digits(inertia) == six_digits(reference["body_inertia_diag"][name])

    def test_trajectory(self, case):
        make, reference = case
        family = make(ctrl_cost_coeff=1e-3)
        simulation = family.make_simulation(2)
        np.testing.assert_array_equal(simulation.observe(), [reference["reset_obs"]] * 2)
        total, compared = 0.0, []
        for step, outcome in roll(simulation, family.action_dim, 50):
            total += outcome.reward
            assert not outcome.terminated.any()
            expected = reference["steps"].get(str(step))
            if expected is None:
                continue
            compared.append(step)
            for copy in range(2):
                assert_five_digits(simulation.qpos[copy], expected["qpos"])
                assert_five_digits(simulation.qvel[copy], expected["qvel"])
                assert_five_digits(simulation.observe()[copy], expected["obs"])
                assert_five_digits(outcome.info["position"][copy], expected["reward_body_xy"])
                assert_five_digits(outcome.info["dist_reward"][copy], expected["dist_reward"])
                assert_five_digits(outcome.info["ctrl_cost"][copy], expected["ctrl_cost"])
                assert_five_digits(outcome.reward[copy], expected["reward"])
        assert compared == [1, 10, 50]
        assert_five_digits(total, [reference["return_50_steps"]] * 2)

    def test_fresh_kinematics_reads_the_final_pose(self, case):
        make, reference = case
        family = make(fresh_kinematics=True)
        simulation = family.make_simulation(1)
        *_, (_, outcome) = roll(simulation, family.action_dim, 50)
        assert_five_digits(outcome.info["position"][0], reference["body_xy_recomputed_from_final_qpos"])
        assert_five_digits(simulation.qpos[0], reference["steps"]["50"]["qpos"])

    def test_fresh_kinematics_matters_where_the_reference_says_so(self):
        stale = REFERENCE["trajectories"]["wheeled"]
        assert stale["steps"]["50"]["reward_body_xy"] != stale["body_xy_recomputed_from_final_qpos"]

    def test_reacher_observes_the_position_it_is_rewarded_for(self):
        for fresh in (False, True):
            family = families.Reacher2Link(fresh_kinematics=fresh)
            simulation = family.make_simulation(1)
            *_, (_, outcome) = roll(simulation, 2, 30)
            np.testing.assert_array_equal(simulation.observe()[:, -2:], outcome.info["position"])


class TestRewardAndEnd:
    @pytest.mark.parametrize("make", ALL_FAMILIES)
    def test_reward_is_distance_and_control_cost(self, make):
        family = make(ctrl_cost_coeff=0.25, ctrl_cost_scale=1.0)
        simulation = family.make_simulation(3)
        actions = np.random.RandomState(0).randn(3, family.action_dim) * 2.0
        outcome = simulation.step(actions, goals_for(simulation))
        cost = (np.clip(actions, -1.0, 1.0) ** 2).sum(axis=1)
        distance = np.linalg.norm(outcome.info["position"] - GOAL, axis=1)
        np.testing.assert_allclose(outcome.info["ctrl_cost"], cost, rtol=1e-12)
        np.testing.assert_allclose(outcome.info["dist_reward"], -distance, rtol=1e-12)
        np.testing.assert_allclose(outcome.reward, -distance - 0.25 * cost, rtol=1e-12)
        assert set(outcome.info) == set(family.info_keys)

    @pytest.mark.parametrize("make", ALL_FAMILIES)
    def test_actions_act_clipped(self, make):
        family = make()
        simulation = family.make_simulation(2)
        actions = np.array([[3.0] * family.action_dim, [1.0] * family.action_dim], np.float32)
        outcome = simulation.step(actions, goals_for(simulation))
        observation = simulation.observe()
        np.testing.assert_array_equal(observation[0], observation[1])
        assert outcome.reward[0] == outcome.reward[1]
        assert observation.dtype == outcome.reward.dtype == np.float64

    @pytest.mark.parametrize(("name", "threshold"), [("Wheeled", 0.02), ("Reacher2Link", 0.06), ("Reacher4Link", 0.11)])
    def test_arrival_threshold(self, name, threshold):
        family = getattr(families, name)()
        simulation = family.make_simulation(2)
        start = simulation.body_positions[0, 0, :2].copy()
        goals = start + np.array([[0.0, threshold * 0.99], [0.0, threshold * 1.01]])
        outcome = simulation.step(np.zeros((2, family.action_dim)), goals)
        assert outcome.terminated.tolist() == [True, False]
        assert outcome.info["arrived"].tolist() == [1.0, 0.0]

    def test_ant_arrives_within_3_cm(self):
        simulation = families.Ant().make_simulation(2)
        reached = simulation.step(np.zeros((2, 8)), np.zeros((2, 2))).info["position"][0]
        simulation.reset()
        outcome = simulation.step(np.zeros((2, 8)), reached + np.array([[0.0, 0.0299], [0.0, 0.0301]]))
        assert outcome.info["arrived"].tolist() == [1.0, 0.0]

    # It falls by 1.2 cm during the step; on its back, no leg holds it up.
    @pytest.mark.parametrize(
        ("height", "on_its_back", "ends"),
        [(0.47, False, True), (0.45, False, False), (0.157, True, True), (0.17, True, False)],
    )
    def test_ant_is_unhealthy_outside_its_heights(self, height, on_its_back, ends):
        noise = np.zeros((1, 29))
        noise[0, 2] = height - 0.25
        noise[0, 3:5] = [-1.0, 1.0] if on_its_back else 0.0
        results = {}
        for penalty in (0.0, 5.0):
            simulation = families.Ant(unhealthy_penalty=penalty).make_simulation(1)
            simulation.perturb_state(noise)
            results[penalty] = simulation.step(np.zeros((1, 8)), goals_for(simulation))
        plain, penalised = results[0.0], results[5.0]
        assert plain.terminated.tolist() == [ends]
        assert plain.info["unhealthy"].tolist() == [float(ends)]
        assert plain.reward[0] == pytest.approx(plain.info["dist_reward"][0])
        assert plain.reward[0] - penalised.reward[0] == pytest.approx(5.0 if ends else 0.0)

    def test_point(self):
        simulation = families.Point().make_simulation(4)
        goals = np.array([[0.059, -0.041], [0.061, -0.05], [0.05, -0.0601], [1.0, 1.0]])
        outcome = simulation.step(np.tile([7.0, -7.0], (4, 1)), goals)
        np.testing.assert_allclose(simulation.observe(), [[0.05, -0.05]] * 4)
        # Arrival asks for each axis by itself, and there is no control cost.
        assert outcome.terminated.tolist() == [True, False, False, False]
        np.testing.assert_allclose(outcome.reward, -np.linalg.norm([0.05, -0.05] - goals, axis=1))
        simulation.perturb_state(np.full((4, 2), 6.0))
        np.testing.assert_array_equal(simulation.observe()[:, 0], [5.0] * 4)
        assert simulation.step(np.zeros((4, 2)), goals).info["position"][3, 0] == pytest.approx(6.05)
        simulation.reset(np.array([1]))
        assert simulation.state[:, 0].tolist() == pytest.approx([6.05, 0.0, 6.05, 6.05])


class TestCopies:
    @pytest.mark.parametrize("make", ALL_FAMILIES)
    def test_results_do_not_depend_on_the_block(self, make):
        family = make()
        rng = np.random.RandomState(3)
        actions, goals = rng.randn(30, 4, family.action_dim), rng.uniform(-1.0, 1.0, (4, 2))
        block = family.make_simulation(4)
        singles = [family.make_simulation(1) for _ in range(4)]
        for t in range(30):
            together = block.step(actions[t], goals)
            apart = [single.step(actions[t, i : i + 1], goals[i : i + 1]) for i, single in enumerate(singles)]
            np.testing.assert_array_equal(together.reward, np.concatenate([outcome.reward for outcome in apart]))
        np.testing.assert_array_equal(block.observe(), np.concatenate([single.observe() for single in singles]))

    @pytest.mark.parametrize("make", ALL_FAMILIES)
    def test_reset_of_some_copies_repeats_their_trajectory(self, make):
        family = make()
        simulation = family.make_simulation(3)
        first = [outcome.reward for _, outcome in roll(simulation, family.action_dim, 12)]
        simulation.reset(np.array([0, 2]))
        second = [outcome.reward for _, outcome in roll(simulation, family.action_dim, 12)]
        np.testing.assert_array_equal(np.array(second)[:, [0, 2]], np.array(first)[:, [0, 2]])
        assert not np.array_equal(np.array(second)[:, 1], np.array(first)[:, 1])

    @pytest.mark.parametrize("make", ALL_FAMILIES)
    def test_results_stay_the_callers(self, make):
        family = make()
        simulation = family.make_simulation(2)
        (_, outcome), *_ = list(roll(simulation, family.action_dim, 1))
        observation = simulation.observe()
        kept = {name: values.copy() for name, values in outcome.info.items()} | {"observation": observation.copy()}
        list(roll(simulation, family.action_dim, 3))
        simulation.reset()
        for name, values in {**outcome.info, "observation": observation}.items():
            np.testing.assert_array_equal(values, kept[name])

    @pytest.mark.parametrize("make", ALL_FAMILIES)
    def test_wrong_shape_of_actions(self, make):
        simulation = make().make_simulation(2)
        with pytest.raises(ValueError, match="actions must have shape"):
            simulation.step(np.zeros((1, make.action_dim)), goals_for(simulation))


class TestDivergence:
    def diverge(self, family, copies):
        """Returns a simulation of 3 copies whose `copies` are driven to a non-finite state."""
        simulation = family.make_simulation(3)
        list(roll(simulation, family.action_dim, 3))
        noise = np.zeros((3, family.state_dim))
        noise[copies, -1] = 1e200
        with np.errstate(all="ignore"):
            simulation.perturb_state(noise)
        return simulation

    def test_without_an_unhealthy_rule_it_stays_visible(self, capfd, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for make in (families.Wheeled, families.Reacher2Link, families.Reacher4Link):
            family = make()
            simulation = self.diverge(family, [1])
            for _, outcome in roll(simulation, family.action_dim, 3):
                assert np.isfinite(outcome.reward).tolist() == [True, False, True]
                assert not outcome.terminated[1]
            assert np.isnan(simulation.observe()[1]).any()
            assert simulation.diverged.tolist() == [False, True, False]
        assert capfd.readouterr() == ("", "")
        assert list(tmp_path.iterdir()) == []

    def test_ant_ends_unhealthy_with_a_finite_reward(self):
        family = families.Ant()
        simulation = self.diverge(family, [0, 2])
        before = simulation.position.copy()
        for _, outcome in roll(simulation, 8, 2):
            assert outcome.terminated.tolist() == [True, False, True]
            assert outcome.info["unhealthy"].tolist() == [1.0, 0.0, 1.0]
            np.testing.assert_array_equal(outcome.info["position"][[0, 2]], before[[0, 2]])
            expected = -np.linalg.norm(before[0] - GOAL) - 1e-3 * outcome.info["ctrl_cost"][0]
            assert outcome.reward[0] == pytest.approx(expected)
            assert np.isfinite(outcome.reward).all()
        assert not np.isfinite(simulation.observe()[0]).all()

    def test_reset_cleans_everything(self, case):
        family = case[0]()
        simulation = self.diverge(family, [1])
        list(roll(simulation, family.action_dim, 2))
        simulation.reset(np.array([1]))
        assert not simulation.diverged.any()
        again = [outcome.reward[1] for _, outcome in roll(simulation, family.action_dim, 20)]
        fresh = [outcome.reward[0] for _, outcome in roll(family.make_simulation(1), family.action_dim, 20)]
        assert again == fresh


class TestStateNoise:
    def test_ant_state_moves_by_the_noise_and_keeps_a_unit_quaternion(self):
        simulation = families.Ant().make_simulation(2)
        noise = 0.05 * np.random.RandomState(0).randn(2, 29)
        qpos, qvel = simulation.qpos.copy(), simulation.qvel.copy()
        simulation.perturb_state(noise)
        wanted = qpos + noise[:, :15]
        wanted[:, 3:7] /= np.linalg.norm(wanted[:, 3:7], axis=1, keepdims=True)
        np.testing.assert_allclose(simulation.qpos, wanted, rtol=1e-14)
        np.testing.assert_allclose(simulation.qvel, qvel + noise[:, 15:], rtol=1e-14)
        np.testing.assert_array_equal(simulation.observe(), np.hstack([simulation.qpos, simulation.qvel]))
        before = simulation.qpos.copy()
        simulation.step(np.zeros((2, 8)), goals_for(simulation))
        assert np.abs(simulation.qpos[:, :3] - before[:, :3]).max() < 0.1

    def test_reacher_observes_the_perturbed_fingertip(self):
        simulation = families.Reacher2Link().make_simulation(1)
        simulation.perturb_state(np.array([[0.3, 0.0, 0.0, 0.0]]))
        np.testing.assert_allclose(simulation.observe()[0, -2:], 1.7 * np.array([np.cos(0.3), np.sin(0.3)]))

    def test_wrong_shape(self):
        with pytest.raises(ValueError, match="noise must have shape"):
            families.Wheeled().make_simulation(1).perturb_state(np.zeros((1, 6)))


class TestModels:
    def test_nothing_is_said_at_load(self, case, capfd, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        case[0]().make_simulation(1)
        assert capfd.readouterr() == ("", "")
        assert list(tmp_path.iterdir()) == []

    def test_the_check_above_sees_a_deprecation(self, capfd, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        xml = "<mujoco><compiler settotalmass='24'/><worldbody><body><geom size='1'/></body></worldbody></mujoco>"
        mujoco.MjModel.from_xml_string(xml)
        assert capfd.readouterr() != ("", "") or list(tmp_path.iterdir())

    def test_settings_are_explicit(self, case):
        make = case[0]
        text = importlib.resources.files("tesp.families").joinpath("assets", make.model_file).read_text()
        for setting in ("angle=", "integrator=", 'kv="1"', "density=", "<size memory=", 'autoreset="disable"'):
            assert setting in text, setting
        assert "settotalmass" not in text

    def test_memory_is_small_and_enough_for_every_contact(self, case):
        family = case[0]()
        model, data = family.model, mujoco.MjData(family.model)
        assert model.narena + model.nbuffer < 320 * 1024
        used = 0
        for height in np.linspace(-0.45, 0.3, 11):
            mujoco.mj_resetData(model, data)
            if model.nq > 4:
                data.qpos[2] = height
            data.qvel[:] = 5.0
            mujoco.mj_step(model, data)
            used = max(used, data.maxuse_arena)
            assert data.warning[mujoco.mjtWarning.mjWARN_CONTACTFULL].number == 0
            assert data.warning[mujoco.mjtWarning.mjWARN_CNSTRFULL].number == 0
        assert 2 * used < model.narena

    def test_model_is_shared_by_the_simulations_of_a_family(self, case):
        family = case[0]()
        assert family.make_simulation(1).model is family.make_simulation(2).model is family.model


class TestOptions:
    @pytest.mark.parametrize("make", ALL_FAMILIES)
    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("ctrl_cost_coeff", -1e-3),
            ("ctrl_cost_coeff", "abc"),
            ("ctrl_cost_scale", float("nan")),
            ("arrival_threshold", None),
            ("goal_parameters", 3),
        ],
    )
    def test_bad_values_name_the_option(self, make, option, value):
        if option == "goal_parameters":
            value = object()
        with pytest.raises(UserError, match=f"{make.name}.{option}"):
            make(**{option: value})

    def test_flags_and_penalty(self):
        with pytest.raises(UserError, match=r"wheeled\.fresh_kinematics"):
            families.Wheeled(fresh_kinematics=1)
        with pytest.raises(UserError, match=r"ant\.unhealthy_penalty"):
            families.Ant(unhealthy_penalty=-1.0)

    def test_gin_binds_options(self):
        with gin.unlock_config():
            gin.parse_config(
                "tesp.Ant.ctrl_cost_scale = 1.0\n"
                "tesp.Ant.goal_parameters = @tesp.GoalParameters()\n"
                "tesp.GoalParameters.near_radius = 1.2\n"
            )
        try:
            family = families.Ant()
        finally:
            gin.clear_config()
        assert family.ctrl_cost_scale == 1.0
        assert family.goal_parameters.near_radius == 1.2

    @pytest.mark.parametrize("make", ALL_FAMILIES)
    def test_contract(self, make):
        family = make()
        simulation = family.make_simulation(2)
        assert family.ends_early
        assert family.task_dim == 2
        assert family.ctrl_cost_coeff == 1e-3
        assert simulation.observe().shape == (2, family.observation_dim)
        simulation.perturb_state(np.zeros((2, family.state_dim)))
        simulation.select(np.array([1]))
        outcome = simulation.step(np.zeros((2, family.action_dim)), goals_for(simulation))
        assert outcome.reward.shape == outcome.terminated.shape == (2,)
        for name in family.info_keys:
            assert outcome.info[name].shape == ((2, 2) if name == "position" else (2,))
