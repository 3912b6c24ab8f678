"""Calibration: what is observed, and what becomes of it."""

import pytest
import torch
from torch import nn

from brevq.core.phase import Phase
from brevq.errors import ArgumentError, ArgumentTypeError, UncalibratedError
from brevq.graph import calibrating
from brevq.nn import QuantIdentity, QuantLinear, QuantReLU
from injectors import Int8ActPerTensor, Int8WeightPerTensorLSQ, Int32Bias, ShiftedUint8ActPerTensor


def network():
    """Three layers with four activation quantizers' worth of ranges, in evaluation."""
    return nn.Sequential(
        QuantIdentity(), QuantLinear(6, 4, input_quant=ShiftedUint8ActPerTensor), QuantReLU(bit_width=4)
    ).eval()


def phases(model):
    """The phase of each quantizer that has one."""
    return [q.phase for q in (model[0].act_quant, model[1].input_quant, model[2].act_quant)]


@pytest.mark.parametrize(("then", "phase"), [("fixed", Phase.FIXED), ("learned", Phase.LEARNED)])
def test_ranges_settle(then, phase):
    """After calibration all ranges are fixed, or learned where that was asked for."""
    model = network()
    with calibrating(model, then=then):
        assert [Phase.EMPTY] * 3 == phases(model)
        model(torch.randn(20, 6))
        assert [Phase.OBSERVE] * 3 == phases(model)
    assert [phase] * 3 == phases(model)


def test_average_moves_by_the_momentum():
    """The range of several batches is their exponential average, from the first on, with momentum 0.1."""
    layer = QuantIdentity().eval()
    with calibrating(layer):
        layer(torch.tensor([1.0]))
        layer(torch.tensor([-3.0]))
    assert 128 * layer.act_quant.current().scale.item() == pytest.approx(1.0 + 0.1 * 2.0, rel=1e-6)  # float32


def test_inside_activations_are_float():
    """While it calibrates, a model's activations pass in float: later ranges do not see earlier rounding."""
    layer, x = QuantReLU(bit_width=2).eval(), torch.randn(20)
    with calibrating(layer):
        assert torch.equal(torch.relu(x), layer(x))
    assert 4 >= layer(x).unique().numel()


def test_fixed_ranges_do_not_move():
    """A fixed range takes no gradient and observes nothing, in training either."""
    layer = QuantIdentity()
    with calibrating(layer):
        layer(torch.tensor([1.0]))
    x = torch.tensor([0.5, 50.0], requires_grad=True)
    layer.train()(x).sum().backward()
    value = layer.act_quant.tensor_quant.scaling_impl.runtime_stats.value
    assert value.grad is None
    assert 1.0 == value.item()
    assert [1.0, 0.0] == x.grad.tolist()


def test_learned_ranges_move():
    """A learned range takes the gradient of the step: for clipped values the threshold code."""
    layer = QuantIdentity()
    with calibrating(layer, then="learned"):
        layer(torch.tensor([1.0]))
    layer.train()(torch.tensor([50.0])).sum().backward()
    value = layer.act_quant.tensor_quant.scaling_impl.runtime_stats.value
    assert 127 / 128 == value.grad.item()


def test_a_quantizer_without_data_stays_empty():
    """What saw no data has no range afterwards, and says so when it is used."""
    model = nn.ModuleList([QuantIdentity(), QuantIdentity()]).eval()
    with calibrating(model):
        model[0](torch.randn(5))
    assert [Phase.FIXED, Phase.EMPTY] == [layer.act_quant.phase for layer in model]


def test_a_failed_calibration_changes_nothing():
    """If the body raises, every range is as it was before."""
    model, x = network(), torch.randn(20, 6)
    with calibrating(model):
        model(x)
    before, expected = {k: v.clone() for k, v in model.state_dict().items()}, model(x)

    def fail():
        with calibrating(model):
            model(100 * x)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert [Phase.FIXED] * 3 == phases(model)
    assert torch.equal(expected, model(x))


def test_a_second_calibration_starts_afresh():
    """What an earlier calibration fixed is forgotten when new data comes, not averaged with it."""
    layer = QuantIdentity().eval()
    for value in (1.0, 4.0):
        with calibrating(layer):
            layer(torch.tensor([value]))
    assert 4 / 128 == layer.act_quant.current().scale.item()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_batch_does_not_spoil_the_range(bad):
    """A batch with NaN or infinity is not averaged; a quantizer that saw nothing else stays empty."""
    good, nothing = QuantIdentity(high_percentile_q=100.0).eval(), QuantIdentity(high_percentile_q=100.0).eval()
    with calibrating(good):
        good(torch.tensor([1.0, 0.5]))
        good(torch.tensor([bad, 0.5]))
    with calibrating(nothing):
        nothing(torch.tensor([bad, 0.5]))
    assert 1 / 128 == good.act_quant.current().scale.item()
    assert Phase.EMPTY == nothing.act_quant.phase


