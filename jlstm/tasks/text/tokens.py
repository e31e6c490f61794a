"""Texts as numbers: what a token is, and files of any size made into one file of tokens.

A token is a byte, a character or a word::

    byte   all 256, as they stand in the files
    char   characters of UTF-8
    word   what stands between white space, cut after 1000 characters; and each line's end

For characters and words, a byte-order mark at a file's start is dropped, and lines end in one
newline whatever they ended in (CR LF, CR). Between two files there is a newline where the first
does not end in one, so that lines of different files do not run together.

The text has three parts, to validate on, to train on and to test on, in this order: what the model
is tested on follows what it has learnt from, as it will in use. (Their neighbourhood is worth a lot
where a text speaks of the same people for a while.) The borders are found in bytes, at the same
places of the text whatever a token is, so that models of bytes, characters and words can be
compared; what lies across a border belongs to the later part. Only the part for training decides
which tokens are told apart: its most frequent ones. All others are ``<unk>``.

Files are read in pieces, twice: once to count and once to write.
"""

import codecs
import io
import json
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Int, Integer

from jlstm.checks import check_choice, check_number, check_size, wrong
from jlstm.files import replacing

Kind = Literal["byte", "char", "word"]
PARTS = ("validation", "training", "test")
TRAINING = PARTS.index("training")

UNKNOWN = "<unk>"
"""The token for all that is not in a vocabulary; where a text of words has it, the same."""
NEWLINE = "\n"
LONGEST = 1000
"""Characters of a word; what is longer is no word, and is cut."""
PIECE = 1 << 20
"""Bytes that are read at once."""

Ids = Int[np.ndarray, " tokens"]
_WORDS = re.compile(rf"\n|\S{{1,{LONGEST}}}")
_CODE_POINTS = 0x110000


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that are told apart; a token's id is its place.

    Args:
        kind: what a token is.
        tokens: the characters or words, perhaps with ``<unk>``; () for bytes, which are their ids.

    Raises:
        ValueError: another kind; tokens that are none of this kind, or not all different.
    """

    kind: Kind
    tokens: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, get_args(Kind))
        if self.kind == "byte" and self.tokens:
            raise ValueError(f"tokens: expected none for bytes, got {len(self.tokens)}")
        if self.kind != "byte" and not self.tokens:
            raise ValueError("tokens: expected at least one, got none")
        shape = re.compile("." if self.kind == "char" else _WORDS.pattern, re.DOTALL)
        for token in self.tokens:
            if token != UNKNOWN and not shape.fullmatch(token):
                raise ValueError(f"tokens: expected {self.kind}s, got {token!r}")
        if len(set(self.tokens)) < len(self.tokens):
            raise ValueError("tokens: expected each one once, got some twice")

    def __len__(self) -> int:
        return len(self.tokens) or 256

    @property
    def unknown(self) -> int | None:
        """The id of ``<unk>``; None where there is none."""
        return self.tokens.index(UNKNOWN) if UNKNOWN in self.tokens else None

    def to_json(self) -> str:
        """As text: an object with the fields of this class."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=0)

    @classmethod
    def from_json(cls, text: str) -> "Vocabulary":
        """What ``to_json`` wrote.

        Raises:
            ValueError: something else.
        """
        try:
            value = json.loads(text)
            kind, tokens = value["kind"], value["tokens"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"vocabulary: expected JSON with kind and tokens, got {text[:40]!r}"
            ) from error
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ValueError(f"tokens: expected a list of strings, got {str(tokens)[:40]}")
        return cls(kind, tuple(tokens))


def encode(vocabulary: Vocabulary, text: str) -> Ids:
    """The ids of a text's tokens, int32. Line ends become newlines, but for bytes (of UTF-8).

    Raises:
        TypeError: ``text`` is no string.
        ValueError: a token is not in the vocabulary, and there is no ``<unk>``.
    """
    unknown = unknown_tokens(vocabulary, text)
    if unknown and vocabulary.unknown is None:
        raise ValueError(
            f"text: expected {vocabulary.kind}s of the vocabulary, got {shown(unknown)}"
        )
    return _encoder(vocabulary)(_tokens_of(vocabulary, text)).astype(np.int32)


