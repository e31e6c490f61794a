"""Pictures of what was measured, by matplotlib, which comes with ``jlstm[plots]``.

Nothing here touches matplotlib's global state: no current figure, no backend, no style is changed.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jlstm.extras import require
from jlstm.files import replacing

if TYPE_CHECKING:
    import numpy as np

    from jlstm.comparison import Comparison

DPI = 150
"""Pixels to an inch."""
BLUE, PALE, GREY, RED = "#1f5fa8", "#9dbfe3", "#8a8a8a", "#b3282d"


def new_figure(width: float, height: float) -> Any:
    """An empty figure of this size in inches, drawn without a display.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = require("matplotlib.figure", "plots").Figure((width, height), layout="constrained")
    require("matplotlib.backends.backend_agg", "plots").FigureCanvasAgg(figure)
    return figure


def as_it_is(name: str) -> str:
    """A name to be drawn letter by letter: between two dollar signs matplotlib sees formulas."""
    return name.replace("$", r"\$")


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write the figure as PNG; the file is either whole or, as before, not there.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=DPI)


def plot_training(
    records: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    score: str = "loss",
    best: tuple[int, float] | None = None,
) -> None:
    """Draw the loss over the steps of a run into the PNG file ``path``.

    Args:
        records: one for each report: ``step``, ``loss`` and ``validation_loss``; the latter None
            where it was not found, the loss None where no step was good.
        path: the PNG file to write.
        score: what the loss is measured in.
        best: step and validation loss of the parameters that were kept.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    for name, label, style in (
        ("loss", "training, under dropout", {"color": PALE}),
        ("validation_loss", "validation", {"color": BLUE, "marker": "o", "markersize": 3}),
    ):
        shown = [(r["step"], r[name]) for r in records if r[name] is not None]
        if len(shown) == 1:  # a line of one point is none
            style = {**style, "marker": "o"}
        axes.plot([step for step, _ in shown], [loss for _, loss in shown], label=label, **style)
    if best is not None:
        axes.plot(*best, "o", color=RED, markersize=6, label=f"kept: {best[1]:.4g}")
    # The first steps, from knowing nothing, would press the rest of the curve flat.
    late = [r[n] for r in records[len(records) // 20 :] for n in ("loss", "validation_loss")]
    late = [loss for loss in late if loss is not None] + ([] if best is None else [best[1]])
    if late:
        low, high = min(late), max(late)
        margin = 0.05 * (high - low) or 0.1
        axes.set_ylim(low - margin, high + margin)
    axes.set(xlabel="step", ylabel=score)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save(figure, path)


def plot_trials(
    trials: Sequence[tuple[int, str, float | None]],
    path: str | os.PathLike[str],
    *,
    score: str = "loss",
) -> None:
    """Draw the validation loss of each trial of a search into the PNG file ``path``.

    Args:
        trials: number, ``"finished"``, ``"pruned"`` or ``"failed"``, and the lowest loss of each.
        path: the PNG file to write.
        score: what the loss is measured in.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    losses = sorted(loss for _, _, loss in trials if loss is not None) or [0.0]
    low, high = losses[0], losses[-1]
    middle = losses[len(losses) // 2]
    if middle > low:
        high = min(high, low + 8 * (middle - low))
    margin = 0.08 * (high - low) or 0.05 * abs(low) or 0.1
    # One that went wrong would press the others flat: it is drawn at the edge, as one that has no
    # loss at all is.
    top = high + margin
    for status, style in (
        ("finished", {"color": BLUE, "marker": "o"}),
        ("pruned", {"color": PALE, "marker": "v"}),
        ("failed", {"color": RED, "marker": "x"}),
    ):
        shown = [(n, loss) for n, s, loss in trials if s == status]
        numbers = [n for n, _ in shown]
        heights = [top if loss is None else min(loss, top) for _, loss in shown]
        if shown:
            axes.plot(numbers, heights, linestyle="", label=status, clip_on=False, **style)
    ended = [(n, loss) for n, s, loss in trials if s == "finished" and loss is not None]
    best = [(n, min(loss for m, loss in ended if m <= n)) for n, _ in ended]
    if best:
        best.append((max(n for n, _, _ in trials), best[-1][1]))
        places, lows = zip(*best, strict=True)
        label = f"best so far: {lows[-1]:.4g}"
        axes.step(places, lows, where="post", color=RED, linewidth=1, label=label)
    axes.set(xlabel="trial", ylabel=f"validation: {score}", ylim=(low - margin, top))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
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


def plot_confusion(
    confusion: "np.ndarray",
    labels: Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str = "Confusion",
) -> None:
    """Draw how often each class (row) was taken for which (column) into the PNG file ``path``.

    Colours are parts of a row, so that a rare class is seen as well as a frequent one; the counts
    stand in the cells where there is room for them.

    Args:
        confusion: counts, a row for each true class.
        labels: the names of the classes.
        path: the PNG file to write.
        title: over the figure.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    count = len(labels)
    size = min(4 + 0.45 * count, 16)
    figure = new_figure(size + 0.8, size)
    axes = figure.add_subplot()
    shares = [[n / max(sum(row), 1) for n in row] for row in confusion.tolist()]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="part of the true class")
    if count <= 25:
        for true, row in enumerate(confusion.tolist()):
            for said, n in enumerate(row):
                colour = "white" if shares[true][said] > 0.5 else "black"
                axes.text(said, true, n or "", ha="center", va="center", color=colour, fontsize=8)
    shown = range(0, count, -(-count // 60))  # of many classes, as many names as there is room for
    names = [as_it_is(n if len(n) <= 20 else f"{n[:19]}…") for n in (labels[k] for k in shown)]
    upright = len(names) * max(map(len, names)) > 7 * (size - 1)  # letters to an inch, about
    axes.set_xticks(shown, names, rotation=90 if upright else 0)
    axes.set_yticks(shown, names)
    axes.set(xlabel="predicted", ylabel="true", title=as_it_is(title))
    save(figure, path)


def plot_predicted(
    true: "np.ndarray",
    predicted: "np.ndarray",
    path: str | os.PathLike[str],
    *,
    title: str = "Predicted and true",
) -> None:
    """Draw a dot for each number that was predicted, over the true one, into the PNG ``path``.

    On the line both are equal.

    Args:
        true: the numbers, at least one.
        predicted: what they were taken for.
        path: the PNG file to write.
        title: over the figure.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    figure = new_figure(6, 6)
    axes = figure.add_subplot()
    low = float(min(true.min(), predicted.min()))
    high = float(max(true.max(), predicted.max()))
    margin = 0.04 * (high - low) or 0.5
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=GREY, linewidth=1, linestyle="--", label="predicted = true")
    # So many that they lie on each other are seen by how dark they are together.
    alpha = max(0.05, min(0.7, 30 / len(true) ** 0.5))
    axes.plot(true, predicted, "o", color=BLUE, alpha=alpha, markersize=4, markeredgewidth=0)
    axes.set(xlabel="true", ylabel="predicted", title=as_it_is(title), xlim=limits, ylim=limits)
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    save(figure, path)


