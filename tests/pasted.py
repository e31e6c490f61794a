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


def run_as_pasted(examples: Sequence[str], folder: Path) -> list[str]:
    """Run Python, warnings being errors, in a folder; the lines that it printed."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(examples)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()
