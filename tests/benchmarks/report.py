"""What was measured, put into words: ratios, means, losses; a table, a JSON file, a picture.

A ratio is a rival's median time divided by one's own: above 1, one is faster than the rival.
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jlstm.comparison import Timing, plain
from jlstm.plots import BLUE, GREY, RED, new_figure, save
from tests.benchmarks import modules, precision, scaling, streaming, variants
from tests.benchmarks.contestants import PLAIN, Shape
from tests.benchmarks.harness import BUSY, Case, Machine, Point, Result
from tests.benchmarks.precision import Precision
from tests.benchmarks.programs import Kind
from tests.benchmarks.scaling import Series

RIVALS = ("jax", "torch", "onnxruntime")
"""The families of peers, of each of which the fastest counts."""


@dataclass(frozen=True)
class Report:
    """Everything that one run of the benchmarks found."""

    machine: Machine
    seconds: float
    """How long each case was timed, at least."""
    seed: int
    cases: tuple[Case, ...]
    scaling: tuple[Series, ...] = ()
    """Empty where it was not asked for."""
    precision: Precision | None = None
    """None where it was not asked for."""
    variants: "tuple[Point[variants.Row], ...]" = ()
    """Empty where it was not asked for."""
    memory: "tuple[variants.Memory, ...]" = ()
    """Of the variants."""
    streaming: "tuple[streaming.Streams, ...]" = ()
    """Empty where it was not asked for."""
    modules: "tuple[Point[modules.Row], ...]" = ()
    """Empty where it was not asked for."""

    def to_dict(self) -> dict[str, Any]:
        """All of it and what follows from it, for JSON; a number that is not finite is None."""
        cases = []
        for case in self.cases:
            rows = [
                asdict(r)
                | {
                    "unsteady": r.unsteady,
                    "times_best_jax_peer": ratio(case, r, "jax"),
                    "times_torch": ratio(case, r, "torch"),
                    "times_onnxruntime": ratio(case, r, "onnxruntime"),
                    "flops_per_second": rate(case, r),
                    "share_of_matrix_rate": rate(case, r) / case.matrix_rate,
                    "share_of_peak": case.peak_rate and rate(case, r) / case.peak_rate,
                }
                for r in case.results
            ]
            cases.append(asdict(case) | {"shape": case.shape._asdict(), "results": rows})
        return plain(
            asdict(self)
            | {
                "cases": cases,
                "means": [mean._asdict() for mean in means(self.cases)],
                "losses": [loss._asdict() for loss in losses(self.cases)],
                "scaling": [_series_dict(series) for series in self.scaling],
                "precision": self.precision and _precision_dict(self.precision),
                "variants": [_variants_dict(point) for point in self.variants],
                "streaming": [_streaming_dict(found) for found in self.streaming],
                "modules": [_modules_dict(point) for point in self.modules],
            }
        )


def _series_dict(series: Series) -> dict[str, Any]:
    points = []
    for point in series.points:
        rows = [
            asdict(row)
            | {
                "seconds_per_step": scaling.per_step(point.shape, row),
                "seconds_per_step_and_sequence": scaling.per_step_and_sequence(point.shape, row),
                "compile_seconds_over_autodiff": scaling.compile_ratio(point, row),
            }
            for row in point.rows
        ]
        points.append(asdict(point) | {"shape": point.shape._asdict(), "rows": rows})
    return asdict(series) | {"points": points, "compile_spreads": scaling.compile_spreads(series)}


def _precision_dict(found: Precision) -> dict[str, Any]:
    points = []
    for point in found.points:
        rows = [asdict(r) | {"times_float32": precision.speedup(point, r)} for r in point.rows]
        points.append(asdict(point) | {"shape": point.shape._asdict(), "rows": rows})
    return asdict(found) | {"points": points}


def _modules_dict(point: Point[modules.Row]) -> dict[str, Any]:
    rows = [asdict(row) | {"times_as_fast": modules.gain(row)} for row in point.rows]
    return asdict(point) | {"shape": point.shape._asdict(), "rows": rows}


def _variants_dict(point: Point[variants.Row]) -> dict[str, Any]:
    rows = [
        asdict(row)
        | {
            "times_plain_cell": variants.slowdown(point, row),
            "times_as_fast_as_autodiff": variants.gain(row),
        }
        for row in point.rows
    ]
    return asdict(point) | {"shape": point.shape._asdict(), "rows": rows}


def _streaming_dict(found: streaming.Streams) -> dict[str, Any]:
    points = [asdict(point) | {"shape": point.shape._asdict()} for point in found.points]
    return asdict(found) | {"points": points}


def best(case: Case, family: str) -> Result | None:
    """The fastest of a family; None if none of it took part."""
    rivals = [r for r in case.results if r.family == family]
    return min(rivals, key=lambda r: r.seconds.median, default=None)


def ratio(case: Case, result: Result, family: str) -> float | None:
    """The median of the family's fastest divided by this one's."""
    rival = best(case, family)
    return None if rival is None else rival.seconds.median / result.seconds.median


def rate(case: Case, result: Result) -> float:
    """Floating-point operations per second, counting only those that the task needs."""
    return case.work / result.seconds.median


class Mean(NamedTuple):
    """How somebody did against the fastest of a family, over all shapes where both took part."""

    kind: Kind
    name: str
    family: str
    rival: str
    """The family."""
    shapes: int
    mean: float
    """The geometric mean of the ratios."""
    least: float
    least_at: Shape


def means(cases: Sequence[Case]) -> list[Mean]:
    """Geometric means of the ratios, for everybody, against each family of peers.

    A shape where one of the two is unsteady does not count, whoever it favours.
    """
    found = []
    for kind in dict.fromkeys(case.kind for case in cases):
        here = [case for case in cases if case.kind == kind]
        for name in dict.fromkeys(r.name for case in here for r in case.results):
            both = [(case, r) for case in here for r in case.results if r.name == name]
            for rival in RIVALS:
                known = [
                    (other.seconds.median / r.seconds.median, case.shape)
                    for case, r in both
                    if (other := best(case, rival)) and not (r.unsteady or other.unsteady)
                ]
                if known:
                    mean = math.exp(sum(math.log(v) for v, _ in known) / len(known))
                    least = min(known)
                    family = both[0][1].family
                    found.append(Mean(kind, name, family, rival, len(known), mean, *least))
    return found


class Loss(NamedTuple):
    """One of ours was slower than a peer."""

    name: str
    kind: Kind
    shape: Shape
    rival: str
    times: float
    """How many times as long ours took."""
    sure: bool
    """The quartiles do not overlap."""


def losses(cases: Iterable[Case]) -> list[Loss]:
    """Wherever the median of one of ours is above that of a peer, whichever peer."""
    return [
        Loss(
            own.name,
            case.kind,
            case.shape,
            peer.name,
            own.seconds.median / peer.seconds.median,
            peer.seconds.upper < own.seconds.lower,
        )
        for case in cases
        for own in case.results
        if own.family == "ours"
        for peer in case.results
        if peer.family != "ours" and peer.seconds.median < own.seconds.median
    ]


# In words


def show(report: Report, console: Console) -> None:
    """Print everything: the machine, a table per case, means, losses, and what else was asked."""
    show_machine(report.machine, console)
    for case in report.cases:
        show_case(case, console)
    show_summary(report.cases, console)
    for series in report.scaling:
        show_series(series, console)
    if report.precision is not None:
        show_precision(report.precision, console)
    if report.variants:
        show_variants(report.variants, console)
        show_memory(report.memory, console)
    if report.streaming:
        show_streaming(report.streaming, console)
    if report.modules:
        show_modules(report.modules, console)


def show_machine(machine: Machine, console: Console) -> None:
    """What the figures belong to."""
    known = ", ".join(f"{name} {v}" for name, v in machine.versions.items() if v is not None)
    console.print(
        f"{machine.processor}, {machine.cores} cores; {machine.backend}, "
        f"{machine.devices} devices\n{known}",
        highlight=False,
    )
    if machine.environment:
        console.print(
            "environment: " + " ".join(f"{k}={v}" for k, v in machine.environment.items()),
            highlight=False,
            markup=False,
        )
    if machine.load is not None:
        busy = ": something else is running too" if machine.load[0] > 0.5 * machine.cores else ""
        console.print(
            f"load before the start {machine.load[0]:.1f}{busy}",
            highlight=False,
            style="yellow" if busy else "",
        )


def show_case(case: Case, console: Console) -> None:
    """One table."""
    console.print(
        f"\n[bold]{case.kind} {case.shape}[/bold]  {case.rounds} rounds, "
        f"{case.work / 1e9:.3g} GFLOP, matrix product {case.matrix_rate / 1e9:.0f} GFLOP/s, "
        f"multiply-adds {'–' if case.peak_rate is None else f'{case.peak_rate / 1e9:.0f}'} GFLOP/s",
        highlight=False,
    )
    rivals = _rivals(r.family for r in case.results)
    table = _table(
        "\n",
        "median\nms",
        "quartiles\nms",
        "least\nms",
        *(HEADERS[rival] for rival in rivals),
        "GFLOP\n/s",
        "of\npeak",
        "temp\nMB",
        "compile\ns",
        "differs\nfrom ours",
    )
    fastest = min(r.seconds.median for r in case.results) if case.results else 0
    for r in case.results:
        t = r.seconds
        table.add_row(
            Text(r.name, style="bold" if r.family == "ours" else ""),
            Text(_digits(1e3 * t.median), style="bold green" if t.median == fastest else ""),
            Text(_quartiles(t, 1e3), style="yellow" if r.unsteady else ""),
            _digits(1e3 * r.least),
            *(_times(ratio(case, r, rival), r) for rival in rivals),
            _digits(rate(case, r) / 1e9),
            f"{100 * rate(case, r) / (case.peak_rate or case.matrix_rate):.0f} %",
            _megabytes(r.temp_bytes),
            "–" if r.compile_seconds is None else f"{r.compile_seconds:.2f}",
            f"{r.difference:.0e} {r.difference_in}",
        )
    console.print(table)
    _show_others(case.others, console)
    unsteady = [r.name for r in case.results if r.unsteady]
    if unsteady:
        console.print(
            f"unsteady, so that medians say little: {', '.join(unsteady)}",
            highlight=False,
            style="yellow",
        )
    for name, why in case.left_out.items():
        console.print(f"{name}: {why}", highlight=False, style="dim")


HEADERS = {"jax": "× best\nJAX peer", "torch": "×\ntorch", "onnxruntime": "× onnx-\nruntime"}


def _rivals(families: Iterable[str]) -> list[str]:
    """Those among them, and JAX peers and PyTorch in any case."""
    known = {"jax", "torch", *families}
    return [rival for rival in RIVALS if rival in known]


def show_summary(cases: Sequence[Case], console: Console) -> None:
    """Means over the shapes, and every loss."""
    rows: dict[tuple[str, str], dict[str, Mean]] = {}
    for mean in means(cases):
        rows.setdefault((mean.kind, mean.name), {})[mean.rival] = mean
    rivals = _rivals(rival for by_rival in rows.values() for rival in by_rival)
    columns = [header for rival in rivals for header in (HEADERS[rival], "\nleast")]
    table = _table("\nkind", "\n", *columns, "\nshapes", left=2 + len(columns))
    for (kind, name), by_rival in rows.items():
        cells = []
        for rival in rivals:
            m = by_rival.get(rival)
            cells += ["–", "–"] if m is None else [f"{m.mean:.2f}", f"{m.least:.2f} {m.least_at}"]
        any_mean = next(iter(by_rival.values()))
        style = "bold" if any_mean.family == "ours" else ""
        counts = [str(by_rival[r].shapes) if r in by_rival else "–" for r in rivals]
        table.add_row(kind, Text(name, style=style), *cells, ", ".join(counts))
    console.print("\n[bold]Geometric means over the shapes[/bold]; above 1 is faster")
    console.print(table)

    lines = loss_lines(losses(cases))
    console.print("\n[bold]Losses[/bold]" + ("" if lines else ": none"))
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def loss_lines(found: Iterable[Loss]) -> list[str]:
    """A line for each of ours at each shape: slower than whom, and how many times as long."""
    lines: dict[tuple[str, str, Shape], list[Loss]] = {}
    for loss in found:
        lines.setdefault((loss.name, loss.kind, loss.shape), []).append(loss)
    return [
        f"{name}, {kind} {shape}: slower than "
        + ", ".join(
            f"{loss.rival} {loss.times:.2f}" + ("" if loss.sure else " (quartiles overlap)")
            for loss in sorted(together, key=lambda loss: -loss.times)
        )
        for (name, kind, shape), together in lines.items()
    ]


def show_series(series: Series, console: Console) -> None:
    """One table: a block of lines for each shape."""
    of, per = PER[series.over]
    console.print(
        f"\n[bold]scaling in {series.over}[/bold]  gradient of a loss of the last carry, "
        f"time per {of}, {scaling.COMPILATIONS} compilations each",
        highlight=False,
    )
    table = _table(
        "(T,B,D,H)\n",
        "\n",
        "median\nµs",
        "quartiles\nµs",
        "temp\nMB",
        "compile\ns",
        f"compile /\n{PLAIN.name}",
        left=2,
    )
    for point in series.points:
        for row in point.rows:
            t, one = row.seconds, per(point.shape, row)
            table.add_row(
                str(point.shape) if row is point.rows[0] else "",
                Text(row.name, style="" if row.name == PLAIN.name else "bold"),
                "–" if one is None else _digits(1e6 * one),
                "–" if t is None or one is None else _quartiles(t, 1e6 * one / t.median),
                _megabytes(row.temp_bytes),
                f"{row.compile_seconds:.2f}",
                f"{scaling.compile_ratio(point, row):.2f}",
            )
    console.print(table)
    spreads = scaling.compile_spreads(series).items()
    console.print(
        f"longest compilation over {series.over} / shortest: "
        + ", ".join(f"{name} {spread:.2f}" for name, spread in spreads),
        highlight=False,
    )
    if any(row.seconds is None for point in series.points for row in point.rows):
        most = _digits(scaling.MOST_TEMP_BYTES / 1e6)
        console.print(f"not timed: above {most} MB of temp", highlight=False, style="dim")
    _show_others(_most_others(series.points), console)


PER = {
    "T": ("step", scaling.per_step),
    "B": ("step and sequence", scaling.per_step_and_sequence),
}
"""What a time is divided by in the table over T and in that over B."""


def show_precision(found: Precision, console: Console) -> None:
    """One table: a line for each dtype at each shape."""
    has = {True: "has bfloat16", False: "has no bfloat16", None: "does not say if it has bfloat16"}
    console.print(
        f"\n[bold]precision[/bold]  gradient, errors against float64; the processor "
        f"{has[found.has_bfloat16]}",
        highlight=False,
    )
    arrays = list(found.points[0].rows[0].errors)
    table = _table(
        "(T,B,D,H)\n",
        "\n",
        *(f"error\n{array}" for array in arrays),
        "median\nms",
        "quartiles\nms",
        "×\nfloat32",
        left=2,
    )
    for point in found.points:
        for row in point.rows:
            table.add_row(
                str(point.shape) if row is point.rows[0] else "",
                row.name,
                *(f"{row.errors[array]:.0e}" for array in arrays),
                _digits(1e3 * row.seconds.median),
                _quartiles(row.seconds, 1e3),
                f"{precision.speedup(point, row):.2f}",
            )
    console.print(table)
    _show_others(_most_others(found.points), console)


def show_variants(points: Sequence[Point[variants.Row]], console: Console) -> None:
    """One table: a line for each variant at each shape."""
    console.print(
        "\n[bold]variants[/bold]  gradient; products against the plain cell's, results and "
        "random numbers for every unit and step",
        highlight=False,
    )
    table = _table(
        "(T,B,D,H)\n",
        "\n",
        "median\nms",
        "quartiles\nms",
        "×\nplain cell",
        "× as fast\nas autodiff",
        "products\n× plain",
        "results\nper unit",
        "random\nper unit",
        left=2,
    )
    for point in points:
        plain_cell = point.rows[0]
        for row in point.rows:
            table.add_row(
                str(point.shape) if row is plain_cell else "",
                row.name,
                _digits(1e3 * row.seconds.median),
                _quartiles(row.seconds, 1e3),
                f"{variants.slowdown(point, row):.2f}",
                f"{variants.gain(row):.2f}",
                f"{row.products / plain_cell.products:.2f}",
                _digits(row.per_unit),
                f"{row.draws:.3g}",
            )
    console.print(table)
    _show_others(_most_others(points), console)


def show_memory(found: Sequence[variants.Memory], console: Console) -> None:
    """One table: a line for each variant, a column for each kind of derivative."""
    console.print(
        f"\n[bold]memory of the variants[/bold]  temporary MB at {variants.MEMORY_SHAPE}, "
        "by hand / by autodiff",
        highlight=False,
    )
    kinds = list(found[0].by_hand)
    table = _table("", *kinds)
    for row in found:
        pairs = ((row.by_hand[kind], row.by_autodiff[kind]) for kind in kinds)
        table.add_row(row.name, *(f"{_megabytes(a)} / {_megabytes(b)}" for a, b in pairs))
    console.print(table)


def show_streaming(found: Sequence[streaming.Streams], console: Console) -> None:
    """One table for each way of running programs: a line for everybody at each shape."""
    for way in found:
        how = "in the thread that calls" if way.inline else "as JAX dispatches them by itself"
        console.print(f"\n[bold]streaming[/bold]  single steps, programs {how}", highlight=False)
        table = _table(
            "(T,B,D,H)\n", "\n", "median\nµs", "99 %\nµs", "steps\n/s", "differs\nfrom cell", left=2
        )
        for point in way.points:
            for row in point.rows:
                table.add_row(
                    str(point.shape) if row is point.rows[0] else "",
                    row.name,
                    _digits(1e6 * row.median),
                    _digits(1e6 * row.p99),
                    f"{row.steps_per_second:,.0f}",
                    f"{row.difference:.0e}",
                )
        console.print(table)
        _show_others(_most_others(way.points), console)
        for name, why in way.left_out.items():
            console.print(f"{name}: {why}", highlight=False, style="dim")


def show_modules(points: Sequence[Point[modules.Row]], console: Console) -> None:
    """One table: a line for each framework at each shape and kind of work."""
    console.print(
        "\n[bold]modules[/bold]  a framework's own RNN or scan, and ours in its place; median and "
        "quartiles in ms",
        highlight=False,
    )
    table = _table("(T,B,D,H)", "", "", "theirs", "", "ours", "", "× as fast", left=3)
    before = "", ""
    for point in points:
        for row in point.rows:
            place = str(point.shape), row.kind
            table.add_row(
                "" if place[0] == before[0] else place[0],
                "" if place == before else place[1],
                row.name,
                _digits(1e3 * row.theirs.median),
                _quartiles(row.theirs, 1e3),
                _digits(1e3 * row.ours.median),
                _quartiles(row.ours, 1e3),
                f"{modules.gain(row):.2f}",
            )
            before = place
    console.print(table)
    if modules.missing():
        console.print(f"not installed: {', '.join(modules.missing())}", highlight=False)
    _show_others(_most_others(points), console)


def _table(*headers: str, left: int = 1) -> Table:
    """An empty one; so many columns are words, the others numbers."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for place, header in enumerate(headers):
        table.add_column(header, justify="left" if place < left else "right", no_wrap=True)
    return table


