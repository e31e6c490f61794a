"""The native kernel gets into the wheel where there is a compiler; without one, nothing breaks."""

import importlib.util
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent
INSIDE = "jlstm/kernels/libnative.so"
ON_LINUX = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="the kernel is not built here",
)

FAKE = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
while [ $# -gt 1 ]; do [ "$1" = -o ] && echo built > "$2"; shift; done
"""
BROKEN = """#!/bin/sh
echo 'In file included from walk.cc:3:' >&2
echo 'tile.h:7:1: error: a bracket is missing' >&2
echo 'tile.h:9:1: error: and another' >&2
exit 1
"""


@pytest.fixture
def script():
    """hatch_build.py, loaded as hatchling loads it: as a file of no package."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A function that puts a program on the PATH, where there is nothing else of that kind."""
    place = tmp_path / "tools"
    place.mkdir()
    for name in ("sh", "dirname"):
        (place / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("JLSTM_NATIVE", raising=False)

    def put(name, text=FAKE):
        (place / name).write_text(text)
        (place / name).chmod(0o755)
        return place

    return put


def wheel(tmp_path):
    """The name of the wheel, its files, and its metadata on wheels."""
    built = WheelBuilder(str(ROOT)).build(directory=str(tmp_path / "dist"), versions=["standard"])
    path = Path(next(built))
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        text = archive.read("jlstm-0.1.0.dist-info/WHEEL").decode()
    assert [*path.parent.iterdir()] == [path]
    return path.name, names, text


@ON_LINUX
def test_the_choice_of_the_compiler(script, tools, monkeypatch):
    zig = importlib.util.find_spec("jlstm")  # any package will do: it is not started
    monkeypatch.setattr(script, "find_spec", lambda name: None)
    with pytest.raises(script.NotBuiltError, match=r"no C\+\+ compiler"):
        script.compiler()
    target = f"{platform.machine()}-linux-gnu.2.17"
    monkeypatch.setattr(script, "find_spec", lambda name: zig if name == "ziglang" else None)
    assert script.compiler() == [sys.executable, "-m", "ziglang", "c++", "-target", target]
    tools("clang++")
    assert script.compiler() == ["clang++"]
    tools("c++")
    assert script.compiler() == ["c++"]
    monkeypatch.setenv("CXX", "clang++ -stdlib=libc++")
    assert script.compiler() == ["clang++", "-stdlib=libc++"]
    monkeypatch.setenv("CXX", "icpx")
    with pytest.raises(script.NotBuiltError, match="there is no icpx, which CXX names"):
        script.compiler()


@pytest.mark.parametrize(
    ("system", "machine"), [("win32", "AMD64"), ("darwin", "arm64"), ("linux", "riscv64")]
)
def test_elsewhere_there_is_none(script, tools, monkeypatch, system, machine):
    tools("c++")
    monkeypatch.setattr(script.sys, "platform", system)
    monkeypatch.setattr(script.platform, "machine", lambda: machine)
    with pytest.raises(script.NotBuiltError, match=f"not written for {system} on {machine}"):
        script.compiler()


@ON_LINUX
def test_with_a_compiler_the_wheel_is_for_this_platform(script, tools, tmp_path, capfd):
    place = tools("c++")
    tag = f"py3-none-linux_{platform.machine()}"
    name, names, text = wheel(tmp_path)
    assert name == f"jlstm-0.1.0-{tag}.whl"
    assert "Root-Is-Purelib: false" in text
    assert f"Tag: {tag}\n" in text
    assert names.count(INSIDE) == 1
    assert not [name for name in names if name.endswith((".cc", ".h", "hatch_build.py"))]
    assert "native kernel: built by c++\n" in capfd.readouterr().err
    *compiled, linked = (place / "calls").read_text().splitlines()
    assert len(compiled) == 1 + len(script.LEVELS[platform.machine()])
    assert "-static-libstdc++" in linked


@ON_LINUX
def test_a_system_without_the_static_library_links_the_other(script, tools, tmp_path):
    tools("c++", FAKE.replace("while", 'case "$*" in *-static-lib*) exit 1; esac; while'))
    assert script.build(tmp_path / "libnative.so") == "native kernel: built by c++"
    assert (tmp_path / "libnative.so").read_text() == "built\n"


@ON_LINUX
def test_newer_headers_are_refused(script, tools, tmp_path, monkeypatch):
    tools("c++")
    header = tmp_path / "include/xla/ffi/api/c_api.h"
    header.parent.mkdir(parents=True)
    spec = importlib.util.spec_from_file_location("jaxlib", tmp_path / "__init__.py")
    monkeypatch.setattr(script, "find_spec", lambda name: spec)
    for minor in (script.NEWEST_API, script.NEWEST_API + 1):
        header.write_text(f"#define XLA_FFI_API_MAJOR 0\n#define XLA_FFI_API_MINOR {minor}\n")
        line = script.build_or_not(tmp_path / "libnative.so")
        assert ("not fit the oldest JAX" in line) == (minor > script.NEWEST_API)


REASONS = {
    "no compiler": (None, {}, r"there is no C\+\+ compiler"),
    "a broken one": (BROKEN, {}, r"c\+\+ failed: tile.h:7:1: error: a bracket is missing"),
    "not wanted": (FAKE, {"JLSTM_NATIVE": "0"}, "JLSTM_NATIVE=0"),
}


@ON_LINUX
@pytest.mark.parametrize("why", REASONS)
def test_without_a_kernel_the_wheel_is_pure_and_says_why(tools, tmp_path, monkeypatch, capfd, why):
    compiler, environment, message = REASONS[why]
    if compiler:
        tools("c++", compiler)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    name, names, text = wheel(tmp_path)
    assert name == "jlstm-0.1.0-py3-none-any.whl"
    assert "Root-Is-Purelib: true" in text
    assert INSIDE not in names
    err = capfd.readouterr().err
    assert "native kernel: not built: " in err
    assert re.search(message, err)


@ON_LINUX
@pytest.mark.parametrize("why", ["no compiler", "a broken one"])
def test_where_it_is_asked_for_its_absence_is_an_error(tools, tmp_path, monkeypatch, why):
    compiler, _, message = REASONS[why]
    if compiler:
        tools("c++", compiler)
    monkeypatch.setenv("JLSTM_NATIVE", "1")
    with pytest.raises(Exception, match=message):
        wheel(tmp_path)


def test_what_the_library_would_refuse_is_refused_here(script, tools, tmp_path, monkeypatch):
    tools("c++")
    for said in ("2", "yes", " "):
        monkeypatch.setenv("JLSTM_NATIVE", said)
        with pytest.raises(ValueError, match=f"JLSTM_NATIVE: expected 0 or 1, got {said!r}"):
            script.build_or_not(tmp_path / "libnative.so")
        ran = subprocess.run(
            [sys.executable, ROOT / "hatch_build.py"], capture_output=True, text=True, check=False
        )
        assert ran.returncode == 1
        assert ran.stderr == f"hatch_build.py: JLSTM_NATIVE: expected 0 or 1, got {said!r}\n"
    monkeypatch.setenv("JLSTM_NATIVE", "")
    assert script.wanted() == ""


@ON_LINUX
def test_a_failure_takes_away_what_an_earlier_source_gave(script, tools, tmp_path, monkeypatch):
    library = tmp_path / "libnative.so"
    library.write_text("old")
    monkeypatch.setenv("JLSTM_NATIVE", "0")
    script.build_or_not(library)
    assert library.exists()  # nobody asked for a change
    monkeypatch.delenv("JLSTM_NATIVE")
    tools("c++", BROKEN)
    script.build_or_not(library)
    assert not [*tmp_path.glob("libnative*")]


@ON_LINUX
def test_the_headers_are_fetched_only_for_a_compiler(tools):
    def needed():
        return [d for d in WheelBuilder(str(ROOT)).config.dependencies if "jaxlib" in d]

    assert needed() == []
    tools("c++")
    (headers,) = needed()
    assert headers.startswith("jaxlib==0.10.0")  # of what pyproject.toml asks for, the oldest
    assert '"jax>=0.10"' in (ROOT / "pyproject.toml").read_text("utf-8")


def test_the_sdist_has_the_sources(tools, tmp_path):
    path = next(SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"hatch_build.py", "jlstm/kernels/cpp/walk.cc", "jlstm/kernels/cpp/walk.h"} <= names
    assert INSIDE not in names


@ON_LINUX
@pytest.mark.slow
def test_it_needs_nothing_but_libc(script, tmp_path, monkeypatch):
    monkeypatch.delenv("JLSTM_NATIVE", raising=False)
    try:
        script.compiler()
    except script.NotBuiltError as reason:
        pytest.skip(str(reason))
    library = tmp_path / "libnative.so"
    script.build(library)
    assert [path.name for path in tmp_path.iterdir()] == ["libnative.so"]
    code = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).jlstm_level)"
    subprocess.run([sys.executable, "-c", code, library], check=True)
    if shutil.which("readelf"):
        told = subprocess.check_output(["readelf", "-d", library], text=True)
        needed = set(re.findall(r"NEEDED.*\[(.+?)\.so", told))
        loader = {"ld-linux-x86-64", "ld-linux-aarch64"}
        assert needed <= {"libc", "libm", "libpthread", "libdl"} | loader
