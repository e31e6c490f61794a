"""The rules of the house: who may import whom, what stays lazy, and what must agree with what."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import jlstm

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "jlstm"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def rows_of_the_picture() -> list[list[str]]:
    """The files and folders of jlstm, as the README draws them: a row imports from rows above."""
    readme = (ROOT / "README.md").read_text("utf-8")
    _, after = readme.split("holds\nthe code to it.\n\n```text\n")
    picture, *_ = after.split("```")
    # What follows the first 49 columns is prose.
    return [row[:49].split() for row in picture.splitlines()]


ROWS = rows_of_the_picture()
CORE = {
    "checks", "types", "activations", "linear", "gates", "dropout", "initializers", "equations",
    "local", "variants", "slstm", "walk", "kernels", "kernels.xla", "plan",
    "derivatives", "sequence", "layers", "devices",
}  # fmt: skip
CORE_MAY_IMPORT = {"jax", "jaxtyping", "numpy", *sys.stdlib_module_names}


def module_of(path: Path) -> str:
    """The dotted name below jlstm: runs/run.py -> runs.run, runs/__init__.py -> runs."""
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_of(path): path
    for path in sorted(LIBRARY.rglob("*.py"))
    # The package's two doors: they open onto everything.
    if path.relative_to(LIBRARY).parts not in {("__init__.py",), ("__main__.py",)}
}


def imports(source: str) -> Iterator[str]:
    """Every dotted name that a source imports, wherever in it: functions and type checks too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def house_imports(source: str) -> Iterator[str]:
    """The files of jlstm that a source imports: "jlstm.runs.run.train" -> "runs.run"."""
    for name in imports(source):
        top, _, inside = name.partition(".")
        if top != "jlstm" or inside == "__version__":
            continue
        # `from jlstm import lstm` reaches the file where lstm lives. A bare `import jlstm` could
        # reach anything: only what comes last may do that.
        inside = jlstm._HOME.get(inside, inside) or ROWS[-1][0]
        while inside not in FILES and "." in inside:
            inside = inside.rpartition(".")[0]
        yield inside


def place(module: str) -> int:
    """The row in which a file, or the folder that it is in, is drawn."""
    top = module.partition(".")[0]
    (row,) = (n for n, names in enumerate(ROWS) if top in names)
    return row


def test_the_picture_shows_every_file_and_folder_once():
    drawn = [name for row in ROWS for name in row]
    assert sorted(drawn) == sorted({module.partition(".")[0] for module in FILES})


@pytest.mark.parametrize("module", FILES)
def test_each_file_imports_only_from_the_rows_above_it(module):
    top = module.partition(".")[0]
    for imported in house_imports(FILES[module].read_text("utf-8")):
        # What a folder's own files may not do to each other is in the next test.
        beside = imported.partition(".")[0] == top and imported != module
        assert beside or place(imported) < place(module), f"{module} imports {imported}"


ROOMS = ("text", "table", "sequences")


@pytest.mark.parametrize("room", ROOMS)
def test_the_rooms_of_the_tasks_are_apart(room):
    others = tuple(f"tasks.{name}" for name in ROOMS if name != room)
    for module, path in FILES.items():
        if module.startswith(f"tasks.{room}."):
            found = list(house_imports(path.read_text("utf-8")))
            assert not [name for name in found if name.startswith(others)], module
        elif module.count(".") == 1 and module.startswith("tasks."):  # what they share
            found = list(house_imports(path.read_text("utf-8")))
            assert not [name for name in found if name.startswith(f"tasks.{room}")], module


def test_a_run_knows_a_task_by_its_protocol():
    for module, path in FILES.items():
        if module.startswith("runs."):
            known = ("job", "config") if module == "runs.kinds" else ()
            rooms = {f"tasks.{room}.{file}" for room in ROOMS for file in known}
            found = {m for m in house_imports(path.read_text("utf-8")) if m.startswith("tasks")}
            assert found <= {"tasks.config", "tasks.job"} | rooms, module


