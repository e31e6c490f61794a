"""What a language model and its baselines need per token, as measures, a table and sentences."""

import math
from collections.abc import Mapping, Sequence

from jlstm.tasks.job import Evaluation, Table
from jlstm.tasks.text.preparing import NAMES
from jlstm.tasks.text.tokens import UNKNOWN, Kind, Part

LEARNING = "LSTM, learning on"
"""The model by dynamic evaluation."""


def report(
    kind: Kind, bits: Mapping[str, float], part: Part, name: str, notes: Sequence[str]
) -> Evaluation:
    """The measures, the table of them, and a verdict.

    Args:
        kind: what a token is.
        bits: per token, of ``"LSTM"``, perhaps ``LEARNING``, and of each baseline.
        part: the text that was judged, in numbers.
        name: of that text.
        notes: to be told before those on the text.
    """
    unit, targets = NAMES[kind], part.tokens - 1
    per = {
        f"nats_per_{unit}": math.log(2),
        "bits_per_character": targets / max(1, part.characters),
        "bits_per_byte": targets / max(1, part.bytes),
    }
    measured = {who: {what: n * b for what, n in per.items()} for who, b in bits.items()}
    notes = list(notes)
    if kind == "word":
        for who, b in bits.items():
            measured[who]["perplexity"] = 2**b
        notes.append("White space between words costs nothing here: it is not foretold.")
    if part.unknown > part.tokens // 100:
        notes.append(
            f"{part.unknown / part.tokens:.1%} of the {unit}s of {name} are not in the vocabulary; "
            f"they count as one, {UNKNOWN}, which is easier to foretell than they are."
        )
    said = verdict(bits)
    columns = list(measured["LSTM"])
    order = sorted(bits, key=lambda who: -bits[who])
    table = Table(
        title=f"{name}, {targets:,} {unit}s",
        columns=("", *(column.replace("_", " ") for column in columns)),
        rows=[(who, *(_short(measured[who][column]) for column in columns)) for who in order],
        best=(order.index("LSTM"),),
    )
    results = {"text": name, **part._asdict(), "models": measured, "verdict": said}
    scores = {
        who: {what.replace("_", " "): value for what, value in found.items()}
        for who, found in measured.items()
    }
    return Evaluation(results, (table,), said, notes, scores)


def _short(number: float) -> str:
    return f"{number:.3f}" if number < 100 else f"{number:,.0f}"


def verdict(bits: Mapping[str, float]) -> str:
    """Who won, in a sentence."""
    others = {who: value for who, value in bits.items() if who not in ("LSTM", LEARNING)}
    who = min(others, key=lambda who: others[who])
    ours, theirs = bits["LSTM"], others[who]
    if not (ours and theirs):  # of a text that says nothing, nothing is left to compare
        return f"The LSTM needs {ours:.3g} bits per token, the baseline {who} {theirs:.3g}."
    if ours < theirs:
        return f"The LSTM wins: {1 - ours / theirs:.1%} fewer bits than the best baseline, {who}."
    return f"The LSTM loses: the baseline {who} needs {1 - theirs / ours:.1%} fewer bits."
