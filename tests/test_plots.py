"""Pictures: they are written whole, show what was measured, and leave matplotlib as it was."""

import sys
from dataclasses import replace

import matplotlib as mpl
import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest

from jlstm.comparison import Comparison, Measurement, Timing
from jlstm.extras import MissingExtraError
from jlstm.plots import (
    Forecasted,
    plot_comparison,
    plot_confusion,
    plot_forecast,
    plot_predicted,
    plot_training,
    plot_trials,
)

ERRORS = {"w_ih": 1e-7, "w_hh": 2e-7, "b": 3e-7, "h0": 1e-7, "c0": 1e-7, "xs": 9e-7}
ROW = Measurement(
    name="autodiff",
    options={},
    forward_seconds=Timing(8e-3, 7e-3, 9e-3),
    gradient_seconds=Timing(40e-3, 38e-3, 44e-3),
    forward_speedup=1.0,
    gradient_speedup=1.0,
    temp_bytes=20_000_000,
    temp_saving=1.0,
    flops=1,
    xla_flops=1.0,
    weight_sum_flops=1,
    compile_seconds=1.0,
    errors=ERRORS,
)
COMPARISON = Comparison(
    time=12,
    batch=3,
    input_size=5,
    hidden_size=7,
    dtype="float32",
    seed=0,
    rounds=11,
    device="CPU x86_64, 2 cores",
    jax_version="0.10.2",
    rows=(ROW, replace(ROW, name="vjp gates", gradient_speedup=1.6, temp_bytes=5_000_000)),
)


@pytest.fixture
def saved(monkeypatch, tmp_path):
    """Call a function that writes a PNG file: the figure that was saved."""
    figures = []
    save = matplotlib.figure.Figure.savefig

    def keep(figure, *arguments, **options):
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", keep)

    def draw(plot, *arguments, **options):
        path = tmp_path / "picture.png"
        plot(*arguments, path=path, **options)
        height, width, _ = matplotlib.image.imread(path).shape
        assert min(width, height) > 300
        assert path.read_bytes().startswith(b"\x89PNG")
        assert [*tmp_path.iterdir()] == [path]
        return figures[-1]

    return draw


@pytest.fixture
def drawn(saved):
    """Draw a comparison: the figure that was saved."""

    def draw(comparison):
        return saved(plot_comparison, comparison)

    return draw


def test_the_picture_shows_what_was_measured(drawn, tmp_path):
    figure = drawn(COMPARISON)
    assert "time 12, batch 3, input 5, hidden 7, float32" in figure.get_suptitle()
    assert "CPU x86_64, 2 cores" in figure.get_suptitle()
    error, time, memory = figure.axes
    assert [label.get_text() for label in error.get_yticklabels()] == ["autodiff", "vjp gates"]
    dots = error.get_lines()[0]
    assert [*dots.get_xdata()] == [*ERRORS.values()]
    assert [bar.get_width() for bar in time.patches] == pytest.approx([8, 8, 40, 40])  # ms
    assert [bar.get_width() for bar in memory.patches] == pytest.approx([20, 5])  # MB
    said = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert said >= {"xs", "1.00×", "1.60×", "20", "5"}
    height, width, _ = matplotlib.image.imread(tmp_path / "picture.png").shape
    assert width > height


@pytest.mark.parametrize(
    ("error", "said"), [(0.0, "the reference"), (float("nan"), "not finite")], ids=["zero", "nan"]
)
def test_errors_that_a_logarithm_cannot_show_are_said(drawn, error, said):
    odd = replace(ROW, errors=dict.fromkeys(ERRORS, error))
    for rows in ((odd, ROW), (odd,)):
        axes = drawn(replace(COMPARISON, rows=rows)).axes[0]
        assert said in {text.get_text() for text in axes.texts}


def test_memory_that_is_not_known_is_said(drawn):
    unknown = replace(ROW, temp_bytes=None, temp_saving=None)
    axes = drawn(replace(COMPARISON, rows=(unknown,))).axes[2]
    assert [text.get_text() for text in axes.texts] == ["?"]


