"""Builds the native kernel, ``jlstm/kernels/libnative.so``, where there is a C++ compiler.

``pip install`` comes here through hatchling and makes a wheel for this platform, or the pure one if
no kernel can be built. ``make`` runs this file, which builds in place. ``JLSTM_NATIVE=0`` asks for
no kernel, ``JLSTM_NATIVE=1`` for an error where it cannot be built.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = Path(__file__).resolve().parent / "jlstm" / "kernels"
LIBRARY = KERNELS / "libnative.so"
# XLA fails on a function compiled with newer headers than its own, so they are those of the oldest
# JAX supported, or others of the same version. A Python they were not made for gets the pure wheel.
HEADERS = "jaxlib==0.10.0; python_version < '3.15'"
NEWEST_API = 3

# walk.cc is compiled once for each of these; the library takes the best that a machine has.
AVX512 = "-mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma"
LEVELS = {
    "x86_64": {"baseline": "", "avx2": "-mavx2 -mfma", "avx512": AVX512},
    "aarch64": {"baseline": ""},
}
COMPILE = "-c -std=c++17 -O3 -ffp-contract=fast -fno-math-errno -fPIC -fvisibility=hidden"
WARN = "-Wall -Wextra -Wno-psabi"
LINK = "-shared -Wl,-s -Wl,--gc-sections"
STATIC = "-static-libgcc -static-libstdc++"  # so that it needs nothing but libc and libm
EXPORTS = "{ global: jlstm_*; local: *; };"


class NotBuiltError(Exception):
    """Why there is no native kernel."""


def wanted() -> str:
    """What JLSTM_NATIVE says: 0, 1, or nothing.

    Raises:
        ValueError: it says anything else, which the library would not take, either.
    """
    said = os.environ.get("JLSTM_NATIVE", "")
    if said not in ("", "0", "1"):
        raise ValueError(f"JLSTM_NATIVE: expected 0 or 1, got {said!r}")
    return said


def compiler() -> list[str]:
    """The command of the C++ compiler: $CXX, or what is found.

    Raises:
        NotBuiltError: there is none, or the kernel is not wanted, or not for this platform.
    """
    if wanted() == "0":
        raise NotBuiltError("JLSTM_NATIVE=0")
    if sys.platform != "linux" or platform.machine() not in LEVELS:
        raise NotBuiltError(f"not written for {sys.platform} on {platform.machine()}")
    found = [name for name in ("c++", "g++", "clang++") if shutil.which(name)][:1]
    if named := shlex.split(os.environ.get("CXX", "")):
        if not shutil.which(named[0]):
            raise NotBuiltError(f"there is no {named[0]}, which CXX names")
        found = named
    elif not found and find_spec("ziglang"):
        found = [sys.executable, "-m", "ziglang", "c++"]
    if not found:
        raise NotBuiltError("there is no C++ compiler")
    if any("zig" in Path(part).name for part in found) and "-target" not in found:
        # Unless told, it compiles for the very processor that it runs on.
        found = [*found, "-target", f"{platform.machine()}-linux-gnu.2.17"]
    return found


def build(library: Path) -> str:
    """Compiles and links; says in a line by what. The file is there whole or not at all.

    Raises:
        NotBuiltError: it cannot be built here, or the compiler failed.
    """
    command = compiler()
    jaxlib = find_spec("jaxlib")
    if jaxlib is None or jaxlib.origin is None:
        raise NotBuiltError("jaxlib, whose headers it needs, is not installed")
    headers = Path(jaxlib.origin).with_name("include")
    told = (headers / "xla/ffi/api/c_api.h").read_text("utf-8")
    if int(re.findall(r"define XLA_FFI_API_MINOR (\d+)", told)[0]) > NEWEST_API:
        raise NotBuiltError("with jaxlib's headers it would not fit the oldest JAX supported")

    def call(flags: str, *arguments: str | Path) -> None:
        call = [*command, *flags.split(), *arguments]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.splitlines() or [f"status {done.returncode}"]
            first = next((line for line in lines if "error" in line), lines[-1])
            raise NotBuiltError(f"{shlex.join(command)} failed: {first}")
        sys.stderr.write(done.stderr)

    def compile_one(source: str, target: Path, *flags: str | Path) -> Path:
        call(f"{COMPILE} {WARN}", *flags, KERNELS / "cpp" / source, "-o", target)
        return target

    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [pool.submit(compile_one, "ffi.cc", Path(place, "ffi.o"), "-isystem", headers)]
        for level, instructions in LEVELS[platform.machine()].items():
            flags = [f"-DJLSTM_LEVEL={level}", *instructions.split()]
            objects.append(pool.submit(compile_one, "walk.cc", Path(place, f"{level}.o"), *flags))
        exports, linked = Path(place, "exports"), f"{library}.{os.getpid()}"
        exports.write_text(EXPORTS, encoding="utf-8")
        parts = [o.result() for o in objects] + [f"-Wl,--version-script={exports}", "-o", linked]
        try:
            call(f"{LINK} {STATIC}", *parts)
        except NotBuiltError:  # a system without libstdc++.a
            call(LINK, *parts)
        os.replace(linked, library)
    return f"native kernel: built by {shlex.join(command)}"


def build_or_not(library: Path) -> str:
    """As ``build``, but an error only if JLSTM_NATIVE=1: else the line says why.

    Raises:
        NotBuiltError: it cannot be built, and JLSTM_NATIVE=1.
    """
    try:
        return build(library)
    except NotBuiltError as reason:
        if wanted() != "0":
            library.unlink(missing_ok=True)  # it is that of an earlier source
        if wanted() == "1":
            raise
        return f"native kernel: not built: {reason}"


class NativeKernel(BuildHookInterface):  # type: ignore[type-arg] # of a configuration not used
    """The kernel as a part of the wheel; of an editable installation, in place."""

    def dependencies(self) -> list[str]:
        """The headers, if there is a compiler to read them."""
        try:
            compiler()
        except NotBuiltError:
            return []
        return [HEADERS]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds it, before the wheel is put together."""
        self.library = LIBRARY if version == "editable" else Path(self.directory, LIBRARY.name)
        self.library.parent.mkdir(parents=True, exist_ok=True)
        self.app.display_info(build_or_not(self.library))
        if version != "editable" and self.library.exists():
            build_data["force_include"][str(self.library)] = f"jlstm/kernels/{LIBRARY.name}"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-linux_{platform.machine()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leaves nothing beside the wheel."""
        if self.library != LIBRARY:
            self.library.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        print(build_or_not(LIBRARY))
    except (NotBuiltError, ValueError) as error:
        sys.exit(f"hatch_build.py: {error}")
