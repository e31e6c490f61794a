"""``python -m tests.benchmarks``: jlstm against its peers on this machine."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console

from jlstm.cli.compare import check_output
from jlstm.cli.main import run
from jlstm.cli.options import CountOrZero, Positive
from jlstm.extras import require

WORDS = Parameter(consume_multiple=True, negative="")
FLAG = Parameter(negative="")


@dataclass(frozen=True)
class BenchmarkConfig:
    """What `python -m tests.benchmarks` is asked for."""

    shapes: Annotated[
        tuple[str, ...],
        WORDS,
        Parameter(help="all, small, or shapes as T,B,D,H with spaces between them."),
    ] = ("small",)
    kinds: Annotated[
        tuple[str, ...],
        WORDS,
        Parameter(
            help="Out of forward, gradient (forward and backward), step (a training step of two "
            "layers with Adam) and stream (one step at B = 1, for the D and H of each shape)."
        ),
    ] = ("forward", "gradient", "step", "stream")
    contestants: Annotated[
        tuple[str, ...], WORDS, Parameter(help="all, or their names with commas between them.")
    ] = ("all",)
    seconds: Annotated[
        Positive,
        Parameter(help="How long to time all contestants together, per shape and kind of work."),
    ] = 5.0
    devices: Annotated[
        CountOrZero,
        Parameter(help="Host devices, of which only jlstm cores uses more than one; 0: the cores."),
    ] = 0
    scaling: Annotated[
        bool,
        FLAG,
        Parameter(
            help="Then also the gradient, memory and compile time over T, at (T,4,64,64), and over "
            "B, at (128,B,128,128): jlstm, its residuals carry and chunks, autodiff; some minutes."
        ),
    ] = False
    precision: Annotated[
        bool,
        FLAG,
        Parameter(
            help="Then also jlstm with its products in float32 and in bfloat16, at three shapes: "
            "errors against float64 and the time of the gradient."
        ),
    ] = False
    variants: Annotated[
        bool,
        FLAG,
        Parameter(
            help="Then also the gradient of every variant of the cell beside the plain one, at "
            "three shapes, with the arithmetic that explains its time; and the memory of each kind "
            "of derivative."
        ),
    ] = False
    streaming: Annotated[
        bool,
        FLAG,
        Parameter(
            help="Then also the latency (median and 99th percentile) and the throughput of single "
            "steps at B = 1 and 256, beside torch and onnxruntime, as JAX dispatches programs by "
            "itself and inline."
        ),
    ] = False
    modules: Annotated[
        bool,
        FLAG,
        Parameter(
            help="Then also what one line brings in a model of Flax, Haiku or Equinox: their own "
            "RNN or scan beside jlstm.modules in its place, at three shapes."
        ),
    ] = False
    seed: Annotated[CountOrZero, Parameter(help="Of the random weights and data.")] = 0
    json: Annotated[
        Path | None, Parameter(help="Write everything measured to this .json file.")
    ] = None
    plot: Annotated[Path | None, Parameter(help="Draw the ratios into this .png file.")] = None


def benchmark(
    *, config: Annotated[BenchmarkConfig, Parameter(name="*")] = BenchmarkConfig()
) -> None:
    """Measure jlstm against its peers: outputs compared, then times, taken in turn, and memory."""
    # Before JAX and Keras are imported: both read these once.
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import jax

    from jlstm.devices import count_cores
    from jlstm.records import write_json
    from tests.benchmarks import (
        harness,
        modules,
        precision,
        programs,
        report,
        scaling,
        streaming,
        variants,
    )
    from tests.benchmarks.contestants import CONTESTANTS

    shapes = parse_shapes(config.shapes)
    kinds = parse_names("--kinds", config.kinds, programs.KINDS)
    names = parse_names("--contestants", config.contestants, [c.name for c in CONTESTANTS])
    contestants = [c for c in CONTESTANTS if c.name in names]
    if config.json is not None:
        check_output("--json", config.json, ".json")
    if config.plot is not None:
        check_output("--plot", config.plot, ".png")
        require("matplotlib", "plots")

    jax.config.update("jax_num_cpu_devices", config.devices or count_cores())
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are measured
    console, aside = Console(), Console(stderr=True)
    if not console.is_terminal:
        console.width = 120  # the tables whole, in a file or a pipe
    machine = harness.describe_machine()
    report.show_machine(machine, console)
    cases = []
    with aside.status("Starting …") as status:
        for shape, kind in harness.plan(shapes, kinds):
            case = harness.run_case(
                contestants, shape, kind, config.seconds, seed=config.seed, tell=status.update
            )
            report.show_case(case, console)
            cases.append(case)
        report.show_summary(cases, console)
        scaled, rounded = [], None
        for over, points in scaling.SHAPES.items() if config.scaling else ():
            series = scaling.measure(
                over, points, config.seconds, seed=config.seed, tell=status.update
            )
            report.show_series(series, console)
            scaled.append(series)
        if config.precision:
            rounded = precision.measure(
                precision.SHAPES, config.seconds, seed=config.seed, tell=status.update
            )
            report.show_precision(rounded, console)
        varied: Any = ()
        remembered: Any = ()
        if config.variants:
            varied = variants.measure(
                variants.SHAPES, config.seconds, seed=config.seed, tell=status.update
            )
            report.show_variants(varied, console)
            remembered = variants.measure_memory(
                variants.MEMORY_SHAPE, seed=config.seed, tell=status.update
            )
            report.show_memory(remembered, console)
        streamed: Any = ()
        if config.streaming:
            streamed = streaming.measure(
                streaming.SHAPES, config.seconds, seed=config.seed, tell=status.update
            )
            report.show_streaming(streamed, console)
        replaced: Any = ()
        if config.modules:
            replaced = modules.measure(
                modules.SHAPES, config.seconds, seed=config.seed, tell=status.update
            )
            report.show_modules(replaced, console)
    found = report.Report(
        machine,
        config.seconds,
        config.seed,
        tuple(cases),
        scaling=tuple(scaled),
        precision=rounded,
        variants=varied,
        memory=remembered,
        streaming=streamed,
        modules=replaced,
    )
    if config.json is not None:
        write_json(config.json, found.to_dict())
    if config.plot is not None:
        report.plot(found, config.plot)


def parse_shapes(words: Sequence[str]) -> list[Any]:
    """The shapes that ``--shapes`` names.

    Raises:
        ValueError: a word is neither all, small nor four whole numbers above 0.
    """
    from tests.benchmarks.contestants import Shape
    from tests.benchmarks.harness import SHAPES, SMALL

    shapes: list[Shape] = []
    for word in words:
        if word in ("all", "small"):
            shapes += SHAPES if word == "all" else SMALL
            continue
        sizes = word.split(",")
        if len(sizes) != 4 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
            raise ValueError(
                f"--shapes: expected all, small or T,B,D,H as in 128,32,128,128, got {word}"
            )
        shapes.append(Shape(*map(int, sizes)))
    return list(dict.fromkeys(shapes))


def parse_names(flag: str, words: Sequence[str], known: Sequence[str]) -> list[str]:
    """The names out of ``known`` that were typed with commas between them; ``all`` is all.

    Raises:
        ValueError: a name is not known.
    """
    names = [name.strip() for name in ",".join(words).split(",")]
    for name in names:
        if name != "all" and name not in known:
            raise ValueError(f"{flag}: expected names out of {', '.join(known)}, got {name!r}")
    return [name for name in known if name in names or "all" in names]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and exit: with 0, or 2 after a user's mistake, told in one line, 130 if interrupted."""
    app = App(name="python -m tests.benchmarks", help=benchmark.__doc__)
    app.default(benchmark)
    run(app, arguments, name="benchmarks")


if __name__ == "__main__":
    main()
