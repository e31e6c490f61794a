"""The comparison: its errors, its counts and its complaints; its times only as far as they go."""

import json
import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm.comparison import (
    RULES,
    Flops,
    Timing,
    _compile,
    _leaves,
    _problem,
    _time_in_turn,
    _xla_flops,
    count_flops,
)

SHAPE = {"time": 6, "batch": 3, "input_size": 5, "hidden_size": 4}
LEAVES = {"w_ih", "w_hh", "b", "h0", "c0", "xs"}


def quick(**arguments):
    """A comparison that hardly takes time to measure."""
    return jlstm.compare(**SHAPE | {"seconds": 1e-6} | arguments)


@pytest.fixture(scope="module")
def double():
    return quick(time=96, batch=64, hidden_size=64, dtype=jnp.float64)  # six chunks


@pytest.fixture(scope="module")
def single():
    return quick(
        rules={
            "plain": {"derivative": "autodiff"},
            "good": {"chunk": 3},
            "rounded": {"compute_dtype": jnp.bfloat16},
        }
    )


def test_the_rules_are_those_promised(double):
    kinds = {(o["derivative"], o.get("residuals")) for o in RULES.values()}
    policies = {("vjp", r) for r in ("gates", "carry", "chunks")}
    assert kinds == {("autodiff", None), ("jvp", "gates"), *policies}
    assert [row.name for row in double.rows] == [*RULES]
    assert double.baseline.name == "autodiff"
    assert double["vjp carry"].options == {"derivative": "vjp", "residuals": "carry"}
    with pytest.raises(KeyError):
        double["gru"]


def test_float64_agrees_to_rounding(double):
    assert double.dtype == "float64"
    for row in double.rows:
        assert row.errors.keys() == LEAVES
        # A few hundred roundings of 1e-16 each; a wrong derivative is off by far more than 1e-13.
        assert all(error < 1e-13 for error in row.errors.values()), row.name
    # Autodiff in float64 is the reference itself; the hand-derived rules round differently.
    assert double["autodiff"].worst[1] == 0
    assert double["vjp gates"].worst[1] > 0


def test_a_rule_that_is_wrong_shows(single):
    good, rounded = single["good"], single["rounded"]
    # Rounding at 1e-7, a few dozen times; products of numbers rounded to 8 bits.
    assert 1e-9 < good.worst[1] < 1e-5
    assert all(rounded.errors[leaf] > 1e-4 for leaf in LEAVES - {"c0"})
    assert rounded.worst[1] < 0.1
    assert single["plain"].worst[1] > 0


def test_a_wrong_gradient_of_any_leaf_is_named(monkeypatch):
    # A fault seeded into the rules alone: the float64 reference comes from autodiff.
    import jlstm.comparison

    def lstm(params, carry, xs, **options):
        if options["derivative"] == "vjp":
            params = params._replace(b=jax.lax.stop_gradient(params.b))
        return jlstm.lstm(params, carry, xs, **options)

    monkeypatch.setattr("jlstm.comparison.lstm", lstm)
    rows = quick(rules={"ours": {"derivative": "vjp"}}).rows
    assert rows[0].worst == ("b", 1.0)


def test_each_gradient_has_its_own_name():
    gradient = jlstm.LSTMParams(1, 2, 3), jlstm.Carry(4, 5), 6
    assert _leaves(gradient) == {"w_ih": 1, "w_hh": 2, "b": 3, "h0": 4, "c0": 5, "xs": 6}


def test_nan_is_the_worst_error(single):
    row = replace(single["good"], errors={"b": 1.0, "xs": math.nan, "h0": 2.0})
    assert row.worst[0] == "xs"


def test_sixteen_bits():
    row = quick(dtype="bfloat16", rules={"vjp gates": RULES["vjp gates"]}).rows[0]
    assert 1e-5 < row.worst[1] < 0.1


def traced(function, time, batch, inputs, hidden, **options):
    """The program of ``lstm``, or of its gradient, for arrays of these sizes."""
    rule = partial(jlstm.lstm, **options)

    def gradient(params, carry, xs):
        out, pull_back = jax.vjp(rule, params, carry, xs)
        return pull_back(out)

    params = jlstm.init_params(jax.random.key(0), inputs, hidden)
    arguments = params, jlstm.init_carry(batch, hidden), jnp.ones((time, batch, inputs), "float32")
    run = {"forward": rule, "gradient": gradient}[function]
    return jax.jit(run).trace(*arguments), arguments


