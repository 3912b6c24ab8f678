"""The summary of a model: records, totals, text and HTML."""

import html.parser
import json
from collections import OrderedDict

import pytest
import torch
from torch import nn

import brevq
import injectors
from brevq import summary
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.graph import calibrating
from brevq.nn import (
    QuantConv2d,
    QuantEltwiseAdd,
    QuantIdentity,
    QuantLayer,
    QuantLinear,
    QuantLSTM,
    QuantModule,
    QuantMultiheadAttention,
    QuantReLU,
    TruncQAccumulator,
)
from brevq.quantizer import Quantizer


@pytest.fixture
def network():
    """A small network of constant weights, calibrated."""
    recipes = {"weight_quant": injectors.Int4WeightPerChannel, "bias_quant": injectors.Int32Bias}
    model = nn.Sequential(
        OrderedDict(
            conv=QuantConv2d(1, 2, 3, input_quant=injectors.Uint8ActPerTensor, **recipes),
            norm=nn.BatchNorm2d(2),
            act=QuantReLU(bit_width=4),
            flat=nn.Flatten(),
            head=nn.Linear(2, 3),
        )
    ).eval()
    with torch.no_grad():
        model.conv.weight.copy_(torch.tensor([0.7, -1.4]).reshape(2, 1, 1, 1).expand(2, 1, 3, 3))
        model.conv.bias.zero_()
    with calibrating(model):
        model(torch.full((1, 1, 3, 3), 2.55))
    return model


TABLE = """
layer     recipe                              bits      granularity  scale           phase  params  bytes  less
───────────────────────────────────────────────────────────────────────────────────────────────────────────────
conv  QuantConv2d
  weight  Int4WeightPerChannel                 4 int    2 channels   0.1 .. 0.2                 18     17  4.2x
  bias    Int32Bias                           32 int    accumulator  0.001 .. 0.002              2      8
  input   Uint8ActPerTensor                    8 uint   tensor       0.01            fixed
norm  BatchNorm2d                             32 float                                           4     16
act  QuantReLU
  act     Uint8ActPerTensor.let(bit_width=4)   4 uint   tensor       1.07            fixed
head  Linear                                  32 float                                           9     36
───────────────────────────────────────────────────────────────────────────────────────────────────────────────
parameters  33, of which 20 (60.6%) quantized
bytes       77, in float 132, 1.71 times less; 18.67 bits a parameter
in float    norm, head
""".strip()


def test_text(network):
    """The table has a line for each tensor, aligned, and the totals under it."""
    assert TABLE == str(summary(network))


def test_records(network):
    """A record has everything that is known of a tensor."""
    record = summary(network).records[0]
    assert ("conv", "QuantConv2d", "weight", "weight") == (record.layer, record.kind, record.tensor, record.role)
    assert ("Int4WeightPerChannel", 4, "int") == (record.recipe, record.bits, record.format)
    assert ("channel", 2, None) == (record.granularity, record.scales, record.phase)
    assert [torch.tensor(0.7).item() / 7, torch.tensor(1.4).item() / 7] == pytest.approx(
        [record.scale_min, record.scale_max], rel=2**-22
    )
    assert (18, 9 + 8, 72) == (record.parameters, record.bytes, record.float_bytes)


def test_order_of_records(network):
    """What a layer stores comes first, then what flows through it; layers come in the order of the model."""
    assert [
        "conv.weight",
        "conv.bias",
        "conv.input",
        "norm.weight",
        "norm.bias",
        "act.act",
        "head.weight",
        "head.bias",
    ] == [record.path for record in summary(network).records]


def test_dicts_are_plain(network):
    """The records as dictionaries can be written as JSON, and read back."""
    dicts = summary(network).to_dicts()
    assert dicts == json.loads(json.dumps(dicts))
    assert "conv" == dicts[0]["layer"]


def test_totals(network):
    """Totals are sums of the records."""
    table = summary(network)
    for name in ("parameters", "bytes", "float_bytes"):
        assert sum(getattr(record, name) for record in table.records) == getattr(table, name)
    assert 20 == table.quantized_parameters
    assert ("norm.weight", "norm.bias", "head.weight", "head.bias") == table.in_float
    assert 132 / 77 == table.times_smaller


