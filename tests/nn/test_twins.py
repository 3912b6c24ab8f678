"""What every layer with a weight promises: its twin's numbers, checkpoints, copies, dtypes and compilation."""

import copy
import inspect
import io
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from brevq import nn as qnn
from injectors import Int8WeightPerChannel


def indices(*shape):
    """Indices of the rows of a table with 7 rows."""
    return torch.randint(0, 7, shape)


#: Name and arguments of a layer, and what it is given: shapes of floating-point inputs, or what makes others.
CASES = {
    "transposed1d": ("ConvTranspose1d", {"in_channels": 4, "out_channels": 6, "kernel_size": 3}, [(2, 4, 5)]),
    "transposed1d-unbatched": (
        "ConvTranspose1d",
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 2, "output_padding": 1},
        [(4, 5)],
    ),
    "transposed2d-groups": (
        "ConvTranspose2d",
        {"in_channels": 4, "out_channels": 6, "kernel_size": (3, 2), "stride": 2, "groups": 2, "dilation": (1, 2)},
        [(2, 4, 4, 5)],
    ),
    "transposed2d-no-bias": (
        "ConvTranspose2d",
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1, "bias": False},
        [(2, 4, 4, 5)],
    ),
    "transposed3d": ("ConvTranspose3d", {"in_channels": 2, "out_channels": 4, "kernel_size": 2}, [(2, 2, 3, 3, 3)]),
    "embedding": ("Embedding", {"num_embeddings": 7, "embedding_dim": 3}, [partial(indices, 2, 5)]),
    "embedding-padding-norm": (
        "Embedding",
        {"num_embeddings": 7, "embedding_dim": 3, "padding_idx": -1, "max_norm": 0.5, "scale_grad_by_freq": True},
        [partial(indices, 9)],
    ),
    "bag": ("EmbeddingBag", {"num_embeddings": 7, "embedding_dim": 3}, [partial(indices, 4, 5)]),
    "bag-max-norm": (
        "EmbeddingBag",
        {"num_embeddings": 7, "embedding_dim": 3, "mode": "max", "max_norm": 1.0, "norm_type": 1.0, "padding_idx": 2},
        [partial(indices, 4, 5)],
    ),
    "bag-offsets-weights": (
        "EmbeddingBag",
        {"num_embeddings": 7, "embedding_dim": 3, "mode": "sum", "include_last_offset": True},
        [partial(indices, 9), lambda: torch.tensor([0, 4, 9]), (9,)],
    ),
    "layer-norm": ("LayerNorm", {"normalized_shape": (3, 4)}, [(2, 3, 4)]),
    "layer-norm-plain": ("LayerNorm", {"normalized_shape": 4, "elementwise_affine": False}, [(2, 3, 4)]),
    "layer-norm-no-bias": ("LayerNorm", {"normalized_shape": 4, "bias": False}, [(2, 3, 4)]),
    "rms-norm": ("RMSNorm", {"normalized_shape": 4}, [(2, 3, 4)]),
    "rms-norm-plain": ("RMSNorm", {"normalized_shape": [4], "eps": 0.1, "elementwise_affine": False}, [(2, 3, 4)]),
    "batch-norm1d": ("BatchNorm1d", {"num_features": 3}, [(6, 3)]),
    "batch-norm1d-length": ("BatchNorm1d", {"num_features": 3, "eps": 0.1, "momentum": None}, [(6, 3, 4)]),
    "batch-norm2d": ("BatchNorm2d", {"num_features": 3, "momentum": 0.3}, [(2, 3, 4, 5)]),
    "batch-norm2d-plain": ("BatchNorm2d", {"num_features": 3, "affine": False}, [(2, 3, 4, 5)]),
    "batch-norm2d-untracked": ("BatchNorm2d", {"num_features": 3, "track_running_stats": False}, [(2, 3, 4, 5)]),
}

every_layer = pytest.mark.parametrize("case", CASES)
both_modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def layer_of(case, **quant):
    """The quantized layer of a case."""
    name, arguments, _ = CASES[case]
    return getattr(qnn, "Quant" + name)(**arguments, **quant)


