"""TESP and its baselines; importing registers the task families with Gymnasium (`TESP/Wheeled-v0`, ...)."""

from tesp import environments

environments.register()