def test_no_cycles():
    graph = {m: set(house_imports(path.read_text("utf-8"))) for m, path in FILES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", sorted(CORE))
def test_the_core_needs_little(module):
    tops = {name.partition(".")[0] for name in imports(FILES[module].read_text("utf-8"))}
    assert tops <= CORE_MAY_IMPORT | {"jlstm"}


def test_the_reader_of_imports_sees_each_form():
    source = """
import os.path, jlstm
from jlstm import lstm, __version__
def f():
    from jlstm.cli.main import main
    import jlstm.sequence as s
"""
    assert set(house_imports(source)) == {
        "cli",
        "sequence",
        "cli.main" if FILES.get("cli.main") else "cli",
    }
    assert "os.path" in set(imports(source))


def loaded_by(*command: str) -> tuple[set[str], str]:
    """Run Python; the top-level packages it imported, and what it printed."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, cwd=ROOT
    )
    assert run.returncode == 0, run.stdout + run.stderr
    names = re.findall(r"^import time:.*\| +([\w.]+)$", run.stderr, re.MULTILINE)
    return {name.partition(".")[0] for name in names}, run.stdout


HEAVY = {
    "jax", "jaxlib", "matplotlib", "optax", "scipy", "polars", "orbax", "safetensors",
    "filelock", "sklearn", "vega_datasets", "pandas", "tensorboardX", "optuna",
}  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [("-c", "import jlstm; dir(jlstm)"), ("-m", "jlstm", "--help")],
    ids=["import", "help"],
)
def test_the_doors_open_at_once(command):
    loaded, _ = loaded_by(*command)
    assert "jlstm" in loaded
    assert not loaded & {*HEAVY, "numpy"}


@pytest.mark.parametrize(
    "command",
    ["train", "train text", "train table", "train sequences", "tune", "tune text", "tune table",
     "tune sequences", "resume", "evaluate", "report", "predict", "sample", "runs", "export",
     "import", "demo", "compare"],
)  # fmt: skip
def test_no_help_waits_for_what_the_work_needs(command):
    loaded, out = loaded_by("-m", "jlstm", *command.split(), "--help")
    assert f"jlstm {command}" in out
    assert "jlstm" in loaded
    assert not loaded & HEAVY


def test_data_is_read_and_cut_without_jax():
    files = {
        "text": ("tokens", "windows", "preparing", "ngram"),
        "table": ("series", "schema", "windows", "preparing", "measures"),
        "sequences": ("labelled", "labels", "preparing", "measures"),
    }
    names = [f"jlstm.tasks.{room}.{file}" for room in files for file in files[room]]
    loaded, _ = loaded_by("-c", f"import {', '.join(names)}, jlstm.tasks.frame, jlstm.records")
    assert {"jlstm", "numpy"} <= loaded
    assert not loaded & (HEAVY - {"polars"})


def test_the_version_is_one():
    assert PROJECT["version"] == metadata.version("jlstm") == jlstm.__version__
    assert PROJECT["version"] in loaded_by("-m", "jlstm", "--version")[1]


def test_public_names_are_what_they_say():
    for name, home in jlstm._HOME.items():
        module = importlib.import_module(f"jlstm.{home}")
        assert getattr(jlstm, name) is getattr(module, name)
        assert not isinstance(getattr(jlstm, name), types.ModuleType)
        assert name in dir(jlstm)
    with pytest.raises(AttributeError, match="no attribute 'gru'"):
        _ = jlstm.gru


def test_no_public_name_is_that_of_a_file():
    # Importing jlstm/cell.py would make a module of jlstm.cell, which is to be the function.
    assert not {*jlstm._HOME} & {module.partition(".")[0] for module in FILES}


@pytest.mark.parametrize("first", ["jlstm.sequence", "jlstm.comparison", "jlstm.runs.run", "jlstm"])
def test_files_and_names_are_there_whatever_was_imported_before(first):
    loaded_by(
        "-c",
        f"import {first}, jlstm; jlstm.cell.__call__, jlstm.compare.__call__\n"
        "jlstm.sequence.lstm, jlstm.kernels.xla.XLA, jlstm.train.fit\n"
        "jlstm.tasks.text.model.logits\n"
        "jlstm.tasks.table.clock, jlstm.tasks.table.measures, jlstm.runs.run, jlstm.cli.main.main\n"
        "try: jlstm.gru\n"
        "except AttributeError: pass\n"
        "else: raise AssertionError",
    )


def test_imported_a_second_time():
    code = "import sys, jlstm; jlstm.stack, [sys.modules.pop(m) for m in [*sys.modules] if "
    loaded_by("-c", code + "m.startswith('jlstm')]; import jlstm; jlstm.stack, jlstm.VariantParams")


def test_type_checkers_see_the_same_names():
    tree = ast.parse((LIBRARY / "__init__.py").read_text("utf-8"))
    seen = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jlstm.")
        for alias in node.names
        if alias.asname
    }
    assert seen == {name: f"jlstm.{home}" for name, home in jlstm._HOME.items()}


def test_the_changelog_speaks_of_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert headings[0] in {"Unreleased", PROJECT["version"]}


EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [
    requirement
    for requirement in map(Requirement, sum(EXTRAS.values(), PROJECT["dependencies"]))
    if requirement.name != "jlstm"  # an extra made of other extras
]


def test_the_readme_tells_of_each_dependency_and_extra():
    readme = (ROOT / "README.md").read_text("utf-8")
    table = "\n".join(line for line in readme.splitlines() if line.lstrip().startswith("|"))
    names = {requirement.name for requirement in DIRECT} | {*EXTRAS}
    told = {n for n in names if re.search(rf"(?<![\w-]){re.escape(n)}(?![\w-])", table)}
    assert not names - told


def locked(file: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / file).read_text("utf-8").splitlines()
    pins = [
        Requirement(line) for line in lines if line.strip() and not line.lstrip().startswith("#")
    ]
    assert all(re.fullmatch(r"==[^*,]+", str(pin.specifier)) for pin in pins)
    return {canonicalize_name(pin.name): str(pin.specifier)[2:] for pin in pins}


def test_the_locks_hold_what_the_project_asks_for():
    dev, demo, bench = locked("dev.lock"), locked("demo.lock"), locked("bench.lock")
    for requirement in DIRECT:
        pin = (bench | dev)[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), requirement
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert canonicalize_name(requirement.name) in demo
    assert demo.items() <= dev.items()
    assert all(dev.get(name, pin) == pin for name, pin in bench.items())


@pytest.mark.parametrize("file", ["dev.lock", "bench.lock"])
def test_the_locks_stay_small(file):
    # The tests run on the CPU, and PyTorch, the largest of the peers, is installed by hand.
    assert not [n for n in locked(file) if re.match(r"torch|tensorflow|nvidia|cuda|jax-cuda", n)]
