"""The same work for every contestant, checked and then timed in turn, in one process.

Four kinds of work, for a shape (T, B, D, H):

    forward    the carry after the last step and hs, from weights, initial carry and xs
    gradient   that, and from cotangents of all of it the gradients of weights, xs, initial h and c
    step       a training step: two layers and a linear readout, mean squared error, Adam
    stream     one step at B = 1 and T = 1, the carry passed on to the next call

Everyone starts from the same weights and must give the same numbers: ``differences`` holds each
answer against that of ``jlstm``, and who differs by more than rounding is not timed.

**Turns.** In a round every contestant has one turn, and rounds go on until the time is up. The
order rotates every second round and is reversed in between, so that nobody always comes after the
same neighbour. A turn is one call, or, where a call is quick, as many as fill ``TURN`` seconds. As
many before it are not counted: the threads of who came before still spin for some 10 ms (PyTorch's
did), and the caches hold other data. Two more take their turn among the others, so that what share
of the machine's rate somebody reaches is measured under the load of the same minutes: a product of
two large matrices, and multiply-adds in registers, the most that the cores can do.

**Threads.** Everyone runs with what its library does by itself on all cores: XLA's pool of threads,
which is as large for one host device as for several, and as many threads of PyTorch and of
onnxruntime as there are cores. Only ``jlstm cores`` uses more than the first device. The others do
not pay for the devices they leave alone: at (256,16,32,64) they took the same time with one host
device and with two, and ``--devices 1`` shows it anywhere.

**Load.** Where other processes want the cores too, whoever waits for all of its threads at every
step waits longest: PyTorch's LSTM on all of two busy cores has been seen at many times its own
quiet time. So each case says how many cores others kept busy meanwhile (``BUSY`` and more is
marked), figures whose quartiles lie far apart are marked as unsteady, and ``least`` stands beside
the median. What is to be quoted belongs on a machine that does nothing else.
"""

import gc
import math
import os
import platform
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from jlstm.comparison import Timing, timing
from jlstm.devices import count_cores
from tests.benchmarks import programs
from tests.benchmarks.contestants import REFERENCE, SCAN, Contestant, Shape, without_kernel
from tests.benchmarks.programs import Kind, Program, build, count_work

SHAPES = (
    Shape(128, 32, 128, 128),
    Shape(64, 128, 64, 64),
    Shape(128, 32, 512, 512),
    Shape(512, 64, 64, 256),
    Shape(256, 16, 32, 64),
    Shape(100, 1, 128, 128),
    Shape(1024, 8, 64, 256),
)
Row = TypeVar("Row")

SMALL = (Shape(64, 128, 64, 64), Shape(256, 16, 32, 64), Shape(100, 1, 128, 128))

TURN = 0.02
LEAST_ROUNDS = 5
UNSTEADY = 1.5
BUSY = 0.2
TOLERANCE = 1e-3
"""Largest difference that passes for rounding, relative to the largest value of an array. Sums over
a thousand steps in float32 stay below 1e-4; two gates swapped or a missing bias is above 1e-1."""


@dataclass(frozen=True)
class Result:
    """What was found about one contestant in one case."""

    name: str
    family: str
    seconds: Timing
    """Per call, over the turns."""
    least: float
    """Seconds per call of the quickest turn: what a quiet machine would show."""
    calls: int
    """How many calls make a turn; there are as many turns as rounds."""
    difference: float
    """The largest difference from our answer, relative to the largest value of the array."""
    difference_in: str
    """Which array that is."""
    compile_seconds: float | None
    temp_bytes: int | None
    flops: int | None

    @property
    def unsteady(self) -> bool:
        """Its quartiles are so far apart that its median says little."""
        return self.seconds.upper > UNSTEADY * self.seconds.lower


@dataclass(frozen=True)
class Case:
    """One kind of work at one shape."""

    shape: Shape
    kind: Kind
    work: int
    """Floating-point operations that the task needs, however somebody may do it."""
    matrix_rate: float
    """Floating-point operations per second of a product of two 2048² matrices by XLA, among the
    turns."""
    peak_rate: float | None
    """The same of multiply-adds in registers, on all cores: the machine's peak, to judge by what
    share of it somebody reaches. None without the native kernel, whose library does them."""
    rounds: int
    others: float | None
    """Cores that everything else on the machine kept busy meanwhile; None where it does not tell.
    """
    results: tuple[Result, ...]
    left_out: Mapping[str, str]
    """Who did not take part, and why."""


