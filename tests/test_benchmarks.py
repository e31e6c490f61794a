"""The benchmarks' own arithmetic, and one tiny run of what needs no peer; no time is judged."""

import io
import json
import math
from dataclasses import replace
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from rich.console import Console

from jlstm.comparison import Timing
from jlstm.kernels import native
from tests.benchmarks import (
    contestants,
    harness,
    modules,
    precision,
    programs,
    report,
    scaling,
    streaming,
    variants,
)
from tests.benchmarks.__main__ import main, parse_names, parse_shapes
from tests.benchmarks.contestants import CONTESTANTS, PLAIN, SCAN, Contestant, Shape, ours

TINY = Shape(time=6, batch=4, input=3, hidden=5)
OURS = [c for c in CONTESTANTS if c.package is None]
(ONNX,) = (c for c in CONTESTANTS if c.name == "onnxruntime")
NAMES = {"jlstm", "jlstm scan", "jlstm carry", "jlstm chunks", "jlstm cores", "autodiff"}


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
    return harness.Case(shape, kind, 4_000, 2e6, 4e6, 5, others, results, {})


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
    few = (variants.PLAIN, "coupled gates", variants.HALF[0], "zoneout")
    patch.setattr(variants, "VARIANTS", {name: variants.VARIANTS[name] for name in few})
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
    series = scaling.measure("T", [TINY, TINY._replace(time=9)], 1e-3)
    rounded = precision.measure([TINY], 1e-3)
    varied = variants.measure([TINY], 1e-3)
    with pytest.MonkeyPatch.context() as patch:  # each is two programs to compile per variant
        few = {kind: variants.DERIVATIVES[kind] for kind in ("gradient", "ensemble")}
        patch.setattr(variants, "DERIVATIVES", few)
        memory = variants.measure_memory(TINY)
    machine = harness.describe_machine()
    return report.Report(machine, 1e-3, 0, tuple(cases), (series,), rounded, varied, memory)


@pytest.mark.slow
def test_everybody_who_is_there_takes_part_and_agrees(run):
    for one in run.cases:
        expected = {"jlstm"} if one.kind == "stream" else NAMES
        if contestants.without_kernel(TINY) is not None:
            expected = expected - {"jlstm scan"}
        assert {r.name for r in one.results} == expected
        assert all(0 <= r.difference < 1e-5 for r in one.results)
        assert one.rounds >= harness.LEAST_ROUNDS
        assert one.left_out["peer"] == "not installed (no_such_package)"


@pytest.mark.slow
def test_the_report_has_its_fields(run):
    told = json.loads(json.dumps(run.to_dict(), allow_nan=False))
    fields = {"machine", "seconds", "seed", "cases", "means", "losses", "scaling", "precision"}
    assert fields | {"variants", "memory", "streaming", "modules"} == set(told)
    assert {"processor", "cores", "versions", "threads", "environment"} <= set(told["machine"])
    assert told["cases"][0]["shape"] == TINY._asdict()
    row = told["cases"][1]["results"][0]
    assert {"median", "lower", "upper"} == set(row["seconds"])
    assert row["temp_bytes"] >= 0
    assert row["compile_seconds"] > 0
    assert row["times_best_jax_peer"] > 0
    assert row["times_torch"] is None
    assert row["times_onnxruntime"] is None
    assert row["flops_per_second"] > 0
    assert row["share_of_matrix_rate"] > 0
    assert (row["share_of_peak"] is None) == isinstance(native.library(), str)


@pytest.mark.slow
def test_the_report_says_how_it_scales(run):
    (series,) = json.loads(json.dumps(run.to_dict(), allow_nan=False))["scaling"]
    assert series["over"] == "T"
    assert [point["shape"]["time"] for point in series["points"]] == [6, 9]
    assert set(series["compile_spreads"]) == set(scaling.NAMES)
    for point in series["points"]:
        rows = {row["name"]: row for row in point["rows"]}
        assert list(rows) == list(scaling.NAMES)
        assert rows["autodiff"]["compile_seconds_over_autodiff"] == 1
        for row in rows.values():
            each = row["seconds"]["median"] / point["shape"]["time"]
            assert row["seconds_per_step"] == pytest.approx(each)
            assert row["seconds_per_step_and_sequence"] == pytest.approx(each / TINY.batch)
            assert row["temp_bytes"] >= 0
            assert row["compile_seconds"] > 0


