"""Labelled sequences: a table in long format, grouped, encoded, split, and cut into padded batches.

A table has a row for each step of each sequence. The rows of a sequence need not be adjacent; they
are put in order of time, one sequence behind the other, as flat arrays with offsets::

    id  time  x          values   offsets
    a   2     5          3        0         a: values[0:2]
    b   1     7          5        2         b: values[2:3]
    a   1     3          7        3

A compiled program has one length in time, so sequences are padded to one of a few lengths, the
*buckets*. With at most K of them, c_m sequences of length m, and batches of B, the buckets
ℓ_1 < … < ℓ_K are those for which the steps gone through are fewest, padding included::

    min Σ_k ℓ_k·B·⌈(Σ_m c_m)/B⌉      the inner sum over ℓ_{k−1} < m ≤ ℓ_k

found exactly, by dynamic programming over the distinct lengths; K is smaller where a further bucket
saves less than compiling a program for it takes. A batch comes from one bucket; what
is missing to a full batch are sequences of length 0 and weight 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jlstm.checks import check_choice, check_number, check_size, wrong
from jlstm.extras import require
from jlstm.tasks.frame import (
    MISSING,
    center_and_spread,
    check_columns,
    counted,
    is_missing,
    numbers,
    place,
    texts,
)
from jlstm.tasks.outliers import find_outliers, show_outliers
from jlstm.tasks.sequences.batch import SequenceBatch
from jlstm.tasks.times import order

if TYPE_CHECKING:
    import polars
    from jaxtyping import PRNGKeyArray

Missing = Literal["error", "mask"]
PARTS = ("train", "validation", "test")
MOST_CATEGORIES = 1_000
MOST_LENGTHS = 2_000
"""Distinct lengths above which some are passed over as possible buckets."""


class Groups(NamedTuple):
    """Which rows of a table are which sequence."""

    ids: tuple[str, ...]
    """In the order in which they first occur."""
    rows: Int[np.ndarray, " rows"]
    """Rows of the table, sequence by sequence, in order of time."""
    offsets: Int[np.ndarray, " sequences+1"]
    """Sequence n is ``rows[offsets[n] : offsets[n + 1]]``."""

    @property
    def lengths(self) -> Int[np.ndarray, " sequences"]:
        """Steps of each sequence."""
        return np.diff(self.offsets)


class Sequences(NamedTuple):
    """Sequences as arrays, one behind the other."""

    values: Float[np.ndarray, "rows width"]
    """What the model reads, float32."""
    offsets: Int[np.ndarray, " sequences+1"]
    targets: np.ndarray
    """One for each sequence, or one for each row: classes (int32) or numbers (float32)."""
    weights: np.ndarray
    """How much each target counts, float32, of the same shape."""
    by_step: bool = False
    """Whether each row has a target of its own."""

    @property
    def lengths(self) -> Int[np.ndarray, " sequences"]:
        """Steps of each sequence."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Feature:
    """How a column becomes numbers: (x − mean)/scale, or 1 in the place of its category.

    A missing number is 0, which is the mean; where ``masked``, a second number beside it is 1.
    """

    name: str
    mean: float = 0.0
    scale: float = 1.0
    masked: bool = False
    categories: tuple[str, ...] | None = None
    """None for a column of numbers."""

    @property
    def width(self) -> int:
        """Numbers that it becomes."""
        return 1 + self.masked if self.categories is None else len(self.categories)


def group_rows(
    frame: "polars.DataFrame", id: str, time: str, time_format: str | None = None
) -> Groups:
    """The sequences of a table, each in order of time.

    Args:
        frame: the table.
        id: the column that says which sequence a row belongs to.
        time: the column that orders the rows of a sequence: numbers, or times.
        time_format: how times are written in it, as for ``frame.order``.

    Raises:
        ValueError: there is no such column; an id or a time is missing; two rows of a sequence have
            the same time.
    """
    check_columns(frame, [id], "id")
    names = texts(frame, id)
    for at, name in enumerate(names):
        if not name:
            raise ValueError(f"{place(id, at)}: expected the id of a sequence, got an empty cell")
    when = order(frame, time, time_format)
    ids = tuple(dict.fromkeys(names))
    numbered = {name: n for n, name in enumerate(ids)}
    which = np.fromiter((numbered[name] for name in names), np.int64, len(names))
    rows = np.lexsort((when, which))  # of equal times, the row that comes first
    same = (np.diff(which[rows]) == 0) & (when[rows][1:] == when[rows][:-1])
    for at in np.flatnonzero(same)[:1]:
        first, second = rows[at], rows[at + 1]
        raise ValueError(
            f"{place(time, second)}: expected each time once in sequence {names[first]!r}, got "
            f"{frame[time][int(second)]} as in row {first + 2}"
        )
    offsets = np.concatenate([[0], np.cumsum(np.bincount(which, minlength=len(ids)))])
    return Groups(ids, rows, offsets)


