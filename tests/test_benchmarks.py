"""The benchmarks' own arithmetic, and one tiny run of what needs no peer; no time is judged."""

import io
import json
import math
from itertools import pairwise

import numpy as np
import pytest
from rich.console import Console

from jlstm.comparison import Timing
from tests.benchmarks import harness, programs, report
from tests.benchmarks.__main__ import main, parse_names, parse_shapes
from tests.benchmarks.contestants import CONTESTANTS, Contestant, Shape, ours

TINY = Shape(time=6, batch=4, input=3, hidden=5)
OURS = [c for c in CONTESTANTS if c.package is None]
NAMES = {"jlstm", "jlstm carry", "jlstm chunks", "jlstm cores", "autodiff"}


def found(name, family, median, *, spread=0.01):
    return harness.Result(
        name=name,
        family=family,
        seconds=Timing(median, (1 - spread) * median, (1 + spread) * median),
        least=(1 - spread) * median,
        calls=1,
        difference=1e-7,
        difference_in="hs",
        compile_seconds=0.5,
        temp_bytes=1000,
        flops=10,
    )


def case(*results, kind="gradient", shape=TINY, others=0.0):
    return harness.Case(shape, kind, 4_000, 2e6, 5, others, results, {})


MADE_UP = case(
    found("jlstm", "ours", 2e-3),
    found("slow one", "ours", 8e-3),
    found("haiku", "jax", 5e-3),
    found("flax linen", "jax", 4e-3),
    found("torch", "torch", 1e-3),
)


@pytest.fixture(scope="module", autouse=True)
def _small():
    patch = pytest.MonkeyPatch()
    patch.setattr(programs, "MATRIX", 8)
    patch.setattr(harness, "TURN", 1e-4)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def run():
    """Every kind of work at a tiny shape, by all that need no peer, and by one who is missing."""
    missing = Contestant("peer", "jax", ours, package="no_such_package")
    cases = [
        harness.run_case([*OURS, missing], shape, kind, 1e-3)
        for shape, kind in harness.plan([TINY], programs.KINDS)
    ]
    return report.Report(harness.describe_machine(), 1e-3, 0, tuple(cases))


def test_everybody_who_is_there_takes_part_and_agrees(run):
    for one in run.cases:
        expected = {"jlstm"} if one.kind == "stream" else NAMES
        assert {r.name for r in one.results} == expected
        assert all(0 <= r.difference < 1e-5 for r in one.results)
        assert one.rounds >= harness.LEAST_ROUNDS
        assert one.left_out["peer"] == "not installed (no_such_package)"


def test_the_report_has_its_fields(run):
    told = json.loads(json.dumps(run.to_dict(), allow_nan=False))
    assert {"machine", "seconds", "seed", "cases", "means", "losses"} == set(told)
    assert {"processor", "cores", "versions", "threads", "environment"} <= set(told["machine"])
    assert told["cases"][0]["shape"] == TINY._asdict()
    row = told["cases"][1]["results"][0]
    assert {"median", "lower", "upper"} == set(row["seconds"])
    assert row["temp_bytes"] >= 0
    assert row["compile_seconds"] > 0
    assert row["times_best_jax_peer"] > 0
    assert row["times_torch"] is None
    assert row["share_of_matrix_rate"] > 0


def test_the_work_counted_is_that_of_the_program(run):
    for one in run.cases:
        if one.kind in ("forward", "gradient", "step"):
            by_name = {r.name: r for r in one.results}
            assert by_name["autodiff"].flops == one.work
            assert by_name["jlstm"].flops >= one.work


def test_who_computes_something_else_is_left_out():
    def other(shape):
        layer = ours(shape)
        return layer._replace(
            load=lambda p: p._replace(b=p.b[::-1]), unload=lambda d: d._replace(b=d.b[::-1])
        )

    one = harness.run_case([OURS[0], Contestant("other", "jax", other)], TINY, "forward", 1e-3)
    assert [r.name for r in one.results] == ["jlstm"]
    assert one.left_out["other"].startswith("other numbers than ours")


def test_a_peer_that_fails_is_left_out_and_ours_is_not():
    def broken(shape):
        raise AttributeError("no attribute 'RNN'\nand more")

    peer = Contestant("peer", "jax", broken, package="jax")
    one = harness.run_case([OURS[0], peer], TINY, "forward", 1e-3)
    assert one.left_out == {"peer": "failed: AttributeError: no attribute 'RNN'"}
    with pytest.raises(AttributeError, match="RNN"):
        harness.run_case([peer._replace(package=None)], TINY, "forward", 1e-3)


def test_differences_see_a_value_a_shape_and_nan():
    exact = {"hs": np.array([1.0, -4.0])}
    assert harness.differences({"hs": np.array([1.5, -4.0])}, exact) == {"hs": 0.125}
    assert harness.differences({"hs": np.array([1.0])}, exact) == {"hs": math.inf}
    assert math.isnan(harness.differences({"hs": np.array([1.0, math.nan])}, exact)["hs"])
    with pytest.raises(ValueError, match="differ in kind"):
        harness.differences({"h": np.array([1.0])}, exact)


def test_everybody_has_every_place_and_changing_neighbours():
    names = list("abcd")
    rounds = [harness.order(names, turn) for turn in range(8)]
    assert all(sorted(r) == names for r in rounds)
    assert {r[0] for r in rounds} == {r[-1] for r in rounds} == set(names)
    before = {(one, other) for r in rounds for one, other in pairwise(r)}
    assert ("a", "b") in before
    assert ("b", "a") in before


