"""The hand-derived rules against autodiff: their errors, their time, their memory, side by side.

Every rule computes the same derivative: for random cotangents of all that ``lstm`` returns, those
of the parameters, of the initial carry and of xs. What differs is recorded in ``Measurement``.

Two things are counted and not measured. XLA's own estimate of a program's arithmetic takes the body
of a loop once, however often it runs; it is recorded as ``xla_flops``, and is no measure of the
work. So ``count_flops`` counts in the program that is handed to XLA, with

    forward     2·T·B·4H·(D + H)        z_t = x_t·W + h_{t-1}·U
    gradient    3 times that            the forward pass; dx and dh_{t-1}; dW and dU

floating-point operations for T steps, batch B, D inputs and H hidden units, and once more the
forward pass where gates are computed again. It also counts what autodiff of a scan adds to that: at
every step a sum as large as the weights, 4H·(D + H + 1), which is little arithmetic, and much
memory to walk through.
"""

import math
import os
import platform
import statistics
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike

from jlstm.checks import check_number, check_size
from jlstm.initializers import init_params
from jlstm.sequence import lstm
from jlstm.types import Carry, LSTMParams, check_float

Options = Mapping[str, Any]
"""Arguments of ``lstm`` that change how it computes, and not what: those in ``OPTIONS``."""

OPTIONS = ("derivative", "residuals", "chunk", "unroll", "compute_dtype")

RULES: Mapping[str, Options] = {
    "autodiff": {"derivative": "autodiff"},
    "vjp gates": {"derivative": "vjp", "residuals": "gates"},
    "vjp carry": {"derivative": "vjp", "residuals": "carry"},
    "vjp chunks": {"derivative": "vjp", "residuals": "chunks"},
    "jvp gates": {"derivative": "jvp", "residuals": "gates"},
}
"""What ``compare`` compares if not told: autodiff of the plain scan first, the baseline."""

LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Timing:
    """How long one call took, over all rounds, in seconds."""

    median: float
    lower: float
    """The lower quartile."""
    upper: float
    """The upper quartile."""

    @property
    def spread(self) -> float:
        """Half of the distance between the quartiles, in seconds."""
        return (self.upper - self.lower) / 2


@dataclass(frozen=True)
class Measurement:
    """What was found about one rule; "gradient" is the forward and the backward pass together."""

    name: str
    options: Options
    """The arguments of ``lstm`` that make the rule."""
    forward_seconds: Timing
    gradient_seconds: Timing
    forward_speedup: float
    """The baseline's median time divided by this rule's: above 1 this rule is faster."""
    gradient_speedup: float
    temp_bytes: int | None
    """Memory that the compiled gradient takes beside its arguments and results; None where the
    backend does not tell."""
    temp_saving: float | None
    """The baseline's temporary bytes divided by this rule's: above 1 this rule takes less."""
    flops: int
    """Floating-point operations in the matrix products of the gradient, a + b·c being two, counted
    in the traced program: a loop's body as often as it runs."""
    xla_flops: float | None
    """XLA's own estimate for the compiled gradient, elementwise operations included. It counts the
    body of a loop once, however often it runs, so it says little where there is a loop. None where
    the backend does not tell."""
    weight_sum_flops: int
    """Additions into the weights' gradients that are made step by step or chunk by chunk."""
    compile_seconds: float
    """From the Python function of the gradient to its executable: tracing, lowering, XLA."""
    errors: Mapping[str, float]
    """For w_ih, w_hh, b, h0, c0 and xs: max |d − d₆₄| / max |d₆₄|, where d is this rule's gradient
    and d₆₄ autodiff's in float64 from the same numbers."""

    @property
    def worst(self) -> tuple[str, float]:
        """The leaf with the largest error, and that error; NaN is larger than any number."""
        return max(self.errors.items(), key=lambda item: (math.isnan(item[1]), item[1]))