def one_per_sequence(frame: "polars.DataFrame", groups: Groups, name: str) -> list[str]:
    """The text that all rows of a sequence have in this column, for each sequence.

    Raises:
        ValueError: there is no such column, or two rows of a sequence differ.
    """
    column = np.asarray(texts(frame, name), dtype=object)
    sorted_column = column[groups.rows]
    first = groups.offsets[:-1]
    differs = sorted_column != np.repeat(sorted_column[first], groups.lengths)
    for at in np.flatnonzero(differs)[:1]:
        n = int(np.searchsorted(groups.offsets, at, side="right")) - 1
        row, earlier = groups.rows[at], groups.rows[groups.offsets[n]]
        raise ValueError(
            f"{place(name, row)}: expected one value in all rows of sequence {groups.ids[n]!r}, "
            f"got {column[row]!r}, and {column[earlier]!r} in row {earlier + 2}"
        )
    return [str(text) for text in sorted_column[first]]


def learn_features(
    frame: "polars.DataFrame",
    names: Sequence[str],
    train: Bool[np.ndarray, " rows"],
    *,
    categories: Sequence[str] = (),
    missing: Missing = "error",
) -> tuple[tuple[Feature, ...], list[str]]:
    """How to encode these columns, from the rows of the training part alone, and what to say of it.

    A column is one of numbers if at least half of what is in it are numbers (what is not is then an
    error, in ``encode``), and else one of categories. A column with the same value in all of the
    training part says nothing, and is left out.

    Args:
        frame: the table.
        names: the columns.
        train: True for the rows to learn from.
        categories: those of the columns whose numbers are names.
        missing: ``"mask"`` to accept missing values.

    Raises:
        ValueError: there is no such column, or it is neither numbers nor text; more than
            ``MOST_CATEGORIES`` categories; no column that says anything.
    """
    check_choice("missing", missing, ("error", "mask"))
    check_columns(frame, names, "features")
    check_columns(frame, categories, "categories")
    features: list[Feature] = []
    left_out: list[Feature] = []
    said = []
    for name in names:
        if name in categories or not _is_numeric(frame, name):
            column = np.asarray(texts(frame, name), dtype=object)
            different = {str(text) for text in column[train]}
            found = tuple(sorted(text for text in different if not is_missing(text)))
            if len(found) > MOST_CATEGORIES:
                raise wrong(
                    "features",
                    f"expected at most {MOST_CATEGORIES} categories in column {name!r}, "
                    f"got {len(found)}; name the columns to learn from",
                )
            feature = Feature(name, categories=found)
            constant = len(found) < (1 if any(map(is_missing, different)) else 2)
        else:
            values = numbers(frame, name)[train]
            known = values[~np.isnan(values)]
            mean, scale = center_and_spread(known, name) if len(known) else (0.0, 0.0)
            level = scale <= 1e-9 * abs(mean)  # rounding, of equal numbers
            masked = missing == "mask" and 0 < len(known) < len(values)
            feature = Feature(name, mean, 1.0 if level else scale, masked)
            constant = level and not masked
            far = find_outliers(values)
            if far is not None:
                where = f"Column {name!r}, row {np.flatnonzero(train)[far.at] + 2}"
                said.append(show_outliers(far, where, "the training part"))
        (left_out if constant else features).append(feature)
    if not features:
        raise wrong(
            "features",
            "expected a column with more than one value in the training part, got "
            + (", ".join(f.name for f in left_out) or "no column"),
        )
    if left_out:
        said.append(
            "Left out, being the same in all of the training part: "
            + ", ".join(f.name for f in left_out)
        )
    masks = [f.name for f in features if f.masked]
    if masks:
        said.append(f"With a column beside that says where they are missing: {', '.join(masks)}")
    return tuple(features), said