@pytest.mark.slow
def test_the_report_says_how_precise_it_is(run):
    told = json.loads(json.dumps(run.to_dict(), allow_nan=False))["precision"]
    assert told["has_bfloat16"] in (True, False, None)
    (point,) = told["points"]
    assert point["shape"] == TINY._asdict()
    wide, narrow = point["rows"]
    assert (wide["name"], narrow["name"]) == ("float32", "bfloat16")
    assert wide["times_float32"] == 1
    assert narrow["times_float32"] > 0
    arrays = {"hs", "c", "dw_ih", "dw_hh", "db", "dh0", "dc0", "dxs"}
    assert set(wide["errors"]) == set(narrow["errors"]) == arrays
    assert all(0 < error < 1e-5 for error in wide["errors"].values())
    assert all(1e-5 < error < 0.1 for error in narrow["errors"].values())


@pytest.mark.slow
def test_the_report_says_what_a_variant_costs_and_why(run):
    (point,) = json.loads(json.dumps(run.to_dict(), allow_nan=False))["variants"]
    assert point["shape"] == TINY._asdict()
    plain, coupled, half, zoneout = point["rows"]
    assert plain["times_plain_cell"] == 1
    assert all(row["times_as_fast_as_autodiff"] > 0 for row in point["rows"])
    # Three products of 4 or 3 gates; with half the outputs U is half as large, and P beside it.
    time, batch, inputs, hidden = TINY
    rows = 6 * time * batch
    assert plain["products"] == rows * 4 * hidden * (inputs + hidden)
    assert coupled["products"] == rows * 3 * hidden * (inputs + hidden)
    output = hidden // 2
    assert half["products"] == rows * hidden * (4 * (inputs + output) + output)
    assert [row["draws"] for row in (plain, coupled, half)] == [0, 0, 0]
    # Two masks, forward and backward.
    assert zoneout["draws"] == 4
    assert zoneout["per_unit"] > coupled["per_unit"] > 10


@pytest.mark.slow
def test_the_report_says_how_much_memory_each_derivative_takes(run):
    told = json.loads(json.dumps(run.to_dict(), allow_nan=False))["memory"]
    assert [row["name"] for row in told] == list(variants.VARIANTS)
    kinds = {"gradient", "ensemble"}
    for row in told:
        assert set(row["by_hand"]) == set(row["by_autodiff"]) == kinds
        assert min(*row["by_hand"].values(), *row["by_autodiff"].values()) >= 0
        assert row["by_hand"]["ensemble"] > row["by_hand"]["gradient"] > 0


def test_every_kind_of_derivative_is_what_it_says():
    problem = programs.make_problem(TINY)
    point = problem.params, problem.carry, problem.xs
    layer = ours(TINY, derivative="autodiff")

    def shapes(kind):
        out = jax.eval_shape(variants.DERIVATIVES[kind](layer.apply), *point)
        return jax.tree.map(lambda a: a.shape, out)

    like = jax.tree.map(lambda a: a.shape, point)
    assert shapes("gradient") == like
    assert shapes("Hessian · v") == (like, like)
    primal, tangent = shapes("jvp")
    assert primal == tangent == (like[1], (TINY.time, TINY.batch, TINY.hidden))
    n, batch = variants.ENSEMBLE, TINY.batch
    assert shapes("ensemble").w_hh == (n, *like[0].w_hh)
    assert shapes("per example").w_hh == (batch, *like[0].w_hh)


def test_what_is_computed_one_by_one_is_counted():
    def work(a, w):
        def step(a, _):
            return jnp.tanh(a @ w) + 1, None

        return lax.scan(step, a, length=5)[0]

    jaxpr = jax.make_jaxpr(work)(jnp.ones((2, 3)), jnp.ones((3, 3)))
    assert variants.arithmetic(jaxpr) == (5 * 2 * 2 * 3 * 3, 5 * 2 * (2 * 3), 0)

    def choose(first, a, w):
        return lax.cond(first, work, lambda a, w: jnp.sin(a), a, w)

    either = jax.make_jaxpr(choose)(True, jnp.ones((2, 3)), jnp.ones((3, 3)))
    assert variants.arithmetic(either)[:2] == (5 * 2 * 2 * 3 * 3, 5 * 2 * (2 * 3))
    drawn = jax.make_jaxpr(lambda key: jax.random.bernoulli(key, shape=(7,)))(jax.random.key(0))
    assert variants.arithmetic(drawn)[2] == 7


