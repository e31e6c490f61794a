"""What each option of ``jlstm.Variant`` costs beside the plain cell, and the arithmetic behind it.

The work is the gradient of ``programs``, with weights of the variant's own. A variant's time has
two explanations, both counted in the program that is handed to XLA: matrix products, and what is
computed number by number, of which ``per_unit`` says how many results there are for every unit and
step. Beside stands the same cell with its derivative left to autodiff of the plain scan. The
plain cell is walked by the scan, as all others are, though it has a native kernel on CPU.

``measure_memory`` compiles every kind of derivative of every variant, by hand and by autodiff, and
reads how many temporary bytes each needs; nothing is run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr

import jlstm
from jlstm import Carry, LSTMParams, Variant
from jlstm.activations import elu, hard_sigmoid, softsign
from jlstm.comparison import Timing, count_flops, timing
from tests.benchmarks.contestants import Layer, Shape, ours
from tests.benchmarks.harness import Point, time_under_load
from tests.benchmarks.programs import Problem, jax_program, make_problem

MEMORY_SHAPE = Shape(256, 16, 32, 64)
ENSEMBLE = 4
"""How many sets of weights are differentiated at once."""

SHAPES = (Shape(128, 32, 128, 128), Shape(256, 16, 32, 64), Shape(512, 64, 64, 256))

PLAIN = "plain cell"
VARIANTS: dict[str, Variant | None] = {
    PLAIN: None,
    "no option": Variant(),
    "peepholes": Variant(peepholes=True),
    "coupled gates": Variant(coupled=True),
    "forget offset": Variant(forget_offset=1.0),
    "preactivation clip": Variant(preact_clip=3.0),
    "cell clip": Variant(cell_clip=3.0),
    "hard sigmoid": Variant(gate=hard_sigmoid()),
    "elu, softsign": Variant(candidate=elu(), output=softsign),
    "projection to H/2": Variant(),
    "the same, clipped": Variant(projection_clip=3.0),
    "layer norm": Variant(layer_norm=True),
    "state dropout": Variant(state_dropout=0.1),
    "zoneout, evaluated": Variant(zoneout_h=0.1, zoneout_c=0.1).without_noise(),
    "zoneout": Variant(zoneout_h=0.1, zoneout_c=0.1),
    "recurrent dropout": Variant(recurrent_dropout=0.1),
}
HALF = ("projection to H/2", "the same, clipped")

DRAWS = {"threefry2x32", "random_bits", "random_fold_in", "random_wrap", "random_unwrap"}
MOVES = {"broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice"}
MOVES |= {"dynamic_update_slice", "pad", "reshape", "slice", "split", "squeeze", "transpose"}
"""What computes nothing."""


@dataclass(frozen=True)
class Row:
    """What was found about one variant at one shape."""

    name: str
    seconds: Timing
    """Per call."""
    autodiff_seconds: Timing
    """With its derivative by autodiff of the plain scan."""
    products: int
    """Floating-point operations of all matrix products."""
    per_unit: float
    """Results computed one by one, for every unit and step."""
    draws: float
    """Random numbers drawn, for every unit and step."""


def measure(
    shapes: Sequence[Shape],
    seconds: float,
    *,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Point[Row], ...]:
    """Every shape in turn; the arguments are those of ``harness.run_case``."""
    return tuple(measure_point(shape, seconds, seed, tell) for shape in shapes)


def measure_point(
    shape: Shape, seconds: float, seed: int, tell: Callable[[str], None]
) -> Point[Row]:
    """All variants, by hand and by autodiff, in turn."""
    problem = make_problem(shape, seed)
    calls, counts = {}, {}
    for name, gates in VARIANTS.items():
        tell(f"variants {shape}: compiling {name}")
        fitted = fit(problem, shape.hidden // 2) if name in HALF else problem
        for derivative in ("vjp", "autodiff"):
            layer = layer_of(shape, gates, fitted, derivative=derivative)
            calls[name, derivative] = jax_program(layer, layer, fitted, "gradient").call
            counts.setdefault(name, count(layer, fitted))
    tell(f"variants {shape}: timing")
    taken, others = time_under_load(calls, seconds)
    rows = (
        Row(
            name,
            timing(taken[name, "vjp"][0]),
            timing(taken[name, "autodiff"][0]),
            **counts[name],
        )
        for name in VARIANTS
    )
    return Point(shape, others, tuple(rows))


def layer_of(shape: Shape, gates: Variant | None, problem: Problem, **options: Any) -> Layer:
    """``jlstm.lstm`` of this cell, with fresh weights in place of the problem's."""
    options = {"implementation": "xla", **options}
    if gates is None:
        return ours(shape, **options)
    output = problem.carry.h.shape[-1]
    key = jax.random.key(0)
    weights = gates.init(
        key, shape.input, shape.hidden, output_size=None if output == shape.hidden else output
    )
    own = options | {"gates": gates, "key": key if gates.extras.random else None}

    def load(params: LSTMParams) -> Any:
        return weights

    return ours(shape)._replace(load=load, apply=partial(apply, own))


def apply(options: Mapping[str, Any], weights: Any, carry: Carry, xs: jax.Array) -> Any:
    """``lstm`` with the arguments in the order of a ``Layer``."""
    return jlstm.lstm(weights, carry, xs, **options)