@dataclass(frozen=True)
class Comparison:
    """Rules measured side by side; the first is the baseline that the others are held against."""

    time: int
    batch: int
    input_size: int
    hidden_size: int
    dtype: str
    seed: int
    rounds: int
    """How often each rule was timed."""
    device: str
    jax_version: str
    rows: tuple[Measurement, ...]

    def __getitem__(self, name: str) -> Measurement:
        """The measurement of the rule of this name; KeyError if there is none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    @property
    def baseline(self) -> Measurement:
        """The first rule."""
        return self.rows[0]

    def to_dict(self) -> dict[str, Any]:
        """All of it in dictionaries, lists, strings and numbers, for JSON.

        A number that JSON has no word for, NaN or infinity, becomes None.
        """
        return {key: plain(value) for key, value in asdict(self).items()}


def plain(value: Any) -> Any:
    """A value as JSON can say it: tuples as lists, NaN and infinity as None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Flops(NamedTuple):
    """Floating-point operations of a program."""

    products: int
    """In matrix products, a + b·c being two."""
    sums: int
    """Additions into a sum that a loop carries from turn to turn."""


def count_flops(jaxpr: Any) -> Flops:
    """The operations of a traced program of ``lstm``: ``jax.jit(f).trace(...).jaxpr``.

    A product of [m, k] and [k, n] is 2·m·n·k operations, and the body of a scan counts as often as
    it runs. Of the branches of a choice, such as that between platforms, one is run: the largest
    number counts. A sum carried by a loop is a carry that the body returns with something added to
    it: gradients of what is the same at every step, that is, of the weights.
    """
    products = sums = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            products += 2 * eqn.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
        turns = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for inner in _programs(eqn.params):
            body = count_flops(inner)
            products += turns * body.products
            sums += turns * body.sums
        choices = [count_flops(branch) for branch in eqn.params.get("branches", ())]
        products += max((choice.products for choice in choices), default=0)
        sums += max((choice.sums for choice in choices), default=0)
        if eqn.primitive.name == "scan":
            sums += turns * _carried_sums(eqn)
    return Flops(products, sums)


def _programs(params: Mapping[str, Any]) -> list[Any]:
    """The programs inside an operation: a loop's body, a function's."""
    return [value for value in params.values() if hasattr(value, "eqns")]


def _carried_sums(scan: Any) -> int:
    """Additions that one turn of a scan makes into its carry."""
    body = scan.params["jaxpr"]
    body = getattr(body, "jaxpr", body)  # which newer versions of JAX no longer wrap
    # A scan takes what is constant, the carry and the xs, and gives the carry and the ys. The body
    # sees xs and ys without their leading axis, and all else in the same shape.
    befores = [v for v, whole in zip(body.invars, scan.invars, strict=True) if _alike(v, whole)]
    afters = [v for v, whole in zip(body.outvars, scan.outvars, strict=True) if _alike(v, whole)]
    made_by = {id(out): eqn for eqn in body.eqns for out in eqn.outvars}
    total = 0
    for before, after in zip(befores[len(befores) - len(afters) :], afters, strict=True):
        eqn = made_by.get(id(after))
        if eqn is not None and eqn.primitive.name in ("add", "add_any"):
            total += after.aval.size if any(term is before for term in eqn.invars) else 0
    return total


def _alike(inner: Any, outer: Any) -> bool:
    return bool(inner.aval.shape == outer.aval.shape)


