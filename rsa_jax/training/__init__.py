"""State, optimizer, step, loop, checkpoints, metrics and evaluation."""
