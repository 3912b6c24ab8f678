"""The scripts of the page on many processes run as they are printed, under torchrun."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "processes.rst"

#: Runs a script to its end, and leaves at once: threads of torch's process groups now and then outlive the groups, and
#: then abort the interpreter on its way out.
RUNNER = """
import os, runpy, sys

runpy.run_path(sys.argv[1], run_name="__main__")
sys.stdout.flush()
os._exit(0)
"""


def script(name):
    """The code block of the page that begins with the name of its file."""
    blocks = re.findall(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)", PAGE.read_text(encoding="utf8"))
    (found,) = [block for block in map(textwrap.dedent, blocks) if block.startswith(f"# {name}\n")]
    return found


def printed(name, folder, environment):
    """What the processes print, in order."""
    path, runner = folder / name, folder / "run.py"
    path.write_text(script(name), encoding="utf8")
    runner.write_text(RUNNER, encoding="utf8")
    logs = folder / "logs"  # each process has its own: lines that both write at once run into each other
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launcher = [*torchrun, "--log-dir", str(logs), "--redirects", "3", str(runner), str(path)]
    done = subprocess.run(launcher, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert 0 == done.returncode, [done.stderr, *(log.read_text() for log in logs.rglob("stderr.log"))]
    return sorted(line for log in logs.rglob("stdout.log") for line in log.read_text().splitlines())


def test_ddp(tmp_path, environment):
    """Both processes learn a range, the same one."""
    lines = printed("train_ddp.py", tmp_path, environment)
    scales = {line.partition("scale ")[2] for line in lines}
    assert ["process 0: learned", "process 1: learned"] == [line.partition(",")[0] for line in lines]
    assert (1, True) == (len(scales), 0.0 < float(*scales))


def test_fsdp(tmp_path, environment):
    """A sharded model is saved and loaded exactly."""
    lines = printed("train_fsdp.py", tmp_path, environment)
    assert [f"process {rank}: reloaded exactly: True" for rank in range(2)] == lines
