"""Specifications are values, are refused whole where they make no sense, and go to recipes and back."""

import copy
import itertools
import pickle

import attrs
import pytest

import injectors
from brevq.config import DeviceType, Dtype, QSchemeType, QuantizationMode, RoundType, ScaleType, TensorSpec
from brevq.core.restrict_val import PowerOfTwoRestrictValue
from brevq.errors import ArgumentError
from brevq.inject import check, explain

SPECS = [
    TensorSpec("int8"),
    TensorSpec("int4", "per_channel", "pof2", "floor", axis=1),
    TensorSpec("uint4", "per_group", symmetric=False, group_size=32, observer="hqo"),
    TensorSpec("fp8_e4m3", "per_block", "float16", "round", group_size=16),
    TensorSpec("int8", scale_type="pof2", device="IPU"),
    TensorSpec("bfloat16", round_method="floor"),
    TensorSpec("mx", axis=0),
    TensorSpec("fp6_e3m2", "per_group", "float8_e8m0fnu", group_size=16),
]


def refused(make):
    """The text of the error that `make` raises."""
    with pytest.raises(ArgumentError) as caught:
        make()
    return str(caught.value)


def test_words_and_members():
    """Each field takes a member or its string, and holds the member."""
    words = TensorSpec("int8", "per_channel", "pof2", "floor", device="CPU")
    members = TensorSpec(Dtype.int8, QSchemeType.per_channel, ScaleType.pof2, RoundType.floor, device=DeviceType.CPU)
    assert members == words
    assert (Dtype.int8, QSchemeType.per_channel) == (words.dtype, words.qscheme)


def test_frozen():
    """A specification can not be changed."""
    with pytest.raises(AttributeError):
        TensorSpec("int8").dtype = "int4"


def test_print():
    """A specification prints as what makes it again, without defaults."""
    spec = TensorSpec("uint8", "per_channel", symmetric=False)
    assert "TensorSpec('uint8', qscheme='per_channel', symmetric=False)" == repr(spec)
    assert SPECS == [eval(repr(spec)) for spec in SPECS]


def test_values():
    """Equal specifications are equal, hash equally, and survive pickle and copy."""
    again = [TensorSpec.from_json(spec.to_json()) for spec in SPECS]
    assert SPECS == again
    assert len(SPECS) == len({*SPECS, *again})
    assert SPECS == pickle.loads(pickle.dumps(SPECS)) == copy.deepcopy(SPECS)


def test_json_of_another_kind():
    """What is no JSON object of this version is refused, each key that is no field by its name."""
    assert (
        "this is no JSON of a TensorSpec:\n\n"
        "  `version` (=2) must be 1, the one that this brevq writes\n"
        "  `dtyp` is no field of a TensorSpec. Did you mean `dtype`?\n"
        "  `colour` is no field of a TensorSpec.\n"
        "  `dtype` is missing"
    ) == refused(lambda: TensorSpec.from_json('{"version": 2, "dtyp": "int8", "colour": 1}'))
    assert "the JSON of a TensorSpec is an object, not []" == refused(lambda: TensorSpec.from_json("[]"))
    assert "this is no JSON of a TensorSpec: Expecting value: line 1 column 1 (char 0)" == refused(
        lambda: TensorSpec.from_json("int8")
    )


def test_wrong_fields():
    """All fields that are wrong alone are in one error, with the words that there are."""
    assert (
        "this TensorSpec makes no sense:\n\n"
        "  `dtype` (='int9') must be one of 'int2', 'int3', 'int4', 'int8', 'int16', 'int32', 'uint2', 'uint4', "
        "'uint8', 'uint16', 'uint32', 'bfloat16', 'float16', 'fp8_e4m3', 'fp8_e5m2', 'fp8_e5m3', 'fp6_e3m2', "
        "'fp6_e2m3', 'fp4', 'mx', 'mx6', 'mx9', 'bfp16'. Did you mean `int8`?\n"
        "  `round_method` (=99) must be one of 'round', 'floor', 'half_even'.\n"
        "  `observer` (='minmax') must be one of 'min_max', 'percentile', 'mse', 'hqo'. Did you mean `min_max`?\n"
        "  `symmetric` (=1) must be True or False\n"
        "  `axis` (='a') must be a whole number, or None\n"
        "  `group_size` (=0) must be a whole number, 1 or more, or None"
    ) == refused(lambda: TensorSpec("int9", round_method=99, symmetric=1, axis="a", group_size=0, observer="minmax"))


