"""`jlstm compare`: the hand-derived rules against autodiff, as a table."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jlstm.cli.options import Count, Positive, Seed
from jlstm.extras import require

if TYPE_CHECKING:  # importing these imports JAX, for which `--help` need not wait
    from jlstm.comparison import Comparison, Measurement


@dataclass(frozen=True)
class CompareConfig:
    """What `jlstm compare` is asked for."""

    time: Annotated[Count, Parameter(help="Steps of the sequence.")] = 128
    batch: Annotated[Count, Parameter(help="Sequences side by side.")] = 32
    input: Annotated[Count, Parameter(help="Features of the input, D.")] = 128
    hidden: Annotated[Count, Parameter(help="Hidden units, H.")] = 128
    dtype: Annotated[
        Literal["float32", "float64", "bfloat16", "float16"],
        Parameter(help="Of weights and data."),
    ] = "float32"
    seconds: Annotated[
        Positive,
        Parameter(help="How long to time all rules together, in seconds; compiling comes on top."),
    ] = 10.0
    seed: Annotated[Seed, Parameter(help="Of the random weights and data.")] = 0
    json: Annotated[
        Path | None, Parameter(help="Write everything measured to this .json file.")
    ] = None
    plot: Annotated[
        Path | None, Parameter(help="Draw error, time and memory into this .png file.")
    ] = None


def compare(*, config: Annotated[CompareConfig, Parameter(name="*")] = CompareConfig()) -> None:
    """Measure the hand-derived rules against autodiff: error, time, memory.

    All rules compute the gradient of the same random LSTM: with respect to its weights, its
    initial carry and its inputs. They are timed in turn, call by call. "vjp" is the hand-derived
    backward pass, "jvp" the hand-derived tangent transposed by JAX, "autodiff" JAX's own derivative
    of the plain scan. "gates", "carry" and "chunks" say what the forward pass keeps for the
    backward pass, from most to least.
    """
    if config.json is not None:
        check_output("--json", config.json, ".json")
    if config.plot is not None:
        check_output("--plot", config.plot, ".png")
        require("matplotlib", "plots")

    from jlstm import comparison

    with Console(stderr=True).status("Compiling and timing …"):
        result = comparison.compare(
            time=config.time,
            batch=config.batch,
            input_size=config.input,
            hidden_size=config.hidden,
            dtype=config.dtype,
            seconds=config.seconds,
            seed=config.seed,
        )
    show(result, Console())
    if config.json is not None:
        from jlstm.records import write_json

        write_json(config.json, result.to_dict())
    if config.plot is not None:
        from jlstm.plots import plot_comparison

        plot_comparison(result, config.plot)


def check_output(flag: str, path: Path, suffix: str) -> None:
    """Raise ValueError unless a file of this name can be written, before work is spent on it."""
    folder = path.resolve().parent
    if path.suffix.lower() != suffix:
        raise ValueError(f"{flag}: expected a name that ends in {suffix}, got {path}")
    if path.is_dir():
        raise ValueError(f"{flag}: expected a file, got the directory {path}")
    if not folder.is_dir():
        raise ValueError(f"{flag}: there is no directory {folder}")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{flag}: no permission to write into {folder}")


def show(comparison: "Comparison", console: Console) -> None:
    """Print the comparison: what each rule costs, how far its gradients are off, the verdict."""
    c = comparison
    base = c.baseline
    console.print(
        f"LSTM: time {c.time}, batch {c.batch}, input {c.input_size}, hidden {c.hidden_size}, "
        f"{c.dtype}\n{c.device}, jax {c.jax_version}, {c.rounds} rounds",
        highlight=False,
    )
    ms, ms_name = _unit(base.forward_seconds.median, _SECONDS)
    mb, mb_name = _unit(base.temp_bytes or 1, _BYTES)
    gf, gf_name = _unit(base.flops, _FLOPS)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("\nrule", no_wrap=True)
    columns: list[tuple[str, Callable[[Measurement], float | None], float, Callable[..., str]]] = [
        (f"forward\n{ms_name} ", lambda r: r.forward_seconds.median, ms, _number),
        (f"gradient\n{ms_name} ", lambda r: r.gradient_seconds.median, ms, _number),
        (f"temp\n{mb_name} ", lambda r: r.temp_bytes, mb, _number),
        (f"work\n{gf_name} ", lambda r: r.flops, gf, _number),
        ("compile\ns ", lambda r: r.compile_seconds, 1, _number),
    ]
    ratios: dict[str, Callable[[Measurement], float | None]] = {
        "forward": lambda r: r.forward_speedup,
        "gradient": lambda r: r.gradient_speedup,
        "temp": lambda r: r.temp_saving,
    }
    cells: list[list[Text]] = [[Text(row.name)] for row in c.rows]
    for header, value, scale, form in columns:
        table.add_column(header, justify="right", no_wrap=True)
        found = [v for v in map(value, c.rows) if v is not None]
        best = min(found, default=None)
        tied = all(v == best for v in found)
        for row, line in zip(c.rows, cells, strict=True):
            v = value(row)
            text = "–" if v is None else form(v / scale)
            won = v is not None and v == best and not tied
            line.append(Text(text + ("*" if won else " "), style="bold green" if won else ""))
        ratio = ratios.get(header.partition("\n")[0])
        if ratio is not None:
            table.add_column("\n×", justify="right", no_wrap=True)
            for row, line in zip(c.rows, cells, strict=True):
                r = ratio(row)
                line.append(
                    Text("–" if r is None else _number(r), style="red" if r and r < 1 else "dim")
                )
    for line in cells:
        table.add_row(*line)
    console.print()
    console.print(table)
    console.print()
    console.print(_error_table(c))
    console.print()
    for sentence in verdict(c):
        console.print(sentence, highlight=False)


def _error_table(comparison: "Comparison") -> Table:
    """The error of each rule's gradient of each leaf, the worst leaf of a rule marked."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("error of", no_wrap=True)
    for leaf in comparison.baseline.errors:
        table.add_column(f"{leaf} ", justify="right", no_wrap=True)
    for row in comparison.rows:
        leaf, error = row.worst
        worst = leaf if error != 0 else None
        table.add_row(
            row.name,
            *(
                Text(f"{value:.1e}" + ("!" if name == worst else " "), "bold" * (name == worst))
                for name, value in row.errors.items()
            ),
        )
    return table


