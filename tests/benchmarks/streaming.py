"""What a step costs where data comes in one by one: its latency, and how many steps go through.

Every call is timed by itself, until its results are there: the median, and the 99th percentile,
which is what a user who waits sees at worst; and streams times calls for each second of the turns.
Who takes part: ``jlstm.streaming`` as ``compile_step`` gives it, and with inputs from NumPy and
outputs to it; ``jax.jit`` of ``jlstm.cell``, as one writes it by hand; ``torch.nn.LSTMCell``; and
onnxruntime's LSTM, from and to NumPy.

JAX hands a program on CPU to another thread unless it is told not to, which it has to be before it
starts: so all is measured twice, each time in a process of its own, as JAX is by itself and after
``dispatch_inline``.
"""

import multiprocessing
import time as clock
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import jax
import numpy as np

from jlstm import Stack
from jlstm.layers import LayerParams
from jlstm.streaming import compile_step, dispatch_inline, pack
from tests.benchmarks import harness
from tests.benchmarks.contestants import CONTESTANTS, REFERENCE, Shape
from tests.benchmarks.harness import Point, busy_elsewhere, differences
from tests.benchmarks.programs import Problem, Program, build, make_problem

SHAPES = tuple(Shape(1, batch, 128, 128) for batch in (1, 256))

OURS, WITH_NUMPY, BY_HAND = "jlstm", "jlstm, NumPy", "jit of jlstm.cell"
PEERS = ("torch", "onnxruntime")
BLOCK = 100
"""Calls of one turn; the first of them is not counted."""


@dataclass(frozen=True)
class Row:
    """What was found about one contestant with so many streams."""

    name: str
    calls: int
    median: float
    """Seconds of a call."""
    p99: float
    steps_per_second: float
    """Of all streams together."""
    difference: float
    """The largest from the answer of ``jlstm.cell``, relative to the largest value of the array."""


@dataclass(frozen=True)
class Streams:
    """Every number of streams, in one way of running programs."""

    inline: bool
    points: tuple[Point[Row], ...]
    left_out: Mapping[str, str]


def measure(
    shapes: Sequence[Shape],
    seconds: float,
    *,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Streams, ...]:
    """Both ways of running programs, each in a process of its own."""
    found = []
    for inline in (False, True):
        tell("streaming, inline" if inline else "streaming")
        new = multiprocessing.get_context("spawn")
        start = dispatch_inline if inline else None
        with ProcessPoolExecutor(1, mp_context=new, initializer=start) as pool:
            found.append(pool.submit(measure_here, shapes, seconds, seed, inline).result())
    return tuple(found)


def measure_here(shapes: Sequence[Shape], seconds: float, seed: int, inline: bool) -> Streams:
    """Every number of streams in this process."""
    left_out = {
        c.name: why
        for c in CONTESTANTS
        if c.name in PEERS and (why := harness.reason_to_leave_out(c, shapes[0], "stream"))
    }
    points = tuple(measure_point(shape, seconds, seed, left_out) for shape in shapes)
    return Streams(inline, points, left_out)


def measure_point(
    shape: Shape, seconds: float, seed: int, left_out: Mapping[str, str]
) -> Point[Row]:
    """Everybody's answer, then everybody's calls in turn."""
    problem = make_problem(shape, seed)
    ready = {
        OURS: ours(problem, as_numpy=False),
        WITH_NUMPY: ours(problem, as_numpy=True),
        BY_HAND: by_hand(problem),
    }
    expected = build(REFERENCE, problem, "stream").answer()
    for c in CONTESTANTS:
        if c.name in PEERS and c.name not in left_out:
            ready[c.name] = build(c, problem, "stream")
    found = {n: max(differences(p.answer(), expected).values()) for n, p in ready.items()}
    wrong = {name: error for name, error in found.items() if not error <= harness.TOLERANCE}
    if wrong:
        raise ValueError(f"other numbers than those of jlstm.cell: {wrong}")
    start, before = clock.perf_counter(), busy_elsewhere()
    taken = time_calls({name: program.call for name, program in ready.items()}, seconds)
    passed, after = clock.perf_counter() - start, busy_elsewhere()
    others = None if before is None or after is None else max(0.0, after - before) / passed
    rows = tuple(
        Row(
            name=name,
            calls=len(calls),
            median=float(np.median(calls)),
            p99=float(np.percentile(calls, 99)),
            steps_per_second=shape.batch * len(calls) / float(np.sum(calls)),
            difference=found[name],
        )
        for name, calls in taken.items()
    )
    return Point(shape, others, rows)


def time_calls(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Seconds of each single call, in turns of ``BLOCK`` calls, until the time is up."""
    names = list(calls)
    taken: dict[str, list[float]] = {name: [] for name in names}
    end, turn = clock.perf_counter() + seconds, 0
    while turn < harness.LEAST_ROUNDS or clock.perf_counter() < end:
        for name in harness.order(names, turn):
            call, times = calls[name], taken[name]
            call()
            for _ in range(BLOCK - 1):
                start = clock.perf_counter()
                call()
                times.append(clock.perf_counter() - start)
        turn += 1
    return taken


def ours(problem: Problem, *, as_numpy: bool) -> Program:
    """``jlstm.streaming``, its inputs and outputs JAX's or NumPy's."""
    config = Stack(sizes=problem.shape.hidden)
    params = (LayerParams(problem.params),)
    step = compile_step(config, params, problem.shape.batch)
    x = np.asarray(problem.xs[0]) if as_numpy else problem.xs[0]
    first = pack(problem.carry)
    state = first.copy()  # it is donated

    def call() -> None:
        nonlocal state
        state, h = step(state, x)
        if as_numpy:
            np.asarray(h)
        else:
            h.block_until_ready()

    def answer() -> dict[str, np.ndarray]:
        after, h = step(first.copy(), x)
        h_last, c_last = np.split(np.asarray(after), 2, axis=-1)
        return {"hs": np.asarray(h), "h": h_last, "c": c_last}

    return Program(call, answer)


def by_hand(problem: Problem) -> Program:
    """``jax.jit`` of one step, its weights and carry as they are."""
    run = jax.jit(REFERENCE.build(problem.shape).step)
    carry, x = problem.carry, problem.xs[0]

    def call() -> None:
        nonlocal carry
        carry, h = run(problem.params, carry, x)
        h.block_until_ready()

    def answer() -> dict[str, np.ndarray]:
        after, h = run(problem.params, problem.carry, x)
        return {"hs": np.asarray(h), "h": np.asarray(after.h), "c": np.asarray(after.c)}

    return Program(call, answer)
