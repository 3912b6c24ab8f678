"""What the tests of networks share: the life of one, and what to ask of it."""

import io

import pytest
import torch
from torch.nn import functional as F

from brevq.graph import calibrating
from brevq.nn.layer import QuantLayer
from brevq.nn.module import QuantModule
from brevq.quant_tensor import QuantTensor


def _loss(network, batch):
    """Cross-entropy of what a network puts out for each example, or for each place of one."""
    inputs, labels = batch
    return F.cross_entropy(network(inputs).flatten(0, -2), labels.flatten())


@torch.no_grad()
def _evaluated(network, batch):
    network.eval()
    return _loss(network, batch).item()


def _calibrate(network, batch):
    """Observe ranges, which training moves afterwards."""
    with torch.no_grad(), calibrating(network.eval(), then="learned"):
        network(batch[0])


def _train(network, draw, steps, learning_rate=1e-2):
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        _loss(network, draw()).backward()
        optimizer.step()


@pytest.fixture
def live():
    """A function that calibrates and trains a network: its loss on new data before, after, and what got no gradient."""

    def live(network, draw, steps, learning_rate=1e-2):
        _calibrate(network, draw())
        new = draw()
        before = _evaluated(network, new)
        _train(network, draw, steps, learning_rate)
        after = _evaluated(network, new)
        return before, after, [name for name, parameter in network.named_parameters() if parameter.grad is None]

    return live


@pytest.fixture
def train():
    """A function that trains a network for some steps: `train(network, draw, steps)`."""
    return _train


@pytest.fixture
def calibrate():
    """A function that calibrates a network with a batch: `calibrate(network, batch)`."""
    return _calibrate


@pytest.fixture
def reloaded():
    """A function that saves the state of a network, and loads it into another one of the same kind."""

    def reload(network, fresh):
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        file.seek(0)
        fresh.load_state_dict(torch.load(file))
        return fresh.eval()

    return reload


@pytest.fixture
def in_float():
    """A function that lists the parameters of a network that nothing quantizes, but for those of quantizers."""

    def in_float(network):
        quantized = {
            id(parameter)
            for layer in network.modules()
            if isinstance(layer, QuantModule)
            for name, parameter in layer.named_parameters(recurse=False)
            if getattr(layer, "bias_quant" if "bias" in name else "weight_quant", None) is not None
        }
        return [
            name
            for name, parameter in network.named_parameters()
            if id(parameter) not in quantized and "_quant." not in name
        ]

    return in_float


@pytest.fixture
def off_grid():
    """A function that runs a network and lists what is no codes: outputs, and inputs where a weight meets them."""

    @torch.no_grad()
    def off_grid(network, inputs):
        found = []

        def check(name, what, tensor):
            if not (isinstance(tensor, QuantTensor) and tensor.is_valid):
                found.append(f"{what} of {name}")

        def watch(name, layer):
            def look(layer, args, output):
                if isinstance(layer, QuantLayer) and layer.input_quant is None and args[0].is_floating_point():
                    check(name, "input", args[0])
                check(name, "output", output[0] if isinstance(output, tuple) else output)

            return layer.register_forward_hook(look)

        named = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, QuantModule)]
        hooks = [watch(name, layer) for name, layer in named]
        network.eval()(inputs)
        for hook in hooks:
            hook.remove()
        return found

    return off_grid