@pytest.mark.parametrize(
    ("make", "faults"),
    [
        (
            lambda: TensorSpec("int8", group_size=4, axis=0, symmetric=False, observer="mse"),
            [
                "`axis` (=0) has no effect with 'per_tensor': leave it out, or choose 'per_channel' or 'per_group'",
                "`group_size` (=4) has no effect with 'per_tensor': leave it out, or choose 'per_group' or 'per_block'",
            ],
        ),
        (
            lambda: TensorSpec("int4", "per_group", symmetric=False, observer="hqo"),
            [
                "`group_size` is missing, the number of values that share a scale: `qscheme` is 'per_group'",
            ],
        ),
        (
            lambda: TensorSpec("fp4", symmetric=False, observer="hqo"),
            [
                "`symmetric` (=False) is for integers, and `dtype` is 'fp4': leave it out",
                "`observer` (='hqo') is for integers; fp4 takes 'min_max', 'percentile' or 'mse'",
            ],
        ),
        (
            lambda: TensorSpec("fp4", "per_group", "float8_e8m0fnu", group_size=32, observer="percentile"),
            [
                "`observer` (='percentile') has no effect on groups with scales in E8M0, as of OCP MX: leave it out",
            ],
        ),
        (
            lambda: TensorSpec("mx", "per_group", group_size=16),
            [
                "`qscheme` (='per_group') has no effect on mx, which is a block format, which brings its own scales: "
                "leave it out",
                "`group_size` (=16) has no effect on mx, which is a block format, which brings its own scales: leave "
                "it out",
            ],
        ),
        (
            lambda: TensorSpec("bfloat16", dynamic=True),
            ["`dynamic` (=True) has no effect on bfloat16, which is a cast, without a scale: leave it out"],
        ),
        (
            lambda: TensorSpec("int16", scale_type="float16"),
            [
                "`scale_type` (='float16') can not be exact with int16: scale times largest code has more digits than "
                "float32; choose 'bfloat16' or 'pof2'"
            ],
        ),
        (
            lambda: TensorSpec("uint8", "per_channel", "float", symmetric=False, device="IPU"),
            [
                "`dtype` (='uint8') is refused by IPU, which takes 'int8'",
                "`qscheme` (='per_channel') is refused by IPU, which takes 'per_tensor'",
                "`scale_type` (='float') is refused by IPU, which takes 'pof2'",
                "`symmetric` (=False) is refused by IPU, which takes True",
            ],
        ),
        (lambda: TensorSpec("mx", device="IPU"), ["`dtype` (='mx') is refused by IPU, which takes 'int8'"]),
        (
            lambda: TensorSpec("fp8_e5m3", "per_group", "float8_e8m0fnu", group_size=32),
            ["`scale_type` (='float8_e8m0fnu') of groups is OCP MX, which has no fp8_e5m3: choose 'pof2'"],
        ),
    ],
)
def test_fields_that_do_not_fit(make, faults):
    """Fields that make no sense together are refused, all in one error, each with a way out."""
    assert "\n".join(["this TensorSpec makes no sense:", "", *(f"  {fault}" for fault in faults)]) == refused(make)