def compare(
    time: int = 128,
    batch: int = 32,
    input_size: int = 128,
    hidden_size: int = 128,
    *,
    dtype: DTypeLike = jnp.float32,
    seconds: float = 10.0,
    seed: int = 0,
    rules: Mapping[str, Options] = RULES,
) -> Comparison:
    """Measure the rules of differentiation against each other on one random LSTM.

    Weights are those of ``init_params``; the initial carry, xs and the cotangents of everything
    that ``lstm`` returns are normal. All rules are timed in turn, one call each in a round, so that
    a machine that slows down slows all of them. The configuration of JAX is left as it is; float64
    is switched on for what needs it.

    Args:
        time: steps of the sequence.
        batch: sequences side by side.
        input_size: features of x.
        hidden_size: units of h and c.
        dtype: of weights and data.
        seconds: how long to time, all rules together, beside compiling; at least three rounds are
            made however long they take.
        seed: of weights and data.
        rules: arguments of ``lstm`` by the name of the rule, out of ``OPTIONS``; the first is the
            baseline.

    Raises:
        TypeError: an argument of another type, or a dtype that is not floating-point.
        ValueError: a size below 1 or beyond what XLA can count, a seed below 0 or of more than 63
            bits, no time to measure, no rules, an option that ``lstm`` lacks.
    """
    sizes = {"time": time, "batch": batch, "input_size": input_size, "hidden_size": hidden_size}
    for name, size in sizes.items():
        check_size(name, size)
    sizes = {name: int(size) for name, size in sizes.items()}
    _check_total(**sizes)
    dtype = check_float("dtype", dtype)
    check_size("seed", seed, least=0, most=2**63 - 1)
    check_number("seconds", seconds)
    if seconds <= 0:
        raise ValueError(f"seconds: expected a number above 0, got {seconds}")
    _check_rules(rules)

    wide = jnp.dtype(jnp.float64)
    own = dtype == wide or jax.enable_x64.value
    with jax.enable_x64(own):
        problem = _problem(seed, time, batch, input_size, hidden_size, dtype)
        # Want of memory is told here; the programs below might wait for such arrays for ever.
        jax.block_until_ready(problem)  # type: ignore[no-untyped-call]
    # The reference comes first: what a process's first compilation costs should burden no rule.
    with jax.enable_x64(True):
        exact = jax.jit(partial(_gradient, {"derivative": "autodiff"}))
        expected = _leaves(exact(*_cast(problem, wide)))
    with jax.enable_x64(own):
        programs = {name: _compile(options, problem) for name, options in rules.items()}
    errors = {
        name: {
            leaf: _relative_error(value, expected[leaf])
            for leaf, value in _leaves(program.gradient(*problem)).items()
        }
        for name, program in programs.items()
    }
    forward, gradient = _time_in_turn(programs, problem, seconds)

    first = next(iter(rules))
    base = programs[first].temp_bytes
    rows = tuple(
        Measurement(
            name=name,
            options={key: _plain_option(value) for key, value in rules[name].items()},
            forward_seconds=timing(forward[name]),
            gradient_seconds=timing(gradient[name]),
            forward_speedup=timing(forward[first]).median / timing(forward[name]).median,
            gradient_speedup=timing(gradient[first]).median / timing(gradient[name]).median,
            temp_bytes=program.temp_bytes,
            temp_saving=base / program.temp_bytes if base and program.temp_bytes else None,
            flops=program.flops.products,
            xla_flops=program.xla_flops,
            weight_sum_flops=program.flops.sums,
            compile_seconds=program.compile_seconds,
            errors=errors[name],
        )
        for name, program in programs.items()
    )
    return Comparison(
        **sizes,
        dtype=dtype.name,
        seed=int(seed),
        rounds=len(forward[first]),
        device=_device(),
        jax_version=jax.__version__,
        rows=rows,
    )


def _check_total(time: int, batch: int, input_size: int, hidden_size: int) -> None:
    """Raise where an array's size has no number in XLA, which would end the process."""
    arrays = {
        "input_size, hidden_size": (input_size, 4, hidden_size),
        "hidden_size": (hidden_size, 4, hidden_size),
        "time, batch, input_size": (time, batch, input_size),
        "time, batch, hidden_size": (time, batch, 4, hidden_size),
    }
    for names, shape in arrays.items():
        if math.prod(shape) >= 2**56:
            raise ValueError(f"{names}: expected arrays of fewer than 2**56 numbers, got {shape}")


def _check_rules(rules: Any) -> None:
    if not isinstance(rules, Mapping):
        raise TypeError(f"rules: expected a mapping, got {type(rules).__name__}")
    if not rules:
        raise ValueError("rules: expected at least one rule, got none")
    for name, options in rules.items():
        if not isinstance(name, str):
            raise TypeError(
                f"rules: expected names that are str, got {type(name).__name__} {name!r}"
            )
        if not isinstance(options, Mapping):
            raise TypeError(f"rules[{name!r}]: expected a mapping, got {type(options).__name__}")
        for option in options:
            if option not in OPTIONS:
                known = ", ".join(OPTIONS)
                raise ValueError(f"rules[{name!r}]: expected options out of {known}, got {option}")


class _Problem(NamedTuple):
    """What ``lstm`` is called with, and the cotangents of what it returns."""

    params: LSTMParams
    carry: Carry
    xs: Array
    cotangents: tuple[Carry, Array]


def _problem(
    seed: int, time: int, batch: int, input_size: int, hidden_size: int, dtype: np.dtype
) -> _Problem:
    """A random problem; everything but the weights is normal."""
    keys = iter(jax.random.split(jax.random.key(seed), 7))

    def normal(*shape: int) -> Array:
        return jax.random.normal(next(keys), shape, dtype)

    def carry() -> Carry:
        return Carry(normal(batch, hidden_size), normal(batch, hidden_size))

    params = init_params(next(keys), input_size, hidden_size, dtype=dtype)
    start, xs = carry(), normal(time, batch, input_size)
    return _Problem(params, start, xs, (carry(), normal(time, batch, hidden_size)))


