"""Notebooks: they run from top to bottom, check what they say, and nothing is stored in them."""

import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets import default

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))

LEAST_CHECKED = {"01_derivation_and_comparison": 25, "02_recurrent_ppo": 6}
"""Cells with an assertion."""

CELL_SECONDS = 300  # for one cell; the whole notebook takes less, even on a busy machine


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels of the interpreter that runs the tests."""

    @default("kernel_spec_manager")
    def _find_nothing(self) -> KernelSpecManager:
        # With no directories to look in, "python3" is ipykernel's own answer, this interpreter, and
        # not a kernel that somebody has installed under the same name.
        return KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)


def run(notebook, folder: Path) -> None:
    """Execute all cells in a fresh kernel of this interpreter, whose files go to ``folder``.

    Raises:
        CellExecutionError: a cell failed.
    """
    work = folder / "work"
    work.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        # What Jupyter and IPython keep for themselves, in place of the home directory's.
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "jupyter"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        NotebookClient(
            notebook,
            kernel_name="python3",
            kernel_manager_class=ThisInterpreter,
            timeout=CELL_SECONDS,
            resources={"metadata": {"path": str(work)}},
        ).execute()


def outputs(notebook, kind: str) -> list:
    """All outputs of one type, over all cells."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return [output for cell in cells for output in cell.outputs if output.output_type == kind]


def said(notebook, stream: str) -> str:
    return "".join(o.text for o in outputs(notebook, "stream") if o.name == stream)


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def executed(request, tmp_path_factory):
    """A notebook after its execution, and the folder that it ran in."""
    notebook = jupytext.read(request.param)
    assert notebook.metadata.kernelspec.name == "python3"
    end = nbformat.v4.new_code_cell("import sys\nprint('interpreter:', sys.executable)")
    notebook.cells.append(end)
    folder = tmp_path_factory.mktemp(request.param.stem)
    run(notebook, folder)
    return notebook, folder / "work"


@pytest.mark.slow
def test_it_runs_to_the_end_on_this_interpreter(executed):
    notebook, _ = executed
    assert f"interpreter: {sys.executable}\n" in said(notebook, "stdout")
    assert all(
        cell.execution_count is not None
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.source.strip()
    )


@pytest.mark.slow
def test_it_does_not_warn(executed):
    # The kernel is a process of its own, where pytest's "a warning is an error" does not reach, and
    # must not: what Jupyter's own machinery warns of is not ours. What a cell warns of, a reader
    # sees below it, and so does this test. (XLA may write other things there.)
    notebook, _ = executed
    assert not re.search(r"^\S+:\d+: \w*Warning: ", said(notebook, "stderr"), re.MULTILINE)


@pytest.mark.slow
def test_it_draws_and_leaves_no_files(executed):
    notebook, folder = executed
    shown = outputs(notebook, "display_data") + outputs(notebook, "execute_result")
    assert any("image/png" in output.data for output in shown)
    assert not [*folder.iterdir()]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_most_of_its_code_is_checked_on_the_spot(path):
    code = [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    checked = [source for source in code if re.search(r"^ *assert ", source, re.MULTILINE)]
    assert len(checked) >= LEAST_CHECKED[path.stem]
    assert len(checked) > 2 / 3 * len(code)


def test_there_are_notebooks():
    assert {*LEAST_CHECKED} == {path.stem for path in NOTEBOOKS}


def test_no_outputs_are_stored():
    # Text in percent format has no place for outputs; an .ipynb would.
    listing = subprocess.run(
        ["git", "ls-files", "*.ipynb"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    assert listing.stdout == ""


def test_a_cell_that_fails_is_seen(tmp_path):
    cells = ["1 + 1", "assert 1 + 1 == 3", "2 + 2"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with pytest.raises(CellExecutionError, match="AssertionError"):
        run(notebook, tmp_path)


def test_a_warning_is_seen(tmp_path):
    cell = nbformat.v4.new_code_cell("import warnings\nwarnings.warn('mind the step')")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    run(notebook, tmp_path)
    with pytest.raises(AssertionError):
        test_it_does_not_warn((notebook, tmp_path))