# Ratios of the gradient's products to the forward pass's, z_t = x_t·W + h_{t-1}·U: forward, dx and
# dh, dW and dU are three; where gates are computed again, four.
@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({"derivative": "autodiff"}, 3),
        ({"residuals": "gates"}, 3),
        ({"residuals": "carry"}, 4),
        ({"residuals": "chunks"}, 4),
        ({"derivative": "jvp"}, 3),
        ({"residuals": "gates", "chunk": 5}, 3),  # 12 = 5 + 5 + 2
    ],
)
def test_flops_are_those_of_the_formula(options, passes):
    time, batch, inputs, hidden = 12, 3, 5, 7
    once = 2 * time * batch * 4 * hidden * (inputs + hidden)
    forward, _ = traced("forward", time, batch, inputs, hidden, **options)
    gradient, _ = traced("gradient", time, batch, inputs, hidden, **options)
    assert count_flops(forward.jaxpr) == Flops(once, 0)
    assert count_flops(gradient.jaxpr).products == passes * once


@pytest.mark.parametrize(
    ("options", "turns"),
    [
        ({"derivative": "autodiff"}, 12),
        ({"chunk": 12}, 0),
        ({"chunk": 3}, 4),
        ({"derivative": "jvp", "chunk": 3}, 4),
        ({"chunk": 5}, 2),  # the remainder is added outside of any loop
    ],
)
def test_sums_into_the_weights_gradients_are_counted(options, turns):
    inputs, hidden = 5, 7
    gradient, _ = traced("gradient", 12, 3, inputs, hidden, **options)
    assert count_flops(gradient.jaxpr).sums == turns * 4 * hidden * (inputs + hidden + 1)


def test_of_the_branches_of_a_choice_the_largest_counts():
    w = jnp.ones((3, 3))

    def sums(turns):
        return lambda a: jax.lax.scan(lambda a, _: (a @ w + a, None), a, length=turns)[0]

    def choose(first, a):
        return jax.lax.cond(first, sums(2), sums(5), a)

    def on_platform(first, a):
        return jax.lax.platform_dependent(a, cpu=sums(5), default=sums(2))

    for run in (choose, on_platform):
        program = jax.jit(run).trace(True, jnp.ones((2, 3))).jaxpr
        assert count_flops(program) == Flops(5 * 2 * 2 * 3 * 3, 5 * 2 * 3)


def test_xla_counts_the_same_where_there_is_no_loop():
    # One step: the products are nearly all of it, and XLA's own count needs no loop taken apart.
    program, _ = traced("gradient", 1, 32, 64, 64, derivative="autodiff")
    ours = count_flops(program.jaxpr).products
    theirs = program.lower().compile().cost_analysis()["flops"]
    assert ours <= theirs <= 1.2 * ours


def test_the_row_holds_what_was_counted(double):
    once = 2 * 96 * 64 * 4 * 64 * (5 + 64)
    assert [row.flops for row in double.rows] == [3 * once, 3 * once, 4 * once, 4 * once, 3 * once]
    assert double["autodiff"].weight_sum_flops == 96 * 4 * 64 * (5 + 64 + 1)
    assert double["vjp gates"].weight_sum_flops == 6 * 4 * 64 * (5 + 64 + 1)


def test_xlas_own_count_takes_a_loop_once(double):
    # Which is why it is no measure of the work: twice the steps, and it says the same.
    rules = {"autodiff": {"derivative": "autodiff"}}
    short, long = (quick(time=time, rules=rules).rows[0] for time in (24, 48))
    assert 0 < short.xla_flops == pytest.approx(long.xla_flops, rel=0.2)
    assert long.flops == 2 * short.flops
    assert double.baseline.xla_flops > 0  # of a kernel's calls it counts nothing


def test_what_xla_does_not_tell_is_not_made_up():
    assert [_xla_flops(costs) for costs in (None, {}, {"flops": -1.0}, {"flops": 8})] == [
        *(None, None, None, 8.0)
    ]


def test_temporary_memory_falls_with_what_is_kept(double):
    gates, carry, chunks = (double[f"vjp {kept}"] for kept in ("gates", "carry", "chunks"))
    assert gates.temp_bytes > carry.temp_bytes > chunks.temp_bytes > 0
    assert double.baseline.temp_saving == 1
    assert chunks.temp_saving == double.baseline.temp_bytes / chunks.temp_bytes