def test_a_model_without_data():
    """Activations without data are named, by the table and by a property."""
    model = nn.Sequential(QuantIdentity(), QuantLinear(2, 2, bias=False))
    table = summary(model)
    assert ("0.act",) == table.uncalibrated
    assert ("no data yet", "empty", None) == (
        table.records[0].scale_note,
        table.records[0].phase,
        table.records[0].scale_min,
    )
    assert "no data yet  0.act" in str(table)


def test_phases():
    """The phase of each quantizer is told as it is."""
    layer, x = QuantIdentity(collect_stats_steps=2), torch.ones(3)
    phases = [summary(layer).records[0].phase]
    for _ in range(2):
        layer(x)
        phases.append(summary(layer).records[0].phase)
    with calibrating(layer):
        layer(x)
    phases.append(summary(layer).records[0].phase)
    assert ["empty", "observe", "learned", "fixed"] == phases


def test_what_is_frozen():
    """Codes that stand for a weight are told as frozen, with their scale."""
    layer = QuantLinear(4, 2, bias=False).eval()
    scale = summary(layer).records[0].scale_min
    (record,) = summary(brevq.freeze(layer)).records
    assert ("frozen", "FrozenQuantLinear", scale, 8) == (record.phase, record.kind, record.scale_min, record.parameters)


def test_numbers_that_quantizers_learn_are_told_apart():
    """A learned range is no parameter of the layer."""
    table = summary(QuantLinear(4, 2, bias=False, weight_quant=injectors.Int8WeightPerTensorLSQ))
    assert (8, 1) == (table.parameters, table.learned)
    assert "learned     1 number in quantizers" in str(table)


@pytest.mark.parametrize(
    ("recipe", "granularity", "scales", "note"),
    [
        ("Int8ActPerTensorDynamic", "tensor", 1, "of each input"),
        ("Int8ActPerTokenDynamic", "token", None, "of each input"),
        ("Int8ActPerGroupDynamic", "group of 32", None, "of each input"),
        ("MXFp4Act", "block of 32", None, "of each input"),
        ("Uint8ActPerTensor", "tensor", 1, "no data yet"),
        ("TernaryActPerTensorConst", "tensor", 1, ""),
    ],
)
def test_scales_of_activations(recipe, granularity, scales, note):
    """Where scales are not known, the reason is; a scale that is declared is known."""
    (record,) = summary(QuantIdentity(act_quant=getattr(injectors, recipe).let(**_declared(recipe)))).records
    assert (granularity, scales, note) == (record.granularity, record.scales, record.scale_note)


def _declared(recipe):
    return {"scaling_init": 0.5} if recipe.endswith("Const") else {}


@pytest.mark.parametrize(
    ("recipe", "bits", "name"),
    [
        ("Int8WeightPerTensor", 8, "int"),
        ("ShiftedUint8WeightPerTensor", 8, "uint"),
        ("BinaryWeightPerTensor", 1, "binary"),
        ("TernaryWeightPerTensor", 2, "ternary"),
        ("Fp8e4m3OCPWeightPerTensor", 8, "fp8_e4m3"),
        ("MXFp6e2m3Weight", 6, "fp6_e2m3"),
        ("Fp8e4m3WeightPerTensor", 8, "e4m3"),
    ],
)
def test_formats(recipe, bits, name):
    """A record names the format of the codes."""
    record = summary(QuantLinear(32, 2, weight_quant=getattr(injectors, recipe))).records[0]
    assert (bits, name) == (record.bits, record.format)


@pytest.mark.parametrize("name", [name for name in injectors.__all__ if getattr(injectors, name).role == "weight"])
def test_every_recipe_for_weights(name):
    """Bits, scales and bytes of each recipe for weights are known, and the codes are counted by its bits."""
    recipe = getattr(injectors, name)
    given = {"scaling_init": 0.1} if name.endswith("Const") else {}
    layer = QuantLinear(256, 4, bias=False, weight_quant=recipe.let(**given) if given else recipe)
    layer.input_quant = injectors.Int8ActPerTensor if layer.weight_quant.needs_input else None
    layer(torch.randn(2, 256))
    record = summary(layer).records[0]
    assert (True, "", 1024) == (0 < record.scale_min <= record.scale_max, record.scale_note, record.parameters)
    assert 1024 * record.bits // 8 < record.bytes < 4096 + 4 * record.scales + 5


@pytest.mark.parametrize("name", [name for name in injectors.__all__ if getattr(injectors, name).role == "activation"])
def test_every_recipe_for_activations(name):
    """Each recipe for activations has bits, and stores nothing."""
    recipe = getattr(injectors, name)
    layer = QuantIdentity(act_quant=recipe.let(scaling_init=0.5) if name.endswith("Const") else recipe)
    (record,) = summary(layer).records
    assert (True, 0, "activation") == (record.bits > 0, record.bytes, record.role)


