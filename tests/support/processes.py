"""Every layer in two processes: under `DistributedDataParallel`, and sharded by `fully_shard`.

Both processes have the same data, and so have to end with the state of one that has it alone.
"""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from brevq.graph import replicate_ranges
from tests.support.table import CASES, FAMILIES, total

PROCESSES = 2
NOTHING = "nothing to shard"
#: Seconds after which processes that still run wait for each other, and are ended.
LIMIT = 240


def trained(layer: nn.Module, called: Callable[..., Any], inputs: tuple[Any, ...]) -> dict[str, Tensor]:
    """The state of a layer after two steps of training."""
    optimizer = torch.optim.SGD(layer.parameters(), 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        total(called(*inputs)).backward()
        optimizer.step()
    return {name: _whole(value).detach().clone() for name, value in layer.state_dict().items()}


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _made(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(0)
    return CASES[name].make(FAMILIES["int8, channel"]), CASES[name].inputs()


def _alone(name: str) -> dict[str, Tensor]:
    layer, inputs = _made(name)
    return trained(layer, layer, inputs)


def _replicated(name: str) -> dict[str, Tensor]:
    layer, inputs = _made(name)
    return trained(layer, DistributedDataParallel(layer), inputs)


def _sharded(name: str) -> dict[str, Tensor] | None:
    layer, inputs = _made(name)
    ranges = replicate_ranges(layer)
    if not set(layer.parameters()) - ranges:
        return None
    fully_shard(layer, ignored_params=ranges)
    return trained(layer, layer, inputs)


def _said(expected: dict[str, Tensor], found: dict[str, Tensor] | None) -> str:
    if found is None:
        return NOTHING
    close = (torch.allclose(found[name], value, rtol=2**-20, atol=2**-20) for name, value in expected.items())
    return "yes" if all(close) else "other numbers"


def tried() -> dict[tuple[str, str], str]:
    """What became of each layer, by its name and *DDP* or *FSDP2*; raises what a process raised."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(root)}
    with TemporaryDirectory() as folder:
        commands = [[sys.executable, __file__, str(rank), folder] for rank in range(PROCESSES)]
        running = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for command in commands]
        errors = [process.communicate(timeout=LIMIT)[1].decode() for process in running]
        if any(process.returncode for process in running):
            raise RuntimeError("\n".join(errors))
        found: dict[tuple[str, str], str] = torch.load(Path(folder, "found"))
    return found


def _rows() -> Iterator[tuple[tuple[str, str], str]]:
    expected = {name: _alone(name) for name in CASES}
    dist.init_process_group(
        "gloo",
        f"file://{sys.argv[2]}/meeting",
        rank=int(sys.argv[1]),
        world_size=PROCESSES,
        timeout=timedelta(seconds=60),
    )
    for name in CASES:
        yield (name, "DDP"), _said(expected[name], _replicated(name))
        yield (name, "FSDP2"), _said(expected[name], _sharded(name))
    dist.barrier()  # no process leaves while another still talks to it
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # torch's, of its own parts
    rows = dict(_rows())
    if sys.argv[1] == "0":
        torch.save(rows, Path(sys.argv[2], "found"))
    sys.stdout.flush()
    os._exit(0)  # threads of the process group may outlive it, and end the interpreter with an error