class Decoder:
    """The text of tokens that come in pieces: called with each, and asked for its ``end()``.

    Words are joined by single spaces, and lines begin and end without one. Bytes that are not UTF-8
    become U+FFFD; a character whose bytes are not all there comes with the last of them.

    Args:
        vocabulary: of the tokens.
        after: a text that stands before: a word is set apart from it by a space, where it does not
            end in white space.
    """

    def __init__(self, vocabulary: Vocabulary, after: str = "") -> None:
        self._vocabulary = vocabulary
        self._bytes = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._apart = bool(after) and not after[-1].isspace()

    def __call__(self, ids: Iterable[int] | Integer[np.ndarray, " tokens"]) -> str:
        """The text of the next tokens.

        Raises:
            ValueError: an id that the vocabulary does not have.
        """
        ids = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), dtype=np.int64)
        size = len(self._vocabulary)
        if ids.size and (ids.min() < 0 or ids.max() >= size):
            raise ValueError(f"ids: expected 0 to {size - 1}, got {ids.min()} to {ids.max()}")
        if self._vocabulary.kind == "byte":
            return self._bytes.decode(ids.astype(np.uint8).tobytes())
        tokens = [self._vocabulary.tokens[n] for n in ids]
        return "".join(map(self._spaced, tokens) if self._vocabulary.kind == "word" else tokens)

    def _spaced(self, word: str) -> str:
        apart, self._apart = self._apart and word != NEWLINE, word != NEWLINE
        return f" {word}" if apart else word

    def end(self) -> str:
        """What there still is after the last token: of bytes, a character that was not whole."""
        return self._bytes.decode(b"", final=True)


def decode(vocabulary: Vocabulary, ids: Iterable[int] | Integer[np.ndarray, " tokens"]) -> str:
    """The text of some tokens, as ``Decoder`` reads them.

    Raises:
        ValueError: an id that the vocabulary does not have.
    """
    decoder = Decoder(vocabulary)
    return decoder(ids) + decoder.end()


def unknown_tokens(vocabulary: Vocabulary, text: str) -> tuple[str, ...]:
    """The different tokens of a text that the vocabulary does not have, in their order."""
    if not isinstance(text, str):
        raise TypeError(f"text: expected a string, got {type(text).__name__}")
    if vocabulary.kind == "byte":
        return ()
    known = set(vocabulary.tokens)
    tokens: Iterable[str] = _normal(text)
    if vocabulary.kind == "word":
        tokens = _WORDS.findall(_normal(text))
    return tuple(token for token in dict.fromkeys(tokens) if token not in known)


def shown(tokens: Sequence[str], most: int = 5) -> str:
    """Tokens as a message names them."""
    rest = len(tokens) - most
    return ", ".join(map(repr, tokens[:most])) + (f" and {rest} more" if rest > 0 else "")


def _normal(text: str) -> str:
    return text.replace("\r\n", NEWLINE).replace("\r", NEWLINE)


def _tokens_of(vocabulary: Vocabulary, text: str) -> Any:
    if vocabulary.kind == "byte":
        # What was no UTF-8 on the command line is as Python passes it on.
        return np.frombuffer(text.encode(errors="surrogateescape"), np.uint8)
    text = _normal(text)
    return _code_points(text) if vocabulary.kind == "char" else _WORDS.findall(text)