@dataclass(frozen=True)
class Point(Generic[Row]):
    """What a series of measurements found at one shape, a row for everybody."""

    shape: Shape
    others: float | None
    """As in a ``Case``; None also where nobody was timed."""
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Machine:
    """Where and with what all of this was measured."""

    processor: str
    cores: int
    backend: str
    devices: int
    threads: Mapping[str, int]
    versions: Mapping[str, str | None]
    environment: Mapping[str, str]
    load: tuple[float, float, float] | None
    """Processes that wanted to run, on average over 1, 5 and 15 minutes, before the first case."""


# Check, then time


def differences(answer: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray]) -> dict:
    """For each array max |theirs − ours| / max |ours|; a shape that differs is infinitely far."""
    if answer.keys() != ours.keys():
        raise ValueError(f"answers differ in kind: {sorted(answer)} and {sorted(ours)}")

    def difference(theirs: np.ndarray, own: np.ndarray) -> float:
        if theirs.shape != own.shape:
            return math.inf
        wide, exact = theirs.astype(np.float64), own.astype(np.float64)
        return float(np.max(np.abs(wide - exact)) / (np.max(np.abs(exact)) or 1.0))

    return {name: difference(answer[name], ours[name]) for name in ours}


def order(names: Sequence[str], turn: int) -> list[str]:
    """Who follows whom in round ``turn``: rotated every second round, and reversed in between."""
    start = turn // 2 % len(names)
    rotated = [*names[start:], *names[:start]]
    return rotated[::-1] if turn % 2 else rotated


def time_in_turn(
    calls: Mapping[str, Callable[[], Any]], seconds: float, turn: float | None = None
) -> dict[str, tuple[list[float], int]]:
    """Seconds per call in each round, and how many calls made a turn."""
    names, many = list(calls), {}
    turn = TURN if turn is None else turn
    for name, call in calls.items():
        call()  # warms up: memory is taken from the system, threads are started
        start = clock.perf_counter()
        call()
        many[name] = max(1, math.ceil(turn / max(clock.perf_counter() - start, 1e-6)))
    taken: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()  # as timeit does: a collection would be charged to whom it happens to
    try:
        end = clock.perf_counter() + seconds
        rounds = 0
        while rounds < LEAST_ROUNDS or clock.perf_counter() < end:
            for name in order(names, rounds):
                call, count = calls[name], many[name]
                for _ in range(count):
                    call()
                start = clock.perf_counter()
                for _ in range(count):
                    call()
                taken[name].append((clock.perf_counter() - start) / count)
            rounds += 1
    finally:
        gc.enable()
    return {name: (taken[name], many[name]) for name in names}


def time_under_load(
    calls: Mapping[str, Callable[[], Any]], seconds: float
) -> tuple[dict[str, tuple[list[float], int]], float | None]:
    """``time_in_turn``, and the cores that others kept busy meanwhile, if the machine tells."""
    start, before = clock.perf_counter(), busy_elsewhere()
    taken = time_in_turn(calls, seconds)
    passed, after = clock.perf_counter() - start, busy_elsewhere()
    known = before is not None and after is not None
    return taken, max(0.0, after - before) / passed if known else None


def plan(shapes: Sequence[Shape], kinds: Sequence[Kind]) -> list[tuple[Shape, Kind]]:
    """The cases, kind after kind; shapes that differ only in T and B are one stream."""
    return list(
        dict.fromkeys((_shape_for(shape, kind), kind) for kind in kinds for shape in shapes)
    )


def _shape_for(shape: Shape, kind: Kind) -> Shape:
    return shape._replace(time=1, batch=1) if kind == "stream" else shape


def reason_to_leave_out(contestant: Contestant, shape: Shape, kind: Kind) -> str | None:
    """Why a contestant does not take part in a case; None if it does."""
    if not contestant.installed:
        return f"not installed ({contestant.package})"
    if contestant.build is None and jax.default_backend() != "cpu":
        return "only on the CPU so far"
    if kind == "stream" and not contestant.streams:
        return "its single step is that of jlstm"
    if kind in ("gradient", "step") and not contestant.derives:
        return "it finds no gradients"
    if contestant is SCAN and (why := without_kernel(shape)) is not None:
        return f"the same as jlstm, which takes no native kernel: {why}"
    if contestant.devices != 1:
        devices = len(jax.devices())
        if devices == 1:
            return "one device only"
        if shape.batch % devices:
            return f"a batch of {shape.batch} does not divide over {devices} devices"
    return None


