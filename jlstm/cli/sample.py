"""`jlstm sample`: what a language model writes, shown as it is written, or in a file."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jlstm.cli.compare import check_output
from jlstm.cli.options import Count, CountOrZero, PositiveOrZero, Run, Seed, path_of
from jlstm.cli.screen import new_console
from jlstm.files import replacing


def sample(
    run: Run,
    *,
    prompt: Annotated[
        str | None,
        Parameter(help="The text to go on from; else a new line.", allow_leading_hyphen=True),
    ] = None,
    prompt_file: Annotated[
        Path | None,
        Parameter(
            help="A file with the text to go on from; -: standard input.",
            allow_leading_hyphen=True,
            converter=path_of("--prompt-file"),
        ),
    ] = None,
    length: Annotated[Count, Parameter(help="Tokens to write.")] = 500,
    count: Annotated[
        Count, Parameter(help="Texts to write; each is the same however many there are.")
    ] = 1,
    temperature: Annotated[
        PositiveOrZero,
        Parameter(help="1 draws what the model believes, less is more cautious, 0 the likeliest."),
    ] = 0.8,
    top_k: Annotated[
        CountOrZero, Parameter(help="Draw from so many of the likeliest tokens; 0: from all.")
    ] = 0,
    top_p: Annotated[
        float, Parameter(help="Draw from the likeliest tokens that have this probability together.")
    ] = 1.0,
    seed: Annotated[Seed, Parameter(help="Of the draws.")] = 0,
    out: Annotated[
        Path | None,
        Parameter(
            help="A .txt file to write to, or a .jsonl file with a line for each text.",
            converter=path_of("--out"),
        ),
    ] = None,
) -> None:
    """Let a language model write."""
    from jlstm.runs import use

    if out is not None:
        if out.suffix not in (".txt", ".jsonl"):
            raise ValueError(f"--out: expected a name that ends in .txt or .jsonl, got {out}")
        check_output("--out", out, out.suffix)
    prompt = read_prompt(prompt, prompt_file)
    console = new_console(stderr=True)  # standard output has the text and nothing else
    pieces = use.write(
        run,
        prompt,
        length=length,
        count=count,
        temperature=temperature,
        top_k=top_k or None,
        top_p=None if top_p == 1 else top_p,
        seed=seed,
        say=console.print,
    )
    if out is None:
        show(laid_out(prompt, pieces, count))
        return
    rows = laid_out if out.suffix == ".txt" else in_json
    # What is no UTF-8 in a prompt stands in a .txt as it came; in JSON it is escaped.
    errors = "surrogateescape" if out.suffix == ".txt" else "backslashreplace"
    with (
        replacing(out) as beside,
        beside.open("w", encoding="utf-8", errors=errors, newline="") as file,
    ):
        file.writelines(rows(prompt, pieces, count))
    console.print(f"Written: {out}")


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """The text to go on from. What is no UTF-8 is as Python passes it on from a command line.

    Raises:
        ValueError: both were given, or the file cannot be read.
    """
    if file is None:
        return prompt or ""
    if prompt is not None:
        raise ValueError("--prompt, --prompt-file: expected one of them, got both")
    try:
        content = sys.stdin.buffer.read() if file == Path("-") else file.read_bytes()
    except OSError as error:
        raise ValueError(f"--prompt-file: expected a file, got {file}: {error.strerror}") from None
    return content.decode("utf-8", errors="surrogateescape")


def laid_out(prompt: str, pieces: Iterable[tuple[int, str]], count: int) -> Iterator[str]:
    """The prompt and what follows it, piece by piece; of several texts each under its number."""
    shown = None
    for number, text in pieces:
        if number != shown:
            if count > 1:
                yield ("" if shown is None else "\n\n") + f"--- {number + 1} of {count} ---\n"
            yield prompt
            shown = number
        yield text
    yield "\n"


def in_json(prompt: str, pieces: Iterable[tuple[int, str]], count: int) -> Iterator[str]:
    """A line of JSON for each text."""
    texts = [""] * count
    for number, text in pieces:
        texts[number] += text
    for number, text in enumerate(texts, 1):
        row = {"sample": number, "prompt": prompt, "text": text}
        yield json.dumps(row, ensure_ascii=False) + "\n"


def show(pieces: Iterable[str]) -> None:
    """Print each piece as soon as it is there."""
    try:
        for text in pieces:
            print(printable(text), end="", flush=True)  # a console would make spaces of tabs
    except KeyboardInterrupt:
        print(flush=True)  # what is said next begins a line
        raise


def printable(text: str) -> str:
    """The text without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)
