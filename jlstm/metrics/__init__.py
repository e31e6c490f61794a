"""What a model is worth: measures and baselines, in NumPy."""
