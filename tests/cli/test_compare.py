"""`jlstm compare`: the table, the verdict, the files."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import jlstm
from jlstm.cli.compare import _number, _unit, show, verdict
from jlstm.cli.main import main
from jlstm.comparison import Comparison, Measurement, Timing

ERRORS = {"w_ih": 1e-7, "w_hh": 2e-7, "b": 3e-7, "h0": 1e-7, "c0": 1e-7, "xs": 9e-7}


def measured(name, *, forward=8e-3, gradient=40e-3, temp=20_000_000, compiling=0.5, **more):
    fields = {
        "options": {},
        "forward_speedup": 8e-3 / forward,
        "gradient_speedup": 40e-3 / gradient,
        "temp_bytes": temp,
        "temp_saving": None if temp is None else 20_000_000 / temp,
        "flops": 3_000_000_000,
        "xla_flops": 1e9,
        "weight_sum_flops": 0,
        "errors": ERRORS,
    }
    return Measurement(
        name=name,
        forward_seconds=Timing(forward, 0.98 * forward, 1.04 * forward),
        gradient_seconds=Timing(gradient, 0.98 * gradient, 1.04 * gradient),
        compile_seconds=compiling,
        **fields | more,
    )


def made_up(*rows):
    return Comparison(
        time=12,
        batch=3,
        input_size=5,
        hidden_size=7,
        dtype="float32",
        seed=0,
        rounds=11,
        device="CPU x86_64, 2 cores",
        jax_version="0.10.2",
        rows=rows,
    )


MADE_UP = made_up(
    measured("autodiff", weight_sum_flops=16_000_000),
    measured("vjp gates", forward=9e-3, gradient=25e-3, compiling=1.5),
    measured("vjp chunks", gradient=50e-3, temp=5_000_000, compiling=1.2, flops=4_000_000_000),
)


def shown(comparison, width=80):
    paper = io.StringIO()
    show(comparison, Console(file=paper, width=width))
    return paper.getvalue()


def test_the_table_reads_at_80_columns():
    text = shown(MADE_UP)
    assert max(map(len, text.splitlines())) <= 80
    assert "time 12, batch 3, input 5, hidden 7, float32" in text
    assert "\x1b" not in text  # no colours where there is no terminal
    assert "…" not in text
    table = text.split("\n\n")[1].splitlines()
    lines = {line[:10].strip(): " ".join(line[10:].split()) for line in table}
    # forward × gradient × temp × work compile; a star at the best of a column
    assert lines["autodiff"] == "8.00* 1.00 40.0 1.00 20.0 1.00 3.00* 0.50*"
    assert lines["vjp gates"] == "9.00 0.89 25.0* 1.60 20.0 1.00 3.00* 1.50"
    assert lines["vjp chunks"] == "8.00* 1.00 50.0 0.80 5.00* 4.00 4.00 1.20"


def test_the_error_of_every_gradient_is_shown():
    other = {"w_ih": 1.5e-16, "w_hh": 4e-5, "b": 3e-7, "h0": float("nan"), "c0": 0.0, "xs": 9.0}
    rows = [*MADE_UP.rows, measured("rounded", errors=other)]
    rows.append(measured("exact", errors=dict.fromkeys(ERRORS, 0.0)))
    table = shown(made_up(*rows)).split("\n\n")[2]
    lines = [" ".join(line.split()) for line in table.splitlines()]
    assert lines[0] == "error of w_ih w_hh b h0 c0 xs"
    assert lines[1] == "autodiff 1.0e-07 2.0e-07 3.0e-07 1.0e-07 1.0e-07 9.0e-07!"
    assert lines[2].startswith("vjp gates ")
    assert lines[4] == "rounded 1.5e-16 4.0e-05 3.0e-07 nan! 0.0e+00 9.0e+00"
    assert lines[5] == "exact" + 6 * " 0.0e+00"


def test_the_widest_table_still_fits():
    wide = [
        replace(row, errors=dict.fromkeys(ERRORS, 1.5e-16), forward_speedup=0.01, temp_saving=123.4)
        for row in (
            measured(n, forward=0.9999, gradient=0.9999) for n in ("autodiff", "vjp chunks")
        )
    ]
    text = shown(made_up(*wide))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_the_verdict_names_winners_on_both_sides():
    text = " ".join(verdict(MADE_UP))
    assert "vjp gates has the fastest gradient, 1.60 times as fast as autodiff" in text
    assert "vjp chunks takes the least, 4.00 times less than autodiff" in text
    assert "16,000,000 in autodiff, at most 0 in the others" in text
    where = (
        "Where autodiff wins: forward time (over vjp gates); gradient time (over vjp chunks); "
        "work (over vjp chunks); compile time (over all)."
    )
    assert where in text


def test_the_verdict_owns_up_where_autodiff_wins_everything():
    text = " ".join(
        verdict(made_up(measured("autodiff"), measured("vjp", gradient=80e-3, temp=40_000_000)))
    )
    assert "autodiff has the fastest gradient; next is vjp, at 0.50 times its speed" in text
    assert "Memory: autodiff takes the least" in text
    assert "gradient time (over all); temporary memory (over all)" in text


def test_the_legend_says_where_the_work_comes_from():
    assert "the traced program, every turn of its loops counted" in verdict(MADE_UP)[-1]


def test_noise_is_no_win():
    # 1 % apart, with quartiles 2 to 4 % off the medians; errors a fifth apart.
    errors = {leaf: 1.2 * error for leaf, error in ERRORS.items()}
    rows = measured("autodiff"), measured("vjp", gradient=40.4e-3, forward=8.1e-3, errors=errors)
    assert any(
        "Where autodiff wins: nowhere beyond the noise." in s for s in verdict(made_up(*rows))
    )


def test_what_is_not_known_is_not_made_up():
    unknown = made_up(measured("autodiff", temp=None), measured("vjp", temp=None))
    assert "–" in shown(unknown)
    assert not any("Memory" in sentence for sentence in verdict(unknown))


def test_a_single_rule_has_nothing_to_win():
    assert len(verdict(made_up(measured("vjp")))) == 1
    assert "*" not in shown(made_up(measured("vjp"))).split("\n\n")[1]


def test_autodiff_in_float64_is_the_reference():
    exact = replace(MADE_UP.rows[0], errors=dict.fromkeys(ERRORS, 0.0))
    text = " ".join(verdict(made_up(exact, *MADE_UP.rows[1:])))
    assert "autodiff has no error: it is what the errors are measured against." in text
    assert "error (over" not in text


def test_numbers_and_units():
    assert [_number(v) for v in (0.004, 1, 9.994, 9.996, 99.94, 99.96, 1234.4)] == [
        *("0.00", "1.00", "9.99", "10.0", "99.9", "100", "1234")
    ]
    units = ((1.0, "s"), (1e-3, "ms"))
    assert [_unit(v, units)[1] for v in (2.0, 1.0, 0.5, 1e-3, 1e-9)] == ["s", "s", "ms", "ms", "ms"]


# The files


@pytest.fixture
def run(capsys, monkeypatch):
    """Run `jlstm compare` on a made-up measurement: exit status, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("jlstm.comparison.compare", lambda **_: MADE_UP)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["compare", *map(str, arguments)])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


