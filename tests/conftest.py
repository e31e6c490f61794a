"""Settings that every test runs under; set before anything is traced."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import jax
import pytest

# Nearly all of the suite's time is compiling programs that run once, on a few numbers. XLA's quick
# code generator and LLVM without optimisation take a quarter of it, for the same arithmetic. Set
# before JAX is used; a value from outside comes first, so `XLA_FLAGS= make test` runs what users
# run. XLA ends the process at a flag that it does not know, and its versions differ in what they
# know: flags with which another process does not start are left out.
QUICK = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false")


def accepted(*flags: str) -> bool:
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags)}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0


if "XLA_FLAGS" not in os.environ:  # workers have it from the process that started them
    flags = QUICK if accepted(*QUICK) else [flag for flag in QUICK if accepted(flag)]
    os.environ["XLA_FLAGS"] = " ".join(flags)

# The same program is compiled once for all tests, workers and runs.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache/jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# Gradients are compared at rounding level, which only float64 makes a sharp test.
jax.config.update("jax_enable_x64", True)
# Two devices, so that sharding over them can be tried.
jax.config.update("jax_num_cpu_devices", 2)
# A silent float32 -> float64 (or int -> float) promotion would hide a wrong dtype.
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.hookimpl(tryfirst=True)  # before the slow ones are sorted out
def pytest_collection_modifyitems(items):
    """Of a test marked ``grid(n)``, every n-th case goes with every change, the others are slow."""
    cases = Counter()
    for item in items:
        grid = item.get_closest_marker("grid")
        if grid is not None and cases[item.function] % grid.args[0]:
            item.add_marker(pytest.mark.slow)
        cases[item.function] += 1


# No deadline: the first example of a shape compiles, the others do not.
hypothesis.settings.register_profile("dev", deadline=None, max_examples=25)
# The same examples each time, so that a red check is the fault of the change.
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("dev"), derandomize=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


# The tests of the library's core: what a user calls in a program of their own.
CORE = {
    "activations", "devices", "equations", "golden", "kernels", "layers", "local", "sequence",
    "slstm", "streaming", "variants",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def ranks_that_fit(request):
    """The core has to run where arrays of different ranks are an error; models need not."""
    in_core = request.path.stem.removeprefix("test_").removesuffix("_random") in CORE
    with jax.numpy_rank_promotion("raise" if in_core else "allow"):
        yield


@pytest.fixture
def two_devices():
    """For what is cut over two devices: a GPU is one, whatever is said about the CPU."""
    if len(jax.devices()) < 2:
        pytest.skip("two devices are needed")


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keras on JAX; the environment, which it reads on import and never again, is put back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "jax")
        # Where it would otherwise write its settings into the user's home.
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        keras = pytest.importorskip("keras", reason="the extra `oracles` is not installed")
    if keras.backend.backend() != "jax":
        pytest.skip(f"Keras was imported before, for {keras.backend.backend()}")
    return keras