def test_what_was_not_asked_for_is_empty_in_the_report():
    told = report.Report(harness.describe_machine(), 1.0, 0, (MADE_UP,)).to_dict()
    assert told["variants"] == []
    assert told["scaling"] == []
    assert told["precision"] is None


@pytest.mark.slow
def test_the_work_counted_is_that_of_the_program(run):
    for one in run.cases:
        if one.kind in ("forward", "gradient", "step"):
            by_name = {r.name: r for r in one.results}
            assert by_name["autodiff"].flops == one.work
            assert by_name["jlstm"].flops >= one.work


@pytest.mark.slow
def test_those_who_scale_compute_the_same():
    """And the same as the gradient of everything, where hs has a cotangent of zeros."""
    found = {
        name: program.answer()
        for name, (program, taken) in scaling.build(TINY, 0, lambda _: None).items()
        if len(taken) == scaling.COMPILATIONS
    }
    assert list(found) == list(scaling.NAMES)
    problem = programs.make_problem(TINY)
    whole = programs.build(PLAIN, problem._replace(d_hs=0 * problem.d_hs), "gradient").answer()
    del whole["hs"]
    for answer in found.values():
        assert max(harness.differences(answer, whole).values()) < 1e-5


@pytest.mark.slow
def test_nobody_is_timed_who_takes_too_much_memory(monkeypatch):
    monkeypatch.setattr(scaling, "COMPILATIONS", 1)
    monkeypatch.setattr(scaling, "MOST_TEMP_BYTES", -1)
    point = scaling.measure_point(TINY, 1e-3, 0, lambda _: None)
    assert all(row.seconds is None and row.temp_bytes >= 0 for row in point.rows)
    assert all(row.compile_seconds > 0 for row in point.rows)
    console = Console(file=io.StringIO(), width=120)
    report.show_series(scaling.Series("B", (point,)), console)
    assert "not timed: above" in console.file.getvalue()


@pytest.mark.parametrize("kind", ["forward", "stream"])
def test_onnxruntime_computes_the_same(kind):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    ((shape, _),) = harness.plan([TINY], [kind])
    problem = programs.make_problem(shape)
    program, ours = (programs.build(c, problem, kind) for c in (ONNX, OURS[0]))
    for _ in range(2):  # a stream goes on, its answer is that of the first step
        program.call()
    assert max(harness.differences(program.answer(), ours.answer()).values()) < 1e-5


def test_onnxruntime_is_left_out_where_gradients_are_asked_for():
    there = ONNX._replace(package=None)
    reasons = {kind: harness.reason_to_leave_out(there, TINY, kind) for kind in programs.KINDS}
    without = "it finds no gradients"
    assert reasons == {"forward": None, "gradient": without, "step": without, "stream": None}


@pytest.mark.parametrize("why", [None, "it was not built"])
def test_the_scan_is_told_apart_only_from_a_kernel(why, monkeypatch):
    monkeypatch.setattr(harness, "without_kernel", lambda shape: why)
    told = harness.reason_to_leave_out(SCAN, TINY, "gradient")
    assert told == (why and f"the same as jlstm, which takes no native kernel: {why}")
    assert harness.reason_to_leave_out(OURS[0], TINY, "gradient") is None


def test_a_kernel_is_asked_why_it_refuses(monkeypatch):
    def lstm(params, carry, xs, *, implementation):
        assert (implementation, xs.shape) == ("native", (6, 4, 3))
        raise ValueError("it was not built")

    monkeypatch.setattr(contestants.jlstm, "lstm", lstm)
    assert contestants.without_kernel(TINY) == "it was not built"
    monkeypatch.setattr(contestants.jlstm, "lstm", lambda *args, implementation: args[2])
    assert contestants.without_kernel(TINY) is None


@pytest.mark.parametrize("gates", [None, variants.VARIANTS["coupled gates"]])
def test_variants_are_walked_by_the_scan(gates, monkeypatch):
    asked = []
    monkeypatch.setattr(contestants.jlstm, "lstm", lambda *_, **options: asked.append(options))
    problem = programs.make_problem(TINY)
    layer = variants.layer_of(TINY, gates, problem, derivative="vjp")
    layer.apply(layer.load(problem.params), problem.carry, problem.xs)
    assert asked[0].items() >= {"implementation": "xla", "derivative": "vjp"}.items()


