"""Examples in a page: they run as they stand, one after the other."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a page that are in a language."""
    fenced = rf"^```{language}\n(.*?)^```"
    return re.findall(fenced, page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def run_as_pasted(examples: Sequence[str], folder: Path, ignored: Sequence[str] = ()) -> list[str]:
    """Run Python in a folder; the lines that it printed. All but these warnings are errors."""
    filters = ["error", *(f"ignore:{message}" for message in ignored)]
    result = subprocess.run(
        [sys.executable, *(f"-W{one}" for one in filters), "-c", "\n".join(examples)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()
