"""The front door, run directories, checkpoints, metrics and the training loop."""
