"""A framework that is not installed: the error says what to install."""

import subprocess
import sys
from importlib import metadata

import pytest

from jlstm.extras import MissingExtraError, needs


@pytest.mark.parametrize(
    ("file", "extra"),
    [("flax_linen", "flax"), ("flax_nnx", "flax"), ("equinox", "equinox"), ("haiku", "haiku")],
)
@pytest.mark.slow  # a process each
def test_the_error_names_the_extra(file: str, extra: str) -> None:
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {extra!r}: raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
import jlstm.modules.{file}
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("jlstm.extras.MissingExtraError")
    assert last.endswith(f"{extra} is not installed; it comes with: pip install 'jlstm[{extra}]'")
    assert extra in metadata.metadata("jlstm").get_all("Provides-Extra")


def test_a_framework_that_is_there_and_broken_is_another_story() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_part") as raised, needs("json", "json"):
        import no_such_part  # noqa: F401
    assert not isinstance(raised.value, MissingExtraError)
