"""State, optimizer, step, loop, checkpoints and the record of a run."""