def test_a_model_of_nothing():
    """A module without parameters has an empty table."""
    table = summary(nn.ReLU())
    assert ((), 0, 0, 1.0) == (table.records, table.parameters, table.bytes, table.times_smaller)
    assert "parameters  0, of which 0 quantized" in str(table)
    assert "brevq" in table._repr_html_()


def test_a_float_model():
    """A float model has one line for each layer, and nothing is less."""
    table = summary(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)))
    assert (56, 56) == (table.bytes, table.float_bytes)
    assert ["0  Linear       32 float      10     40", "1  BatchNorm1d  32 float       4     16"] == [
        line.rstrip() for line in str(table).splitlines()[2:4]
    ]


def test_parameters_of_a_container():
    """A module that has both parameters and layers is listed for its own parameters."""

    class WithToken(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(3))
            self.layer = QuantLinear(2, 2, bias=False)

    assert ["token", "layer.weight"] == [record.path for record in summary(WithToken()).records]


class QuantLowRank(QuantModule):
    """A layer of one's own: a product of two matrices, one of which has a quantizer."""

    quants = {  # noqa: RUF012  # a ClassVar of the base
        "kernel_weight_quant": injectors.Int8WeightPerTensor,
        "act_quant": injectors.Int8ActPerTensor,
    }

    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.other = nn.Parameter(torch.ones(5))

    def supplied_to(self, argument):
        return {"tensor_shape": (4, 3), "channel_axis": 0} if argument == "kernel_weight_quant" else {}

    def bound(self, argument, given):
        if "kernel" not in self._parameters:
            self.kernel = nn.Parameter(torch.ones(4, 3))
        return super().bound(argument, given)


def test_a_layer_of_ones_own():
    """The quantizer of a layer that is not known serves the parameter of the shape that the layer supplies."""
    table = summary(QuantLowRank())
    assert ["kernel", "other", "act"] == [record.tensor for record in table.records]
    assert (12 + 4 + 20, 17) == (table.bytes, table.parameters)
    assert 1 / 127 == pytest.approx(table.records[0].scale_min, rel=2**-22)


def test_a_twin_of_ones_own():
    """A subclass of `QuantLayer` is known by its weight and bias."""

    class QuantBilinear(QuantLayer, nn.Bilinear):
        def compute(self, x, weight, bias, y):
            return nn.functional.bilinear(x, y, weight, bias)

    assert 4 * 6 + 4 + 4 * 2 == summary(QuantBilinear(2, 3, 4, dtype=torch.float16)).bytes


def test_a_quantizer_in_a_plain_module():
    """A quantizer needs no layer of this library around it."""

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 2))
            supplies = {"tensor_shape": (2, 2), "channel_axis": 0}
            self.weight_quant = Quantizer(injectors.Int8WeightPerTensor, supplies)

    (record,) = summary(Plain()).records
    assert ("weight", 4 + 4, 1) == (record.tensor, record.bytes, record.scales)


def test_recurrent_layers():
    """Each matrix and bias of a recurrent layer has a record, and each quantizer of its states."""
    layer = QuantLSTM(2, 3, bidirectional=True, hidden_quant=injectors.Int8ActPerTensor)
    names = [record.tensor for record in summary(layer).records]
    assert ["weight_ih_l0", "weight_hh_l0", "weight_ih_l0_reverse", "weight_hh_l0_reverse"] == names[:4]
    assert [f"bias_{kind}_l0{end}" for end in ("", "_reverse") for kind in ("ih", "hh")] == names[4:8]
    assert ["hidden.l0"] == names[8:]


def test_attention():
    """Attention has the in-projections, and the out-projection as a layer of its own."""
    layer = QuantMultiheadAttention(
        4, 2, bias_quant=injectors.Int8BiasPerTensor, query_quant=injectors.Int8ActPerTensor
    )
    assert ["in_proj_weight", "in_proj_bias", "query", "out_proj.weight", "out_proj.bias"] == [
        record.path for record in summary(layer).records
    ]


def test_quantizers_that_activations_share():
    """Two layers with one quantizer of activations have a record each, and the second says so."""
    first = QuantIdentity()
    table = summary(nn.Sequential(first, QuantEltwiseAdd(input_quant=first.act_quant)))
    assert ["", "0.act"] == [record.quantizer_of for record in table.records]
    assert "shared       1.input has the quantizer of 0.act" in str(table)