def run_case(
    contestants: Sequence[Contestant],
    shape: Shape,
    kind: Kind,
    seconds: float,
    *,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Case:
    """One kind of work at one shape: build everybody, check, then time in turn.

    Args:
        contestants: who takes part.
        shape: the sizes.
        kind: what is asked for.
        seconds: how long to time all of them together; compiling comes on top, and at least
            ``LEAST_ROUNDS`` rounds are made.
        seed: of weights and data.
        tell: is told what is being done.
    """
    shape = _shape_for(shape, kind)
    problem = programs.make_problem(shape, seed)
    left_out: dict[str, str] = {}
    ready: dict[str, Program] = {}
    answers: dict[str, dict[str, float]] = {}
    # First of all, so that what a process's first compilation costs burdens nobody.
    product = programs.matrix_product()
    ours = build(REFERENCE, problem, kind)
    expected = ours.answer()
    for contestant in contestants:
        why = reason_to_leave_out(contestant, shape, kind)
        if why is None:
            tell(f"{kind} {shape}: compiling {contestant.name}")
            try:
                program = ours if contestant is REFERENCE else build(contestant, problem, kind)
                found = differences(program.answer(), expected)
            except Exception as error:
                if contestant.package is None:
                    raise
                # A version of a peer that we do not know should not cost the others their run.
                why = f"failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            else:
                answers[contestant.name], ready[contestant.name] = found, program
                # Written so that a nan counts as a difference.
                wrong = [f"{n} by {d:.1e}" for n, d in found.items() if not d <= TOLERANCE]
                if wrong:
                    why = "other numbers than ours: " + ", ".join(wrong)
                    del ready[contestant.name]
        if why is not None:
            left_out[contestant.name] = why

    calls = {name: program.call for name, program in ready.items()}
    tell(f"{kind} {shape}: timing")
    taken, others = time_under_load(calls | {"": product, "peak": programs.multiply_adds}, seconds)
    peak = 2 * programs.multiply_adds() / timing(taken["peak"][0]).median

    def result(contestant: Contestant) -> Result:
        program, found = ready[contestant.name], answers[contestant.name]
        samples, calls = taken[contestant.name]
        worst = max(found, key=lambda name: found[name])
        return Result(
            name=contestant.name,
            family=contestant.family,
            seconds=timing(samples),
            least=min(samples),
            calls=calls,
            difference=found[worst],
            difference_in=worst,
            compile_seconds=program.compile_seconds,
            temp_bytes=program.temp_bytes,
            flops=program.flops,
        )

    return Case(
        shape=shape,
        kind=kind,
        work=count_work(shape, kind),
        matrix_rate=2 * programs.MATRIX**3 / timing(taken[""][0]).median,
        peak_rate=peak or None,
        rounds=len(taken[""][0]),
        others=others,
        results=tuple(result(c) for c in contestants if c.name in ready),
        left_out=left_out,
    )


# The machine


def cpuinfo(field: str) -> str | None:
    """What Linux says about the first core under this name; None where nothing is said."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            pairs = (line.partition(":") for line in lines)
            return next((told.strip() for name, _, told in pairs if name.strip() == field), None)
    except OSError:
        return None


def _processor() -> str:
    return cpuinfo("model name") or platform.processor() or platform.machine()


def busy_elsewhere() -> float | None:
    """Seconds of all cores since the start that were not this process's; None but on Linux."""
    try:
        with open("/proc/stat", encoding="utf-8") as lines:
            user, nice, system, _, _, *rest = map(int, next(lines).split()[1:9])
        return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK") - clock.process_time()
    except (OSError, ValueError):
        return None


def describe_machine() -> Machine:
    """The machine, the versions, and what of the environment changes speed."""

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    jax_packages = ("jax", "jaxlib", "flax", "dm-haiku", "equinox", "keras")
    packages = ("jlstm", *jax_packages, "torch", "onnxruntime", "numpy")
    threads = ("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "ORT_")
    prefixes = ("JLSTM_", "XLA_", "JAX_", "KERAS_", "MALLOC_", "GLIBC_", *threads)
    device = jax.devices()[0]
    return Machine(
        processor=_processor() if device.platform == "cpu" else device.device_kind,
        cores=count_cores(),
        backend=device.platform,
        devices=len(jax.devices()),
        threads={
            "torch": count_cores(),
            "onnxruntime": count_cores(),
            "XLA (its own choice: the cores)": count_cores(),
        },
        versions={package: version(package) for package in packages},
        environment={k: v for k, v in sorted(os.environ.items()) if k.startswith(prefixes)},
        load=os.getloadavg() if hasattr(os, "getloadavg") else None,
    )