def verdict(comparison: "Comparison") -> list[str]:
    """What the table says, in sentences: who won, where the baseline did, and how sure that is."""
    c, base = comparison, comparison.baseline
    spread = max(
        t.spread / t.median for row in c.rows for t in (row.forward_seconds, row.gradient_seconds)
    )
    legend = (
        f"* best of its column; × how many times faster or smaller than {base.name}. Times are "
        f"medians, their quartiles within ±{100 * spread:.0f} %; gradient includes forward. Work "
        "is that of the traced program, every turn of its loops counted. Errors are relative to "
        "autodiff's gradient in float64; ! the worst of a rule."
    )
    others = [row for row in c.rows if row is not base]
    if not others:
        return [legend]

    sentences = []
    fastest = min(c.rows, key=lambda row: row.gradient_seconds.median)
    if fastest is base:
        fastest = min(others, key=lambda row: row.gradient_seconds.median)
        sentences.append(
            f"Time: {base.name} has the fastest gradient; next is {fastest.name}, at "
            f"{_number(fastest.gradient_speedup)} times its speed."
        )
    else:
        sentences.append(
            f"Time: {fastest.name} has the fastest gradient, "
            f"{_number(fastest.gradient_speedup)} times as fast as {base.name}."
        )
    told = [row for row in others if row.temp_saving is not None]
    if told:
        smallest = max(told, key=lambda row: row.temp_saving or 0)
        saving = smallest.temp_saving or 0
        sentences.append(
            f"Memory: {smallest.name} takes the least, {_number(saving)} times less than "
            f"{base.name}."
            if saving > 1
            else f"Memory: {base.name} takes the least."
        )
    sums = {row.weight_sum_flops for row in others}
    if base.weight_sum_flops > max(sums):
        sentences.append(
            f"Additions into sums that grow step by step, as the weights' gradients can: "
            f"{base.weight_sum_flops:,} in {base.name}, at most {max(sums):,} in the others."
        )
    sentences.append(_wins(base, others))
    if base.worst[1] == 0:
        sentences.append(f"{base.name} has no error: it is what the errors are measured against.")
    return [*sentences, legend]


def _wins(base: "Measurement", others: "list[Measurement]") -> str:
    """Where the baseline beats other rules, by more than the noise of what was measured."""
    # The range in which a figure may lie: quartiles where there are any. Compile time was measured
    # once, and errors at rounding level vary with the data: there a little more is asked for.
    ranges: dict[str, Callable[[Measurement], tuple[float, float]]] = {
        "forward time": lambda r: (r.forward_seconds.lower, r.forward_seconds.upper),
        "gradient time": lambda r: (r.gradient_seconds.lower, r.gradient_seconds.upper),
        "temporary memory": lambda r: (r.temp_bytes or 0, r.temp_bytes or 0),
        "work": lambda r: (r.flops, r.flops),
        "compile time": lambda r: (0.9 * r.compile_seconds, 1.1 * r.compile_seconds),
        "error": lambda r: (r.worst[1] / 1.4, r.worst[1] * 1.4),
    }
    if base.worst[1] == 0:  # compared with itself
        del ranges["error"]
    parts = []
    for what, span in ranges.items():
        beaten = [row.name for row in others if span(base)[1] < span(row)[0]]
        if beaten:
            over = "all" if len(beaten) == len(others) else ", ".join(beaten)
            parts.append(f"{what} (over {over})")
    won = "; ".join(parts) or "nowhere beyond the noise"
    return f"Where {base.name} wins: {won}."


_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_FLOPS = ((1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP"), (1.0, "FLOP"))


def _unit(value: float, units: tuple[tuple[float, str], ...]) -> tuple[float, str]:
    """The largest unit of which ``value`` is at least one, else the smallest."""
    return next((unit for unit in units if value >= unit[0]), units[-1])


def _number(value: float) -> str:
    """Three digits or all before the point: 0.56, 12.3, 4567."""
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"