def _code_points(text: str) -> Integer[np.ndarray, " characters"]:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _encoder(vocabulary: Vocabulary) -> Callable[[Any], Integer[np.ndarray, " tokens"]]:
    """The function from tokens, as ``_split`` gives them, to ids; unknown ones as ``<unk>``."""
    if vocabulary.kind == "byte":
        return lambda codes: codes
    ids = {token: n for n, token in enumerate(vocabulary.tokens)}
    unknown = ids.pop(UNKNOWN, 0)
    if vocabulary.kind == "word":
        return lambda words: np.fromiter(
            (ids.get(word, unknown) for word in words), np.uint32, len(words)
        )
    # A table from code points to ids, whose last entry stands for all beyond it.
    last = 1 + max(map(ord, ids), default=0)
    table = np.full(last + 1, unknown, np.uint32)
    table[[ord(token) for token in ids]] = list(ids.values())
    return lambda codes: table[np.minimum(codes, last)]


# From files to tokens, in pieces.


class Part(NamedTuple):
    """A part of a text in numbers."""

    tokens: int
    unknown: int
    """How many of them are ``<unk>``."""
    characters: int
    """Of all tokens but the first, and of the white space between words: what a model that begins
    with this part has to foretell."""
    bytes: int
    """The same in UTF-8, after line ends became newlines; for bytes, as they are."""


@dataclass(frozen=True)
class Corpus:
    """What ``write_tokens`` has written."""

    vocabulary: Vocabulary
    parts: tuple[Part, ...]
    files: tuple[tuple[str, int, str], ...]
    """Of each file its path, its bytes, and their SHA-256."""


class _Split(NamedTuple):
    """Some tokens of one part, and the text that they came from."""

    part: int
    tokens: Any
    """Code points (bytes, for bytes), or a list of words."""
    text: str


