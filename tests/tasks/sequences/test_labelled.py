"""Labelled sequences: grouping, encoding, splitting, buckets and batches."""

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jlstm.tasks.sequences import labelled
from jlstm.tasks.sequences.labelled import (
    PARTS,
    Chosen,
    Sequences,
    bucket_lengths,
    cut_batches,
    encode,
    group_rows,
    learn_features,
    one_per_sequence,
    pad,
    padded_share,
    places,
    sort_labels,
    split_by_chance,
)


def table(text: str) -> pl.DataFrame:
    """A table as `read_table` gives it: every cell is text."""
    header, *rows = (line.split() for line in text.strip().splitlines())
    cells = [[cell.replace("_", "") for cell in row] for row in rows]  # _ for an empty one
    return pl.DataFrame(cells, schema=dict.fromkeys(header, pl.String), orient="row")


MIXED = table("""
id time x    kind label
b  10   1.5  red  yes
a  2    2    blue no
b  9    -3   blue yes
a  1    4    red  no
b  8    0    red  yes
""")
ALL = np.ones(5, bool)


def test_rows_of_a_sequence_are_put_in_order_of_time():
    groups = group_rows(MIXED, "id", "time")
    assert groups.ids == ("b", "a")
    np.testing.assert_array_equal(groups.rows, [4, 2, 0, 3, 1])  # 10 after 9: numbers, not text
    np.testing.assert_array_equal(groups.offsets, [0, 3, 5])
    np.testing.assert_array_equal(groups.lengths, [3, 2])
    assert one_per_sequence(MIXED, groups, "label") == ["yes", "no"]


def test_times_may_be_dates():
    frame = table("id time\na 2024-10-01\na 2024-02-03\na 2023-12-31")
    np.testing.assert_array_equal(group_rows(frame, "id", "time").rows, [2, 1, 0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id time\na 1\n_ 2", "column 'id', row 3: expected the id of a sequence, got an empty"),
        ("id time\na 1\nb 1\na 2\na 1", "row 5: expected each time once in sequence 'a', got 1 as "
         "in row 2"),
        ("id time\na 1\na soon", "column 'time', row 3: expected a number, got 'soon'"),
        ("id when\na 1", "time: expected a column of the table"),
        ("name time\na 1", "id: expected a column of the table"),
    ],
)  # fmt: skip
def test_rows_that_make_no_sequences_are_named(text, said):
    with pytest.raises(ValueError, match=said):
        group_rows(table(text), "id", "time")


def test_a_label_that_changes_within_a_sequence_is_named():
    frame = table("id time label\na 1 x\nb 1 y\na 3 z\na 2 x")
    said = "row 4: expected one value in all rows of sequence 'a', got 'z', and 'x' in row 2"
    with pytest.raises(ValueError, match=said):
        one_per_sequence(frame, group_rows(frame, "id", "time"), "label")


def test_numbers_are_scaled_and_text_is_a_category():
    features, said = learn_features(MIXED, ["x", "kind"], ALL)
    assert not said
    x, kind = features
    assert (x.mean, x.scale) == pytest.approx((0.9, np.std([1.5, 2, -3, 4, 0])))
    assert kind.categories == ("blue", "red")
    values, said = encode(MIXED, np.array([4, 0]), features)
    assert values.dtype == np.float32
    assert not said
    expected = [[(0 - x.mean) / x.scale, 0, 1], [(1.5 - x.mean) / x.scale, 0, 1]]
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_nothing_is_learnt_from_other_parts():
    train = np.array([True, False, True, False, False])
    x, kind = learn_features(MIXED, ["x", "kind"], train)[0]
    assert (x.mean, x.scale) == pytest.approx((-0.75, 2.25))
    assert kind.categories == ("blue", "red")
    other = learn_features(MIXED, ["x", "kind"], np.array([True, False, False, False, True]))
    assert [feature.name for feature in other[0]] == ["x"]
    assert other[1] == ["Left out, being the same in all of the training part: kind"]


def test_a_number_that_makes_the_scale_is_told_with_its_row():
    x = [str(n % 7) for n in range(60)]
    x[3], x[40] = "-999", "9999"
    frame = table("x\n" + "\n".join(x))
    train = (np.arange(60) % 2 == 1) & (np.arange(60) != 40)  # of the rest nothing is learnt
    _, said = learn_features(frame, ["x"], train)
    assert len(said) == 1
    assert said[0].startswith("Column 'x', row 5: -999 is far from all others; ")