def other(shape):
    """Not what the others compute."""
    layer = ours(shape)
    return layer._replace(
        load=lambda p: p._replace(b=p.b[::-1]), unload=lambda d: d._replace(b=d.b[::-1])
    )


def test_a_replacement_is_timed_beside_what_it_replaces(monkeypatch):
    pairs = {"jax": (contestants.plain_scan, ours), "no_such_package": (ours, ours)}
    monkeypatch.setattr(modules, "REPLACEMENTS", pairs)
    monkeypatch.setattr(modules, "PACKAGES", {name: name for name in pairs})
    points = modules.measure([TINY], 1e-3)
    (point,) = points
    assert [(row.kind, row.name) for row in point.rows] == [("gradient", "jax"), ("forward", "jax")]
    console = Console(file=io.StringIO(), width=120)
    report.show_modules(points, console)
    told = " ".join(console.file.getvalue().split())
    assert "(6,4,3,5) gradient jax" in told
    assert "not installed: no_such_package" in told
    (said,) = report.Report(None, 1.0, 0, (), modules=points).to_dict()["modules"]
    assert said["shape"]["time"] == 6
    assert said["rows"][0]["times_as_fast"] == pytest.approx(modules.gain(point.rows[0]))


def test_a_replacement_that_computes_something_else_is_an_error(monkeypatch):
    monkeypatch.setattr(modules, "REPLACEMENTS", {"jax": (ours, other)})
    monkeypatch.setattr(modules, "PACKAGES", {"jax": "jax"})
    with pytest.raises(RuntimeError, match=r"modules \(6,4,3,5\): jax, gradient: other numbers"):
        modules.measure([TINY], 1e-3)


def test_a_gain_is_theirs_over_ours():
    row = modules.Row("forward", "jax", Timing(3.0, 3.0, 3.0), Timing(2.0, 2.0, 2.0))
    assert modules.gain(row) == 1.5


def test_who_computes_something_else_is_left_out():
    one = harness.run_case([OURS[0], Contestant("other", "jax", other)], TINY, "forward", 1e-3)
    assert [r.name for r in one.results] == ["jlstm"]
    assert one.left_out["other"].startswith("other numbers than ours")


@pytest.mark.slow
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
    assert made == {"quick": 2 + 5 * (4 + 4), "long": 2 + 5 * (1 + 1)}


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


def test_the_tables_have_a_column_for_each_rival_that_is_there():
    def told(*cases):
        console = Console(file=io.StringIO(), width=120)
        report.show_case(cases[0], console)
        report.show_summary(cases, console)
        return console.file.getvalue()

    assert "onnx" not in told(MADE_UP)
    # 4,000 operations in 2 ms, of four million a second at most.
    assert " 0.002 50 % " in " ".join(told(MADE_UP).split())
    onnx = case(found("jlstm", "ours", 2e-3), found("onnxruntime", "onnxruntime", 3e-3))
    lines = [" ".join(line.split()) for line in told(onnx).splitlines()]
    assert "gradient jlstm – – – – 1.50 1.50 (6,4,3,5) –, –, 1" in lines


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


def scaled(**compile_seconds):
    rows = (
        scaling.Row(name.replace("_", " "), Timing(2.4, 1.2, 3.6), 10**6, seconds)
        for name, seconds in compile_seconds.items()
    )
    return scaling.Point(TINY, 0.7, tuple(rows))


def test_compiling_is_held_against_the_plain_scan_and_over_the_series():
    one, other = scaled(jlstm=0.6, autodiff=0.4), scaled(jlstm=0.9, autodiff=0.4)
    assert [scaling.compile_ratio(one, row) for row in one.rows] == pytest.approx([1.5, 1])
    spreads = scaling.compile_spreads(scaling.Series("T", (one, other)))
    assert spreads == pytest.approx({"jlstm": 1.5, "autodiff": 1})


@pytest.mark.parametrize(
    ("over", "line"),
    [
        ("T", "jlstm 400000 200000–600000 1 0.60 1.50"),  # 6 steps
        ("B", "jlstm 100000 50000–150000 1 0.60 1.50"),  # of 4 sequences
    ],
)
def test_the_table_of_a_series_divides_by_what_it_says(over, line):
    console = Console(file=io.StringIO(), width=120)
    report.show_series(scaling.Series(over, (scaled(jlstm=0.6, autodiff=0.4),)), console)
    told = " ".join(console.file.getvalue().split())
    assert f"scaling in {over}" in told
    assert f"(6,4,3,5) {line}" in told
    assert "others kept 0.7 cores busy" in told
    assert "not timed" not in told