def test_truncation():
    """What cuts accumulators has bits, and the scale of its input."""
    (record,) = summary(TruncQAccumulator(bit_width=6)).records
    assert ("trunc", "truncation", 6, "of each input") == (record.tensor, record.role, record.bits, record.scale_note)


def test_the_meta_device():
    """On the meta device scales are unknown, and everything else is told."""
    recipes = {"weight_quant": injectors.Int4WeightPerChannel, "input_quant": injectors.Int8ActPerTensor}
    (weight, given) = summary(QuantLinear(4, 2, bias=False, device="meta", **recipes)).records
    assert ("unknown", 4, 2, 4 + 8) == (weight.scale_note, weight.bits, weight.scales, weight.bytes)
    assert (8, "no data yet") == (given.bits, given.scale_note)


def test_depth(network):
    """Below a depth, everything is summed up; records and totals stay what they are."""
    model = nn.ModuleDict({"first": network, "last": nn.Linear(1, 1)})
    table, whole = summary(model, depth=1), summary(model)
    assert (whole.records, whole.bytes) == (table.records, table.bytes)
    assert [
        "first  Sequential, 4 layers   4 .. 32      33     77  1.7x",
        "last  Linear                 32 float       2      8",
    ] == [line.rstrip() for line in str(table).splitlines()[2:4]]


@pytest.mark.parametrize("width", [60, 72, 80, 100, 120, 200])
def test_no_line_is_wider(network, width):
    """Whatever width is asked for, no line exceeds it."""
    long_names = nn.ModuleDict({"a_name_that_is_rather_long_for_a_module": nn.ModuleDict({"and_another": network})})
    assert width >= max(len(line) for line in summary(long_names).text(width).splitlines())


def test_columns_that_are_left_out(network):
    """Columns that there is no room for are named."""
    text = summary(network).text(60)
    assert "left out" in text
    assert "scale" not in text.splitlines()[0]
    assert "left out" not in summary(network).text(140)


class Cells(html.parser.HTMLParser):
    """The texts of the cells of a page, and whether each tag that is opened is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag == self.open.pop()

    def handle_data(self, data):
        self.texts.append(data)


def test_html(network):
    """The page has the same cells as the text, and is well-formed."""
    cells = Cells(summary(network)._repr_html_())
    assert [] == cells.open
    for text in ("conv", "QuantConv2d", "Int4WeightPerChannel", "0.1 .. 0.2", "4.2x", "norm, head"):
        assert text in cells.texts


def test_html_is_escaped():
    """Names are text, whatever they look like."""
    model = nn.Module()
    model.add_module("<b>", nn.Linear(1, 1))
    page = summary(model)._repr_html_()
    assert "<b><b>" not in page
    assert "&lt;b&gt;" in page


def test_repr_is_the_table(network):
    """In a console, the summary shows itself."""
    assert str(summary(network)) == repr(summary(network))


@pytest.mark.parametrize(
    ("model", "depth", "error", "message"),
    [
        (3, None, ArgumentTypeError, "`model` must be a module, not int"),
        (nn.ReLU(), 0, ArgumentError, "`depth` (=0) must be 1 or more levels, or None for all"),
        (nn.ReLU(), 1.5, ArgumentTypeError, "`depth` (=1.5) must be a whole number of levels, or None for all"),
        (nn.ReLU(), True, ArgumentTypeError, "`depth` (=True) must be a whole number of levels, or None for all"),
    ],
)
def test_wrong_arguments(model, depth, error, message):
    """Wrong arguments are refused, with their value and the rule."""
    with pytest.raises(error) as refused:
        summary(model, depth)
    assert message == str(refused.value)


def test_too_narrow(network):
    """A table needs some room."""
    with pytest.raises(ArgumentError) as refused:
        summary(network).text(30)
    assert "`width` (=30) must be 60 characters or more" == str(refused.value)


def test_lazy_layers():
    """A model with layers that the first batch will build is refused by the name of what has no shape."""
    model = nn.Sequential(QuantLinear(8, 4), nn.LazyLinear(2))
    with pytest.raises(ArgumentError, match=r"`1\.weight` has no shape yet: call the model on a batch once, which"):
        summary(model)
    model(torch.zeros(1, 8))
    assert 8 * 4 + 4 + 4 * 2 + 2 == summary(model).parameters