def test_an_unknown_category_is_none_of_the_known_ones():
    features, _ = learn_features(MIXED, ["kind"], ALL)
    values, said = encode(table("kind\nred\ngreen\nblue\npink"), np.arange(4), features)
    np.testing.assert_array_equal(values, [[0, 1], [0, 0], [1, 0], [0, 0]])
    assert said == [
        "Column 'kind': 2 cells with a category that was not in the training part (the first: "
        "'green', row 3), taken as none of the known ones"
    ]


def test_numbers_that_are_names_are_categories():
    frame = table("code\n3\n1\n2\n3")
    features, _ = learn_features(frame, ["code"], np.ones(4, bool), categories=["code"])
    values, _ = encode(frame, np.arange(4), features)
    np.testing.assert_array_equal(values, [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])


def test_a_missing_value_is_an_error_that_names_it():
    frame = table("x kind\n1 a\n2 b\n_ b")
    features, _ = learn_features(frame, ["x"], np.ones(3, bool))
    with pytest.raises(
        ValueError, match="column 'x', row 4: expected a value, got none; --missing"
    ):
        encode(frame, np.arange(3), features)
    gap = table("x kind\n1 a\n2 _\n3 b")
    features, _ = learn_features(gap, ["kind"], np.ones(3, bool))
    with pytest.raises(ValueError, match="column 'kind', row 3: expected a value, got none"):
        encode(gap, np.arange(3), features)


def test_a_missing_value_may_be_the_mean_with_a_mask_beside():
    frame = table("x y\n1 1\n3 4\n_ 5\n_ 8")
    features, said = learn_features(frame, ["x", "y"], np.ones(4, bool), missing="mask")
    assert [feature.width for feature in features] == [2, 1]
    assert said == ["With a column beside that says where they are missing: x"]
    values, _ = encode(frame, np.arange(4), features, "mask")
    np.testing.assert_array_equal(values[:, :2], [[-1, 0], [1, 0], [0, 1], [0, 1]])


def test_text_that_stands_for_a_missing_value_is_no_category():
    frame = table("kind\nred\nNaN\nblue\nn/a\n_")
    every = np.ones(5, bool)
    features, _ = learn_features(frame, ["kind"], every, missing="mask")
    assert features[0].categories == ("blue", "red")
    values, said = encode(frame, np.arange(5), features, "mask")
    np.testing.assert_array_equal(values, [[0, 1], [0, 0], [1, 0], [0, 0], [0, 0]])
    assert said == [
        "Column 'kind': 'NaN' and the like, in 2 cells (the first: row 3), are taken as missing, "
        "not as a category"
    ]
    with pytest.raises(
        ValueError, match="column 'kind', row 3: expected a value, got 'NaN', which stands for a mi"
    ):
        encode(frame, np.arange(5), features)
    # One category, and nothing else or a gap: the first says nothing, the second something.
    alone, gap = table("kind ok\nred 1\nred 2"), table("kind ok\nred 1\nnull 2")
    for rows, names in ((alone, ["ok"]), (gap, ["kind", "ok"])):
        found, _ = learn_features(rows, ["kind", "ok"], np.ones(2, bool), missing="mask")
        assert [feature.name for feature in found] == names


def test_numbers_too_large_to_scale_are_named_by_their_column():
    with pytest.raises(ValueError, match="column 'x': expected values whose standard deviation"):
        learn_features(table("x\n1e300\n-1e300"), ["x"], np.ones(2, bool))


def test_a_column_of_numbers_with_a_word_in_it_is_an_error():
    frame = table("x\n1\n2\noops\n4")
    with pytest.raises(ValueError, match="column 'x', row 4: expected a number, got 'oops'"):
        learn_features(frame, ["x"], np.ones(4, bool))
    with pytest.raises(ValueError, match="column 'x', row 4: expected a number, got 'oops'"):
        encode(frame, np.arange(4), [labelled.Feature("x")])