class Forecasted(NamedTuple):
    """A stretch of a series, and what was foretold of it."""

    title: str
    times: Any
    """``datetime64``, or numbers of rows."""
    truth: Any
    """At these times; NaN where nobody knows."""
    pieces: Sequence[tuple[Any, Any]]
    """For each forecast its times, and its quantiles ``[horizon, quantiles]``."""


def plot_forecast(
    pictures: Sequence[Forecasted], path: str | os.PathLike[str], quantiles: Sequence[float]
) -> None:
    """Draw forecasts beside the truth, one panel below the other, into the PNG file ``path``.

    The point forecast is the median; the bands go from the lowest quantile to the highest, from the
    second to the last but one, and so on.

    Args:
        pictures: what to draw, at least one.
        path: the PNG file to write.
        quantiles: those that were foretold, rising, the median among them.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    figure = new_figure(10, 1 + 2.2 * len(pictures))
    dates = require("matplotlib.dates", "plots")
    middle = list(quantiles).index(0.5)
    bands = min(middle, len(quantiles) - 1 - middle)
    for axes, picture in zip(
        figure.subplots(len(pictures), squeeze=False)[:, 0], pictures, strict=True
    ):
        axes.plot(picture.times, picture.truth, color=GREY, linewidth=1.2, label="truth")
        for place, (times, values) in enumerate(picture.pieces):
            first = place == 0  # one entry of the legend each
            for low in range(bands):
                high = len(quantiles) - 1 - low
                axes.fill_between(
                    times,
                    values[:, low],
                    values[:, high],
                    color=BLUE,
                    alpha=0.15 + 0.45 * low / bands,
                    linewidth=0,
                    label=f"{100 * (quantiles[high] - quantiles[low]):g} %" if first else None,
                )
            axes.plot(
                times,
                values[:, middle],
                color=BLUE,
                linewidth=1.5,
                marker="." if len(times) < 3 else None,  # a line of one point is none
                label="forecast" if first else None,
            )
            axes.axvline(times[0], color=GREY, linewidth=0.5, linestyle=":")
        axes.set_title(as_it_is(picture.title), fontsize=10)
        if picture.times.dtype.kind == "M":  # not where rows are just numbered
            formatter = dates.AutoDateFormatter(axes.xaxis.get_major_locator())
            formatter.scaled[1 / 24] = "%m-%d %H:%M"  # for ticks some hours apart; else 01-02 03
            axes.xaxis.set_major_formatter(formatter)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        frameon=False,
    )
    save(figure, path)