def test_it_measures_what_was_asked_for_and_writes_both_files(capsys, monkeypatch, tmp_path):
    # The only test here that measures; with five rules it would say no more than with one.
    rules = {"autodiff": {"derivative": "autodiff"}}
    real = jlstm.compare
    monkeypatch.setattr("jlstm.comparison.compare", lambda **given: real(**given, rules=rules))
    sizes = "--time 4 --batch 2 --input 3 --hidden 5 --dtype float64 --seconds 0.01 --seed 7"
    table, picture = tmp_path / "a.json", tmp_path / "a.png"
    with pytest.raises(SystemExit) as ended:
        main(["compare", *sizes.split(), "--json", str(table), "--plot", str(picture)])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.err) == (0, "")
    assert "time 4, batch 2, input 3, hidden 5, float64" in printed.out
    told = json.loads(table.read_text("utf-8"))
    names = ("time", "batch", "input_size", "hidden_size", "dtype", "seed")
    assert [told[name] for name in names] == [4, 2, 3, 5, "float64", 7]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert {*tmp_path.iterdir()} == {table, picture}


@pytest.mark.parametrize(("flag", "suffix"), [("--json", ".json"), ("--plot", ".png")])
def test_a_file_that_cannot_be_written_is_told_before_the_work(
    run, monkeypatch, tmp_path, flag, suffix
):
    monkeypatch.setattr("jlstm.comparison.compare", lambda **_: pytest.fail("it began to work"))
    (tmp_path / f"folder{suffix}").mkdir()
    for path, said in (
        (tmp_path / "nowhere" / f"a{suffix}", "there is no directory"),
        (tmp_path / f"folder{suffix}", "got the directory"),
        (tmp_path / "a.txt", f"expected a name that ends in {suffix}"),
        (tmp_path, f"expected a name that ends in {suffix}"),
    ):
        status, out, err = run(flag, path)
        assert (status, out) == (2, "")
        assert err.startswith(f"jlstm: {flag}: ")
        assert said in err
        assert err.count("\n") == 1
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "no permission" in run(flag, tmp_path / f"a{suffix}")[2]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError("disk full")])
@pytest.mark.parametrize(("flag", "suffix"), [("--json", ".json"), ("--plot", ".png")])
def test_a_good_file_survives_what_stops_the_writing(
    run, monkeypatch, tmp_path, flag, suffix, stop
):
    good = tmp_path / f"good{suffix}"
    good.write_text("as it was")
    status, _, _ = run(flag, good)
    assert status == 0
    first = good.read_bytes()
    assert first != b"as it was"

    def half(self, target, **_):
        """Write a little, then fail: in place of Path.write_text and of Figure.savefig."""
        path = self if isinstance(self, Path) else target
        with path.open("w") as file:
            file.write("{")
        raise stop

    monkeypatch.setattr("pathlib.Path.write_text", half)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    status, out, err = run(flag, good)
    assert status == (2 if isinstance(stop, OSError) else 130)
    assert err.count("\n") == 1
    assert "autodiff" in out  # the table was shown before anything was written
    assert good.read_bytes() == first
    assert [*tmp_path.iterdir()] == [good]
