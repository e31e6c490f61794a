"""Pictures: they are written whole, show what was measured, and leave matplotlib as it was."""

import sys
from dataclasses import replace

import matplotlib as mpl
import matplotlib.figure
import matplotlib.image
import pytest

from jlstm.comparison import Comparison, Measurement, Timing
from jlstm.extras import MissingExtraError
from jlstm.plots import plot_comparison

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
def drawn(monkeypatch, tmp_path):
    """Draw a comparison: the figure that was saved."""
    figures = []
    save = matplotlib.figure.Figure.savefig

    def keep(figure, *arguments, **options):
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", keep)

    def draw(comparison):
        plot_comparison(comparison, tmp_path / "a.png")
        return figures[-1]

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
    height, width, _ = matplotlib.image.imread(tmp_path / "a.png").shape
    assert width > height > 300
    assert [*tmp_path.iterdir()] == [tmp_path / "a.png"]


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