def find_files(paths: Iterable[str | Path]) -> tuple[Path, ...]:
    """The files given, in the order given; in place of a folder all files in it, sorted.

    Files and folders in it whose name begins with a dot are left out.

    Raises:
        OSError: a path that is not there, or a folder without files.
        ValueError: no paths; a file that comes twice, and would be both trained and tested on.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise wrong(
                "files", f"expected a file or a folder, got {path}: not there", FileNotFoundError
            )
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if path.is_dir():
            inside = [
                p for p in inside if not any(n.startswith(".") for n in p.relative_to(path).parts)
            ]
        if not inside:
            raise wrong(
                "files", f"expected files in the folder {path}, got none", FileNotFoundError
            )
        found += inside
    if not found:
        raise wrong("files", "expected at least one, got none")
    for path, count in Counter(path.resolve() for path in found).items():
        if count > 1:
            raise wrong("files", f"expected each once, got {path} {count} times")
    return tuple(found)


def write_tokens(
    files: Iterable[str | Path],
    path: str | Path,
    *,
    kind: Kind,
    vocabulary: int | Vocabulary = 20_000,
    validation: float = 0.0,
    test: float = 0.0,
    piece: int = PIECE,
) -> Corpus:
    """Write a text's tokens to ``path``, as an array in NumPy's format, without a gap.

    Its dtype is uint8, uint16 or uint32, the smallest that holds the ids. What is read fits into a
    few pieces, but for the words of the training part: each different one is kept, once.

    Args:
        files: files and folders, see ``find_files``; several are joined, see the module.
        path: the file to write; it is there whole or not at all.
        kind: what a token is.
        vocabulary: how many tokens are told apart at most, the most frequent ones of the training
            part (of two equally frequent ones the lower code point, or the earlier word); or a
            vocabulary that is there already. Bytes need none.
        validation: the part of the bytes for validation, at the beginning.
        test: the part for the test, at the end. What lies between is for training.
        piece: bytes to read at once; it has no influence on the result.

    Raises:
        OSError: a file cannot be read, or written.
        TypeError: an argument of another type.
        ValueError: a share out of range; no text; no UTF-8, where the tokens are not bytes.
    """
    check_choice("kind", kind, get_args(Kind))
    check_size("piece", piece)
    check_number("validation", validation, least=0, below=1)
    check_number("test", test, least=0, below=1)
    paths = find_files(files)
    size = sum(path.stat().st_size for path in paths)
    last = size - round(size * test)
    borders = (round(size * validation), last)
    if isinstance(vocabulary, Vocabulary) and vocabulary.kind != kind:
        raise ValueError(f"vocabulary: expected one of {kind}s, got one of {vocabulary.kind}s")

    digests = [_Digest() for _ in paths]
    tally = (_count_words if kind == "word" else _count_code_points)(
        _split(kind, paths, borders, piece, digests)
    )
    if not sum(tally.tokens):
        names = ", ".join(map(str, paths[:3])) + (" …" if len(paths) > 3 else "")
        raise wrong("files", f"expected a text, got nothing to read in {names}")
    if not isinstance(vocabulary, Vocabulary):
        byte = Vocabulary("byte")
        vocabulary = byte if kind == "byte" else _most_frequent(kind, tally, vocabulary)
    if vocabulary.tokens and vocabulary.unknown is None:
        strange = {*tally.counts, *tally.others}.difference(vocabulary.tokens)
        if strange:
            raise wrong(
                "files",
                f"expected {kind}s of the vocabulary, got {shown(sorted(strange))}; a model that "
                "was trained with --tokens byte reads any text",
            )

    parts = [Part(0, 0, 0, 0) for _ in PARTS]
    ids_of = _encoder(vocabulary)
    dtype = np.dtype(
        np.uint8 if len(vocabulary) <= 2**8 else "<u2" if len(vocabulary) <= 2**16 else "<u4"
    )
    header = {"descr": dtype.str, "fortran_order": False, "shape": (sum(tally.tokens),)}
    with replacing(path) as beside:
        with beside.open("wb") as out:
            np.lib.format.write_array_header_1_0(out, header)
            for split in _split(kind, paths, borders, piece, None):
                ids = ids_of(split.tokens)
                out.write(ids.astype(dtype).tobytes())
                unknown = (
                    0 if vocabulary.unknown is None else np.count_nonzero(ids == vocabulary.unknown)
                )
                before = parts[split.part]
                text = split.text if before.tokens else _without_first(kind, split)
                parts[split.part] = Part(
                    before.tokens + len(ids),
                    before.unknown + int(unknown),
                    before.characters + _characters_in(kind, text),
                    before.bytes + len(text.encode(_encoding(kind))),
                )
        if [part.tokens for part in parts] != list(tally.tokens):
            raise wrong(
                "files", f"expected them to stay as they are, but one changed: {paths}", OSError
            )
    hashes = ((d.bytes, d.hash.hexdigest()) for d in digests)
    read = tuple((str(name), *found) for name, found in zip(paths, hashes, strict=True))
    return Corpus(vocabulary, tuple(parts), read)


class _Digest:
    """What is recorded of a file while it is read."""

    def __init__(self) -> None:
        self.bytes, self.hash = 0, sha256()

    def add(self, block: bytes) -> None:
        self.bytes += len(block)
        self.hash.update(block)


def _encoding(kind: Kind) -> str:
    # Bytes are handled as the 256 characters that Latin-1 makes of them.
    return "latin-1" if kind == "byte" else "utf-8"


def _characters_in(kind: Kind, text: str) -> int:
    if kind != "byte":
        return len(text)
    # Of UTF-8, every character has one byte that does not look like 10xxxxxx.
    return int(np.count_nonzero((np.frombuffer(text.encode("latin-1"), np.uint8) & 0xC0) != 0x80))


def _without_first(kind: Kind, split: _Split) -> str:
    """The text after the first token (in which, for words, white space may come first)."""
    if not len(split.tokens):
        return ""
    if kind != "word":
        return split.text[1:]
    match = _WORDS.search(split.text)
    return split.text[match.end() :] if match else ""


def _blocks(
    paths: Sequence[Path], borders: Sequence[int], piece: int
) -> Iterator[tuple[int, int, int, bytes]]:
    """The number of a part, of a file, the offset in it, and bytes there; none at a file's end.

    No block lies across a border.
    """
    done = 0
    for number, path in enumerate(paths):
        with path.open("rb", buffering=0) as file:
            block, offset = b" ", 0
            while block:
                part = bisect_right(borders, done)
                room = borders[part] - done if part < len(borders) else piece
                block = file.read(min(piece, room))
                if not block:  # what a decoder still holds came before the end
                    part = bisect_left(borders, done)
                yield part, number, offset, block
                done, offset = done + len(block), offset + len(block)


def _texts(
    kind: Kind,
    paths: Sequence[Path],
    borders: Sequence[int],
    piece: int,
    digests: Sequence[_Digest] | None,
) -> Iterator[tuple[int, str]]:
    """A part's number and some of its text, line ends and all as the module has it."""
    decoder: Any = None
    last = ""
    for part, number, offset, block in _blocks(paths, borders, piece):
        if digests is not None:
            digests[number].add(block)
        if offset == 0:
            decoder = codecs.getincrementaldecoder(_encoding(kind))()
            if kind != "byte":
                decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
            mark, begins = kind != "byte", True
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            # What it was decoding ends where the block ends, and may begin before it.
            place = offset + len(block) - len(error.object) + error.start
            raise ValueError(
                f"{paths[number]}: expected UTF-8, got something else at byte {place}; "
                "--tokens byte takes any bytes"
            ) from None
        if mark and text:
            text, mark = text.removeprefix("\ufeff"), False
        if text:
            if begins and last not in ("", NEWLINE):
                text = NEWLINE + text
            begins, last = False, text[-1]
            yield part, text


