"""The floor that both ports stand on: simulation, networks, sampling, optimisation, experiments."""
