"""Execute notebooks and save them in place, with their outputs: `python notebooks/execute.py [NOTEBOOK ...]`."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets import default

FOLDER = Path(__file__).parent
TIMEOUT = 300


class ThisPython(AsyncKernelManager):
    """Kernels of the Python that runs this: with no folders to look into, no other is found."""

    @default("kernel_spec_manager")
    def _own_kernel_only(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[], parent=self)


def executed(notebook: Path, folder: Path) -> NotebookNode:
    """A notebook with fresh outputs; the file is left alone.

    Args:
        notebook: the file.
        folder: the working directory of the kernel, which is that of the Python that runs this.

    Raises:
        CellExecutionError: a cell raised.
    """
    node = nbformat.read(notebook, as_version=4)
    for cell in node.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    NotebookClient(
        node,
        kernel_name="python3",
        kernel_manager_class=ThisPython,
        extra_arguments=["--log-level=ERROR"],
        timeout=TIMEOUT,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    # What depends on the environment is of no interest to readers, and would change with every run.
    node.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    return node


def main(names: list[str]) -> None:
    """Execute the notebooks named, or all of them, and save each over itself."""
    for notebook in map(Path, names) if names else sorted(FOLDER.glob("*.ipynb")):
        node = executed(notebook, FOLDER)
        nbformat.validate(node)
        nbformat.write(node, notebook)
        print(f"{notebook.name}: {notebook.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