def fit(problem: Problem, output: int) -> Problem:
    """The same problem for outputs of this size."""
    return problem._replace(
        carry=problem.carry._replace(h=problem.carry.h[..., :output]),
        d_carry=problem.d_carry._replace(h=problem.d_carry.h[..., :output]),
        d_hs=problem.d_hs[..., :output],
    )


def count(layer: Layer, problem: Problem) -> dict[str, Any]:
    """The arithmetic of the gradient, by kind; without what no result depends on, as XLA has it."""

    def gradient(weights: Any, carry: Carry, xs: Any, d: Any) -> Any:
        out, pull_back = jax.vjp(layer.apply, weights, carry, xs)
        return out, pull_back(d)

    jaxpr = jax.make_jaxpr(gradient)(
        layer.load(problem.params), problem.carry, problem.xs, (problem.d_carry, problem.d_hs)
    )
    time, batch, _, hidden = problem.shape
    needed, _ = dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars))
    products, results, draws = arithmetic(needed)
    units = time * batch * hidden
    return {"products": products, "per_unit": results / units, "draws": draws / units}


def arithmetic(jaxpr: Any) -> tuple[int, int, int]:
    """Operations of products, results computed one by one, and random numbers."""
    return count_flops(jaxpr).products, *one_by_one(jaxpr)


def one_by_one(jaxpr: Any) -> tuple[int, int]:
    """Results computed one by one, and random numbers; of the branches of a choice, the most."""
    results = draws = 0
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, size = eqn.primitive.name, sum(out.aval.size for out in eqn.outvars)
        inner = [one_by_one(sub) for sub in jaxprs_in_params(eqn.params)]
        if name == "random_bits":
            draws += size
        elif not inner and name not in MOVES | DRAWS | {"dot_general"}:
            results += size
        turns = eqn.params["length"] if name == "scan" else 1
        if name == "cond":
            inner = [tuple(map(max, zip(*inner, strict=True)))]
        for ones, drawn in inner:
            results, draws = results + turns * ones, draws + turns * drawn
    return results, draws


def slowdown(point: Point[Row], row: Row) -> float:
    """How many times as long as the plain cell."""
    return row.seconds.median / point.rows[0].seconds.median


def gain(row: Row) -> float:
    """How many times as fast as autodiff of the same cell."""
    return row.autodiff_seconds.median / row.seconds.median


# Memory, of every kind of derivative


@dataclass(frozen=True)
class Memory:
    """Temporary bytes of one variant, for each kind of derivative."""

    name: str
    by_hand: Mapping[str, int]
    by_autodiff: Mapping[str, int]


def measure_memory(
    shape: Shape, *, seed: int = 0, tell: Callable[[str], None] = lambda _: None
) -> tuple[Memory, ...]:
    """Every variant in turn."""
    problem = make_problem(shape, seed)
    found = []
    for name, gates in VARIANTS.items():
        fitted = fit(problem, shape.hidden // 2) if name in HALF else problem
        by_rule: dict[str, dict[str, int]] = {"hand": {}, "autodiff": {}}
        for kind, make in DERIVATIVES.items():
            tell(f"variants {shape}: memory of {name}, {kind}")
            for rule, taken in by_rule.items():
                hand = "jvp" if kind == "jvp" else "vjp"
                derivative = hand if rule == "hand" else "autodiff"
                layer = layer_of(shape, gates, fitted, derivative=derivative)
                taken[kind] = temp_bytes(make(layer.apply), layer.load(fitted.params), fitted)
        found.append(Memory(name, by_rule["hand"], by_rule["autodiff"]))
    return tuple(found)


def temp_bytes(function: Callable[..., Any], weights: Any, problem: Problem) -> int:
    """What the compiled program needs beside its arguments and results."""
    program = jax.jit(function).lower(weights, problem.carry, problem.xs).compile()
    count: int = program.memory_analysis().temp_size_in_bytes
    return count


def loss_of(apply: Callable[..., Any]) -> Callable[..., jax.Array]:
    """The mean square of all that is returned."""

    def loss(weights: Any, carry: Carry, xs: jax.Array) -> jax.Array:
        after, hs = apply(weights, carry, xs)
        return jnp.mean(hs**2) + jnp.mean(after.c**2)

    return loss


def gradient(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Reverse mode, of everything."""
    return jax.grad(loss_of(apply), (0, 1, 2))


def jvp(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Forward mode, in the direction of the arguments themselves."""
    return lambda *point: jax.jvp(apply, point, point)


def hessian_vector(apply: Callable[..., Any]) -> Callable[..., Any]:
    """A Hessian-vector product, forward over reverse."""
    return lambda *point: jax.jvp(gradient(apply), point, point)


def ensemble(apply: Callable[..., Any]) -> Callable[..., Any]:
    """The gradient for ``ENSEMBLE`` sets of weights at once."""

    def together(weights: Any, carry: Carry, xs: jax.Array) -> Any:
        many = jax.tree.map(lambda w: jnp.stack([w] * ENSEMBLE), weights)
        return jax.vmap(jax.grad(loss_of(apply)), (0, None, None))(many, carry, xs)

    return together


def per_example(apply: Callable[..., Any]) -> Callable[..., Any]:
    """A gradient of the weights for each sequence of the batch."""
    return jax.vmap(jax.grad(loss_of(apply)), (None, 0, 1))


DERIVATIVES = {
    "gradient": gradient,
    "jvp": jvp,
    "Hessian · v": hessian_vector,
    "ensemble": ensemble,
    "per example": per_example,
}
