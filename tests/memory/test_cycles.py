"""A deleted model is gone at once: nothing that uses it keeps it alive, by itself or in a cycle."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import brevq.nn as qnn
from brevq.debug import check_finite
from brevq.errors import BrevqError, NonFiniteError
from brevq.graph import calibrating
from brevq.inject.shared import is_stateless
from injectors import Int4WeightPerTensor, Int32Bias
from tests.support.table import CASES, FAMILIES, total


@pytest.fixture(autouse=True)
def _without_collection():
    """Turn the search for cycles off: what is freed is freed since nothing refers to it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def network():
    """A network in which quantized tensors pass from layer to layer."""
    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantLinear(4, 4, bias_quant=Int32Bias),
        qnn.QuantReLU(return_quant_tensor=True),
        qnn.QuantLinear(4, 4, bias_quant=Int32Bias, return_quant_tensor=True),
    )


def alive(model, *tensors):
    """What refers weakly to all modules of a model but those that all models share, and to its and other tensors."""
    modules = [module for module in model.modules() if not is_stateless(module)]
    return [weakref.ref(part) for part in (*modules, *model.parameters(), *model.buffers(), *tensors)]


def left(references):
    """The classes of what is still there."""
    return sorted({type(reference()).__name__ for reference in references if reference() is not None})


def trained(model):
    """A step of training; returns the tensors that came out."""
    output = model(torch.randn(3, 4))
    output.value.sum().backward()
    return output, output.value, output.scale


def shared(model):
    """Training with one quantizer for two weights."""
    model[1].weight_quant = model[3].weight_quant
    trained(model)


def calibrated(model):
    """Calibration, and evaluation."""
    with calibrating(model.eval()):
        model(torch.randn(3, 4))
    model(torch.randn(3, 4))


def uncalibrated(model):
    """Evaluation without data, which is refused."""
    with pytest.raises(BrevqError):
        model.eval()(torch.randn(3, 4))


def without_scale(model):
    """A tied bias without a scale, which is refused."""
    with pytest.raises(BrevqError):
        model[1](torch.randn(3, 4))


def failed_calibration(model):
    """A calibration whose body raises."""
    model.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), calibrating(model):
        model(torch.randn(3, 4))


def watched(model):
    """A watch for NaN, which ends; then one that does not."""
    with check_finite(model):
        trained(model)
    check_finite(model)
    trained(model)


def not_finite(model):
    """A watch that finds a NaN."""
    with pytest.raises(NonFiniteError), check_finite(model):
        model(torch.full((3, 4), float("nan")))


def copied(model):
    """A copy that is used."""
    trained(copy.deepcopy(model))


def looked_at(model):
    """What quantizers say of themselves, and another quantizer."""
    trained(model)
    model[1].quant_weight(), model[0].act_quant.current(), repr(model)
    model[1].weight_quant = Int4WeightPerTensor


def checkpointed(model):
    """Activation checkpointing."""
    x = torch.randn(3, 4, requires_grad=True)
    checkpoint(lambda x: model(x).value, x, use_reentrant=False).sum().backward()


def traced(model):
    """Symbolic tracing."""
    calibrated(model)
    torch.fx.symbolic_trace(model)(torch.randn(3, 4))


USES = [
    trained,
    shared,
    calibrated,
    uncalibrated,
    without_scale,
    failed_calibration,
    watched,
    not_finite,
    copied,
    looked_at,
    checkpointed,
]


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_a_used_network_is_freed_at_once(use):
    """Modules, parameters and tensors are freed when the last name is deleted, without a search for cycles."""
    model = network()
    references = alive(model, *(use(model) or ()))
    del model
    assert [] == left(references)


@pytest.mark.parametrize("name", CASES)
def test_each_layer_is_freed_at_once(name):
    """Each layer, with all places quantized, after training, calibration and evaluation."""
    case = CASES[name]
    layer = case.make(FAMILIES["int8, channel"])
    output = total(layer(*case.inputs()))
    if output.requires_grad:
        output.backward()
    with calibrating(layer.eval()):
        layer(*case.inputs())
    layer(*case.inputs())
    references = alive(layer, output)
    del layer, output
    assert [] == left(references)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_freed_at_once(family):
    """A linear layer with each family of recipes."""
    layer = CASES["QuantLinear"].make(FAMILIES[family])
    total(layer(torch.randn(3, 32))).backward()
    references = alive(layer)
    del layer
    assert [] == left(references)


def test_a_quantized_tensor_keeps_its_quantizer_and_no_more():
    """A tensor that is kept keeps the quantizer that its errors would name, not the model."""
    model = network()
    output, layer = model[0](torch.randn(3, 4)), weakref.ref(model[0])
    del model
    assert ("Quantizer", None) == (type(output.producer).__name__, layer())


@pytest.mark.parametrize("use", ["compile", "export", "trace"])
def test_what_torch_captured_is_freed_with_a_search(use):
    """Compilers of torch keep cycles of their own: a search for those frees the model."""
    model = network()
    if use == "compile":
        run = torch.compile(model, fullgraph=True, backend="aot_eager")
        trained(run)
        run.eval()(torch.randn(3, 4))
        del run
    elif use == "export":
        calibrated(model)
        torch.export.export(model, (torch.randn(3, 4),))
    else:
        traced(model)
    references = alive(model)
    del model
    gc.collect()
    assert [] == left(references)
