"""What products in bfloat16 cost in digits and bring in time: ``compute_dtype`` of ``jlstm.lstm``.

The work is the gradient of ``programs``. Errors are those against the same in float64, by the plain
scan, from the same float32 numbers. Float32 is computed by whatever is fastest, on CPU a native
kernel; bfloat16 always by the scan.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jlstm.comparison import Timing, timing
from tests.benchmarks.contestants import PLAIN, Contestant, Shape, ours
from tests.benchmarks.harness import Point, cpuinfo, differences, time_under_load
from tests.benchmarks.programs import Problem, build, make_problem

SHAPES = (Shape(128, 32, 128, 128), Shape(64, 128, 64, 64), Shape(512, 64, 64, 256))

CONTESTANTS = (
    Contestant("float32", "ours", ours),
    Contestant("bfloat16", "ours", partial(ours, compute_dtype=jnp.bfloat16)),
)
INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}


@dataclass(frozen=True)
class Row:
    """What was found about one dtype of the products at one shape."""

    name: str
    errors: Mapping[str, float]
    """By array, relative to its largest value; the last h is left out, being one of hs."""
    seconds: Timing
    """Per call."""


@dataclass(frozen=True)
class Precision:
    """Every shape, and what the processor can do."""

    has_bfloat16: bool | None
    """Whether the processor says that it has instructions for it; None where nothing is said."""
    points: tuple[Point[Row], ...]


def measure(
    shapes: Sequence[Shape],
    seconds: float,
    *,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Precision:
    """Every shape in turn; the arguments are those of ``harness.run_case``."""
    points = (measure_point(shape, seconds, seed, tell) for shape in shapes)
    return Precision(has_bfloat16(), tuple(points))


def measure_point(
    shape: Shape, seconds: float, seed: int, tell: Callable[[str], None]
) -> Point[Row]:
    """The errors, then the times in turn."""
    problem = make_problem(shape, seed)
    tell(f"precision {shape}: float64")
    expected = exact(problem)
    tell(f"precision {shape}: compiling")
    programs = {c.name: build(c, problem, "gradient") for c in CONTESTANTS}
    errors = {name: differences(p.answer(), expected) for name, p in programs.items()}
    tell(f"precision {shape}: timing")
    taken, others = time_under_load({name: p.call for name, p in programs.items()}, seconds)
    rows = (
        Row(
            name,
            {array: error for array, error in errors[name].items() if array != "h"},
            timing(taken[name][0]),
        )
        for name in programs
    )
    return Point(shape, others, tuple(rows))


def exact(problem: Problem) -> dict[str, np.ndarray]:
    """The answer in float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: a.astype(jnp.float64), problem[1:])
        return build(PLAIN, Problem(problem.shape, *wide), "gradient").answer()


def has_bfloat16() -> bool | None:
    """Whether the processor says that it has bfloat16; None where nothing is said."""
    flags = cpuinfo("flags") if jax.default_backend() == "cpu" else None
    return None if flags is None else not INSTRUCTIONS.isdisjoint(flags.split())


def speedup(point: Point[Row], row: Row) -> float:
    """How many times as fast as in float32."""
    return point.rows[0].seconds.median / row.seconds.median