def test_what_cannot_be_learnt_from_is_said():
    constant = table("x kind\n7 a\n7 a\n7 a")
    with pytest.raises(ValueError, match="features: expected a column with more than one value in "
                       "the training part, got x, kind"):  # fmt: skip
        learn_features(constant, ["x", "kind"], np.ones(3, bool))
    with pytest.raises(ValueError, match="got no column"):
        learn_features(constant, [], np.ones(3, bool))
    with pytest.raises(ValueError, match="features: expected a column of the table"):
        learn_features(constant, ["y"], np.ones(3, bool))
    dates = pl.DataFrame({"day": pl.Series(["2024-01-01"]).str.to_date()})
    with pytest.raises(ValueError, match="expected numbers or text in column 'day', got Date"):
        learn_features(dates, ["day"], np.ones(1, bool))
    many = pl.DataFrame({"name": [f"n{n}" for n in range(1001)]})
    with pytest.raises(ValueError, match="at most 1000 categories in column 'name', got 1001"):
        learn_features(many, ["name"], np.ones(1001, bool))


def test_what_is_far_outside_stays_finite():
    features, _ = learn_features(MIXED, ["x"], ALL)
    values, _ = encode(table("x\n1e300\n-1e300"), np.arange(2), features)
    np.testing.assert_array_equal(values, [[1e6], [-1e6]])


@given(
    st.lists(st.integers(2, 40), min_size=2, max_size=5),
    st.sampled_from([0.1, 0.2, 0.3]),
    st.sampled_from([0.0, 0.1, 0.25]),
    st.integers(0, 5),
)
def test_each_part_has_its_share_of_each_label(sizes, validation, test, seed):
    labels = [str(c) for c, size in enumerate(sizes) for _ in range(size)]
    parts = split_by_chance(labels, len(labels), validation, test, seed)
    np.testing.assert_array_equal(
        parts, split_by_chance(labels, len(labels), validation, test, seed)
    )
    for name, share in (("validation", validation), ("test", test)):
        got = parts == PARTS.index(name)
        assert got.sum() == (max(1, round(share * len(labels))) if share else 0)
        for c, size in enumerate(sizes):
            of_class = got[np.asarray(labels) == str(c)].sum()
            assert abs(of_class - share * size) <= 2  # two cuts, each off by at most one
    for label in set(labels):
        assert (parts[np.asarray(labels) == label] == PARTS.index("train")).any()


def test_the_split_is_one_of_chance():
    first, other = (split_by_chance(None, 50, 0.2, 0.2, seed) for seed in (0, 1))
    assert np.any(first != other)
    assert np.any(first[:-1] > first[1:])
    assert np.any(first[:-1] < first[1:])
    with pytest.raises(
        ValueError, match="expected enough for training, validation and test, got 2"
    ):
        split_by_chance(None, 2, 0.1, 0.2, 0)


def steps_gone_through(lengths, bounds, batch):
    at = np.searchsorted(bounds, lengths)
    return sum(
        bound * batch * -(-np.count_nonzero(at == k) // batch) for k, bound in enumerate(bounds)
    )


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=25),
    st.integers(1, 4),
    st.integers(1, 6),
)
def test_no_other_buckets_have_less_padding(lengths, buckets, batch):
    lengths = np.asarray(lengths)
    bounds = bucket_lengths(lengths, buckets, batch)
    assert len(bounds) <= buckets
    assert list(bounds) == sorted(set(bounds))
    assert bounds[-1] == lengths.max()
    least = min(
        steps_gone_through(lengths, [*few, lengths.max()], batch)
        for count in range(buckets)
        for few in combinations(sorted(set(lengths.tolist()) - {lengths.max()}), count)
    )
    assert steps_gone_through(lengths, bounds, batch) == least


def test_a_bucket_that_saves_nothing_is_not_there():
    assert bucket_lengths(np.full(9, 5), 4) == (5,)
    assert bucket_lengths(np.array([1, 1, 9, 9]), 4) == (1, 9)
    # Four sequences in one batch of four, rather than in two.
    assert bucket_lengths(np.array([1, 1, 9, 9]), 4, batch=4) == (9,)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 4), st.integers(0, 60))
def test_each_bucket_saves_its_price(lengths, buckets, price):
    lengths = np.asarray(lengths)

    def cost(bounds):
        return steps_gone_through(lengths, bounds, 4) + price * len(bounds)

    bounds = bucket_lengths(lengths, buckets, 4, price)
    for count in range(1, buckets + 1):
        assert cost(bounds) <= cost(bucket_lengths(lengths, count, 4))