def test_turns_are_counted_and_divided(monkeypatch):
    now = 0.0
    made = {"quick": 0, "long": 0}

    def call(name, seconds):
        def run():
            nonlocal now
            now += seconds
            made[name] += 1

        return run

    monkeypatch.setattr(harness.clock, "perf_counter", lambda: now)
    calls = {"quick": call("quick", 0.25), "long": call("long", 4.0)}
    taken = harness.time_in_turn(calls, 1.0, turn=1.0)
    assert taken == {"quick": ([0.25] * 5, 4), "long": ([4.0] * 5, 1)}
    assert made == {"quick": 2 + 5 * (1 + 4), "long": 2 + 5}


def test_ratios_are_against_the_fastest():
    by_name = {r.name: r for r in MADE_UP.results}
    assert report.ratio(MADE_UP, by_name["jlstm"], "jax") == pytest.approx(2)
    assert report.ratio(MADE_UP, by_name["haiku"], "jax") == pytest.approx(0.8)
    assert report.ratio(MADE_UP, by_name["jlstm"], "torch") == pytest.approx(0.5)
    assert report.ratio(case(found("jlstm", "ours", 1)), by_name["jlstm"], "jax") is None
    assert report.rate(MADE_UP, by_name["jlstm"]) == pytest.approx(2e6)


def test_means_are_geometric_and_name_the_least():
    results = found("jlstm", "ours", 1e-3), found("haiku", "jax", 8e-3)
    wide = case(*results, shape=Shape(7, 1, 2, 3))
    (mean,) = (m for m in report.means([MADE_UP, wide]) if (m.name, m.rival) == ("jlstm", "jax"))
    assert mean.mean == pytest.approx(4)  # of 2 and 8
    assert (mean.least, mean.least_at) == (pytest.approx(2), TINY)
    (torch,) = (m for m in report.means([MADE_UP, wide]) if (m.name, m.rival) == ("jlstm", "torch"))
    assert torch.shapes == 1


def test_means_leave_out_what_is_unsteady():
    torch = found("torch", "torch", 30e-3, spread=0.5)
    shaky = case(found("jlstm", "ours", 1e-3), torch, shape=Shape(7, 1, 2, 3))
    (mean,) = (m for m in report.means([MADE_UP, shaky]) if (m.name, m.rival) == ("jlstm", "torch"))
    assert (mean.shapes, mean.mean) == (1, pytest.approx(0.5))


def test_losses_name_who_is_slower_and_to_whom():
    lost = [(loss.name, loss.rival, round(loss.times, 2)) for loss in report.losses([MADE_UP])]
    assert sorted(lost) == [
        ("jlstm", "torch", 2.0),
        ("slow one", "flax linen", 2.0),
        ("slow one", "haiku", 1.6),
        ("slow one", "torch", 8.0),
    ]
    lines = report.loss_lines(report.losses([MADE_UP]))
    assert lines == [
        "jlstm, gradient (6,4,3,5): slower than torch 2.00",
        "slow one, gradient (6,4,3,5): slower than torch 8.00, flax linen 2.00, haiku 1.60",
    ]


def test_a_loss_within_the_quartiles_says_so():
    close = case(found("jlstm", "ours", 1.01, spread=0.1), found("haiku", "jax", 1.0, spread=0.1))
    (loss,) = report.losses([close])
    assert not loss.sure
    assert report.loss_lines([loss])[0].endswith("haiku 1.01 (quartiles overlap)")


def test_an_unsteady_figure_is_marked():
    assert found("torch", "torch", 1.0, spread=0.3).unsteady
    assert not found("torch", "torch", 1.0, spread=0.1).unsteady
    console = Console(file=io.StringIO(), width=120)
    report.show_case(case(found("a", "ours", 1.0), found("b", "jax", 1.0, spread=0.3)), console)
    assert "say little: b\n" in console.file.getvalue()


@pytest.mark.parametrize(("others", "marked"), [(0.1, False), (0.7, True), (None, False)])
def test_a_busy_machine_is_told(others, marked):
    console = Console(file=io.StringIO(), width=120)
    report.show_case(case(found("a", "ours", 1.0), others=others), console)
    assert ("others kept 0.7 cores busy" in console.file.getvalue()) is marked


def test_everything_is_printed(run):
    console = Console(file=io.StringIO(), width=120)
    report.show(run, console)
    told = console.file.getvalue()
    assert "gradient (6,4,3,5)" in told
    assert "peer: not installed (no_such_package)" in told
    assert "Geometric means" in told
    assert "Losses" in told
    assert "…" not in told


def test_the_picture_is_drawn(run, tmp_path):
    report.plot(run, tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_words_become_shapes_and_names():
    assert parse_shapes(["6,4,3,5"]) == [TINY]
    assert parse_shapes(["small", "all"])[:3] == list(harness.SMALL)
    assert len(parse_shapes(["small", "all"])) == len(harness.SHAPES)
    assert parse_names("--kinds", ["gradient,forward"], programs.KINDS) == ["forward", "gradient"]
    assert parse_names("--kinds", ["all"], programs.KINDS) == list(programs.KINDS)


def test_streams_of_the_same_sizes_are_one():
    cases = harness.plan([TINY, TINY._replace(time=9)], ["stream"])
    assert cases == [(Shape(1, 1, TINY.input, TINY.hidden), "stream")]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--shapes", "1,2,3"], "--shapes: expected all, small or T,B,D,H"),
        (["--shapes", "1,2,3,0"], "got 1,2,3,0"),
        (["--kinds", "backward"], "--kinds: expected names out of forward, gradient"),
        (["--contestants", "pytorch"], "got 'pytorch'"),
        (["--seconds", "0"], "seconds"),
        (["--json", "no/such/folder.json"], "--json: there is no directory"),
        (["--bogus"], "bogus"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, told, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert told in err
