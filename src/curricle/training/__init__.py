"""The one training loop, its checkpoints and its ranks. It knows no family; a family gives it a `TrainingTask`."""
