"""What the MB-MPO specification's sections 0, 6 and 8 list about every gin file of the family, as tests read it.

Paths such as "real.horizon" lead from the learner to a setting.
"""

LABELS = {
    "mbmpo": "MB-MPO",
    "metrpo": "ME-TRPO",
    "mbmpc": "MB-MPC",
    "trpo": "TRPO",
    "maml_trpo": "MAML",
    "maml_ppo": "MAML",
    "maml_vpg": "MAML",
}
LEARNERS = {
    "mbmpo": "MBMPOLearner",
    "metrpo": "METRPOLearner",
    "mbmpc": "MBMPCLearner",
    "trpo": "TRPOLearner",
    "maml": "MAMLLearner",
}
ENVIRONMENTS = ("half_cheetah", "ant", "walker2d", "swimmer", "hopper", "pr2_reach")
COMPARED = ("mbmpo", "metrpo", "mbmpc", "trpo")
COMPARISON = [f"{method}_{environment}" for method in COMPARED for environment in ENVIRONMENTS]
# Seeds and numbers of values in the sweep lines; sections 8.1 and 8.2.
STUDIES = {
    "mbmpo_bad_models": ((23, 43, 53), (3, 2, 2)),
    "metrpo_bad_models": ((22, 33, 55), (3, 2, 2)),
    "mbmpo_fast_lr": ((22, 33, 44, 66, 77), (4,)),
    "mbmpo_meta_steps": ((22, 33, 44, 66, 77), (4,)),
    "mbmpo_num_models": ((22, 33, 44, 66, 77), (4,)),
    "mbmpo_long_horizon": ((23, 43, 53), (2,)),
    "mbmpo_tailored_half_cheetah": ((23, 54, 62), (2,)),
    "mbmpo_tailored_walker2d": ((23, 54, 62), (2,)),
    "trpo_time_half_cheetah": ((1, 11), ()),
    "mbmpo_plasticity_point": ((23, 33), ()),
    "mbmpo_plasticity_point_fake": ((23, 33), (2,)),
    "mbmpo_plasticity_half_cheetah": ((23, 54, 62), ()),
    "mbmpo_ppo_walker2d": ((22, 23, 24), (2, 3, 3)),
    "mbmpo_vpg_half_cheetah": ((22, 33, 12), ()),
    "metrpo_kurutach_half_cheetah": ((12, 22, 44), ()),
    "mbmpc_sweep_half_cheetah": ((22, 33), (2, 2)),
    "maml_trpo_half_cheetah_direction": ((1, 11), (2,)),
    "maml_vpg_half_cheetah_direction": ((1, 11), (2, 3)),
    "maml_ppo_ant_goal": ((1, 10, 100, 1000, 10000), (2,)),
    "maml_trpo_rand_param_walker2d": ((1, 11, 21), (3,)),
    "maml_trpo_rand_param_hopper": ((1, 11, 21), (3,)),
    "maml_trpo_rand_param_half_cheetah": ((1, 11), (3, 2)),
    "maml_ppo_as_vpg_ant_direction": ((1, 10, 100, 1000, 10000), ()),
    "maml_ppo_as_vpg_half_cheetah_direction": ((1, 10, 100, 1000, 10000), ()),
    "maml_ppo_as_vpg_half_cheetah_velocity": ((1, 10, 100, 1000, 10000), ()),
    "maml_ppo_as_vpg_swimmer_velocity": ((1, 10, 100, 1000, 10000), ()),
    "maml_ppo_code_comparison": ((1, 10), (3,)),
    "maml_ppo_parallel_half_cheetah_direction": ((1, 10, 100), (2,)),
    "trpo_rand_param_half_cheetah": ((1, 11, 21, 31, 41), (2,)),
}
OWN = ("mbmpo_point_laptop", "mbmpo_half_cheetah_laptop", "maml_trpo_point_navigation")
CROSSINGS = tuple(f"{method}_tesp_reacher_2link" for method in ("mbmpo", "metrpo", "mbmpc"))
NAMES = [*COMPARISON, *OWN, *CROSSINGS, *(f"studies/{name}" for name in STUDIES)]
SEEDS = {"mbmpo": (22, 33, 12), "metrpo": (12, 22, 44), "mbmpc": (20, 30, 40), "trpo": (1, 11)}

