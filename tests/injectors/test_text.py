"""Every recipe of the library becomes text and comes back, and no text does more than that."""

import copy
import importlib
import json
import math
import pickle
import pkgutil
import re
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import brevq
import injectors
from brevq.core.formats import BlockFormat, FloatFormat, IntFormat, ScaleRule
from brevq.core.formats.catalogue import E8M0
from brevq.core.restrict_val import PowerOfTwoRestrictValue
from brevq.core.stats import AbsMax
from brevq.errors import BrevqError
from brevq.inject import dump, explain, fingerprint, load
from injectors import (
    Fp8e4m3OCPWeightPerTensor,
    Int8ActPerTensor,
    Int8WeightPerChannel,
    Int8WeightPerTensor,
    MXFp4Weight,
)

RECIPES = [pytest.param(getattr(injectors, name), id=name) for name in injectors.__all__]


class Int4(Int8WeightPerTensor):
    """Signed 4-bit weights."""

    bit_width = 4


class Explicit(Int8WeightPerTensor):
    """The integer threshold that is chosen anyway."""

    int_scaling_impl = injectors.bases.IntScaling


DERIVED = {
    "bits": Int8WeightPerTensor.let(bit_width=4),
    "part": Int8WeightPerChannel.let(restrict_scaling_impl=PowerOfTwoRestrictValue),
    "statistic": Int8ActPerTensor.let(scaling_stats_impl=AbsMax),
    "chain": Int8WeightPerTensor.let(bit_width=4).let(narrow_range=False).let(scaling_min_val=1e-8),
    "float format": Fp8e4m3OCPWeightPerTensor.let(float_format=FloatFormat("e3m4", 3, 4)),
    "block format": MXFp4Weight.let(block_format=BlockFormat("mxint4", IntFormat(4, fraction_bits=2), E8M0, 32)),
    "rule": MXFp4Weight.let(block_format=MXFp4Weight.block_format.with_rule(ScaleRule.EVEN)),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe(recipe):
    """A recipe of the library is written as its name in `injectors`, and comes back as itself."""
    text = dump(recipe)
    content = json.loads(text)
    assert (f"injectors:{recipe.__name__}", {}) == (content["base"], content["overrides"])
    assert recipe is load(text)


@pytest.mark.parametrize("recipe", RECIPES)
def test_derived_from_each_recipe(recipe):
    """A recipe derived from one of the library comes back as what `let` derives, and pickles as that does."""
    derived = recipe.let(quant_delay_steps=3)
    back = load(dump(derived))
    assert derived is back
    assert back is pickle.loads(pickle.dumps(back))


@pytest.mark.parametrize("recipe", DERIVED.values(), ids=DERIVED)
def test_derived(recipe):
    """A recipe derived by a number, a part, a format or several comes back wired as it was."""
    back = load(dump(recipe))
    assert fingerprint(recipe) == fingerprint(back)
    assert str(explain(recipe)).split("\n")[1:] == str(explain(back)).split("\n")[1:]


def test_fingerprints_of_the_library():
    """No two recipes of the library build the same."""
    assert len(injectors.__all__) == len({fingerprint(getattr(injectors, name)) for name in injectors.__all__})


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Int4, Int8WeightPerTensor.let(bit_width=4)),
        (Int4, injectors.Int4WeightPerTensor),
        (Explicit, Int8WeightPerTensor),
        (MXFp4Weight, MXFp4Weight.let(group_size=32)),
        (MXFp4Weight, MXFp4Weight.let(block_format=copy.deepcopy(MXFp4Weight.block_format))),
    ],
    ids=["bits", "library", "part of a value", "number of a value", "format"],
)
def test_same_fingerprint(left, right):
    """Recipes that build the same quantizer have one fingerprint, whatever they are called and however declared."""
    assert fingerprint(left) == fingerprint(right)


# Whatever a text says


class Watch:
    """A finder of modules that finds none, and keeps what was looked for."""

    def __init__(self):
        self.sought = []

    def find_spec(self, name, path=None, target=None):
        self.sought.append(name)


