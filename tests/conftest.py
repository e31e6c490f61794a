"""Settings that every test runs under; set before anything is traced."""

import os

# Nearly all of the suite's time is compiling programs that run once, on a few numbers. XLA's quick
# code generator and LLVM without optimisation take a quarter of it, for the same arithmetic. Set
# before JAX is imported; a value from outside comes first, so `XLA_FLAGS= make test` runs what
# users run.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)

import hypothesis
import jax

# Gradients are compared at rounding level, which only float64 makes a sharp test.
jax.config.update("jax_enable_x64", True)
# Two devices, so that sharding over them can be tried.
jax.config.update("jax_num_cpu_devices", 2)
# A silent float32 -> float64 (or int -> float) promotion would hide a wrong dtype.
jax.config.update("jax_numpy_dtype_promotion", "strict")

# No deadline: the first example of a shape compiles, the others do not.
hypothesis.settings.register_profile("dev", deadline=None, max_examples=25)
# The same examples each time, so that a red check is the fault of the change.
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("dev"), derandomize=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")