def twins(case, **quant):
    """A quantized layer and its float twin, with the same state, none of it trivial."""
    name, arguments, _ = CASES[case]
    twin = getattr(nn, name)(**arguments)
    with torch.no_grad():
        for tensor in (*twin.parameters(), *(b for b in twin.buffers() if b.is_floating_point())):
            tensor.copy_(torch.rand(tensor.shape) + 0.1)
    layer = layer_of(case, **quant)
    layer.load_state_dict(twin.state_dict(), strict=True)
    return layer, twin


def inputs_of(case, dtype=torch.float32):
    """What the layer of a case takes."""
    return [made() if callable(made) else torch.randn(made, dtype=dtype) for made in CASES[case][2]]


def run(module, inputs):
    """Output, gradients of floating-point inputs and parameters, and state after a step."""
    inputs = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    y = module(*inputs)
    if y.requires_grad:
        y.square().sum().backward()
    gradients = [part.grad for part in (*inputs, *module.parameters()) if part.requires_grad]
    return [y, *gradients, *module.state_dict().values()]


def equal(ours, theirs):
    """Whether lists of tensors, or of None, are equal bit for bit."""
    return len(ours) == len(theirs) and all(
        one is other or torch.equal(one, other) for one, other in zip(ours, theirs, strict=True)
    )


@every_layer
@both_modes
def test_without_quantizers_a_layer_is_its_twin(case, training):
    """With every quantizer None, output, gradients and state equal the twin's bit for bit."""
    layer, twin = twins(case, weight_quant=None)
    inputs = inputs_of(case)
    assert equal(run(twin.train(training), inputs), run(layer.train(training), inputs))


@every_layer
def test_layer_is_an_instance_of_its_twin(case):
    """A layer is its twin to `isinstance`, and takes the twin's arguments first, in the twin's order."""
    layer, twin = twins(case)
    theirs = list(inspect.signature(type(twin)).parameters)
    assert isinstance(layer, type(twin))
    assert theirs == list(inspect.signature(type(layer)).parameters)[: len(theirs)]


@every_layer
@pytest.mark.parametrize("how", ["state_dict", "pickle", "deepcopy", "save"])
def test_a_quantized_layer_round_trips(case, how):
    """A layer with quantizers, saved or copied, computes what it did."""
    layer, _ = twins(case, weight_quant=Int8WeightPerChannel)
    layer.eval()
    if how == "state_dict":
        again = layer_of(case, weight_quant=Int8WeightPerChannel).eval()
        again.load_state_dict(layer.state_dict())
    elif how == "pickle":
        again = pickle.loads(pickle.dumps(layer))
    elif how == "deepcopy":
        again = copy.deepcopy(layer)
    else:
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        again = torch.load(file, weights_only=False)
    inputs = inputs_of(case)
    assert torch.equal(layer(*inputs), again(*inputs))


@every_layer
@both_modes
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays(case, training, dtype):
    """A layer in half precision computes what its twin does, in that dtype, with the quantized weight."""
    layer, twin = twins(case)
    layer, twin = layer.to(dtype).train(training), twin.to(dtype).train(training)
    inputs = inputs_of(case, dtype)
    y, expected = layer(*inputs), twin(*inputs)
    assert dtype == y.dtype
    # A weight is off by half an 8-bit step at most, and values near 1 by 2 ** -8 in bfloat16.
    assert torch.allclose(expected.float(), y.float(), rtol=0.03, atol=0.1)


@pytest.mark.parametrize(
    "case",
    [
        "transposed1d",
        "transposed2d-groups",
        "transposed3d",
        "embedding-padding-norm",
        "bag-offsets-weights",
        "layer-norm",
        "rms-norm",
        "batch-norm1d",
        "batch-norm2d",
    ],
)
@both_modes
def test_layers_compile_without_a_break(case, training):
    """Compiled whole, a layer computes what it does when it is not."""
    layer, _ = twins(case)
    inputs = inputs_of(case)
    expected = run(copy.deepcopy(layer).train(training), inputs)
    torch.compiler.reset()  # all layers share one `forward`, of which the compiler keeps a few versions only
    actual = run(torch.compile(layer.train(training), fullgraph=True, backend="aot_eager"), inputs)
    assert len(expected) == len(actual)
    assert all(
        one is other or torch.allclose(one, other, rtol=1e-5, atol=1e-6)  # it may add up in another order
        for one, other in zip(expected, actual, strict=True)
    )
