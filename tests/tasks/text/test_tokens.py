"""Files made into tokens: whatever is in them, however they are read, nothing is lost."""

import hashlib
import json
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jlstm.tasks.text import tokens as module
from jlstm.tasks.text.tokens import (
    TRAINING,
    UNKNOWN,
    Decoder,
    Vocabulary,
    decode,
    encode,
    find_files,
    unknown_tokens,
    write_tokens,
)

BYTE = Vocabulary("byte")
ABC = Vocabulary("char", ("a", "b", "c", "\n"))
WORDS = Vocabulary("word", (UNKNOWN, "\n", "the", "cat"))


def written(path, content, **options):
    """The ids and the corpus of one file with this content."""
    path = path / "text"
    path.write_bytes(content)
    corpus = write_tokens([path], path.with_name("tokens.npy"), **options)
    return np.load(path.with_name("tokens.npy"), allow_pickle=False), corpus


# Vocabularies


@pytest.mark.parametrize("vocabulary", [BYTE, ABC, WORDS, Vocabulary("char", (UNKNOWN, "\u2028"))])
def test_a_vocabulary_comes_back_from_json(vocabulary):
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary
    json.loads(vocabulary.to_json())


def test_a_vocabulary_knows_its_size_and_what_is_unknown():
    assert [len(v) for v in (BYTE, ABC, WORDS)] == [256, 4, 4]
    assert [v.unknown for v in (BYTE, ABC, WORDS)] == [None, None, 0]
    assert Vocabulary("word", ("a", UNKNOWN)).unknown == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no JSON", "vocabulary: expected JSON with kind and tokens, got 'no JSON'"),
        ("[]", r"vocabulary: expected JSON with kind and tokens, got '\[\]'"),
        ('{"kind": "char"}', "vocabulary: expected JSON with kind and tokens"),
        ('{"kind": "char", "tokens": "ab"}', "tokens: expected a list of strings, got ab"),
        ('{"kind": "char", "tokens": [1]}', r"tokens: expected a list of strings, got \[1\]"),
        ('{"kind": "char", "tokens": ["ab"]}', "tokens: expected chars, got 'ab'"),
        ('{"kind": "word", "tokens": ["a b"]}', "tokens: expected words, got 'a b'"),
        ('{"kind": "char", "tokens": ["a", "a"]}', "tokens: expected each one once"),
        ('{"kind": "char", "tokens": []}', "tokens: expected at least one, got none"),
        ('{"kind": "byte", "tokens": ["a"]}', "tokens: expected none for bytes, got 1"),
        (
            '{"kind": "bit", "tokens": []}',
            "kind: expected one of 'byte', 'char', 'word', got 'bit'",
        ),
    ],
)
def test_what_is_no_vocabulary_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_json(value)


# From text to ids and back


@given(st.text())
def test_bytes_come_back(text):
    ids = encode(BYTE, text)
    assert (ids.dtype, bytes(ids.astype(np.uint8))) == (np.int32, text.encode())
    assert decode(BYTE, ids) == text


@given(st.text(st.characters(blacklist_characters="\r", blacklist_categories=("Cs",)), min_size=1))
def test_characters_come_back(text):
    vocabulary = Vocabulary("char", tuple(sorted(set(text))))
    ids = encode(vocabulary, text)
    assert [vocabulary.tokens[n] for n in ids] == list(text)
    assert decode(vocabulary, ids) == text


@given(st.lists(st.sampled_from(["the", "cat", "\n"])))
def test_words_come_back(words):
    ids = encode(WORDS, " ".join(words))
    assert [WORDS.tokens[n] for n in ids] == words
    text = decode(WORDS, ids)
    assert (encode(WORDS, text) == ids).all()
    assert not re.search(r"  | \n|\n ", text)


