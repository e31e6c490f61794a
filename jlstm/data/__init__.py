"""Data as NumPy arrays: texts cut into batches, and the simple models that a network must beat."""
