"""How the command line answers: its doors, its complaints, its exit statuses."""

import os
import re
import subprocess
import sys
from importlib import metadata

import jax
import pytest

import jlstm.cli.compare
from jlstm.cli.main import main


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command line in this process: exit status, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


def test_python_m_jlstm_is_the_command():
    ran = subprocess.run(
        [sys.executable, "-m", "jlstm", "--version"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    version, kernel = ran.stdout.splitlines()
    assert version == f"jlstm {metadata.version('jlstm')}"
    assert re.fullmatch("native kernel: (baseline|avx2|avx512|not in use: .+)", kernel)


def test_the_version_says_why_there_is_no_native_kernel():
    ran = subprocess.run(
        [sys.executable, "-m", "jlstm", "--version"],
        env={**os.environ, "JLSTM_NATIVE": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.endswith("\nnative kernel: not in use: JLSTM_NATIVE=0 switches it off\n")


def test_help_names_every_command(run):
    for arguments in ((), ("--help",), ("-h",)):
        status, out, err = run(*arguments)
        assert (status, err) == (0, "")
        assert "hand-derived" in out
        for name in (
            "train", "tune", "resume", "evaluate", "predict", "sample", "runs", "export", "import",
            "demo", "compare",
        ):  # fmt: skip
            assert re.search(rf"\b{name}\b", out)
        assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("compare", "--time --seed --json"),
        ("demo", "--steps --seed --out --compare-seconds"),
        ("train text", "--tokens --hidden --seed --seeds --learning-rate"),
        ("tune table", "--trials --minutes --time --target --horizon"),
        ("train table", "--time --target --horizon --quantiles --no-calendar"),
        ("train sequences", "--id --label --features --class-weights"),
        ("resume", "RUN --trials --minutes"),
        ("evaluate", "RUN FILE"),
        ("predict", "RUN FILE --out"),
        ("sample", "--prompt --top-k --top-p --temperature --seed"),
        ("runs", "FOLDER"),
        ("export", "RUN --to --out onnx stablehlo safetensors torch"),
        ("import", "FILE"),
    ],
)
def test_every_command_has_help(run, command, options):
    status, out, err = run(*command.split(), "--help")
    assert (status, err) == (0, "")
    assert f"jlstm {command}" in out
    assert [name for name in options.split() if name not in out] == []
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "bogus"),
        (["compar"], "compare"),
        (["--bogus"], "--bogus"),
        (["compare", "--tim", "3"], "--time"),
        (["compare", "3"], "unexpected argument: 3"),
        (["compare", "--time", "3", "4", "5"], "unexpected argument: 4 5"),
        (["compare", "--time"], "--time"),
        (["compare", "--time", "many"], "many"),
        (["compare", "--time", "0"], "--time"),
        (["compare", "--batch", "-1"], "--batch"),
        (["compare", "--input", "1.5"], "--input"),
        (["compare", "--hidden", "0"], "--hidden"),
        (["compare", "--dtype", "int8"], "float32"),
        (["compare", "--seconds", "0"], "--seconds"),
        (["compare", "--seconds", "nan"], "--seconds"),
        (["compare", "--seconds", "inf"], "--seconds. Expected a finite number above 0"),
        (["compare", "--hidden", "10000000000"], "--hidden. Must be <= 2147483647"),
        (["compare", "--seed", "-1"], "--seed"),
        (["compare", "--seed", "99999999999999999999"], "--seed. Must be < 9223372036854775808"),
        (["sample", "run", "--length", "10000000000"], "--length. Must be <= 2147483647"),
        (["demo", "--compare-seconds", "inf"], "Expected a finite number of at least 0"),
        (["demo", "--compare-seconds", "-1"], "Expected a finite number of at least 0"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(run, monkeypatch, arguments, said):
    monkeypatch.setattr("jlstm.comparison.compare", lambda **_: pytest.fail("it began to work"))
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("jlstm: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert said in err


def failing_with(error):
    def compare(**_):
        raise error

    return compare


@pytest.mark.parametrize(
    "error",
    [
        ValueError("xs: expected\n  more"),
        TypeError("xs: expected more"),
        PermissionError(13, "Permission denied", "xs: expected more"),
        OverflowError("xs: expected more"),
        MemoryError("xs: expected more"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: xs: expected more\nand more"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_library_refuses_is_a_mistake(run, monkeypatch, error):
    monkeypatch.setattr("jlstm.comparison.compare", failing_with(error))
    status, _, err = run("compare")
    assert status == 2
    assert err.startswith("jlstm: ")
    assert err.count("\n") == 1
    assert "xs: expected more" in err


def test_an_error_without_words_gets_some(run, monkeypatch):
    monkeypatch.setattr("jlstm.comparison.compare", failing_with(MemoryError()))
    assert run("compare") == (2, "", "jlstm: out of memory\n")


def test_a_platform_that_is_not_there_is_a_mistake():
    ran = subprocess.run(
        [sys.executable, "-m", "jlstm", "compare", "--time", "1"],
        env={**os.environ, "JAX_PLATFORMS": "nope"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("jlstm: ")
    assert "nope" in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("words", ["", "no device"])
def test_no_device_is_a_mistake_in_whatever_way_jax_says_so(run, monkeypatch, words):
    # With JAX_PLATFORMS=cuda and no CUDA, JAX ends in a bare assertion.
    def devices():
        raise AssertionError(words)

    monkeypatch.setattr("jax.devices", devices)
    monkeypatch.setattr("jlstm.comparison.compare", lambda **_: devices())
    status, _, err = run("compare")
    assert (status, err) == (2, f"jlstm: {words or 'JAX found no device; see JAX_PLATFORMS'}\n")


def test_help_and_mistakes_do_not_wait_for_jax():
    code = (
        "import sys; from jlstm.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('jax' in sys.modules, file=sys.stderr)"
    )
    for arguments in (["--help"], ["compare", "--help"], ["compare", "--seed", "-1"]):
        ran = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
        )
        assert ran.stderr.splitlines()[-1] == "False", arguments


def test_an_interrupt_is_told_in_one_line(run, monkeypatch):
    monkeypatch.setattr("jlstm.comparison.compare", failing_with(KeyboardInterrupt()))
    assert run("compare") == (130, "", "jlstm: interrupted\n")


@pytest.mark.parametrize("error", [RuntimeError, ImportError, AssertionError, KeyError])
def test_a_fault_of_the_program_is_not_hidden(monkeypatch, error):
    monkeypatch.setattr("jlstm.comparison.compare", failing_with(error("a bug")))
    with pytest.raises(error, match="a bug"):
        main(["compare"])


@pytest.mark.parametrize("package", ["cyclopts", "rich"])
def test_without_the_extra_it_says_how_to_get_it(run, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    status, out, err = run("--version")
    assert (status, out) == (2, "")
    assert err == f"jlstm: {package} is not installed; it comes with: pip install 'jlstm[cli]'\n"


def test_without_matplotlib_a_plot_is_refused_before_the_work(run, monkeypatch, tmp_path):
    monkeypatch.setattr("jlstm.comparison.compare", lambda **_: pytest.fail("it began to work"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, err = run("compare", "--plot", str(tmp_path / "a.png"))
    assert status == 2
    assert err.count("\n") == 1
    assert "pip install 'jlstm[plots]'" in err


def test_a_broken_package_is_not_a_missing_one(monkeypatch, tmp_path):
    # matplotlib is there and something that it needs is not: no advice to install matplotlib.
    (tmp_path / "broken_package.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        jlstm.cli.compare.require("broken_package", "plots")