@given(st.data())
def test_a_text_in_pieces_is_the_same(data):
    """Wherever the pieces end: in a character's bytes, in bytes that are none, at a line's end."""
    strange = st.binary() | st.text().map(str.encode) | st.just("é€😀".encode())
    bytes_ = b"".join(data.draw(st.lists(strange)))
    words = data.draw(st.lists(st.sampled_from(["the", "cat", "\n"])))
    for vocabulary, ids, whole in (
        (BYTE, list(bytes_), bytes_.decode(errors="replace")),
        (WORDS, encode(WORDS, " ".join(words)).tolist(),
         re.sub(r" ?\n ?", "\n", " ".join(words))),
    ):  # fmt: skip
        borders = sorted(data.draw(st.lists(st.integers(0, len(ids)))))
        decoder = Decoder(vocabulary)
        pieces = [
            decoder(ids[a:b]) for a, b in zip([0, *borders], [*borders, len(ids)], strict=True)
        ]
        assert "".join([*pieces, decoder.end()]) == whole == decode(vocabulary, ids)


def test_a_character_comes_when_it_is_whole():
    decoder = Decoder(BYTE)
    assert [decoder([n]) for n in "a€".encode()] == ["a", "", "", "€"]
    assert [decoder([0xE2, 0x82]), decoder.end()] == ["", "\ufffd"]


@pytest.mark.parametrize(
    ("after", "text"),
    [("", "the\ncat"), ("a", " the\ncat"), ("a ", "the\ncat"), ("a\n", "the\ncat")],
)
def test_words_are_set_apart_from_what_stands_before_them(after, text):
    assert Decoder(WORDS, after)([2, 1, 3]) == text
    assert Decoder(WORDS, after)([1, 3]) == "\ncat"
    assert Decoder(ABC, after)([0]) == "a"


def test_words_of_lines():
    text = "the  cat\n\n\tthe dog\r\ncat"
    assert encode(WORDS, text).tolist() == [2, 3, 1, 1, 2, 0, 1, 3]
    assert decode(WORDS, encode(WORDS, text)) == "the cat\n\nthe <unk>\ncat"


def test_line_ends_become_newlines_but_for_bytes():
    assert decode(ABC, encode(ABC, "a\r\nb\rc")) == "a\nb\nc"
    assert encode(WORDS, "the\rcat").tolist() == [2, 1, 3]
    assert bytes(encode(BYTE, "a\r\n").astype(np.uint8)) == b"a\r\n"


def test_bytes_that_are_no_text():
    assert decode(BYTE, [0xE2, 0x82, 97]) == "\ufffda"
    # As Python passes on what was no UTF-8 on the command line.
    assert encode(BYTE, b"\xff".decode(errors="surrogateescape")).tolist() == [0xFF]


def test_unknown_characters_are_named():
    assert unknown_tokens(ABC, "aéb€é") == ("é", "€")
    with pytest.raises(ValueError, match="text: expected chars of the vocabulary, got 'é', '€'"):
        encode(ABC, "aéb€é")
    with pytest.raises(ValueError, match="'d', 'e', 'f', 'g', 'h' and 2 more"):
        encode(ABC, "defghij")
    with_unknown = Vocabulary("char", (UNKNOWN, "a", "b"))
    # Beyond the table's end, between its entries, and before its first.
    assert encode(with_unknown, "ab€ \U0010ffff").tolist() == [1, 2, 0, 0, 0]
    assert unknown_tokens(BYTE, "é") == ()
    assert unknown_tokens(WORDS, "the dog the cow") == ("dog", "cow")


def test_wrong_ids_are_refused():
    with pytest.raises(ValueError, match="ids: expected 0 to 3, got 0 to 4"):
        decode(ABC, [0, 4])
    with pytest.raises(ValueError, match="ids: expected 0 to 3, got -1 to 2"):
        decode(ABC, [-1, 2])
    with pytest.raises(TypeError, match="text: expected a string, got bytes"):
        encode(ABC, b"a")
    assert decode(ABC, []) == ""


# Files


def test_a_file_of_characters(tmp_path):
    ids, corpus = written(tmp_path, b"abacab\n", kind="char")
    assert corpus.vocabulary == Vocabulary("char", ("\n", "a", "b", "c"))
    assert (ids.dtype, ids.tolist()) == (np.uint8, [1, 2, 1, 3, 1, 2, 0])
    digest = hashlib.sha256(b"abacab\n").hexdigest()
    assert corpus.files == ((str(tmp_path / "text"), 7, digest),)
    assert corpus.parts[TRAINING] == (7, 0, 6, 6)  # a model does not foretell the first
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["text", "tokens.npy"]


