"""Settings that every test runs under; set before anything is traced."""

import os

import hypothesis
import jax

# Gradients are compared at rounding level, which only float64 makes a sharp test.
jax.config.update("jax_enable_x64", True)
# A silent float32 -> float64 (or int -> float) promotion would hide a wrong dtype.
jax.config.update("jax_numpy_dtype_promotion", "strict")

# No deadline: the first example of a shape compiles, the others do not.
hypothesis.settings.register_profile("dev", deadline=None, max_examples=25)
# The same examples each time, so that a red check is the fault of the change.
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("dev"), derandomize=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")
