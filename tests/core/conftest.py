"""What the tests of core share: the ways in which a component travels, and numbers that compare bit for bit."""

import copy
import pickle

import pytest
import torch


def _by_state_dict(create, module):
    fresh = create()
    fresh.load_state_dict(module.state_dict())
    return fresh


def _compiled(create, module):
    torch.compiler.reset()
    return torch.compile(copy.deepcopy(module), backend="eager", fullgraph=True)


_WAYS = {
    "state_dict": _by_state_dict,
    "pickle": lambda create, module: pickle.loads(pickle.dumps(module)),
    "deepcopy": lambda create, module: copy.deepcopy(module),
    "compiled": _compiled,
}


@pytest.fixture(params=_WAYS)
def travel(request):
    """A function of a constructor and what it made, which gives another module that must act like the latter."""
    return _WAYS[request.param]


@pytest.fixture
def outcome():
    """A function that runs a module and lists its values and its gradients, as numbers, in training or not."""

    def run(module, *inputs):
        leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
        result = module(*leaves)
        results = [y for y in (result if isinstance(result, tuple) else (result,)) if y is not None]
        wanted = [x for x in (*leaves, *module.parameters()) if x.requires_grad]
        total = sum((y * torch.arange(1, y.numel() + 1).reshape(y.shape)).sum() for y in results)
        grads = torch.autograd.grad(total, wanted, allow_unused=True) if total.requires_grad else ()
        return [y.tolist() for y in results], [None if g is None else g.tolist() for g in grads]

    return run