def encode(
    frame: "polars.DataFrame",
    rows: Int[np.ndarray, " rows"],
    features: Sequence[Feature],
    missing: Missing = "error",
) -> tuple[Float[np.ndarray, "rows width"], list[str]]:
    """What the model reads of these rows, float32, and what to say of it.

    Args:
        frame: the table.
        rows: which, in which order.
        features: from ``learn_features``.
        missing: ``"error"`` to raise at a missing value, ``"mask"`` to take the mean.

    Raises:
        ValueError: a column is not there, or not what it was; a value is missing.
    """
    check_columns(frame, [f.name for f in features], "features")
    encoded: list[np.ndarray] = []
    said = []
    for feature in features:
        if feature.categories is None:
            values = numbers(frame, feature.name)
            gaps = np.isnan(values)
            # What lies that far outside is no measurement; float32 would make it infinite.
            scaled = np.clip((values - feature.mean) / feature.scale, -1e6, 1e6)
            encoded.append(np.where(gaps, 0.0, scaled))
            if feature.masked:
                encoded.append(gaps.astype(np.float64))
        else:
            column = texts(frame, feature.name)
            gaps = np.asarray([is_missing(text) for text in column])
            numbered = {text: n for n, text in enumerate(feature.categories)}
            code = np.fromiter((numbered.get(text, -1) for text in column), np.int64, len(column))
            encoded.extend((code == n).astype(np.float64) for n in range(feature.width))
            named = [n for n in np.flatnonzero(gaps).tolist() if column[n]]
            if named and missing != "error":
                said.append(
                    f"Column {feature.name!r}: {column[named[0]]!r} and the like, in "
                    f"{counted(len(named), 'cell')} (the first: row {named[0] + 2}), "
                    "are taken as missing, not as a category"
                )
            unknown = np.flatnonzero((code < 0) & ~gaps)
            if len(unknown):
                first = column[unknown[0]]
                said.append(
                    f"Column {feature.name!r}: {counted(len(unknown), 'cell')} with a category "
                    f"that was not in the training part (the first: {first!r}, row "
                    f"{unknown[0] + 2}), taken as none of the known ones"
                )
        for at in np.flatnonzero(gaps)[:1]:
            if missing == "error":
                got = "none"
                if feature.categories is not None and column[at]:
                    got = f"{column[at]!r}, which stands for a missing one"
                raise ValueError(
                    f"{place(feature.name, at)}: expected a value, got {got}; --missing mask "
                    "accepts that"
                )
    return np.stack(encoded, axis=1)[rows].astype(np.float32), said


def split_by_chance(
    labels: Sequence[str] | None, count: int, validation: float, test: float, seed: int
) -> Int[np.ndarray, " sequences"]:
    """The part of each sequence, as its place in ``PARTS``: drawn, but always in the same way.

    Args:
        labels: of the sequences, to have each label in all parts, as far as that is possible (a
            label of a single sequence is for training); None for plain chance.
        count: the number of sequences.
        validation: the part of them for validation.
        test: the part of them for the test.
        seed: of the draw.

    Raises:
        ValueError: parts out of range, or too few sequences.
    """
    check_number("validation", validation, least=0, below=1)
    check_number("test", test, least=0, below=1)
    sizes = [max(1, round(part * count)) if part else 0 for part in (test, validation)]
    if sum(sizes) >= count:
        raise ValueError(
            f"sequences: expected enough for training, validation and test, got {count}"
        )
    chance = np.random.default_rng(seed)
    classes = np.zeros(count, np.int64)
    if labels is not None:
        classes = np.unique(np.asarray(labels, dtype=str), return_inverse=True)[1]
    # Each class is spread evenly from 0 to 1, in an order of chance, and the line is cut twice.
    spread = np.empty(count)
    for c in range(classes.max() + 1):
        members = chance.permutation(np.flatnonzero(classes == c))
        spread[members] = (np.arange(len(members)) + chance.random()) / len(members)
        spread[members[-1]] = 1.0
    line = np.argsort(spread, kind="stable")
    parts = np.zeros(count, np.int64)
    parts[line[: sizes[0]]] = PARTS.index("test")
    parts[line[sizes[0] : sum(sizes)]] = PARTS.index("validation")
    return parts


