"""`brevq.draw`: every recipe as a picture, with the names of its wiring and the numbers that it can give."""

import importlib.util
from pathlib import Path
from xml.etree import ElementTree

import ml_dtypes
import numpy as np
import pytest
import torch

import injectors
from brevq import draw
from brevq.core.formats import FloatFormat
from brevq.errors import ArgumentTypeError, RecipeError
from brevq.inject import Injector, explain
from brevq.nn import QuantConv2d, QuantLinear
from injectors.bases import ActQuant

SVG = "{http://www.w3.org/2000/svg}"
RECIPES = [pytest.param(getattr(injectors, name), id=name) for name in injectors.__all__]


def texts(picture):
    """All lines of text of a picture."""
    return [found.text for found in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def numbers(picture):
    """The numbers that the first axis of a picture carries."""
    root = ElementTree.fromstring(picture)
    return [
        float(n) for found in root.iter() if found.get("class") == "linear" for n in found.get("data-values").split()
    ]


def finite(dtype):
    """All finite numbers of a dtype of 8 bits at most, each once, by `ml_dtypes`."""
    info = ml_dtypes.finfo(dtype)
    codes = np.arange(2**info.bits, dtype=np.uint8).view(dtype).astype(np.float64)
    return sorted({float(code) + 0.0 for code in codes if np.isfinite(code)})


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe(recipe):
    """A recipe's picture is well formed, and has every name of its wiring, with what declares it, and its grid."""
    picture = draw.svg(recipe)
    found = set(texts(picture))
    for line in explain(recipe).lines:
        assert line.name in found
        assert line.content in found or line.content[:57] + "…" in found
        assert any(text.startswith(line.origin) for text in found)
    assert not any("not known here" in text for text in found)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (injectors.Int8WeightPerTensor, range(-127, 128)),
        (injectors.Int8WeightPerChannel.let(bit_width=4), range(-7, 8)),
        (injectors.Int8WeightPerChannel.let(bit_width=4, narrow_range=False), range(-8, 8)),
        (injectors.Int8ActPerTensor, range(-128, 128)),
        (injectors.Uint8ActPerTensor, range(256)),
        (injectors.Uint8ActPerTensor.let(bit_width=1), range(2)),
        (injectors.ShiftedUint8WeightPerTensor, range(256)),
        (injectors.Int8ActPerTensorLearnedBits, range(-128, 128)),
        (injectors.BinaryActPerTensor, [-1, 1]),
        (injectors.TernaryWeightPerTensor, [-1, 0, 1]),
        (injectors.MXInt8Weight, [i / 64 for i in range(-128, 128)]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_integers(recipe, expected):
    """The numbers of integer grids are the codes; of MXINT8 they are 64ths."""
    assert list(expected) == numbers(draw.grid(recipe))


@pytest.mark.parametrize(
    ("recipe", "dtype"),
    [
        (injectors.Fp8e4m3OCPWeightPerTensor, ml_dtypes.float8_e4m3fn),
        (injectors.Fp8e5m2OCPWeightPerTensor, ml_dtypes.float8_e5m2),
        (injectors.Fp8e4m3FNUZWeightPerTensor, ml_dtypes.float8_e4m3fnuz),
        (injectors.Fp8e5m2FNUZWeightPerTensor, ml_dtypes.float8_e5m2fnuz),
        (injectors.MXFp8e4m3Weight, ml_dtypes.float8_e4m3fn),
        (injectors.MXFp8e5m2Act, ml_dtypes.float8_e5m2),
        (injectors.MXFp6e3m2Weight, ml_dtypes.float6_e3m2fn),
        (injectors.MXFp6e2m3Weight, ml_dtypes.float6_e2m3fn),
        (injectors.MXFp4Weight, ml_dtypes.float4_e2m1fn),
        (injectors.NVFP4Weight, ml_dtypes.float4_e2m1fn),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_floats(recipe, dtype):
    """The numbers of floating-point grids are all finite ones of the format, by an implementation not ours."""
    assert finite(dtype) == numbers(draw.grid(recipe))


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (injectors.Fp8e4m3OCPWeightPerTensor, "infinities: none, NaN: 2, minus zero: one, overflow saturates"),
        (injectors.Fp8e5m2OCPWeightPerTensor, "infinities: 2, NaN: 6, minus zero: one, overflow saturates"),
        (injectors.Fp8e4m3FNUZWeightPerTensor, "infinities: none, NaN: 1, minus zero: none, overflow saturates"),
        (injectors.Fp8e4m3OCPWeightPerTensor, "largest 448, smallest normal 0.01562, smallest subnormal 0.001953"),
        (injectors.MXFp4Weight, 'mxfp4: 32 elements share a scale in e8m0 (rule "floor"); 4.25 bits each'),
        (injectors.MX9Weight, "mx9: 16 elements share a scale in e8m0"),
        (injectors.NVFP4Weight, "the whole tensor a float32 scale"),
        (injectors.Int8ActPerTensorLearnedBits, "The number of bits can change: it is 8 now."),
        (injectors.ShiftedUint8ActPerTensor, "Zero: the zero-point is a code, and stands for zero."),
        (injectors.Int8Trunc, "The sign is that of the input."),
        (injectors.Int4WeightPerGroupDoubleQuant, "Its scales are quantized themselves."),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_else_is_said(recipe, words):
    """Special codes, the scales of blocks, learned bits and zero-points are told below the axis."""
    assert words in " ".join(filter(None, texts(draw.grid(recipe))))


def test_mantissa_cut_by_a_learned_bit_width():
    """Fewer bits of a floating-point format are its numbers with a shorter mantissa: E4M3 cut to 6 bits has 1 of it."""
    recipe = injectors.Fp8e4m3WeightPerTensorLearnedBits.let(bit_width=6)
    subnormal = [0.0, 2.0**-7]
    normal = [2.0 ** (e - 7) * m for e in range(1, 16) for m in (1.0, 1.5)]
    expected = sorted({sign * number + 0.0 for number in subnormal + normal for sign in (-1, 1)})
    assert expected == numbers(draw.grid(recipe))


def test_override():
    """What is overridden stands out, with what it replaces."""
    picture = draw.svg(injectors.Int8WeightPerTensor, bit_width=4)
    assert "Int8WeightPerTensor.let(...), replaces 8 of Int8WeightPerTensor" in texts(picture)
    overridden = [
        found for found in ElementTree.fromstring(picture).iter() if found.get("class", "").endswith("overridden")
    ]
    assert [["bit_width", "4"]] == [[text.text for text in row.iter(f"{SVG}text")][:2] for row in overridden]


def test_owner():
    """For a layer, the picture has what the layer supplies."""
    found = texts(draw.svg(injectors.Int8WeightPerChannel, QuantConv2d(3, 16, 5)))
    assert {"(16, 3, 5, 5)", "supplied by QuantConv2d"} <= set(found)


def test_recipe_for_one_layer_alone():
    """A recipe that fits no small layer is drawn without its numbers, with the reason; for its layer with them."""

    class Odd(injectors.Int8WeightPerChannel):
        channel_axis = 3

    found = texts(draw.svg(Odd))
    assert "The numbers that it can give are not known here" in found
    assert any("`channel_axis` (=3)" in text for text in found if text)
    assert list(range(-127, 128)) == numbers(draw.svg(Odd, QuantConv2d(3, 16, 5)))


@pytest.mark.parametrize("size", [32, 96, 4096])
def test_sizes_of_groups(size):
    """Groups of any size find a layer that they fit."""
    recipe = injectors.Int4WeightPerGroup.let(group_size=size)
    assert list(range(-7, 8)) == numbers(draw.grid(recipe))


def test_faults():
    """A recipe with faults is refused, and all of them are listed."""

    class Wrong(injectors.Int8WeightPerTensor):
        bitwidth = 4
        signedness = True

    with pytest.raises(RecipeError, match=r"(?s)Can not build Wrong: 2 faults.*bitwidth.*signedness"):
        draw.svg(Wrong)
    with pytest.raises(RecipeError, match="Did you mean `bit_width`"):
        draw.grid(injectors.Int8WeightPerTensor, bitwidth=4)


@pytest.mark.parametrize("function", [draw.svg, draw.wiring, draw.grid])
def test_what_is_no_recipe(function):
    """What is no recipe, and an owner that is no layer, are refused by name."""
    with pytest.raises(ArgumentTypeError, match=r"`recipe` \(=3\) must be a recipe"):
        function(3)
    with pytest.raises(ArgumentTypeError, match=r"`recipe` .* It is made from one: `recipe.recipe`"):
        function(QuantLinear(2, 2).weight_quant)
    with pytest.raises(ArgumentTypeError, match=r"`owner` \(=3\) must be a layer"):
        function(injectors.Int8WeightPerTensor, 3)


def test_contents_are_escaped():
    """What a recipe declares is shown, and not interpreted."""

    class Part(torch.nn.Module):
        def __init__(self, note):
            super().__init__()

    class Noted(Injector):
        """<b>Bold</b> & more."""

        tensor_quant = Part
        note = "</text><script>alert(1)</script>"

    picture = draw.svg(Noted)
    assert "<script" not in picture
    assert {"<b>Bold</b> & more.", "'</text><script>alert(1)</script>'"} <= set(texts(picture))


def test_quantizer_of_ones_own():
    """A core quantizer that says nothing of its grid is drawn with its wiring."""

    class Rounding(torch.nn.Module):
        def forward(self, x):
            return x.round(), torch.ones(()), torch.zeros(()), torch.tensor(8.0)

    class Rounded(ActQuant):
        tensor_quant = Rounding

    assert {"tensor_quant", "Rounding"} <= set(texts(draw.svg(Rounded)))


def test_format_of_ones_own():
    """A format that is declared in a recipe is drawn as any other."""
    e3m0 = FloatFormat("e3m0", 3, 0)
    found = numbers(draw.grid(injectors.Fp8e4m3OCPWeightPerTensor, float_format=e3m0))
    powers = [2.0**e for e in range(-2, 5)]
    assert [*sorted(-p for p in powers), 0.0, *powers] == found


def test_wide_format():
    """The 65536 codes of bfloat16 make a picture of modest size, with its largest number."""
    from brevq.core.formats.catalogue import BFLOAT16  # noqa: PLC0415

    picture = draw.grid(injectors.Fp8e4m3OCPWeightPerTensor, float_format=BFLOAT16)
    assert any("largest 3.39e+38" in text for text in texts(picture))
    assert len(picture) < 100_000


def test_the_same_again():
    """Drawing draws no random numbers, and gives the same picture each time."""
    before = torch.random.get_rng_state()
    recipe = injectors.Int8WeightPerTensor
    assert draw.svg(recipe) == draw.svg(recipe)
    assert torch.equal(before, torch.random.get_rng_state())


def test_wiring_alone():
    """`wiring` has the tree without the grid."""
    assert {"bit_width_impl", "BitWidthConst"} <= set(texts(draw.wiring(injectors.Int8WeightPerTensor)))
    assert [] == numbers(draw.wiring(injectors.Int8WeightPerTensor))


@pytest.mark.parametrize("file", ["images/int4_weight.svg", "images/fp8_grid.svg"])
def test_pictures_of_the_documentation_are_current(file):
    """The pictures that the documentation shows are those that are drawn; `python docs/generate.py` draws them anew."""
    docs = Path(__file__).parents[2] / "docs"
    spec = importlib.util.spec_from_file_location("generate", docs / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.pictures()[file] == (docs / file).read_text(encoding="utf8")