ACME = """
from collections import OrderedDict
from brevq.inject import Injector, value
class Part:
    def __init__(self, bits=8): ...
class Recipe(Injector):
    tensor_quant = Part
    @value
    def bits():
        return 4
"""


@pytest.fixture(scope="module")
def watch(lasting_distribution):
    """What is looked for while a module of tests runs; everything that brevq itself imports is there already.

    So is a library that is installed; beside it stands a package that is none.
    """
    lasting_distribution("acme", {"acme": "acme.recipes"}, {"acme/__init__.py": "", "acme/recipes.py": ACME})
    lasting_distribution("other", {}, {"other.py": ACME})
    for package in (brevq, injectors, importlib.import_module("acme")):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    finder = Watch()
    sys.meta_path.insert(0, finder)
    yield finder
    sys.meta_path.remove(finder)


def refused_or_whole(text, watch):
    """Load a text: it gives a recipe with the fingerprint that it states, or an error of ours, and no foreign import.

    A text that lacks nothing but the right hash is loaded again with that.
    """
    watch.sought.clear()
    modules = set(sys.modules)
    try:
        recipe = load(text)
    except BrevqError as error:
        hashes = re.findall(r"^  (sha256:.*)$", str(error), re.MULTILINE)
        if "what it describes builds" in str(error):
            text = json.dumps({**json.loads(text), "fingerprint": hashes[-1]})
            assert hashes[-1] == fingerprint(load(text))
    else:
        assert json.loads(text)["fingerprint"] == fingerprint(recipe)
    foreign = [name for name in watch.sought if name.split(".")[0] not in ("brevq", "injectors", "acme")]
    assert ([], set()) == (foreign, set(sys.modules) - modules)


# What a text might name to do harm, and what it might name by mistake.
PATHS = st.sampled_from(
    [
        "os:system",
        "subprocess:Popen",
        "builtins:eval",
        "antigravity:x",
        "torch:load",
        "brevq.inject.injector:sys",
        "brevq.inject.injector:sys.modules",
        "brevq.inject.injector:importlib",
        "brevq.core.quant:nn.Module",
        "brevq.cli:main",
        "brevq.cli.quickstart:run",
        "brevq.__main__:x",
        "brevq.absent:x",
        "brevq.core.quant:IntQuant",
        "brevq.core.quant:IntQuant.forward.__globals__",
        "brevq.core.formats:FloatFormat",
        "brevq.core.formats:IntFormat",
        "brevq.core.formats:Special",
        "brevq.inject:supplied",
        "brevq.inject:value",
        "brevq.inject:Injector",
        "injectors:Int8WeightPerTensor",
        "injectors:Int4WeightPerChannel",
        "injectors.bases:IntParts.int_scaling_impl",
        "injectors.bases:IntParts.__own__",
        "injectors:",
        "acme.recipes:Recipe",
        "acme.recipes:Part",
        "acme.recipes:Recipe.bits",
        "acme.recipes:OrderedDict",
        "acme.absent:x",
        "other:Recipe",
        "other:Part",
        ":",
    ]
)
NAMES = st.sampled_from(
    ["bit_width", "tensor_quant", "scaling_impl", "signed", "float_format", "let", "__class__", "x_class", "", "name"]
)
FIELDS = st.sampled_from(
    [
        "class",
        "enum",
        "member",
        "attrs",
        "fields",
        "value",
        "this",
        "tuple",
        "float",
        "base",
        "overrides",
        "fingerprint",
    ]
)
NUMBERS = st.integers(-(2**15), 2**15) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | PATHS | NAMES | st.text(max_size=5)


def tagged(inner):
    """JSON objects of the kinds that a text has, with anything inside."""
    forms = {
        ("class",): {"class": PATHS},
        ("enum",): {"enum": PATHS, "member": NAMES | inner},
        ("attrs",): {"attrs": PATHS, "fields": st.dictionaries(NAMES, inner, max_size=3) | inner},
        ("value",): {"value": PATHS},
        ("this",): {"this": st.lists(st.tuples(st.sampled_from([".", "[]"]), NAMES | inner).map(list)) | inner},
        ("tuple",): {"tuple": inner},
        ("float",): {"float": st.sampled_from(["nan", "inf", "1"]) | inner},
        ("base",): {"base": PATHS | inner, "overrides": st.dictionaries(NAMES, inner, max_size=3) | inner},
    }
    return st.one_of(*map(st.fixed_dictionaries, forms.values()))


JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | NAMES, inner, max_size=3) | tagged(inner),
    max_leaves=8,
)
TAKEN = st.sampled_from(["bit_width", "signed", "role", "scaling_min_val", "tensor_quant", "int_scaling_impl"])
OVERRIDES = st.dictionaries(TAKEN, JSON, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), JSON, max_size=3)
TEXTS = [json.loads(dump(recipe)) for recipe in [*DERIVED.values(), Int8WeightPerTensor, MXFp4Weight]]
FUZZ = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow],
)


def places(content, path=()):
    """The paths to everything in a JSON value."""
    yield path
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, part in inner:
        yield from places(part, (*path, key))


def replaced(content, path, new):
    """A JSON value with something else at a path."""
    if not path:
        return new
    changed = copy.copy(content)
    changed[path[0]] = replaced(content[path[0]], path[1:], new)
    return changed


@st.composite
def mutants(draw):
    """The text of a recipe with one thing in it exchanged, whose hash fits or does not."""
    content = draw(st.sampled_from(TEXTS))
    path = draw(st.sampled_from(list(places(content))))
    return replaced(content, path, draw(JSON))


def test_an_installed_library_is_read(watch):
    """What an installed library has comes back from a text that names it, without the caller's leave."""
    recipe = importlib.import_module("acme.recipes").Recipe.let(bits=3)
    assert recipe is load(dump(recipe))


@FUZZ
@given(text=st.text() | JSON.map(json.dumps))
def test_any_text(watch, text):
    """Any text, and any JSON, is refused with an error of ours."""
    with pytest.raises(BrevqError):
        load(text)
    refused_or_whole(text, watch)


@FUZZ
@given(overrides=OVERRIDES, base=st.sampled_from([content["base"] for content in TEXTS]) | PATHS)
def test_any_overrides(watch, overrides, base):
    """A text of the right form, with anything in it, gives a whole recipe or an error of ours."""
    refused_or_whole(json.dumps({"brevq_recipe": 1, "base": base, "overrides": overrides, "fingerprint": ""}), watch)


@FUZZ
@given(content=mutants())
def test_mutants(watch, content):
    """A text in which one thing was exchanged gives a whole recipe or an error of ours."""
    refused_or_whole(json.dumps(content), watch)


@FUZZ
@given(data=st.data())
def test_cut_texts(watch, data):
    """A text from which characters were cut, or into which some were put, gives a whole recipe or an error of ours."""
    text = json.dumps(data.draw(st.sampled_from(TEXTS)))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    refused_or_whole(text[:start] + data.draw(st.text(max_size=5)) + text[end:], watch)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([ScaleRule.FIT, AbsMax, E8M0, Int4]),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=8,
)


def told(content):
    """A value as text that tells 0.0 from -0.0, 1 from True, and recipes by what they build."""
    if isinstance(content, (list, tuple)):
        return f"{type(content).__name__}({', '.join(map(told, content))})"
    return fingerprint(content) if content is Int4 or "bit_width=4" in repr(content) else repr(content)


@FUZZ
@given(content=VALUES)
def test_any_value(content):
    """Any value that can be written comes back the same."""
    recipe = Int8WeightPerTensor.let(role=content)
    back = load(dump(recipe), allowed=("brevq", "injectors", __name__))
    assert told(content) == told(back.__declared__["role"].content)
    assert fingerprint(recipe) == fingerprint(back)


def test_not_a_number():
    """NaN, whose payload is no part of a value, is one value in a fingerprint."""
    texts = {fingerprint(Int8WeightPerTensor.let(role=number)) for number in (math.nan, -math.nan, float("nan"))}
    assert 1 == len(texts)
