"""Training: batches, the loop, checkpoints, curves."""