def test_many_lengths_are_thinned_out(monkeypatch):
    monkeypatch.setattr(labelled, "MOST_LENGTHS", 10)
    lengths = np.random.default_rng(0).integers(1, 500, 300)
    bounds = bucket_lengths(lengths, 4)
    assert bounds[-1] == lengths.max()
    assert len(bounds) == 4
    # Evenly spread lengths: quarters would have 1/2·1/4 of 500 too much on average.
    assert steps_gone_through(lengths, bounds, 1) < 1.1 * (lengths.sum() + 300 * 500 / 8)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=40),
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_every_sequence_comes_once_in_an_epoch(lengths, batch, buckets, epoch):
    lengths = np.asarray(lengths)
    chosen = np.flatnonzero(np.arange(len(lengths)) % 5 != 3)
    if not len(chosen):
        return
    bounds = bucket_lengths(lengths[chosen], buckets, batch)
    batches = cut_batches(lengths, chosen, bounds, batch, seed=(1, epoch))
    gone_through = np.concatenate([one.sequences for one in batches])
    np.testing.assert_array_equal(np.sort(gone_through), chosen)
    for time, sequences in batches:
        assert 1 <= len(sequences) <= batch
        assert lengths[sequences].max() <= time
        assert time == min(bound for bound in bounds if bound >= lengths[sequences].max())
    assert len({one.time for one in batches}) <= buckets
    steps = steps_gone_through(lengths[chosen], bounds, batch)
    assert padded_share(lengths, batches, batch) == pytest.approx(1 - lengths[chosen].sum() / steps)
    again = cut_batches(lengths, chosen, bounds, batch, seed=(1, epoch))
    assert all(
        np.array_equal(a.sequences, b.sequences) for a, b in zip(batches, again, strict=True)
    )


def test_each_epoch_has_an_order_of_its_own():
    lengths = np.repeat([3, 8], 40)
    orders = [
        [one.sequences.tolist() for one in cut_batches(lengths, np.arange(80), (3, 8), 8, seed=s)]
        for s in [(0, 0), (0, 1), (1, 0)]
    ]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    times = [one.time for one in cut_batches(lengths, np.arange(80), (3, 8), 8, seed=(0, 0))]
    assert times != sorted(times)  # not one bucket after the other
    plain = cut_batches(lengths, np.arange(80), (3, 8), 8)
    np.testing.assert_array_equal(np.concatenate([one.sequences for one in plain]), np.arange(80))


DATA = Sequences(
    np.arange(12, dtype=np.float32).reshape(6, 2) + 1,
    np.array([0, 2, 3, 6]),
    np.array([4, 5, 6], np.int32),
    np.array([1, 2, 3], np.float32),
)


def test_a_batch_is_filled_up_with_sequences_of_no_weight():
    batch = pad(DATA, Chosen(4, np.array([2, 0])), 3)
    assert batch.xs.dtype == np.float32
    np.testing.assert_array_equal(batch.lengths, [3, 2, 0])
    np.testing.assert_array_equal(batch.targets, [6, 4, 0])
    np.testing.assert_array_equal(batch.weights, [3, 1, 0])
    np.testing.assert_array_equal(batch.xs[:, 0], [[7, 8], [9, 10], [11, 12], [0, 0]])
    np.testing.assert_array_equal(batch.xs[:, 1], [[1, 2], [3, 4], [0, 0], [0, 0]])
    assert not batch.xs[:, 2].any()


def test_steps_have_labels_of_their_own():
    tags, weights = np.arange(6, dtype=np.int32) + 10, np.arange(6, dtype=np.float32) + 1
    data = DATA._replace(targets=tags, weights=weights, by_step=True)
    chosen = Chosen(3, np.array([1, 0]))
    batch = pad(data, chosen, 2)
    np.testing.assert_array_equal(batch.targets, [[12, 10], [0, 11], [0, 0]])
    np.testing.assert_array_equal(batch.weights, [[3, 1], [0, 2], [0, 0]])
    at, valid = places(data, chosen, 2)
    np.testing.assert_array_equal(at[valid], [2, 0, 1])


def test_labels_are_in_order_of_number_if_they_are_numbers():
    assert sort_labels(["10", "9", "-1", "9"]) == ("-1", "9", "10")
    assert sort_labels(["10", "9", "x"]) == ("10", "9", "x")