@pytest.mark.parametrize(("size", "dtype"), [(255, "u1"), (256, "u1"), (257, "u2"), (65537, "u4")])
def test_the_smallest_dtype_is_taken(tmp_path, size, dtype):
    text = "".join(map(chr, [*range(0x100, 0xD800), *range(0xE000, 0x30000)][:size]))
    ids, corpus = written(tmp_path, text.encode(), kind="char", vocabulary=10**6)
    assert len(corpus.vocabulary) == size
    assert ids.dtype == np.dtype(dtype)
    assert decode(corpus.vocabulary, ids) == text


MIXED = "\ufeffThe cät \r\n\rsat €5 𝄞 on\u2028a  mat.\n\n" * 3 + "x" * 30 + "\r"


@pytest.mark.parametrize("kind", ["byte", "char", "word"])
@pytest.mark.parametrize("piece", [1, 2, 3, 4, 7, 50])
def test_the_size_of_a_piece_has_no_influence(tmp_path, monkeypatch, kind, piece):
    monkeypatch.setattr(module, "_WORDS", re.compile(r"\n|\S{1,12}"))  # the long word, too
    (tmp_path / "a").write_bytes(MIXED.encode())
    (tmp_path / "b").write_bytes(b"\xef\xbb\xbf")  # a mark and nothing more
    (tmp_path / "c").write_bytes("\ufeffthe end".encode())
    options = {"kind": kind, "vocabulary": 12, "validation": 0.23, "test": 0.31}
    paths = [tmp_path / name for name in "abc"]
    whole = write_tokens(paths, tmp_path / "whole.npy", **options)
    pieces = write_tokens(paths, tmp_path / "pieces.npy", **options, piece=piece)
    assert whole == pieces
    assert (tmp_path / "whole.npy").read_bytes() == (tmp_path / "pieces.npy").read_bytes()
    assert all(part.tokens > 5 for part in whole.parts)
    assert sum(part.tokens for part in whole.parts) == len(np.load(tmp_path / "whole.npy"))


def test_marks_and_line_ends(tmp_path):
    ids, corpus = written(tmp_path, b"\xef\xbb\xbfab\r\nb\ra\n", kind="char")
    assert decode(corpus.vocabulary, ids) == "ab\nb\na\n"
    content = b"\xef\xbb\xbfab\r\nb\r\xff"
    ids, corpus = written(tmp_path, content, kind="byte")
    assert ids.tobytes() == content
    # A mark elsewhere is a character.
    ids, corpus = written(tmp_path, "a\ufeff".encode(), kind="char")
    assert decode(corpus.vocabulary, ids) == "a\ufeff"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"abc\xff", 3),
        (b"\xff\xfea\x00", 0),  # UTF-16
        (b"abcdefg\xe2\x82", 7),  # cut off in the middle of a character
        (b"abcdefg\xe2\x82 z", 7),
        (b"\xef\xbb\xbfab\xc3(", 5),
        (b"ab\r\ncd\xf0\x9f\x98", 6),
    ],
)
@pytest.mark.parametrize("piece", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("kind", ["char", "word"])
def test_what_is_not_utf8_is_named_with_its_place(tmp_path, content, place, piece, kind):
    with pytest.raises(ValueError, match=rf"text: expected UTF-8, .* byte {place}; --tokens byte"):
        written(tmp_path, content, kind=kind, piece=piece)
    assert not (tmp_path / "tokens.npy").exists()
    assert written(tmp_path, content, kind="byte", piece=piece)[0].tobytes() == content


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"files: expected a text, got nothing to read in .*text"):
        written(tmp_path, content, kind="char")
    assert not (tmp_path / "tokens.npy").exists()


def test_white_space_alone_has_no_words(tmp_path):
    with pytest.raises(ValueError, match="files: expected a text, got nothing to read"):
        written(tmp_path, b" \t ", kind="word")