def _split(kind: Kind, *source: Any) -> Iterator[_Split]:
    """The tokens of files, in order."""
    if kind != "word":
        for part, text in _texts(kind, *source):
            yield _Split(part, _code_points(text), text)
        return
    part, rest = 0, ""
    for part, text in _texts(kind, *source):
        text = rest + text
        words = _WORDS.findall(text)
        # What ends the piece may go on in the next.
        rest = words.pop() if words and not text[-1].isspace() else ""
        yield _Split(part, words, text.removesuffix(rest))
    if rest:
        yield _Split(part, [rest], rest)


class _Tally(NamedTuple):
    """What the first reading found."""

    tokens: tuple[int, ...]
    """How many, of each part."""
    counts: dict[str, int]
    """Of the training part's different tokens, ties in their order."""
    others: set[str]
    """Characters of the other parts."""


def _count_code_points(splits: Iterable[_Split]) -> _Tally:
    tokens = [0] * len(PARTS)
    counts = np.zeros((2, _CODE_POINTS), np.int64)  # of the training part, of the others
    for split in splits:
        tokens[split.part] += len(split.tokens)
        found = np.bincount(split.tokens)
        counts[int(split.part != TRAINING), : len(found)] += found
    training, others = (np.flatnonzero(row) for row in counts)
    return _Tally(
        tuple(tokens),
        {chr(code): int(counts[0, code]) for code in training},
        set(map(chr, others)),
    )


def _count_words(splits: Iterable[_Split]) -> _Tally:
    tokens = [0] * len(PARTS)
    counts: Counter[str] = Counter()
    for split in splits:
        tokens[split.part] += len(split.tokens)
        if split.part == TRAINING:
            counts.update(split.tokens)
    return _Tally(tuple(tokens), counts, set())


def _most_frequent(kind: Kind, tally: _Tally, size: int) -> Vocabulary:
    """The vocabulary of so many tokens at most, ``<unk>`` not counted, in a fixed order.

    ``<unk>`` comes first, where it is needed: always for words, and for characters where some are
    left out or do not come in the training part.
    """
    check_size("vocabulary", size)
    if not tally.counts:
        raise wrong("files", "expected a text to train on, got none between the parts kept back")
    # Python's sort keeps the order of what is equal.
    kept = sorted(tally.counts, key=lambda token: -tally.counts[token])[:size]
    if kind == "word":
        return Vocabulary(kind, (UNKNOWN, *(word for word in kept if word != UNKNOWN)))
    all_known = (tally.counts.keys() | tally.others) <= set(kept)
    return Vocabulary(kind, (*(() if all_known else (UNKNOWN,)), *sorted(kept)))
