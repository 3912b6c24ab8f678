"""The notebooks: they run, and what they show is what is committed."""

import runpy
import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(node):
    """The cells that run."""
    return [cell for cell in node.cells if cell.cell_type == "code"]


def text_of(output):
    """What an output says in words: nothing for a picture, whose description is not of interest."""
    if output.output_type == "stream":
        return output.text
    return None if "image/png" in output.data else output.data["text/plain"]


def shown(cell):
    """The kinds of a cell's outputs, with their text unless it is tagged as measured: accuracies vary by machine."""
    measured = "measured" in cell.metadata.get("tags", [])
    return [(output.output_type, None if measured else text_of(output)) for output in cell.outputs]


def test_there_are_notebooks():
    """The other tests have something to test."""
    assert "01_first_recipe" in [path.stem for path in NOTEBOOKS]


@pytest.mark.slow
@each_notebook
def test_it_runs_and_shows_what_is_committed(notebook, tmp_path):
    """Executed anew, by this very Python, each cell has the outputs of the committed notebook."""
    committed = nbformat.read(notebook, as_version=4)
    node = runpy.run_path(str(FOLDER / "execute.py"))["executed"](notebook, tmp_path)
    assert [shown(cell) for cell in code_cells(committed)] == [shown(cell) for cell in code_cells(node)]
    assert [] == list(tmp_path.iterdir())


@each_notebook
def test_it_was_executed_in_order(notebook):
    """Cells are numbered from one, as after a run from beginning to end."""
    cells = code_cells(nbformat.read(notebook, as_version=4))
    assert list(range(1, len(cells) + 1)) == [cell.execution_count for cell in cells]


@each_notebook
def test_it_is_clean(notebook):
    """No warnings, no errors, nothing of the machine that ran it, and less than a megabyte."""
    text, node = notebook.read_text(encoding="utf-8"), nbformat.read(notebook, as_version=4)
    outputs = [output for cell in code_cells(node) for output in cell.outputs]
    assert {"stream", "display_data", "execute_result"} >= {output.output_type for output in outputs}
    assert {"stdout"} == {output.name for output in outputs if output.output_type == "stream"}
    assert [] == [place for place in (sys.prefix, str(FOLDER.parent), "site-packages", "/tmp/") if place in text]
    assert {"kernelspec", "language_info"} == set(node.metadata)
    assert len(text) < 1_000_000


def test_kernels_run_this_python():
    """What executes notebooks starts the Python that runs it, whatever kernels are installed."""
    kernel = runpy.run_path(str(FOLDER / "execute.py"))["ThisPython"](kernel_name="python3")
    assert sys.executable == kernel.kernel_spec.argv[0]