MODELS = {
    "ensemble.num_models": 5,
    "ensemble.hidden_sizes": (512, 512),
    "ensemble.weight_normalization": True,
    "ensemble.learning_rate": 1e-3,
    "ensemble.batch_size": 500,
    "ensemble.valid_split_ratio": 0.2,
    "ensemble.persistency": 0.99,
    "ensemble.normalize_input": True,
    "ensemble.reshuffle_batch_order": False,
    "ensemble.joint": False,
    "fit.reinit_cycle": 0,
}
REAL = {
    "num_tasks": 20,
    "real.rollouts_per_task": 1,
    "real.horizon": 200,
    "real.store_last_transition": False,
    "real.exact_random_steps": False,
    "real.reset_policy_std": False,
}
POLICY = {
    "policy.hidden_sizes": (32, 32),
    "policy.init_std": 1.0,
    "policy.min_std": 1e-6,
    "policy.learn_std": True,
    "policy.std_parametrization": "log",
    "processing.gamma": 0.99,
    "processing.lambda_": 1.0,
    "processing.center": True,
    "processing.positive": False,
}
TRUST_REGION = {
    "meta_update.settings.step_size": 0.01,
    "meta_update.settings.cg_iterations": 10,
    "meta_update.settings.residual_tol": 1e-10,
    "meta_update.settings.backtrack_ratio": 0.8,
    "meta_update.settings.max_backtracks": 15,
    "meta_update.damping": 1e-5,
    "meta_update.entropy_bonus": 0.0,
}
INNER = {
    "adaptation.inner_updates": 1,
    "adaptation.trainable_inner_lr": False,
    "adaptation.first_order": False,
}
META_TRPO = {
    **TRUST_REGION,
    "meta_update": "MetaTRPO",
    "meta_update.hvp": "fd_eps_one",
    "meta_update.constraint": "post_update",
}
TRPO = {**TRUST_REGION, "meta_update": "TRPO", "meta_update.hvp": "exact"}
CANONICAL = {
    "mbmpo": {
        **MODELS, **REAL, **POLICY, **INNER, **META_TRPO,
        "iterations": 100,
        "ensemble": "DynamicsEnsemble",
        "real.initial_random_steps": 5000,
        "real.buffer_capacity": 100_000,
        "real.collect_with": "stale",
        "imagined.rollouts_per_task": 50,
        "imagined.horizon": None,
        "imagined.clip_observation": 1000.0,
        "imagined.reset": "environment",
        "imagined.rows_from": "real_horizon",
        "imagined.inherit_time": True,
        "meta_steps": 30,
        "adaptation.inner_lr": 0.001,
        "fit.max_epochs": (500,),
        "log_real_performance": True,
        "stop_when_reward_decreases": False,
    },
    "metrpo": {
        **MODELS, **REAL, **POLICY, **TRPO,
        "iterations": 100,
        "ensemble": "DynamicsEnsemble",
        "real.initial_random_steps": 4000,
        "real.buffer_capacity": None,
        "fit.max_epochs": (1000,),
        "update_steps": 30,
        "stopping": "none",
        "_random_first": True,
    },
    "mbmpc": {
        **MODELS, **REAL,
        "iterations": 100,
        "ensemble": "DynamicsEnsemble",
        "real.initial_random_steps": 4000,
        "real.buffer_capacity": 300_000,
        "fit.max_epochs": (200,),
        "planner": "RandomShooting",
        "planner.horizon": 10,
        "planner.num_candidates": 1000,
        "planner.discount": 0.99,
    },
    "trpo": {**POLICY, **TRPO, "iterations": 1000, "num_tasks": 250, "rollouts_per_task": 1, "horizon": 200},
    "maml_trpo": {
        **POLICY, **INNER, **META_TRPO, "policy.hidden_sizes": (64, 64),
        "num_tasks": 40, "rollouts_per_task": 20, "horizon": 100, "adaptation.inner_lr": 0.1,
        "copies_per_task": None,
    },
    "maml_vpg": {
        **POLICY, **INNER, "policy.hidden_sizes": (64, 64), "meta_update": "MetaVPG",
        "num_tasks": 40, "rollouts_per_task": 20, "horizon": 100, "adaptation.inner_lr": 0.1,
        "copies_per_task": None,
        "meta_update.learning_rate": 1e-3,
    },
    "maml_ppo": {
        **POLICY, **INNER, "policy.hidden_sizes": (64, 64), "meta_update": "MetaPPO",
        "num_tasks": 40, "rollouts_per_task": 20, "horizon": 100, "adaptation.inner_lr": 0.1,
        "copies_per_task": None,
        "meta_update.learning_rate": 1e-3, "meta_update.clip_eps": 0.2, "meta_update.target_inner_step": 0.01,
        "meta_update.init_inner_kl_penalty": 1e-3, "meta_update.max_epochs": 5, "meta_update.num_batches": 1,
        "meta_update.clip_outer": True, "meta_update.adaptive_kl_penalty": True,
    },
}  # fmt: skip
BAD_MODELS = {
    "iterations": 40, "real.horizon": 100, "real.rollouts_per_task": 2, "real.initial_random_steps": None,
    "real.buffer_capacity": None, "fit.max_epochs": (1000,), "ensemble": "BadDynamicsEnsemble",
    "ensemble.weight_normalization": False, "ensemble.persistency": 0.95, "ensemble.joint": True,
    "ensemble.output_bias_range": (0.0, 0.1), "ensemble.noise_std": 0.1, "ensemble.resample_output_bias": True,
}  # fmt: skip
HYPER = {"iterations": 50, "num_tasks": 10, "real.rollouts_per_task": 2, "real.initial_random_steps": 4000}
AS_VPG = {
    "iterations": 301, "meta_update.learning_rate": 3e-3, "meta_update.max_epochs": 1, "meta_update.clip_outer": False,
    "meta_update.init_inner_kl_penalty": 0.0, "meta_update.init_outer_kl_penalty": 0.0,
    "meta_update.adaptive_kl_penalty": False,
}  # fmt: skip
# What a row of sections 8.1 and 8.2 says other than its method's values, sweeps at their base value.
ROWS = {
    "mbmpo_bad_models": {**BAD_MODELS, "imagined.rollouts_per_task": 30, "adaptation.inner_lr": 0.01},
    "metrpo_bad_models": {**BAD_MODELS, "_random_first": False},
    "mbmpo_fast_lr": HYPER,
    "mbmpo_meta_steps": HYPER,
    "mbmpo_num_models": {
        **HYPER, "num_tasks": 5, "ensemble.num_models": 5, "real.rollouts_per_task": 4,
        "imagined.rollouts_per_task": 40,
    },
    "mbmpo_long_horizon": {
        "iterations": 60, "real.horizon": 1000, "imagined.horizon": 500, "imagined.reset": "buffer",
        "imagined.clip_observation": None, "fit.max_epochs": (1000,),
    },
    "mbmpo_tailored_half_cheetah": {"ensemble.persistency": 0.95},
    "mbmpo_tailored_walker2d": {"ensemble.persistency": 0.95, "ensemble.hidden_sizes": (512, 512, 512)},
    "trpo_time_half_cheetah": {"iterations": 50},
    "mbmpo_plasticity_point": {
        "iterations": 50, "real.horizon": 30, "num_tasks": 40, "real.rollouts_per_task": 10,
        "imagined.rollouts_per_task": 150, "ensemble.hidden_sizes": (128, 128), "ensemble.persistency": 0.95,
    },
    "mbmpo_plasticity_point_fake": {
        "real.horizon": 30, "num_tasks": 40, "real.rollouts_per_task": 50, "imagined.rollouts_per_task": 150,
        "meta_steps": 10, "ensemble": "FakePointEnsemble", "ensemble.output_bias_range": (-0.05, 0.05),
        "ensemble.noise_std": 0.01, "ensemble.mask": "smooth", "ensemble.error_at_goal": False,
        # A fake ensemble has nothing to train.
        "ensemble.hidden_sizes": (1,), "ensemble.learning_rate": 0.0, "ensemble.batch_size": 1,
    },
    "mbmpo_plasticity_half_cheetah": {
        "real.horizon": 100, "real.rollouts_per_task": 50, "meta_steps": 10, "policy.hidden_sizes": (16, 16),
        "ensemble.hidden_sizes": (128, 128), "ensemble.persistency": 0.95,
    },
    "mbmpo_vpg_half_cheetah": {"meta_update": "MetaVPG", "meta_update.learning_rate": 1e-3},
    "mbmpo_ppo_walker2d": {
        "iterations": 500, "meta_steps": 15, "ensemble.hidden_sizes": (512, 512, 512), "ensemble.persistency": 0.95,
        "meta_update": "MetaPPO", "meta_update.max_epochs": 8, "meta_update.num_batches": 1,
        "meta_update.learning_rate": 1e-3, "meta_update.init_inner_kl_penalty": 1e-10, "meta_update.clip_eps": 0.5,
        "meta_update.target_inner_step": 3e-3, "meta_update.adaptive_kl_penalty": True,
        "meta_update.clip_outer": True,
    },
    "metrpo_kurutach_half_cheetah": {"stopping": "validation", "check_every": 5, "improved_share": 0.7},
    "mbmpc_sweep_half_cheetah": {},
    "maml_trpo_half_cheetah_direction": {"iterations": 300, "rollouts_per_task": 50},
    "maml_vpg_half_cheetah_direction": {"iterations": 300, "rollouts_per_task": 50},
    "maml_ppo_ant_goal": {
        "iterations": 901, "horizon": 200, "meta_update.clip_eps": 0.5, "copies_per_task": 1,
    },
    "maml_trpo_rand_param_walker2d": {"iterations": 301, "copies_per_task": 1},
    "maml_trpo_rand_param_hopper": {"iterations": 301, "copies_per_task": 1},
    "maml_trpo_rand_param_half_cheetah": {"iterations": 500, "policy.hidden_sizes": (100, 100)},
    "maml_ppo_as_vpg_ant_direction": {**AS_VPG, "copies_per_task": 1},
    "maml_ppo_as_vpg_half_cheetah_direction": AS_VPG,
    "maml_ppo_as_vpg_half_cheetah_velocity": AS_VPG,
    "maml_ppo_as_vpg_swimmer_velocity": AS_VPG,
    "maml_ppo_code_comparison": {
        "iterations": 300, "adaptation.inner_updates": 2, "meta_update.init_inner_kl_penalty": 1.0,
        "meta_update.max_epochs": 10,
    },
    "maml_ppo_parallel_half_cheetah_direction": {
        "iterations": 51, "meta_update.init_inner_kl_penalty": 1.0, "meta_update.max_epochs": 10,
    },
    "trpo_rand_param_half_cheetah": {"iterations": 500, "num_tasks": 200, "horizon": 100},
}  # fmt: skip
SWEPT = {
    "mbmpo_fast_lr": [("adaptation.inner_lr", (0.01, 0.005, 0.001, 0.0))],
    "mbmpo_meta_steps": [("meta_steps", (5, 15, 30, 60))],
    "mbmpo_num_models": [
        (
            "ensemble.num_models num_tasks real.rollouts_per_task imagined.rollouts_per_task steps_per_round",
            ((1, 1, 20, 100, 4000), (5, 5, 4, 40, 4000), (10, 10, 2, 20, 4000), (20, 20, 1, 10, 4000)),
        )
    ],
    "mbmpo_long_horizon": [("adaptation.inner_lr", (0.001, 0.0))],
    "mbmpo_tailored_half_cheetah": [("real.collect_with", ("stale", "pre"))],
    "mbmpo_tailored_walker2d": [("real.collect_with", ("stale", "pre"))],
    "mbmpo_plasticity_point_fake": [
        ("ensemble.output_bias_range ensemble.noise_std", (((-0.05, 0.05), 0.01), ((-0.01, 0.01), 0.001)))
    ],
    "mbmpo_ppo_walker2d": [
        ("meta_update.clip_eps", (0.5, 0.7)),
        ("meta_update.target_inner_step", (3e-3, 1e-2, 3e-2)),
        ("meta_steps", (5, 15, 25)),
    ],
    "mbmpc_sweep_half_cheetah": [
        ("real.horizon steps_per_round", ((200, 4000), (500, 4000))),
        ("ensemble.num_models", (5, 10)),
    ],
    "maml_trpo_half_cheetah_direction": [("adaptation.inner_lr", (0.1, 0.05))],
    "maml_vpg_half_cheetah_direction": [
        ("adaptation.inner_lr", (0.1, 0.05)),
        ("meta_update.learning_rate", (1e-3, 5e-3, 5e-4)),
    ],
    "maml_ppo_ant_goal": [("meta_update.target_inner_step", (1e-2, 2e-2))],
    "maml_trpo_rand_param_walker2d": [("adaptation.inner_lr", (1e-3, 1e-2, 1e-1))],
    "maml_trpo_rand_param_hopper": [("adaptation.inner_lr", (1e-3, 1e-2, 1e-1))],
    "maml_trpo_rand_param_half_cheetah": [
        ("family.scaling.log_scale_limit", (0.1, 0.3, 0.5)),
        ("adaptation.trainable_inner_lr", (True, False)),
    ],
    "maml_ppo_code_comparison": [("adaptation.inner_lr", (0.1, 0.05, 1.0))],
    "maml_ppo_parallel_half_cheetah_direction": [("_num_threads", (None, 1))],
    "trpo_rand_param_half_cheetah": [("num_tasks", (200, 50))],
}
BAD_SWEEP = [
    ("ensemble.output_bias_range", ((0.0, 0.1), (0.0, 0.5), (0.0, 1.0))),
    ("ensemble.noise_std", (0.0, 0.1)),
    ("ensemble.resample_output_bias", (True, False)),
]
SWEPT |= {"mbmpo_bad_models": BAD_SWEEP, "metrpo_bad_models": BAD_SWEEP}


def method_of(name):
    stem = name.removeprefix("studies/")
    return max((method for method in LABELS if stem.startswith(f"{method}_")), key=len)


def read(experiment, path):
    """A setting by its path from the learner; objects by the names of their classes."""
    if path == "iterations":
        return experiment.iterations
    value = experiment.learner
    for part in path.split("."):
        value = value.scaling._parameters if part == "scaling" else getattr(value, part)
    plain = value is None or isinstance(value, (bool, int, float, str, tuple))
    return value if plain else type(value).__name__


def differences(experiment, expected):
    found = {path: read(experiment, path) for path in expected}
    return {path: (found[path], value) for path, value in expected.items() if found[path] != value}


def of_kind(expected):
    """Leaves out what only the kinds of parts have that a row replaces."""
    if expected.get("meta_update") in ("MetaPPO", "MetaVPG"):
        mine = ("learning_rate", "max_epochs", "num_batches", "target", "init", "adaptive", "clip")
        return {
            path: value
            for path, value in expected.items()
            if not path.startswith("meta_update.") or path.removeprefix("meta_update.").startswith(mine)
        }
    return expected