@pytest.mark.parametrize(
    ("spec", "role", "faults"),
    [
        (
            TensorSpec("uint8", dynamic=True),
            "weight",
            [
                "`dynamic` (=True) is for activations: scales of weights follow them at every call. Leave it out",
                "`symmetric` (=True) with uint8 takes all negative weights to zero: set it to False, or choose 'int8'",
            ],
        ),
        (
            TensorSpec("int8", "per_channel"),
            "activation",
            [
                "`qscheme` (='per_channel') is for weights, whose shape is known: choose 'per_tensor', or override "
                "`granularity_impl` of a dynamic recipe with `PerToken`"
            ],
        ),
        (
            TensorSpec("int8", "per_group", group_size=8),
            "activation",
            [
                "`qscheme` (='per_group') needs `dynamic` (=True) of activations, whose shape is not known, nor the "
                "number of scales"
            ],
        ),
        (
            TensorSpec("fp8_e5m3"),
            "weight",
            ["`dtype` (='fp8_e5m3') takes all negative weights to zero: choose 'fp8_e4m3' or 'fp8_e5m2'"],
        ),
        (TensorSpec("int8"), "bias", ["`role` (='bias') must be 'weight' or 'activation'"]),
    ],
)
def test_roles_that_do_not_fit(spec, role, faults):
    """A specification that has no meaning in a role has no recipe for it."""
    expected = "\n".join([f"{spec!r} has no recipe:", "", *(f"  {fault}" for fault in faults)])
    assert expected == refused(lambda: spec.recipe(role))


@pytest.mark.parametrize("mode", list(QuantizationMode))
def test_modes_of_conversion(mode):
    """Asking for the conversion of a model is refused, as it does not exist yet."""
    text = (
        "TensorSpec('int8') has no recipe:\n\n"
        f"  `mode` (='{mode.value}') is how a whole model is converted, which brevq can not do yet: leave it out, and "
        "give the recipe to layers, QuantLinear(8, 8, weight_quant=spec.recipe('weight'))"
    )
    assert text == refused(lambda: TensorSpec("int8").recipe("weight", mode=mode))
    assert text == refused(lambda: TensorSpec("int8").recipe("weight", mode=mode.value))
    assert (
        "TensorSpec('int8') has no recipe:\n\n  `mode` (='eager') must be one of 'eager_mode', 'fx_graph_mode'."
    ) == refused(lambda: TensorSpec("int8").recipe("weight", mode="eager"))


def test_device():
    """What the IPU takes is the recipe that the CPU gets for the same words."""
    spec = TensorSpec("int8", scale_type="pof2", device="IPU")
    assert injectors.Int8WeightPerTensorPoT is spec.recipe("weight")
    assert TensorSpec("int8", scale_type="pof2").recipe("activation") is spec.recipe("activation")


def test_a_device_decides_what_is_left_open():
    """What a specification leaves open is what the device takes; it is stated afterwards, and compares."""
    spec = TensorSpec("int8", device="IPU")
    stated = TensorSpec("int8", "per_tensor", "pof2", symmetric=True, device="IPU")
    assert (stated, "TensorSpec('int8', scale_type='pof2', device='IPU')") == (spec, repr(spec))
    assert spec == TensorSpec.from_json('{"version": 1, "dtype": "int8", "device": "IPU"}')
    assert [ScaleType.float] * 2 == [TensorSpec(dtype).scale_type for dtype in ("int8", "mx")]


def valid():
    """Every valid pair of a specification and a role, over dtype, scheme, scale, symmetry and dynamic scales."""
    for dtype, scheme, scale, symmetric, dynamic in itertools.product(
        Dtype, QSchemeType, ScaleType, (True, False), (True, False)
    ):
        size = 16 if scheme is QSchemeType.per_group else None
        for role in ("weight", "activation"):
            try:
                spec = TensorSpec(dtype, scheme, scale, symmetric=symmetric, group_size=size, dynamic=dynamic)
                recipe = spec.recipe(role)
            except ArgumentError:
                continue
            yield spec, role, recipe