def _most_others(points: Sequence[Point[Any]]) -> float | None:
    return max((point.others for point in points if point.others is not None), default=None)


def _show_others(others: float | None, console: Console) -> None:
    if others is not None and others >= BUSY:
        console.print(
            f"others kept {others:.1f} cores busy meanwhile: not a measurement to quote",
            highlight=False,
            style="yellow",
        )


def _digits(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _quartiles(seconds: Timing, scale: float) -> str:
    return f"{_digits(scale * seconds.lower)}–{_digits(scale * seconds.upper)}"


def _megabytes(count: int | None) -> str:
    return "–" if count is None else _digits(count / 1e6)


def _times(value: float | None, result: Result) -> Text:
    if value is None:
        return Text("–")
    lost = result.family == "ours" and value < 1
    return Text(f"{value:.2f}", style="red" if lost else "")


# As a picture

BLUES = (BLUE, "#4f9bd9", "#0f8a8a", "#5b4bb5", "#12305c")
MARKERS = "osD^vPX*<>"


def plot(report: Report, path: str | os.PathLike[str]) -> None:
    """Draw the ratio to the best JAX peer, per kind and shape, into the PNG file ``path``.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    kinds = list(dict.fromkeys(case.kind for case in report.cases))
    names = {r.name: r.family for case in report.cases for r in case.results}
    figure = new_figure(11, 1.2 + 3.0 * len(kinds))
    m = report.machine
    figure.suptitle(
        "LSTM: times as fast as the fastest JAX peer, float32\n"
        f"{m.processor}, {m.cores} cores, jax {m.versions['jax']}, torch {m.versions['torch']}",
        fontsize=11,
    )
    for axes, kind in zip(figure.subplots(len(kinds), 1, squeeze=False)[:, 0], kinds, strict=True):
        cases = [case for case in report.cases if case.kind == kind]
        blues, markers = iter(BLUES * len(names)), iter(MARKERS * len(names))
        for name, family in names.items():
            colour = {"ours": next(blues) if family == "ours" else "", "torch": RED}.get(
                family, GREY
            )
            points = [
                (place, ratio(case, r, "jax"))
                for place, case in enumerate(cases)
                for r in case.results
                if r.name == name
            ]
            known = [(x, y) for x, y in points if y is not None]
            axes.plot(
                [x for x, _ in known],
                [y for _, y in known],
                color=colour,
                marker=next(markers),
                markersize=7 if family != "jax" else 5,
                linewidth=1.8 if family == "ours" else 0,  # shapes are no scale: few lines
                alpha=1 if family != "jax" else 0.7,
                zorder=3 if family == "ours" else 2,
                label=name,
            )
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_yscale("log")
        ticks = [t for t in (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10) if _inside(axes, t)]
        axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
        axes.yaxis.set_minor_locator(new_locator())
        axes.set_xticks(range(len(cases)), [str(case.shape) for case in cases])
        axes.set_ylabel(kind)
        axes.grid(axis="y", linewidth=0.4)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    axes.set_xlabel("(T, B, D, H)")
    save(figure, path)


def _inside(axes: Any, tick: float) -> bool:
    low, high = axes.get_ylim()
    return low <= tick <= high


def new_locator() -> Any:
    """No minor ticks: their labels would run into the others."""
    from jlstm.extras import require

    return require("matplotlib.ticker", "plots").NullLocator()