def test_matplotlib_is_left_as_it_was(tmp_path):
    before = dict(mpl.rcParams)
    plot_comparison(COMPARISON, tmp_path / "a.png")
    assert dict(mpl.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_without_matplotlib_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'jlstm\[plots\]'"):
        plot_comparison(COMPARISON, tmp_path / "a.png")
    assert not [*tmp_path.iterdir()]


def test_a_picture_half_drawn_leaves_the_good_one(monkeypatch, tmp_path):
    path = tmp_path / "a.png"
    plot_comparison(COMPARISON, path)
    good = path.read_bytes()

    def half(_, path, **__):
        path.write_bytes(good[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    with pytest.raises(KeyboardInterrupt):
        plot_comparison(COMPARISON, path)
    assert path.read_bytes() == good
    assert [*tmp_path.iterdir()] == [path]


# The course of a training.

RECORDS = [
    {"step": 5 * n, "loss": 10 / n, "validation_loss": 12 / n if n % 4 == 0 else None}
    for n in range(1, 41)
]


def points(line):
    return [*zip(line.get_xdata(), line.get_ydata(), strict=True)]


def test_the_curves_are_those_of_the_records(saved):
    axes = saved(plot_training, RECORDS, score="nats per word", best=(200, 0.3)).axes[0]
    loss, validation, kept = axes.get_lines()
    assert points(loss) == [(r["step"], r["loss"]) for r in RECORDS]
    assert points(validation) == [(20 * n, 3 / n) for n in range(1, 11)]
    assert points(kept) == [(200, 0.3)]
    assert axes.get_ylabel() == "nats per word"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "training, under dropout", "validation", "kept: 0.3"
    ]  # fmt: skip


def test_the_first_steps_do_not_press_the_rest_flat(saved):
    axes = saved(plot_training, RECORDS).axes[0]
    low, high = axes.get_ylim()
    assert low < 0.25  # the last loss
    assert 10 / 3 < high < 5  # not the 10 of the first step


def test_the_parameters_kept_are_always_in_the_picture(saved):
    for best in ((5, 9.0), (200, 0.1)):
        axes = saved(plot_training, RECORDS, best=best).axes[0]
        low, high = axes.get_ylim()
        assert low < best[1] < high


@pytest.mark.parametrize(
    "records",
    [
        [{"step": 1, "loss": 2.0, "validation_loss": 1.9}],
        [{"step": 1, "loss": 2.0, "validation_loss": None}],
        [{"step": 1, "loss": None, "validation_loss": None}],
        [{"step": n, "loss": None, "validation_loss": 2.0} for n in range(1, 4)],
        [],
    ],
    ids=["one", "no validation", "nothing", "no loss", "no records"],
)
def test_what_is_not_known_is_not_drawn_and_a_single_point_is(saved, records):
    axes = saved(plot_training, records).axes[0]
    for line, name in zip(axes.get_lines(), ("loss", "validation_loss"), strict=True):
        known = [(r["step"], r[name]) for r in records if r[name] is not None]
        assert points(line) == known
        assert len(known) != 1 or line.get_marker() == "o"


# What was taken for what.


def test_a_confusion_has_its_counts_and_the_colours_of_its_rows(saved):
    confusion = np.array([[90, 10, 0], [0, 1, 3], [0, 0, 0]])
    figure = saved(plot_confusion, confusion, ["walk", "run", "sit"], title="On test")
    axes = figure.axes[0]
    np.testing.assert_allclose(
        axes.get_images()[0].get_array(), [[0.9, 0.1, 0], [0, 0.25, 0.75], [0, 0, 0]]
    )
    cells = {(text.get_position()): text for text in axes.texts}
    assert {place: text.get_text() for place, text in cells.items() if text.get_text()} == {
        (0, 0): "90", (1, 0): "10", (1, 1): "1", (2, 1): "3",
    }  # fmt: skip
    assert cells[0, 0].get_color() != cells[1, 0].get_color()  # white on dark, black on pale
    assert [label.get_text() for label in axes.get_yticklabels()] == ["walk", "run", "sit"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert axes.get_title() == "On test"


@pytest.mark.parametrize(
    ("count", "numbers", "names", "upright"),
    [(2, 2, 2, 0), (20, 20, 20, 0), (40, 0, 40, 90), (70, 0, 35, 90)],
)
def test_many_classes_have_no_numbers_and_very_many_few_names(
    saved, count, numbers, names, upright
):
    axes = saved(
        plot_confusion, np.eye(count, dtype=int), [f"c{n:03d}" for n in range(count)]
    ).axes[0]
    assert sum(bool(text.get_text()) for text in axes.texts) == numbers
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == [f"c{n:03d}" for n in axes.get_xticks()]
    assert len(shown) == names
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {upright}


def test_a_long_name_is_cut(saved):
    axes = saved(plot_confusion, np.eye(2, dtype=int), ["a", "b" * 40]).axes[0]
    assert axes.get_yticklabels()[1].get_text() == "b" * 19 + "…"


@pytest.mark.parametrize("name", ["$\\foo$", "$x$ and $y$", "5 $"])
def test_a_name_is_no_formula(saved, name):
    axes = saved(plot_confusion, np.eye(2, dtype=int), [name, "b"], title=name).axes[0]
    assert axes.title.get_text() == name.replace("$", r"\$")
    saved(plot_predicted, np.arange(3.0), np.arange(3.0), title=name)
    pictures = [Forecasted(name, WHEN, TRUTH, [])]
    saved(plot_forecast, pictures, quantiles=(0.5,))


# What was predicted over what is true.


def test_each_prediction_is_a_dot_over_the_truth(saved):
    true, predicted = np.array([1.0, 2.0, 5.0]), np.array([2.0, 2.0, 3.0])
    axes = saved(plot_predicted, true, predicted, title="On test").axes[0]
    line, dots = axes.get_lines()
    assert points(dots) == [(1.0, 2.0), (2.0, 2.0), (5.0, 3.0)]
    assert [x for x, _ in points(line)] == [y for _, y in points(line)]
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_xlim()[0] < 1 < 5 < axes.get_xlim()[1]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("true", "predicted")
    assert axes.get_title() == "On test"


def test_numbers_that_are_all_equal_have_a_picture(saved):
    axes = saved(plot_predicted, np.full(4, 7.0), np.full(4, 7.0)).axes[0]
    assert axes.get_xlim() == (6.5, 7.5)


# Forecasts.

WHEN = np.datetime64("2020-01-01T00:00:00.000000") + np.arange(60) * np.timedelta64(3600, "s")
TRUTH = np.sin(np.arange(60) / 4)
TRUTH[7] = np.nan


def pieces(quantiles, horizon=12):
    around = np.array(quantiles) - 0.5
    return [
        (WHEN[at : at + horizon], TRUTH[at : at + horizon, None] + around)
        for at in (30, 30 + horizon)
    ]


def hours(times):
    """As matplotlib has them, in days since 1970."""
    return (np.asarray(times, "datetime64[us]").astype(np.int64) / 86_400e6).tolist()


@pytest.mark.parametrize("quantiles", [(0.5,), (0.1, 0.5, 0.9), (0.05, 0.25, 0.5, 0.75, 0.95)])
def test_a_forecast_is_drawn_beside_the_truth(saved, quantiles):
    drawn = pieces(quantiles)
    pictures = [Forecasted(title, WHEN, TRUTH, drawn) for title in ("here", "there")]
    figure = saved(plot_forecast, pictures, quantiles=quantiles)
    assert [axes.get_title() for axes in figure.axes] == ["here", "there"]
    bands = len(quantiles) // 2
    for axes in figure.axes:
        lines = {line.get_label(): line for line in axes.get_lines()}
        np.testing.assert_array_equal(lines["truth"].get_ydata(), TRUTH)
        np.testing.assert_array_equal(lines["forecast"].get_ydata(), drawn[0][1][:, bands])
        assert len(axes.collections) == 2 * bands  # of each piece
        for band, found in enumerate(axes.collections[:bands]):
            vertices = found.get_paths()[0].vertices
            values = drawn[0][1][:, [band, -1 - band]]
            assert vertices[:, 1].min() == pytest.approx(values.min())
            assert vertices[:, 1].max() == pytest.approx(values.max())
            assert vertices[:, 0].min() == pytest.approx(hours(WHEN[30]))
        shades = {found.get_alpha() for found in axes.collections}
        assert len(shades) == bands  # so that the legend tells them apart
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    sizes = {1: [], 3: ["80 %"], 5: ["90 %", "50 %"]}[len(quantiles)]
    assert named == ["truth", *sizes, "forecast"]


def test_ticks_some_hours_apart_say_so(saved):
    figure = saved(
        plot_forecast, [Forecasted("load", WHEN, TRUTH, pieces((0.5,)))], quantiles=(0.5,)
    )
    figure.canvas.draw()
    ticks = {label.get_text() for label in figure.axes[0].get_xticklabels()}
    assert "01-02 06:00" in ticks


def test_a_forecast_of_one_step_is_a_point(saved):
    one = Forecasted("load", WHEN, TRUTH, pieces((0.5,), horizon=1))
    axes = saved(plot_forecast, [one], quantiles=(0.5,)).axes[0]
    assert next(x for x in axes.get_lines() if x.get_label() == "forecast").get_marker() == "."


@pytest.mark.parametrize(
    ("plot", "arguments"),
    [
        (plot_training, {"records": RECORDS}),
        (plot_confusion, {"confusion": np.eye(2, dtype=int), "labels": ["a", "b"]}),
        (plot_predicted, {"true": np.arange(3.0), "predicted": np.arange(3.0)}),
        (plot_forecast, {"pictures": [Forecasted("a", WHEN, TRUTH, [])], "quantiles": (0.5,)}),
    ],
)
def test_none_of_them_goes_without_matplotlib_or_touches_its_state(
    monkeypatch, tmp_path, plot, arguments
):
    before = dict(mpl.rcParams)
    plot(**arguments, path=tmp_path / "a.png")
    assert dict(mpl.rcParams) == before
    (tmp_path / "a.png").unlink()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'jlstm\[plots\]'"):
        plot(**arguments, path=tmp_path / "a.png")
    assert not [*tmp_path.iterdir()]


def test_trials_and_the_best_so_far(saved):
    trials = [
        (0, "finished", 1.0), (1, "finished", 0.5), (2, "pruned", 0.7), (3, "failed", None),
        (4, "finished", 0.6), (5, "finished", 900.0),
    ]  # fmt: skip
    (axes,) = saved(plot_trials, trials, score="points").axes
    lines = {line.get_label().partition(":")[0]: line for line in axes.get_lines()}
    assert [*lines["finished"].get_xdata()] == [0, 1, 4, 5]
    assert [*lines["pruned"].get_ydata()] == [0.7]
    low, high = axes.get_ylim()
    assert low < 0.5
    assert high < 3  # one that went wrong does not press the others flat
    assert lines["finished"].get_ydata()[-1] == lines["failed"].get_ydata()[0] == high
    assert [*lines["best so far"].get_ydata()] == [1.0, 0.5, 0.5, 0.5, 0.5]
    assert lines["best so far"].get_label() == "best so far: 0.5"
    assert axes.get_ylabel() == "validation: points"


@pytest.mark.parametrize(
    "trials", [[(0, "finished", 1.0)], [(0, "failed", None)], [(0, "pruned", 0.0)]]
)
def test_few_trials_are_a_picture_too(saved, trials):
    saved(plot_trials, trials)
