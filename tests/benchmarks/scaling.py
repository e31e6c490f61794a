"""What longer sequences and larger batches cost: time, memory and compiling, over T and over B.

The work is ``programs.compiled_last_carry``: the gradient of a loss that sees the last carry alone.
Everybody is compiled ``COMPILATIONS`` times, a single time being noisy: in turn, as they are timed
afterwards.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from jlstm.comparison import Timing, timing
from tests.benchmarks.contestants import CONTESTANTS, PLAIN, Shape
from tests.benchmarks.harness import Point, order, time_under_load
from tests.benchmarks.programs import Program, compiled_last_carry, make_problem

Over = Literal["T", "B"]

SHAPES: dict[Over, tuple[Shape, ...]] = {
    "T": tuple(Shape(time, 4, 64, 64) for time in (1024, 4096, 16384, 65536)),
    "B": tuple(Shape(128, batch, 128, 128) for batch in (1, 4, 16, 64, 256)),
}
NAMES = ("jlstm", "jlstm carry", "jlstm chunks", PLAIN.name)

COMPILATIONS = 3
MOST_TEMP_BYTES = 2 * 10**9


@dataclass(frozen=True)
class Row:
    """What was found about one contestant at one shape."""

    name: str
    seconds: Timing | None
    """Per call; None where it was not timed, its temporary memory being above MOST_TEMP_BYTES."""
    temp_bytes: int | None
    compile_seconds: float
    """The median of ``COMPILATIONS``."""


@dataclass(frozen=True)
class Series:
    """Shapes that differ in one size."""

    over: Over
    points: tuple[Point[Row], ...]


def measure(
    over: Over,
    shapes: Sequence[Shape],
    seconds: float,
    *,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Series:
    """Every shape in turn; the arguments are those of ``harness.run_case``."""
    return Series(over, tuple(measure_point(shape, seconds, seed, tell) for shape in shapes))


def measure_point(
    shape: Shape, seconds: float, seed: int, tell: Callable[[str], None]
) -> Point[Row]:
    """Compile everybody in turn, then time in turn who does not need too much memory."""
    programs = build(shape, seed, tell)
    calls = {
        name: program.call
        for name, (program, _) in programs.items()
        if program.temp_bytes is None or program.temp_bytes <= MOST_TEMP_BYTES
    }
    tell(f"scaling {shape}: timing")
    taken, others = time_under_load(calls, seconds) if calls else ({}, None)
    rows = (
        Row(
            name,
            timing(taken[name][0]) if name in taken else None,
            program.temp_bytes,
            statistics.median(compile_seconds),
        )
        for name, (program, compile_seconds) in programs.items()
    )
    return Point(shape, others, tuple(rows))


def build(
    shape: Shape, seed: int, tell: Callable[[str], None]
) -> dict[str, tuple[Program, list[float]]]:
    """Everybody's last program, and the seconds that each of the compilations took."""
    problem = make_problem(shape, seed)
    layers = {c.name: c.build(shape) for c in CONTESTANTS if c.name in NAMES and c.build}
    programs: dict[str, Program] = {}
    taken: dict[str, list[float]] = {name: [] for name in layers}
    for turn in range(COMPILATIONS):
        for name in order(NAMES, turn):
            tell(f"scaling {shape}: compiling {name}")
            programs[name] = compiled_last_carry(layers[name], problem)
            taken[name].append(programs[name].compile_seconds)
    return {name: (programs[name], taken[name]) for name in NAMES}


# What follows from it


def per_step(shape: Shape, row: Row) -> float | None:
    """Seconds per time step, of all sequences together."""
    return None if row.seconds is None else row.seconds.median / shape.time


def per_step_and_sequence(shape: Shape, row: Row) -> float | None:
    """The same, divided by the sequences."""
    return None if row.seconds is None else row.seconds.median / (shape.time * shape.batch)


def compile_ratio(point: Point[Row], row: Row) -> float:
    """How many times as long as the plain scan somebody takes to compile."""
    (plain,) = (other.compile_seconds for other in point.rows if other.name == PLAIN.name)
    return row.compile_seconds / plain


def compile_spreads(series: Series) -> dict[str, float]:
    """For everybody the longest compile time of the series divided by the shortest.

    Over T it should be near 1: the program is the same, only its loops turn more often.
    """
    taken: dict[str, list[float]] = {}
    for point in series.points:
        for row in point.rows:
            taken.setdefault(row.name, []).append(row.compile_seconds)
    return {name: max(times) / min(times) for name, times in taken.items()}
