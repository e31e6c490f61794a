"""Builds and runs the native kernel's own test, ``test_walk.cc``: optimised, and with sanitizers.

Each build holds the kernel for all instruction sets, and is run for each that the machine has.
Where there is no compiler, or a sanitizer is missing, a line says so. ``make sanitize`` runs it.
"""

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hatch_build import COMPILE, KERNELS, LEVELS, WARN, NotBuiltError, compiler

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "sanitize"
BUILDS = {
    "optimised": "",
    "addresses and undefined behaviour": (
        "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
    ),
    "threads": "-O1 -g -fsanitize=thread",
}


def works(command: list[str], flags: str) -> bool:
    """Whether an empty program can be compiled and run with these flags."""
    source, program = BUILD / "empty.cc", BUILD / "empty"
    source.write_text("int main() {}\n", encoding="utf-8")
    for call in ([*command, *flags.split(), str(source), "-o", str(program)], [str(program)]):
        if subprocess.run(call, capture_output=True, check=False).returncode:
            return False
    return True


def build(command: list[str], flags: str) -> Path:
    """The test, compiled with these flags."""

    def compile_one(source: Path, name: str, more: str) -> Path:
        target = BUILD / f"{name}.o"
        told = [*command, *f"{COMPILE} {WARN} {flags} {more}".split(), f"-I{HERE}"]
        subprocess.run([*told, str(source), "-o", str(target)], check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [pool.submit(compile_one, HERE / "test_walk.cc", "test", "")]
        for level, instructions in LEVELS[platform.machine()].items():
            more = f"-DJLSTM_LEVEL={level} {instructions}"
            objects.append(pool.submit(compile_one, KERNELS / "cpp/walk.cc", level, more))
        files = [str(o.result()) for o in objects]
    program = BUILD / "test"
    subprocess.run([*command, *flags.split(), "-pthread", *files, "-o", str(program)], check=True)
    return program


def main() -> int:
    """The exit status: 1 if a test failed or could not be compiled."""
    try:
        command = compiler()
    except NotBuiltError as reason:
        print(f"skipped: {reason}")
        return 0
    BUILD.mkdir(parents=True, exist_ok=True)
    failed = False
    for name, flags in BUILDS.items():
        if not works(command, flags):
            print(f"{name}: skipped, the compiler or the machine lacks {flags}")
            continue
        try:
            program = build(command, flags)
        except subprocess.CalledProcessError:
            print(f"{name}: does not compile")
            return 1
        for level in LEVELS[platform.machine()]:
            print(f"{name}: ", end="", flush=True)
            environment = {**os.environ, "JLSTM_NATIVE_LEVEL": level}
            done = subprocess.run([program], env=environment, check=False)
            if done.returncode:
                print(f"{name}: {level} failed with status {done.returncode}", flush=True)
                failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
