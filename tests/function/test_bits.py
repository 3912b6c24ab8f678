"""ReLU that keeps a bit of each value: against torch's."""

import math

import pytest
import torch

from brevq.function.bits import relu


def _both(x, above):
    """Values and gradients of ours and of torch's."""
    found = []
    for function in (relu, torch.relu):
        leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        y = function(leaf)
        y.backward(above)
        found.append([str(y.tolist()), y.stride(), str(leaf.grad.tolist())])
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [4096, 4097, 4103, 10_000])
def test_relu(size, dtype):
    """Values and gradients are torch's, of zeros, infinities and NaN too."""
    x = torch.randn(size).to(dtype)
    x[:6] = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1e-3])
    above = torch.randn(size).to(dtype)
    above[:3] = math.inf
    ours, theirs = _both(x, above)
    assert theirs == ours


@pytest.mark.parametrize("layout", ["channels last", "transposed", "expanded"])
def test_layouts(layout):
    """Of any layout too."""
    x = torch.randn(2, 16, 12, 17)
    x = {
        "channels last": lambda: x.to(memory_format=torch.channels_last),
        "transposed": lambda: x.transpose(1, 3),
        "expanded": lambda: x[:1].expand(4, 16, 12, 17),
    }[layout]()
    ours, theirs = _both(x, torch.randn(x.shape))
    assert theirs == ours


def test_one_bit_is_kept():
    """An eighth of a byte is kept for each value."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        relu(torch.randn(8000, requires_grad=True))
    assert [1000] == kept


def test_gradients_of_gradients():
    """A gradient can be differentiated again: it is linear in what comes in."""
    x, above = torch.randn(5000, requires_grad=True), torch.randn(5000, requires_grad=True)
    (grad,) = torch.autograd.grad(relu(x), x, above, create_graph=True)
    (slope,) = torch.autograd.grad(grad.sum(), above)
    assert torch.equal((x > 0).float(), slope)