def test_bfloat16_is_held_against_float32():
    point = precision.Point(
        TINY,
        None,
        tuple(
            precision.Row(name, {"hs": 1e-3}, Timing(t, t, t))
            for name, t in (("float32", 3), ("bfloat16", 2))
        ),
    )
    assert [precision.speedup(point, row) for row in point.rows] == [1, 1.5]


@pytest.mark.parametrize(
    ("flags", "has", "told"),
    [
        ("fpu avx512_bf16 sse", True, "the processor has bfloat16"),
        ("fpu amx_bf16", True, "the processor has bfloat16"),
        ("fpu avx512f", False, "the processor has no bfloat16"),
        (None, None, "the processor does not say"),
    ],
)
@pytest.mark.slow
def test_the_processor_is_asked_for_bfloat16(run, flags, has, told, monkeypatch):
    monkeypatch.setattr(precision, "cpuinfo", lambda field: flags if field == "flags" else "x")
    assert precision.has_bfloat16() is has
    console = Console(file=io.StringIO(), width=120)
    report.show_precision(replace(run.precision, has_bfloat16=has), console)
    assert told in console.file.getvalue()


def test_streams_are_measured_and_told(monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK", 3)
    monkeypatch.setattr(streaming, "PEERS", ())  # the next test has one of them
    shapes = [Shape(1, batch, 3, 5) for batch in (1, 4)]
    here = streaming.measure_here(shapes, 1e-3, seed=0, inline=True)
    for point in here.points:
        assert [row.name for row in point.rows] == [
            streaming.OURS,
            streaming.WITH_NUMPY,
            streaming.BY_HAND,
        ]
        for row in point.rows:
            assert row.difference < 1e-6
            assert 0 < row.median <= row.p99
            assert row.steps_per_second > 0
            assert row.calls >= 2 * harness.LEAST_ROUNDS
    whole = report.Report(harness.describe_machine(), 1e-3, 0, (), streaming=(here,))
    (told,) = json.loads(json.dumps(whole.to_dict(), allow_nan=False))["streaming"]
    assert told["points"][1]["shape"]["batch"] == 4
    console = Console(file=io.StringIO(), width=120)
    report.show_streaming([here], console)
    assert "in the thread that calls" in console.file.getvalue()
    assert "(1,4,3,5) jlstm " in " ".join(console.file.getvalue().split())


def test_the_99th_percentile_and_the_throughput_are_of_single_calls(monkeypatch):
    now = [0.0]
    lengths = iter([1.0] + [0.5] * 98 + [2.0])  # the first is not counted

    def call():
        now[0] += next(lengths)

    monkeypatch.setattr(harness, "LEAST_ROUNDS", 1)
    monkeypatch.setattr(streaming.clock, "perf_counter", lambda: now[0])
    taken = streaming.time_calls({"one": call}, seconds=0.0)
    assert taken == {"one": [0.5] * 98 + [2.0]}


@pytest.mark.slow
def test_streams_are_measured_in_processes_of_their_own():
    found = streaming.measure([Shape(1, 2, 3, 5)], 1e-3)
    assert [way.inline for way in found] == [False, True]
    assert all(row.difference < 1e-5 for way in found for row in way.points[0].rows)


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


@pytest.mark.slow
def test_everything_is_printed(run):
    console = Console(file=io.StringIO(), width=120)
    report.show(run, console)
    told = console.file.getvalue()
    assert "gradient (6,4,3,5)" in told
    assert "peer: not installed (no_such_package)" in told
    assert "Geometric means" in told
    assert "Losses" in told
    assert "scaling in T" in told
    assert "longest compilation over T / shortest: jlstm " in told
    assert "precision" in told
    assert "coupled gates" in told
    assert "…" not in told


@pytest.mark.slow
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
        (["--scaling=some"], "--scaling"),
        (["--no-scaling"], "--no-scaling"),
        (["--precision", "bfloat16"], "bfloat16"),
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


def test_the_help_describes_what_can_be_asked_for(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    for flag in (
        "--shapes",
        "--kinds",
        "--scaling",
        "--precision",
        "--variants",
        "--streaming",
        "--modules",
        "--json",
    ):
        assert flag in told
    assert "bfloat16" in told
