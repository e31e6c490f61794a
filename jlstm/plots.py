"""Pictures of what was measured, by matplotlib, which comes with ``jlstm[plots]``.

Nothing here touches matplotlib's global state: no current figure, no backend, no style is changed.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jlstm.extras import require
from jlstm.files import replacing

if TYPE_CHECKING:
    from jlstm.comparison import Comparison

BLUE, PALE, GREY, RED = "#1f5fa8", "#9dbfe3", "#8a8a8a", "#b3282d"


def new_figure(width: float, height: float) -> Any:
    """An empty figure of this size in inches, drawn without a display.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = require("matplotlib.figure", "plots").Figure((width, height), layout="constrained")
    require("matplotlib.backends.backend_agg", "plots").FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write the figure as PNG; the file is either whole or, as before, not there.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=150)


def plot_training(
    records: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    baselines: Mapping[str, float] | None = None,
    *,
    title: str = "Training",
) -> None:
    """Draw bits per byte over the steps of a run into the PNG file ``path``.

    Args:
        records: one for each report: ``step``, ``bits_per_byte``, and
            ``validation_bits_per_byte``, None where it was not found.
        path: the PNG file to write.
        baselines: names and bits per byte to compare with, drawn as level lines.
        title: over the figure.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    validated = [r for r in records if r["validation_bits_per_byte"] is not None]
    axes.plot(
        [r["step"] for r in records],
        [r["bits_per_byte"] for r in records],
        color=PALE,
        label="training (with dropout)",
    )
    axes.plot(
        [r["step"] for r in validated],
        [r["validation_bits_per_byte"] for r in validated],
        color=BLUE,
        marker="o",
        markersize=4,
        label="validation",
    )
    for name, bits in (baselines or {}).items():
        axes.axhline(bits, color=GREY, linestyle="--", linewidth=1)
        axes.annotate(
            f"{name} {bits:.2f}",
            (1, bits),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            color=GREY,
            fontsize=9,
        )
    axes.set(xlabel="step", ylabel="bits per byte", title=title)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.9), frameon=False)
    save(figure, path)


def plot_comparison(comparison: "Comparison", path: str | os.PathLike[str]) -> None:
    """Draw errors, times and temporary memory of each rule into the PNG file ``path``.

    Errors are relative, one dot per gradient, on a logarithmic axis; times are medians in
    milliseconds with a line from quartile to quartile; memory is in MB.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    c = comparison
    figure = new_figure(11, 1.9 + 0.45 * len(c.rows))
    figure.suptitle(
        f"LSTM gradient: time {c.time}, batch {c.batch}, input {c.input_size}, "
        f"hidden {c.hidden_size}, {c.dtype}\n{c.device}, jax {c.jax_version}",
        fontsize=11,
    )
    error, time, memory = figure.subplots(1, 3, sharey=True)
    places = range(len(c.rows))

    _draw_errors(error, c)
    width = 0.36
    for offset, colour, label in ((-width / 2, PALE, "forward"), (width / 2, BLUE, "gradient")):
        timings = [getattr(row, f"{label}_seconds") for row in c.rows]
        medians = [1e3 * t.median for t in timings]
        bars = time.barh(
            [place + offset for place in places],
            medians,
            width,
            color=colour,
            label="forward + backward" if label == "gradient" else label,
            xerr=[
                [1e3 * (t.median - t.lower) for t in timings],
                [1e3 * (t.upper - t.median) for t in timings],
            ],
            error_kw={"elinewidth": 1, "ecolor": "black"},
        )
        if label == "gradient":
            ratios = [f"{row.gradient_speedup:.2f}×" for row in c.rows]
            time.bar_label(bars, ratios, padding=3, fontsize=8)
    time.set_title(f"time, and how many times faster than {c.baseline.name}", fontsize=9)
    time.set_xlabel("ms")
    time.margins(x=0.12)
    figure.legend(
        *time.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
    )

    bars = memory.barh(
        places,
        [(row.temp_bytes or 0) / 1e6 for row in c.rows],
        0.6,
        color=[GREY if row is c.baseline else BLUE for row in c.rows],
    )
    amounts = ["?" if row.temp_bytes is None else f"{row.temp_bytes / 1e6:.3g}" for row in c.rows]
    memory.bar_label(bars, amounts, padding=3, fontsize=8)
    memory.set_title("temporary memory of the gradient", fontsize=9)
    memory.set_xlabel("MB")
    memory.margins(x=0.12)

    error.set_yticks(places, [row.name for row in c.rows])
    error.invert_yaxis()  # the first rule on top; the axes share it
    for axes in (error, time, memory):
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _draw_errors(axes: Any, comparison: "Comparison") -> None:
    """A dot for every gradient's error, the worst named; 0 has no place on a logarithmic axis."""
    for place, row in enumerate(comparison.rows):
        shown = [e for e in row.errors.values() if e > 0 and math.isfinite(e)]
        axes.plot(shown, [place] * len(shown), "o", color=BLUE, alpha=0.5, markersize=5)
        leaf, worst = row.worst
        if worst > 0 and math.isfinite(worst):
            axes.plot([worst], [place], "o", color=RED, markersize=6)
            axes.annotate(
                leaf, (worst, place), (0, 6), textcoords="offset points", ha="center", fontsize=8
            )
        else:
            said = "the reference" if worst == 0 else "not finite"
            axes.text(0.5, place, said, transform=axes.get_yaxis_transform(), ha="center")
    errors = [e for line in axes.get_lines() for e in line.get_xdata()]
    if errors:  # whole decades, so that differences in rounding look as small as they are
        axes.set_xscale("log")
        axes.set_xlim(
            10.0 ** math.floor(math.log10(min(errors)) - 0.1),
            10.0 ** math.ceil(math.log10(max(errors)) + 0.1),
        )
        axes.xaxis.set_minor_formatter("")
    axes.set_title("error of each gradient, the worst named", fontsize=9)
    axes.set_xlabel("relative to float64")