def test_times_are_ordered_and_relative_to_the_first(single):
    assert single.rounds >= 3
    for row in single.rows:
        for timing in (row.forward_seconds, row.gradient_seconds):
            assert 0 < timing.lower <= timing.median <= timing.upper
        assert row.compile_seconds > 0
    assert single.baseline.forward_speedup == single.baseline.gradient_speedup == 1
    assert Timing(3, 1, 4).spread == 1.5


def test_a_speedup_is_the_baselines_time_over_the_rules(monkeypatch):
    forward, gradient = {"a": [2.0] * 3, "b": [1.0] * 3}, {"a": [3.0] * 3, "b": [12.0] * 3}
    monkeypatch.setattr("jlstm.comparison._time_in_turn", lambda *_: (forward, gradient))
    rules = {"a": {"derivative": "autodiff"}, "b": {"derivative": "vjp"}}
    a, b = quick(rules=rules).rows
    assert (a.forward_speedup, a.gradient_speedup) == (1, 1)
    assert (b.forward_speedup, b.gradient_speedup) == (2, 0.25)
    assert (b.forward_seconds, b.gradient_seconds) == (Timing(1, 1, 1), Timing(12, 12, 12))


class FakeClock:
    """In place of the module's clock: stands still but where a test lets time pass."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now

    def spend(self, seconds, result=None):
        self.now += seconds
        return result


@pytest.fixture
def fake_clock(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr("jlstm.comparison.clock", clock)
    return clock


def test_a_call_is_timed_until_its_result_is_there(fake_clock):
    # As on a device that works on its own: the call returns at once, the result comes later.
    def program(computing):
        result = SimpleNamespace(block_until_ready=lambda: fake_clock.spend(computing))
        return lambda *_: fake_clock.spend(0.125, result)

    programs = {"a": SimpleNamespace(forward=program(2), gradient=program(8))}
    forward, gradient = _time_in_turn(programs, (), 1e-9)
    assert forward == {"a": [2.125] * 3}
    assert gradient == {"a": [8.125] * 3}


def test_compiling_is_timed_from_the_function_to_the_executable(fake_clock, monkeypatch):
    executable = SimpleNamespace(
        memory_analysis=lambda: fake_clock.spend(64), cost_analysis=lambda: fake_clock.spend(128)
    )
    lowered = SimpleNamespace(compile=lambda: fake_clock.spend(4, executable))
    stages = {
        "trace": lambda *_: fake_clock.spend(
            1, SimpleNamespace(jaxpr=SimpleNamespace(eqns=[]), lower=lower)
        ),
        "lower": lambda *_: lower(),
    }

    def lower():
        return fake_clock.spend(2, lowered)

    monkeypatch.setattr(
        "jlstm.comparison.jax", SimpleNamespace(jit=lambda _: SimpleNamespace(**stages))
    )
    program = _compile({}, ())
    assert program.compile_seconds == 1 + 2 + 4
    assert (program.temp_bytes, program.xla_flops) == (None, None)


def test_rules_are_timed_in_turn():
    calls = []

    class Program:
        def __init__(self, name):
            self.forward = lambda *_: calls.append((name, "forward"))
            self.gradient = lambda *_: calls.append((name, "gradient"))

    forward, gradient = _time_in_turn({"a": Program("a"), "b": Program("b")}, (), 1e-9)
    one_round = [("a", "forward"), ("a", "gradient"), ("b", "forward"), ("b", "gradient")]
    assert calls == 4 * one_round  # a warm-up, then the least number of rounds
    assert [len(taken) for taken in (*forward.values(), *gradient.values())] == [3, 3, 3, 3]


def test_measuring_lasts_as_long_as_it_may():
    rules = {"autodiff": {"derivative": "autodiff"}}
    assert quick(rules=rules, seconds=0.2).rounds > 20


def test_json_keeps_everything(single):
    told = single.to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["time"] == 6
    assert told["hidden_size"] == 4
    row = told["rows"][2]
    assert row["name"] == "rounded"
    assert row["options"] == {"compute_dtype": "bfloat16"}
    assert row["errors"].keys() == LEAVES
    assert row["xla_flops"] == single["rounded"].xla_flops > 0
    assert row["gradient_seconds"]["median"] == single["rounded"].gradient_seconds.median


def test_numpys_integers_are_plain_in_json():
    rules = {"vjp": {"derivative": "vjp"}}
    told = quick(time=np.int64(2), seed=np.uint32(3), rules=rules).to_dict()
    assert json.loads(json.dumps(told))["seed"] == 3


def test_json_has_no_word_for_nan(single):
    row = replace(single["good"], errors={"b": math.nan, "xs": math.inf, "h0": 1.0})
    told = replace(single, rows=(row,)).to_dict()
    assert told["rows"][0]["errors"] == {"b": None, "xs": None, "h0": 1.0}


def test_a_seed_is_a_problem():
    first, again, other = (_problem(seed, 6, 3, 5, 4, np.dtype("float32")) for seed in (1, 1, 2))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), first, again)
    assert all(jax.tree.leaves(same))
    differ = jax.tree.map(lambda a, b: bool((a != b).any()), first, other)
    assert all(jax.tree.leaves(differ._replace(params=differ.params._replace(b=True))))
    # Nothing is zero or the same as something else: a cotangent left out would go unnoticed.
    rows = [np.asarray(leaf).ravel()[:4].tobytes() for leaf in jax.tree.leaves(first)]
    assert len({*rows}) == len(rows) == 9


def test_the_callers_configuration_is_left_alone():
    with jax.enable_x64(False):
        errors = quick(dtype="float64", rules={"vjp gates": RULES["vjp gates"]}).rows[0].errors
        assert not jax.enable_x64.value
        assert jnp.zeros(2).dtype == np.float32
        # Without float64 switched on for it, "float64" would have been float32 and far off.
        assert max(errors.values()) < 1e-13


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"time": 0}, ValueError, "time: expected at least 1, got 0"),
        ({"batch": 2.5}, TypeError, "batch: expected an int, got float 2.5"),
        ({"input_size": -1}, ValueError, "input_size: expected at least 1"),
        ({"hidden_size": "4"}, TypeError, "hidden_size: expected an int, got str"),
        ({"dtype": jnp.int32}, TypeError, "dtype: expected a floating-point dtype, got int32"),
        ({"dtype": "half-baked"}, TypeError, "dtype: expected a floating-point dtype"),
        ({"hidden_size": 2**31}, ValueError, "hidden_size: expected at most 2147483647"),
        ({"hidden_size": 2**30}, ValueError, "hidden_size: expected arrays of fewer than"),
        ({"time": 2**30, "batch": 2**30}, ValueError, "^time, batch, input_size: expected arrays"),
        ({"dtype": 3}, TypeError, "dtype: expected a floating-point dtype"),
        ({"seconds": 0}, ValueError, "seconds: expected a number above 0, got 0"),
        ({"seconds": -1.5}, ValueError, "seconds: expected a number above 0, got -1.5"),
        ({"seconds": math.nan}, ValueError, "seconds: expected a finite number, got nan"),
        ({"seconds": math.inf}, ValueError, "seconds: expected a finite number, got inf"),
        ({"seconds": True}, TypeError, "seconds: expected a number, got bool True"),
        ({"seconds": "10"}, TypeError, "seconds: expected a number, got str '10'"),
        ({"seed": -1}, ValueError, "seed: expected at least 0, got -1"),
        ({"seed": 2**63}, ValueError, "seed: expected at most 9223372036854775807"),
        ({"rules": {}}, ValueError, "rules: expected at least one rule, got none"),
        ({"rules": ["vjp"]}, TypeError, "rules: expected a mapping, got list"),
        ({"rules": {1: {}}}, TypeError, "rules: expected names that are str, got int 1"),
        ({"rules": {"x": 3}}, TypeError, r"rules\['x'\]: expected a mapping, got int"),
        ({"rules": {"a": "vjp"}}, TypeError, r"rules\['a'\]: expected a mapping, got str"),
        ({"rules": {"a": {"reverse": True}}}, ValueError, r"rules\['a'\]: .* got reverse"),
        ({"rules": {"a": {"derivative": "x"}}}, ValueError, "derivative: expected one of"),
    ],
)
def test_a_mistake_is_told(wrong, kind, message):
    with pytest.raises(kind, match=message):
        quick(**wrong)