def test_lines_of_different_files_do_not_run_together(tmp_path):
    for name, content in {"1": b"one\n", "2": b"two", "3": b"", "4": b"three"}.items():
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "out" / "tokens.npy"
    out.parent.mkdir()
    for kind in ("byte", "char", "word"):
        corpus = write_tokens([tmp_path / n for n in "1234"], out, kind=kind, piece=2)
        assert decode(corpus.vocabulary, np.load(out)) == "one\ntwo\nthree"
        assert [size for _, size, _ in corpus.files] == [4, 3, 0, 5]


def test_a_folder_is_its_files_in_order(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/.hidden", ".git/c.txt", "c"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    assert find_files([tmp_path]) == tuple(tmp_path / name for name in ("a/z.txt", "b.txt", "c"))
    # Files that are named come as they are named.
    named = [tmp_path / "c", tmp_path / "a", tmp_path / "a/.hidden"]
    assert find_files(named) == (named[0], tmp_path / "a/z.txt", named[2])


def test_files_that_cannot_be_are_refused(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match=r"expected a file or a folder, got .*missing: not there"):
        find_files([tmp_path / "missing"])
    with pytest.raises(OSError, match=r"expected files in the folder .*empty, got none"):
        find_files([tmp_path / "empty"])
    with pytest.raises(ValueError, match="files: expected at least one, got none"):
        find_files([])
    # Trained on, and tested on, otherwise.
    with pytest.raises(ValueError, match=r"files: expected each once, got .*a 2 times"):
        find_files([tmp_path / "a", tmp_path])
    for options, match in {
        ("kind", "bit"): "kind: expected one of",
        ("piece", 0): "piece: expected at least 1, got 0",
        ("test", 1.0): "test: expected a finite number of at least 0 and below 1, got 1.0",
        ("vocabulary", 0): "vocabulary: expected at least 1, got 0",
        ("vocabulary", BYTE): "vocabulary: expected one of chars, got one of bytes",
    }.items():
        with pytest.raises(ValueError, match=match):
            written(tmp_path, b"a", **({"kind": "char"} | dict([options])))


# Which tokens are told apart


def test_the_most_frequent_tokens_are_kept(tmp_path):
    ids, corpus = written(tmp_path, b"zyyxxxba", kind="char", vocabulary=3)
    # Of a, b and z, which occur once, the lowest code point.
    assert corpus.vocabulary.tokens == (UNKNOWN, "a", "x", "y")
    assert ids.tolist() == [0, 3, 3, 2, 2, 2, 0, 1]
    assert corpus.parts[TRAINING].unknown == 2
    ids, corpus = written(tmp_path, b"d c b b a c", kind="word", vocabulary=3)
    # Of a and d, the earlier.
    assert corpus.vocabulary.tokens == (UNKNOWN, "c", "b", "d")
    assert ids.tolist() == [3, 1, 2, 2, 0, 1]


def test_unknown_words_of_a_text_are_the_unknown_word(tmp_path):
    ids, corpus = written(tmp_path, b"a <unk> a b", kind="word", vocabulary=2)
    assert corpus.vocabulary.tokens == (UNKNOWN, "a")
    assert (ids.tolist(), corpus.parts[TRAINING].unknown) == ([1, 0, 1, 0], 2)


@pytest.mark.parametrize("kind", ["char", "word"])
def test_only_the_training_part_decides(tmp_path, kind):
    others = b"c c c a \n" * 15
    text = others + b"a a b b \n" * 8 + others
    share = len(others) / len(text)
    _, corpus = written(tmp_path, text, kind=kind, validation=share, test=share)
    known = {"a", "b", "\n"} | ({" "} if kind == "char" else set())
    assert set(corpus.vocabulary.tokens) == {UNKNOWN} | known
    first, training, last = corpus.parts
    assert training.unknown == 0
    assert sum(part.unknown for part in (first, last)) == 90


def test_the_parts_are_the_same_text_whatever_a_token_is(tmp_path):
    text = ("tän words in a line and no more than thät\n" * 40).encode()
    parts = {}
    for kind in ("byte", "char", "word"):
        _, corpus = written(tmp_path, text, kind=kind, validation=0.2, test=0.3)
        parts[kind] = corpus.parts
    size = len(text)
    last = size - round(size * 0.3)
    assert [p.tokens for p in parts["byte"]] == [
        round(size * 0.2),
        last - round(size * 0.2),
        size - last,
    ]
    for n in range(3):
        # All but the first token, which is shortest for bytes; and what lies across a border.
        assert parts["byte"][n].bytes == parts["byte"][n].tokens - 1
        assert parts["byte"][n].bytes == pytest.approx(parts["char"][n].bytes, abs=3)
        assert parts["byte"][n].bytes == pytest.approx(parts["word"][n].bytes, abs=12)
        assert parts["byte"][n].characters == pytest.approx(parts["char"][n].characters, abs=2)
    assert sum(p.tokens for p in parts["char"]) == len(text.decode())
    # Of the whole text all is counted but the first token of each part.
    assert sum(p.characters + 1 for p in parts["char"]) == len(text.decode())


def test_lengths_are_those_of_the_text(tmp_path):
    _, corpus = written(tmp_path, "é€a\r\nb".encode(), kind="char")
    assert corpus.parts[TRAINING] == (5, 0, 4, 3 + 1 + 1 + 1)
    _, corpus = written(tmp_path, "é€a\r\nb".encode(), kind="byte")
    assert corpus.parts[TRAINING] == (
        9,
        0,
        5,
        8,
    )  # é has lost one of its two bytes, and is not counted
    _, corpus = written(tmp_path, "  wörd  by\twörd \r\n".encode(), kind="word")
    assert corpus.parts[TRAINING] == (4, 0, len("  by\twörd \n"), len("  by\twörd \n") + 1)


def test_a_vocabulary_may_be_given(tmp_path):
    ids, corpus = written(tmp_path, b"cab", kind="char", vocabulary=ABC)
    assert (ids.tolist(), corpus.vocabulary) == ([2, 0, 1], ABC)
    with pytest.raises(ValueError, match="got 'x', 'z'; a model that was trained with --tokens"):
        written(tmp_path, b"zax", kind="char", vocabulary=ABC)
    ids, corpus = written(tmp_path, b"the dog\n", kind="word", vocabulary=WORDS)
    assert (ids.tolist(), corpus.parts[TRAINING].unknown) == ([2, 0, 1], 1)
    # A line end that is held back to the very end belongs to what was before it.
    ids, corpus = written(tmp_path, b"ab\r", kind="char", vocabulary=ABC)
    assert (ids.tolist(), corpus.parts[TRAINING].tokens) == ([0, 1, 3], 3)


def test_long_words_are_cut(tmp_path):
    ids, corpus = written(tmp_path, b"x" * 2500 + b" y", kind="word")
    assert [len(token) for token in corpus.vocabulary.tokens] == [5, 1000, 500, 1]
    assert ids.tolist() == [1, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "millions", "most"), [("byte", 50, 45e6), ("char", 50, 45e6), ("word", 18, 17e6)]
)
def test_a_line_that_is_larger_than_the_memory(tmp_path, kind, millions, most):
    path = tmp_path / "line"
    size = millions * 1_000_000
    with path.open("wb") as file:
        for _ in range(millions):
            file.write(b"abcdefghijklmnop qrs" * 50_000)
    tracemalloc.start()
    corpus = write_tokens([path], tmp_path / "tokens.npy", kind=kind, validation=0.1, test=0.1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < most  # less than the line, and the same for one ten times as long
    tokens = sum(part.tokens for part in corpus.parts)
    assert tokens == (size // 20 + 1 if kind == "word" else size)


def test_a_file_that_changes_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "text"
    path.write_text("some text")
    first = module._most_frequent

    def grow(*args):
        path.write_text("some text, and more of it")
        return first(*args)

    monkeypatch.setattr(module, "_most_frequent", grow)
    with pytest.raises(OSError, match="expected them to stay as they are"):
        write_tokens([path], tmp_path / "tokens.npy", kind="char")
    assert [p.name for p in tmp_path.iterdir()] == ["text"]
