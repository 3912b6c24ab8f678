"""What is done with a library: from a library's parts and tensors to a call that can be measured."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.libraries import Library
from benchmarks.networks import NETWORKS
from benchmarks.timing import Work


def fake_quantization(function: Any, x: Tensor, backward: bool, compiled: bool) -> Work:
    """`function` of `x`, without gradients, or with a backward pass to `x` and to what `function` learns."""
    run = torch.compile(function, fullgraph=True) if compiled else function
    learned = [p for p in getattr(function, "parameters", list)() if p is not x]
    gradient = torch.ones_like(x)

    def forward() -> None:
        with torch.no_grad():
            run(x)

    def forward_backward() -> None:
        for leaf in (x, *learned):
            leaf.grad = None
        run(x).backward(gradient)

    x.requires_grad_(backward)
    return Work(forward_backward if backward else forward, [x, *learned], x.numel() * x.element_size())


def weight(library: Library, x: Tensor, recipe: str, backward: bool, compiled: bool = False) -> Work:
    """Fake-quantization of a weight."""
    parameter = nn.Parameter(x)
    return fake_quantization(library.weight(recipe, parameter), parameter, backward, compiled)


def activation(
    library: Library, x: Tensor, recipe: str, phase: str, backward: bool, compiled: bool = False, training: bool = True
) -> Work:
    """Fake-quantization of an activation."""
    function = library.activation(recipe, phase, x)
    if isinstance(function, nn.Module):
        function.train(training)
    return fake_quantization(function, x, backward, compiled)


def linear(library: Library, quantized: str) -> Work:
    """Construction of a layer of 64 by 64."""
    return Work(library.linear(quantized))


def recipe(library: Library) -> Work:
    """A recipe with one override, derived, planned and built."""
    return Work(library.recipe())


def construct(library: Library, network: str, **sizes: Any) -> Work:
    """Construction of a network."""
    kit = library.kit("statistics")
    return Work(lambda: NETWORKS[network](kit, **sizes))


def copied(library: Library, network: str, **sizes: Any) -> Work:
    """A deep copy of a network."""
    model = NETWORKS[network](library.kit("statistics"), **sizes)
    return Work(lambda: copy.deepcopy(model))


def loaded(library: Library, network: str, batch: Tensor, **sizes: Any) -> Work:
    """Loading of a network's own state."""
    model = NETWORKS[network](library.kit("fixed"), **sizes)
    library.settle(model, batch, "fixed")
    state = model.state_dict()
    return Work(lambda: model.load_state_dict(state))


def prepared(library: Library, network: str, batch: Tensor, scales: str, **sizes: Any) -> nn.Module:
    """A network whose scales are in the phase asked for."""
    torch.manual_seed(0)
    model = NETWORKS[network](library.kit(scales), **sizes)
    library.settle(model, batch, scales)
    return model


def trained(
    library: Library, network: str, batch: Tensor, target: Tensor, scales: str, compiled: bool = False, **sizes: Any
) -> Work:
    """A step of training: forward, loss, backward, optimizer."""
    model = prepared(library, network, batch, scales, **sizes).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
    call = torch.compile(model, fullgraph=True) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(call(batch), target).backward()
        optimizer.step()

    return Work(step, [*model.parameters(), *model.buffers(), batch, target], batch.numel() * batch.element_size())


def evaluated(library: Library, network: str, batch: Tensor, scales: str, compiled: bool = False, **sizes: Any) -> Work:
    """A forward pass in evaluation."""
    model = prepared(library, network, batch, scales, **sizes).eval()
    call = torch.compile(model, fullgraph=True) if compiled else model

    def forward() -> None:
        with torch.no_grad():
            call(batch)

    return Work(forward)


def imported(library: Library) -> Work:
    """A new interpreter that imports the library."""
    statement = f"import {', '.join(library.imports)}"
    return Work(lambda: subprocess.run([sys.executable, "-c", statement], check=True))


WORK: dict[str, Callable[..., Work]] = {
    function.__name__: function
    for function in (weight, activation, linear, recipe, construct, copied, loaded, trained, evaluated, imported)
}