def _cast(problem: _Problem, dtype: np.dtype) -> _Problem:
    return _Problem(*jax.tree.map(lambda leaf: leaf.astype(dtype), tuple(problem)))


def _forward(options: Options, params: LSTMParams, carry: Carry, xs: Array, _: Any) -> Any:
    return lstm(params, carry, xs, **options)


def _gradient(
    options: Options, params: LSTMParams, carry: Carry, xs: Array, cotangents: tuple[Carry, Array]
) -> Any:
    """Cotangents of the parameters, the initial carry and xs."""
    _, pull_back = jax.vjp(lambda *primals: lstm(*primals, **options), params, carry, xs)
    return pull_back(cotangents)


class _Program(NamedTuple):
    """A rule, compiled for one problem."""

    forward: Callable[..., Any]
    gradient: Callable[..., Any]
    flops: Flops
    xla_flops: float | None
    temp_bytes: int | None
    compile_seconds: float


def _compile(options: Options, problem: _Problem) -> _Program:
    """The forward pass and the gradient of one rule, and what their programs tell of themselves."""
    start = clock.perf_counter()
    traced = jax.jit(partial(_gradient, options)).trace(*problem)
    compiled = traced.lower().compile()
    compile_seconds = clock.perf_counter() - start
    memory = compiled.memory_analysis()
    return _Program(
        forward=jax.jit(partial(_forward, options)).lower(*problem).compile(),
        gradient=compiled,
        flops=count_flops(traced.jaxpr),
        xla_flops=_xla_flops(compiled.cost_analysis()),
        temp_bytes=None if memory is None else memory.temp_size_in_bytes,
        compile_seconds=compile_seconds,
    )


def _xla_flops(costs: Any) -> float | None:
    """The operations out of XLA's analysis; it says nothing, or -1, where it does not know."""
    flops = costs.get("flops") if isinstance(costs, Mapping) else None
    return float(flops) if flops is not None and flops >= 0 else None


def _leaves(gradient: Any) -> dict[str, Array]:
    params, carry, xs = gradient
    return {
        "w_ih": params.w_ih,
        "w_hh": params.w_hh,
        "b": params.b,
        "h0": carry.h,
        "c0": carry.c,
        "xs": xs,
    }


def _relative_error(actual: Array, expected: Array) -> float:
    """The largest |actual − expected| over the largest |expected|, in float64."""
    wide, exact = np.asarray(actual, np.float64), np.asarray(expected)
    return float(np.max(np.abs(wide - exact)) / np.max(np.abs(exact)))


def _time_in_turn(
    programs: Mapping[str, _Program], problem: _Problem, seconds: float
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of every call of each rule's forward pass and gradient."""
    forward: dict[str, list[float]] = {name: [] for name in programs}
    gradient: dict[str, list[float]] = {name: [] for name in programs}

    def one_round() -> None:
        for name, program in programs.items():
            for call, taken in ((program.forward, forward), (program.gradient, gradient)):
                start = clock.perf_counter()
                jax.block_until_ready(call(*problem))  # type: ignore[no-untyped-call]
                taken[name].append(clock.perf_counter() - start)

    one_round()  # warms up: memory is taken from the system, caches fill
    for taken in (*forward.values(), *gradient.values()):
        taken.clear()
    end = clock.perf_counter() + seconds
    while len(next(iter(forward.values()))) < LEAST_ROUNDS or clock.perf_counter() < end:
        one_round()
    return forward, gradient


def timing(taken: Sequence[float]) -> Timing:
    """Median and quartiles."""
    lower, median, upper = statistics.quantiles(taken, n=4, method="inclusive")
    return Timing(median, lower, upper)


def _plain_option(value: Any) -> Any:
    """An option as it is, a dtype by its name."""
    return value if value is None or isinstance(value, str | int) else jnp.dtype(value).name


def _device() -> str:
    device = jax.devices()[0]
    if device.platform != "cpu":
        return str(device.device_kind)
    return f"CPU {platform.machine()}, {os.cpu_count()} cores"
