"""What one line brings in somebody else's model: their RNN or scan, and ours in its place.

The work is the gradient of ``programs``, and the forward pass. The weights are the framework's own
in both, and so are the order of axes, the carry and what is around it; all are timed in turn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax

from jlstm import Carry
from jlstm.comparison import Timing, timing
from tests.benchmarks import contestants
from tests.benchmarks.contestants import Layer, Shape
from tests.benchmarks.harness import TOLERANCE, Point, differences, time_under_load
from tests.benchmarks.programs import Kind, jax_program, make_problem

SHAPES = (Shape(128, 32, 128, 128), Shape(256, 16, 32, 64), Shape(512, 64, 64, 256))
KINDS: tuple[Kind, ...] = ("gradient", "forward")


@dataclass(frozen=True)
class Row:
    """What was found about one replacement at one shape."""

    kind: Kind
    name: str
    theirs: Timing
    """Seconds per call."""
    ours: Timing


# Ours, in place of theirs


def flax_linen(shape: Shape) -> Layer:
    """``RNN(nn.OptimizedLSTMCell(H))``."""
    from jlstm.modules.flax_linen import RNN

    return contestants.flax_linen(shape, RNN)


def flax_nnx(shape: Shape) -> Layer:
    """``RNN(nnx.OptimizedLSTMCell(D, H))``."""
    from jlstm.modules.flax_nnx import RNN

    return contestants.flax_nnx(shape, RNN)


def haiku(shape: Shape) -> Layer:
    """``dynamic_unroll(hk.LSTM(H), …)``."""
    from jlstm.modules.haiku import dynamic_unroll

    return contestants.haiku(shape, dynamic_unroll)


def equinox(shape: Shape, vmap: bool = False) -> Layer:
    """``scan(cell, …)`` of the batch; or of one sequence, and ``vmap`` of that."""
    from jlstm.modules.equinox import scan

    def apply(cell: Any, carry: Carry, xs: jax.Array) -> tuple[Carry, jax.Array]:
        (h, c), hs = scan(cell, tuple(carry), xs)
        return Carry(h, c), hs

    mapped = jax.vmap(apply, in_axes=(None, 0, 1), out_axes=(0, 1))
    return contestants.equinox(shape)._replace(apply=mapped if vmap else apply)


REPLACEMENTS: dict[str, tuple[Callable[[Shape], Layer], Callable[[Shape], Layer]]] = {
    "flax linen": (contestants.flax_linen, flax_linen),
    "flax nnx": (contestants.flax_nnx, flax_nnx),
    "haiku": (contestants.haiku, haiku),
    "equinox": (contestants.equinox, equinox),
    "equinox, by vmap": (contestants.equinox, partial(equinox, vmap=True)),
}
"""Theirs and ours."""
PACKAGES = {name: name.partition(" ")[0].strip(",") for name in REPLACEMENTS}


def missing() -> list[str]:
    """The frameworks that are not installed."""
    return sorted(package for package in {*PACKAGES.values()} if find_spec(package) is None)


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
    """Both kinds of work; theirs and ours in turn.

    Raises:
        RuntimeError: ours gives other numbers.
    """
    problem = make_problem(shape, seed)
    absent, rows, busy = missing(), [], []
    for kind in KINDS:
        calls: dict[tuple[str, bool], Any] = {}
        for name, pair in REPLACEMENTS.items():
            if PACKAGES[name] in absent:
                continue
            tell(f"modules {shape}: compiling {name}, {kind}")
            theirs, ours = (jax_program(build(shape), None, problem, kind) for build in pair)
            found = differences(ours.answer(), theirs.answer())
            if not max(found.values()) <= TOLERANCE:  # nan counts as a difference
                raise RuntimeError(f"modules {shape}: {name}, {kind}: other numbers: {found}")
            calls |= {(name, False): theirs.call, (name, True): ours.call}
        tell(f"modules {shape}: timing, {kind}")
        taken, others = time_under_load(calls, seconds) if calls else ({}, None)
        busy += [] if others is None else [others]
        rows += [
            Row(kind, name, timing(taken[name, False][0]), timing(taken[name, True][0]))
            for name, ours in calls
            if ours
        ]
    return Point(shape, max(busy, default=None), tuple(rows))


def gain(row: Row) -> float:
    """How many times as fast ours is."""
    return row.theirs.median / row.ours.median