def test_recipes():
    """The same specification and role give the same recipe, which pickles and goes back to the specification."""
    pairs = list(valid())
    assert len(pairs) > 500
    for spec, role, recipe in pairs:
        assert recipe is TensorSpec.from_json(spec.to_json()).recipe(role)
        assert recipe is pickle.loads(pickle.dumps(recipe))
        assert recipe is TensorSpec.of(recipe).recipe(role)


def test_there_and_back():
    """A specification comes back as it was, apart from the device, and from words for what is the default."""
    specs = [spec for spec in SPECS if spec.device is DeviceType.CPU]
    assert specs == [TensorSpec.of(spec.recipe("weight")) for spec in specs]


@pytest.mark.parametrize("spec", SPECS)
def test_recipes_have_no_faults(spec):
    """A recipe has no faults, and explains itself."""
    check(spec.recipe("weight"))
    assert "tensor_quant" in str(explain(spec.recipe("weight")))


def test_library_names():
    """A specification that the library has a recipe for gives that one."""
    assert injectors.Int8WeightPerChannel is TensorSpec("int8", "per_channel").recipe("weight")
    assert injectors.Uint8ActPerTensor is TensorSpec("uint8").recipe("activation")
    assert injectors.ShiftedUint8ActPerTensor is TensorSpec("uint8", symmetric=False).recipe("activation")
    assert injectors.Fp4e2m1WeightPerChannel is TensorSpec("fp4", "per_channel").recipe("weight")


def test_subclass():
    """A recipe can be subclassed, and goes back to words where the subclass says what they say."""

    class Mine(TensorSpec("int8", "per_channel").recipe("weight")):
        """Fixed point."""

        bit_width = 4

    assert TensorSpec("int4", "per_channel") == TensorSpec.of(Mine)
    assert (
        "no TensorSpec says what Int8WeightPerChannel.let(restrict_scaling_impl=PowerOfTwoRestrictValue) is; the "
        "nearest, TensorSpec('int8', qscheme='per_channel', scale_type='pof2'), differs:\n\n"
        "  tensor_clamp_impl = undeclared, not TensorClampSte"
    ) == refused(
        lambda: TensorSpec.of(injectors.Int8WeightPerChannel.let(restrict_scaling_impl=PowerOfTwoRestrictValue))
    )


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        (
            injectors.Int32Bias,
            "no TensorSpec says what Int32Bias is: its role is 'bias', and they are for weights and activations",
        ),
        (
            injectors.Fp8e4m3FNUZActPerTensor,
            "no TensorSpec says what Fp8e4m3FNUZActPerTensor is: no dtype is fp8_e4m3fnuz",
        ),
        (
            injectors.Int8WeightPerTensor.let(bit_width=5),
            "no TensorSpec says what Int8WeightPerTensor.let(bit_width=5) is: no dtype is bit_width = 5, signed = True",
        ),
        (
            injectors.Int8WeightPerTensorLearnedBits,
            "no TensorSpec says what Int8WeightPerTensorLearnedBits is; the nearest, TensorSpec('int8'), differs:\n\n"
            "  bit_width_impl = BitWidthParameter, not BitWidthConst",
        ),
        ("int8", "a TensorSpec is read from a recipe, not 'int8'"),
    ],
)
def test_recipes_without_words(recipe, text):
    """A recipe that the vocabulary can not say is refused, with the parts that it has no words for."""
    assert text == refused(lambda: TensorSpec.of(recipe))


def test_a_copy_for_another_device():
    """What the device decided is decided again; what was stated stays, and is refused where it does not fit."""
    spec = TensorSpec("int8")
    assert attrs.evolve(spec, device="IPU") == TensorSpec("int8", device="IPU")
    assert attrs.evolve(TensorSpec("int8", device="IPU"), device="CPU") == spec
    assert attrs.evolve(spec, scale_type="pof2").scale_type == "pof2"
    with pytest.raises(ArgumentError, match="`scale_type` \\(='float'\\) is refused by IPU"):
        attrs.evolve(TensorSpec("int8", scale_type="float"), device="IPU")
    assert hash(TensorSpec("int8", scale_type="float")) == hash(spec)
