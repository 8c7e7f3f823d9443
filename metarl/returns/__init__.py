"""Returns, advantages and the linear feature baseline, batched over tasks."""
