"""Which forecasts are drawn: from the best to the worst, by errors that are known."""

from dataclasses import replace

import numpy as np
import pytest
from small_runs import table

from jlstm.tasks.table.job import prepare
from jlstm.tasks.table.measures import add_errors, no_errors
from jlstm.tasks.table.pictures import PIECES, choose, find_stretches, pictures
from jlstm.tasks.table.preparing import load
from jlstm.tasks.table.windows import Places, find_windows, make_panel

NAN = float("nan")


@pytest.mark.parametrize(
    ("errors", "chosen"),
    [
        ([], []),
        ([NAN], []),
        ([3.0], [(0, "best")]),
        ([3.0, 1.0], [(1, "best"), (0, "worst")]),
        ([3.0, NAN, 1.0, 2.0], [(2, "best"), (3, "median"), (0, "worst")]),
        (
            [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0],
            [
                (8, "best"),
                (6, "lower quartile"),
                (4, "median"),
                (2, "upper quartile"),
                (0, "worst"),
            ],
        ),
    ],
)
def test_what_is_chosen_is_spread_over_the_range_of_the_errors(errors, chosen):
    assert choose(np.array(errors)) == chosen


def test_of_equal_errors_the_first_comes_first():
    assert choose(np.zeros(3)) == [(0, "best"), (1, "median"), (2, "worst")]


def test_stretches_follow_each_other_without_overlap():
    stretches = find_stretches(np.arange(10, 310), 4)
    assert [len(stretch) for stretch in stretches] == [PIECES] * 15
    np.testing.assert_array_equal(np.concatenate(stretches), np.arange(10, 310, 4))


def test_a_stretch_ends_at_a_gap():
    origins = np.concatenate([np.arange(0, 90), np.arange(150, 250)])  # 23 forecasts, then 25
    for stretch in find_stretches(origins, 4):
        assert (np.diff(stretch) == 4).all()
    assert 150 in [stretch[0] for stretch in find_stretches(origins, 4)]


def test_of_few_forecasts_the_stretches_are_short():
    assert [len(stretch) for stretch in find_stretches(np.arange(12), 2)] == [1] * 6
    assert [len(stretch) for stretch in find_stretches(np.arange(1), 2)] == [1]


# The pictures, of a model whose errors are known.

SERIES = 9


@pytest.fixture(scope="module")
def hourly(tmp_path_factory):
    """A table with one series, and one with several: schema, series, panel, windows of the test."""

    def made(name, many):
        folder = tmp_path_factory.mktemp(name)
        config = table(folder / "in.csv")
        if many:
            _, *rows = (folder / "in.csv").read_text().splitlines()
            lines = (f"s{n},{row}" for n in range(SERIES) for row in rows)
            (folder / "in.csv").write_text("\n".join(["site,hour,load", *lines, ""]))
            config = replace(config, group="site")
        prepare(config, [folder / "in.csv"], folder)
        _, schema, series = load(folder)
        panel = make_panel(series, schema)
        return schema, series, panel, find_windows(series, panel, "test")

    return made("one", False), made("many", True)


def judged(data, off):
    """What is drawn of a model that is off by so much, in standard deviations."""
    schema, series, panel, places = data
    quantiles = (0.1, 0.5, 0.9)

    def foretell(batch):
        return (np.asarray(batch.targets) + off(batch))[..., None] + np.array([-1.0, 0.0, 1.0])

    rows = np.arange(schema.horizon) + places.origins[:, None]
    member = panel.member[places.origins]
    truth = panel.truth[rows, 0]

    class Batch:
        targets = truth.T
        series = member

    errors = add_errors(
        no_errors(len(schema.names), schema.horizon, 3),
        truth * schema.std[member] + schema.mean[member],
        foretell(Batch).swapaxes(0, 1) * schema.std[member][..., None]
        + schema.mean[member][..., None],
        member,
        quantiles,
    )
    return pictures(foretell, quantiles, series, panel, places, errors)


def test_of_several_series_those_across_the_range_of_errors_are_drawn(hourly):
    drawn = judged(hourly[1], lambda batch: 0.1 * (1 + np.asarray(batch.series)))
    assert [picture.title for picture in drawn] == [
        "s0: MAE 0.1 standard deviations, the best of 9 series",
        "s2: MAE 0.3 standard deviations, the lower quartile of 9 series",
        "s4: MAE 0.5 standard deviations, the median of 9 series",
        "s6: MAE 0.7 standard deviations, the upper quartile of 9 series",
        "s8: MAE 0.9 standard deviations, the worst of 9 series",
    ]


def test_of_a_single_series_stretches_across_the_range_of_errors_are_drawn(hourly):
    schema, *_ = hourly[0]
    drawn = judged(hourly[0], lambda batch: np.abs(np.asarray(batch.targets)))
    off = [float(picture.title.split()[2]) for picture in drawn]
    assert off == sorted(off)
    assert off[0] < off[-1]
    assert "the best of" in drawn[0].title
    assert "the worst of" in drawn[-1].title
    assert len(drawn) == 5
    for picture, said in zip(drawn, off, strict=True):
        known = dict(zip(picture.times.tolist(), picture.truth, strict=True))
        errors = [
            np.abs(values[:, 1] - [known[time] for time in times.tolist()])
            for times, values in picture.pieces
        ]
        assert np.mean(errors) / schema.std[0, 0] == pytest.approx(said, rel=5e-3)


def test_of_a_series_the_stretch_of_median_error_is_drawn(hourly):
    schema, series, panel, places = hourly[1]
    drawn = judged(hourly[1], lambda batch: np.abs(np.asarray(batch.targets)))
    for picture in drawn:
        member = schema.names.index(picture.title.partition(":")[0])
        own = np.sort(places.at(panel.member[places.origins] == member).origins)
        errors = [
            np.abs(panel.truth[stretch[:, None] + np.arange(schema.horizon), 0]).mean()
            for stretch in find_stretches(own, schema.horizon)
        ]
        shown = find_stretches(own, schema.horizon)[
            np.argsort(errors)[round((len(errors) - 1) / 2)]
        ]
        assert picture.pieces[0][0][0] == series.times(schema.step)[shown[0]]


def test_a_part_without_choice_is_drawn_as_it_is(hourly):
    schema, series, panel, places = hourly[0]
    one = Places(places.origins[:1], places.targets[:1])
    (drawn,) = judged((schema, series, panel, one), lambda batch: 0.5)
    assert drawn.title == "load: MAE 0.5 standard deviations"
    assert len(drawn.pieces) == 1