def test_wrong_outcome_is_refused():
    """Ranges become fixed or learned, nothing else."""
    with pytest.raises(ArgumentError) as error, calibrating(network(), then="frozen"):
        pass
    assert str(error.value) == "`then` (='frozen') must be 'fixed' or 'learned'"


def test_half_precision_is_calibrated_in_float32():
    """Ranges observed in bfloat16 are float32 numbers, and the grid is exact."""
    layer = QuantLinear(6, 4, input_quant=Int8ActPerTensor).bfloat16().eval()
    x = torch.randn(20, 6).bfloat16()
    with calibrating(layer):
        layer(x)
    scale = layer.input_quant.current().scale
    assert torch.float32 == scale.dtype
    assert x.float().abs().max() / 128 == scale


def test_training_before_does_not_count():
    """What training observed before is no part of the calibrated range."""
    layer = QuantIdentity()
    layer(torch.tensor([100.0]))
    with calibrating(layer.eval()):
        layer(torch.tensor([1.0]))
    assert 1 / 128 == layer.act_quant.current().scale.item()


def test_compiled_training_before_does_not_count():
    """Nor is what compiled training observed, which counts in tensors alone."""
    layer = QuantIdentity(collect_stats_steps=3)
    compiled = torch.compile(layer, backend="eager")
    for _ in range(5):
        compiled(torch.tensor([1.0, -1.0]))
    layer.eval()
    with calibrating(layer):
        layer(torch.tensor([100.0]))
    assert (Phase.FIXED, 100 / 128) == (layer.act_quant.phase, layer.act_quant.current().scale.item())


@pytest.mark.parametrize("bad", [None, float("inf")])
def test_calibration_without_data_changes_nothing(bad):
    """A range stays as it was if a second calibration brings no data, or none that is finite."""
    layer = QuantIdentity(high_percentile_q=100.0).eval()
    with calibrating(layer, then="learned"):
        layer(torch.tensor([1.0]))
    with calibrating(layer):
        if bad is not None:
            layer(torch.tensor([bad]))
    assert (Phase.LEARNED, 1 / 128) == (layer.act_quant.phase, layer.act_quant.current().scale.item())


def test_asking_for_a_scale_observes_nothing():
    """Reading the scale, or the bias that depends on it, in the middle of a calibration is no batch of it."""
    layer = QuantLinear(4, 4, input_quant=Int8ActPerTensor, bias_quant=Int32Bias).eval()
    with calibrating(layer):
        layer(torch.ones(1, 4))
        layer.quant_bias()
        layer.input_quant.current()
    assert 1 / 128 == layer.input_quant.current().scale.item()


def test_nested_calibration_is_refused():
    """A part of a model that is being calibrated can not be calibrated by itself."""
    model = network()
    with pytest.raises(ArgumentError) as error, calibrating(model), calibrating(model[0]):
        pass
    assert str(error.value) == (
        "this model, or a part of it, is being calibrated already: leave that calibration first"
    )
    assert [Phase.EMPTY] * 3 == phases(model)


def test_learned_weights_are_quantized_inside():
    """Calibration passes activations in float, and weights as always, those with a learned scale too."""
    layer = QuantLinear(4, 4, weight_quant=Int8WeightPerTensorLSQ, weight_bit_width=2, bias=False).eval()
    with calibrating(layer):
        y = layer(torch.eye(4))
    assert torch.equal(layer.quant_weight().value.T, y)
    assert not torch.equal(layer.weight.T, y)


def test_fixed_ranges_are_nobodys_parameter():
    """No optimizer moves a fixed range, not even by weight decay or by a gradient that was left over."""
    layer, x = QuantIdentity(collect_stats_steps=1), torch.randn(30)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(2):
        layer(x).square().sum().backward()
        optimizer.step()
    with calibrating(layer):
        layer(x)
    before = layer.act_quant.current().scale.item()
    for _ in range(3):
        optimizer.zero_grad(set_to_none=False)
        layer(x)
        optimizer.step()
    assert before == layer.act_quant.current().scale.item()


def test_a_first_batch_of_nan_is_no_data():
    """A quantizer whose only batch was not finite refuses evaluation, as one that saw none."""
    layer = QuantIdentity()
    layer(torch.tensor([float("nan"), 1.0]))
    with pytest.raises(UncalibratedError):
        layer.eval()(torch.tensor([1.0, 2.0]))


def test_what_is_no_module_is_refused():
    """A list of layers is no model."""
    with pytest.raises(ArgumentTypeError) as error, calibrating([QuantIdentity()]):
        pass
    assert str(error.value) == "`model` must be a module, not list"