def bucket_lengths(
    lengths: Int[np.ndarray, " sequences"], buckets: int, batch: int = 1, price: float = 0.0
) -> tuple[int, ...]:
    """The lengths to pad to, at most so many, with which an epoch has the fewest steps in all.

    Args:
        lengths: of the sequences, at least one of them.
        buckets: how many lengths there may be; fewer are taken where more do not save their price.
        batch: sequences in a batch; the last one of each bucket may not be full.
        price: the steps that a length has to save to be worth it.

    Raises:
        TypeError, ValueError: a count that is no integer or below 1, or no sequences.
    """
    check_size("buckets", buckets)
    check_size("batch", batch)
    if not len(lengths):
        raise ValueError("lengths: expected at least one sequence, got none")
    sizes, counts = np.unique(lengths, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    if len(sizes) > MOST_LENGTHS:
        ends = np.unique(np.linspace(0, len(sizes) - 1, MOST_LENGTHS).round().astype(np.int64))
        sizes, below = sizes[ends], np.concatenate([[0], below[ends + 1]])
    # fewest[j]: steps for the sequences of the j smallest sizes; choice: where the last bucket of
    # them begins, for one bucket, two, …
    fewest = np.where(np.arange(len(sizes) + 1) == 0, 0.0, np.inf)
    choices: list[np.ndarray] = []
    for _ in range(min(buckets, len(sizes))):
        # With no more buckets than before, unless one more saves something.
        better, choice = fewest.copy(), np.full(len(fewest), -1)
        for j in range(1, len(fewest)):
            full = -(-(below[j] - below[:j]) // batch) * batch
            steps = fewest[:j] + full * sizes[j - 1] + price
            i = int(np.argmin(steps))
            if steps[i] < better[j]:
                better[j], choice[j] = steps[i], i
        fewest = better
        choices.append(choice)
    chosen: list[int] = []
    j = len(sizes)
    for choice in reversed(choices):
        if choice[j] >= 0:
            chosen.append(int(sizes[j - 1]))
            j = int(choice[j])
    return tuple(reversed(chosen))


class Chosen(NamedTuple):
    """A batch before it is padded."""

    time: int
    """The length that it is padded to."""
    sequences: Int[np.ndarray, " sequences"]
    """Which, at most as many as the batch has places."""


def cut_batches(
    lengths: Int[np.ndarray, " sequences"],
    chosen: Int[np.ndarray, " chosen"],
    bounds: Sequence[int],
    batch: int,
    *,
    seed: tuple[int, int] | None = None,
) -> list[Chosen]:
    """Each sequence once, in batches of one bucket each.

    Args:
        lengths: of all sequences.
        chosen: the numbers of those to go through.
        bounds: the lengths to pad to, the last at least as long as the longest sequence.
        batch: sequences in a batch, at most.
        seed: of the order, which is one of chance: the run's seed and the number of the epoch. None
            for the order given, bucket by bucket.
    """
    chance = None if seed is None else np.random.default_rng(seed)
    bucket = np.searchsorted(np.asarray(bounds), lengths[chosen])
    batches = []
    for k, time in enumerate(bounds):
        members = chosen[bucket == k]
        if chance is not None:
            members = chance.permutation(members)
        batches += [Chosen(time, members[n : n + batch]) for n in range(0, len(members), batch)]
    if chance is not None:
        batches = [batches[n] for n in chance.permutation(len(batches))]
    return batches


def padded_share(
    lengths: Int[np.ndarray, " sequences"], batches: Sequence[Chosen], batch: int
) -> float:
    """The part of the steps in these batches that is padding, of either kind."""
    steps = sum(chosen.time * batch for chosen in batches)
    real = sum(int(lengths[chosen.sequences].sum()) for chosen in batches)
    return 1 - real / steps


def pad(
    data: Sequences, chosen: Chosen, batch: int, key: "PRNGKeyArray | None" = None
) -> SequenceBatch:
    """The batch as the model takes it, filled up to ``batch`` sequences."""
    at, valid = places(data, chosen, batch)
    count = len(chosen.sequences)

    def spread(flat: np.ndarray) -> np.ndarray:
        if data.by_step:
            steps: np.ndarray = np.where(valid, flat[at], flat.dtype.type(0))
            return steps
        whole = np.zeros(batch, flat.dtype)
        whole[:count] = flat[chosen.sequences]
        return whole

    xs = np.where(valid[..., None], data.values[at], np.float32(0))
    lengths = valid.sum(axis=0, dtype=np.int32)
    return SequenceBatch(xs, lengths, spread(data.targets), spread(data.weights), key)


def places(
    data: Sequences, chosen: Chosen, batch: int
) -> tuple[Int[np.ndarray, "time batch"], Bool[np.ndarray, "time batch"]]:
    """For each step of a batch, its row in the flat arrays, and whether it is a step at all."""
    lengths, starts = np.zeros((2, batch), np.int64)
    lengths[: len(chosen.sequences)] = data.lengths[chosen.sequences]
    starts[: len(chosen.sequences)] = data.offsets[chosen.sequences]
    step = np.arange(chosen.time)[:, None]
    valid = step < lengths
    return np.where(valid, starts + step, 0), valid


def sort_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The different labels in order: of number if all are numbers, else of text."""
    different = set(labels)

    def value(text: str) -> Any:
        return float(text), text

    try:
        return tuple(sorted(different, key=value))
    except ValueError:
        return tuple(sorted(different))


def _is_numeric(frame: "polars.DataFrame", name: str) -> bool:
    """Whether at least half of a column are numbers; raise where the rest is no text."""
    pl = require("polars", "train")
    column = frame[name]
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return True
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise wrong(
            "features",
            f"expected numbers or text in column {name!r}, got {column.dtype}; name the "
            "columns to learn from",
        )
    text = column.cast(pl.String).fill_null("").str.strip_chars()
    filled = text.filter(~text.str.to_lowercase().is_in(MISSING))
    parsed = filled.cast(pl.Float64, strict=False).is_not_null().sum()
    return bool(2 * parsed >= len(filled))
