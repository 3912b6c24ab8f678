"""Recipes become text and come back; what can not be written or must not be read is refused by name."""

import enum
import json
import math
import pickle
import re
import sys
import textwrap
from collections import OrderedDict  # noqa: F401  # a text must not reach it by the name of this module

import attrs
import pytest

from brevq.errors import ArgumentTypeError, RecipeError
from brevq.inject import Injector, build, dump, fingerprint, load, supplied, this, value

HERE = (__name__, "brevq")


class Rule(enum.Enum):
    FLOOR = "floor"
    CEIL = "ceil"


class Flags(enum.Flag):
    A = 1
    B = 2


def _positive(instance, attribute, bits):
    if bits < 1:
        raise ValueError(f"bits (={bits}) must be positive")


@attrs.frozen
class Format:
    name: str
    bits: int = attrs.field(validator=_positive)
    rule: Rule = Rule.FLOOR
    _inner: "Format | None" = None
    wide: bool = attrs.field(init=False, default=False)


@attrs.define
class Mutable:
    bits: int


class Grid:
    def __init__(self, bit_width, levels=4, signed=True, scale_impl=None, reference=None, kind_class=None):
        self.bit_width = bit_width
        self.levels = levels
        self.signed = signed
        self.scale_impl = scale_impl
        self.reference = reference
        self.kind_class = kind_class


class Scale:
    def __init__(self, factor=1.0, tensor_shape=()):
        self.factor = factor
        self.tensor_shape = tensor_shape


class Recipe(Injector):
    """Eight bits."""

    tensor_quant = Grid
    bit_width = 8


class Levels(Recipe):
    @value
    def levels(bit_width):
        return 2**bit_width


class Picked(Recipe):
    @value
    def scale_impl(bit_width):
        return Scale if bit_width > 4 else None


class Shaped(Recipe):
    scale_impl = Scale
    tensor_shape = supplied("shape of the weight")


class Open(Recipe):
    tensor_shape = supplied("shape of the weight")

    @value
    def scale_impl(tensor_shape):
        return Scale if tensor_shape else None


class Ranged(Injector):
    tensor_quant = Grid
    bit_width = 8
    scale_impl = Scale
    factor = 2.0


class Narrow(Injector):
    bit_width = 3


class Unscaled(Injector):
    tensor_quant = Grid
    bit_width = 8
    levels = 7
    signed = True
    scale_impl = None


class Outer(Injector):
    class Inner(Injector):
        bits = 1


@value
def halved(bit_width):
    return bit_width // 2


def plain_function(bit_width):
    return bit_width


Four = Recipe.let(bit_width=4)
MODULE_LEVEL_FUNCTION = Recipe.let(reference=plain_function)


class WithFunction(Recipe):
    reference = plain_function


def written(recipe):
    """What the text of a recipe says of it."""
    content = json.loads(dump(recipe))
    return content["base"].replace(__name__, "here"), content["overrides"]


def again(recipe, allowed=HERE):
    return load(dump(recipe), allowed)


def changed(recipe, **fields):
    """The text of a recipe with other fields."""
    return json.dumps({**json.loads(dump(recipe)), **fields})


def told(call, *arguments):
    """The text of the RecipeError that a call raises."""
    with pytest.raises(RecipeError) as error:
        call(*arguments)
    return str(error.value).replace(__name__, "here")


def overridden(**overrides):
    """What loading a text with these overrides, as JSON, says is wrong with them."""
    head, fault = told(load, changed(Recipe, overrides=overrides), HERE).split("\n\n", maxsplit=1)
    assert head.startswith("Can not load the recipe")
    return fault


def local():
    class Local(Recipe):
        """Four bits."""

        bit_width = 4

    return Local


def test_whole_text():
    """A text states its version, the base by its shortest path, the overrides by name, and a hash."""
    expected = """
        {
          "brevq_recipe": 1,
          "base": "brevq.inject:Injector",
          "overrides": {
            "bits": 4,
            "tensor_quant": {
              "class": "builtins:dict"
            }
          },
          "fingerprint": "sha256:6b5a"
        }"""
    text = dump(Injector.let(tensor_quant=OpenDict, bits=4)).replace(f"{__name__}:OpenDict", "builtins:dict")
    assert textwrap.dedent(expected).strip() == re.sub("(sha256:)[0-9a-f]{64}", r"\g<1>6b5a", text)


class OpenDict(dict):
    """A dict that says what it takes."""

    def __init__(self, bits):
        super().__init__(bits=bits)


@pytest.mark.parametrize(
    ("recipe", "base", "overrides"),
    [
        (Recipe, "here:Recipe", {}),
        (Levels, "here:Levels", {}),
        (Recipe.let(bit_width=4), "here:Recipe", {"bit_width": 4}),
        (Recipe.let(bit_width=4).let(signed=False, bit_width=3), "here:Recipe", {"bit_width": 3, "signed": False}),
        (Recipe.let(bit_width=4).let(bit_width=8), "here:Recipe", {}),
        (Four, "here:Recipe", {"bit_width": 4}),
        (local(), "here:Recipe", {"bit_width": 4}),
        (local().let(signed=False), "here:Recipe", {"bit_width": 4, "signed": False}),
    ],
    ids=["module level", "value", "let", "let of let", "let back", "named let", "local", "let of local"],
)
def test_base_and_overrides(recipe, base, overrides):
    """The base is the nearest recipe that can be imported; the overrides are what is declared differently."""
    assert (base, overrides) == written(recipe)


def test_local_recipe_with_two_bases():
    """The nearest of two bases is that with the fewest differences; the other's names become overrides."""

    class Both(Narrow, Ranged):
        signed = False

    assert ("here:Ranged", {"bit_width": 3, "signed": False}) == written(Both)
    built = build(again(Both))
    assert (3, False, 2.0) == (built.bit_width, built.signed, built.scale_impl.factor)


def test_names_of_a_lost_base():
    """A name that only a replaced part of the other base takes is left out: nothing is built with it."""

    class Both(Unscaled, Ranged):
        pass

    assert ("here:Unscaled", {}) == written(Both)
    assert fingerprint(Both) == fingerprint(again(Both))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (True, True),
        (1, 1),
        (1.0, 1.0),
        (-0.0, -0.0),
        (1e-10, 1e-10),
        (10**30, 10**30),
        (math.inf, {"float": "inf"}),
        (-math.inf, {"float": "-inf"}),
        (math.nan, {"float": "nan"}),
        ("säule \ud800\x00", "säule \ud800\x00"),
        (None, None),
        ((), {"tuple": []}),
        ([1, (2.5, "x")], [1, {"tuple": [2.5, "x"]}]),
        (Rule.CEIL, {"enum": "here:Rule", "member": "CEIL"}),
        (this.bit_width, {"this": [[".", "bit_width"]]}),
        (
            Format("four", 4, inner=Format("two", 2, Rule.CEIL)),
            {
                "attrs": "here:Format",
                "fields": {
                    "name": "four",
                    "bits": 4,
                    "rule": {"enum": "here:Rule", "member": "FLOOR"},
                    "inner": {
                        "attrs": "here:Format",
                        "fields": {
                            "name": "two",
                            "bits": 2,
                            "rule": {"enum": "here:Rule", "member": "CEIL"},
                            "inner": None,
                        },
                    },
                },
            },
        ),
        (supplied("a shape"), {"attrs": "brevq.inject:supplied", "fields": {"what": "a shape"}}),
        (halved, {"value": "here:halved"}),
        (Levels.__own__["levels"], {"value": "here:Levels.levels"}),
        (Outer.Inner, {"base": "here:Outer.Inner", "overrides": {}}),
        (Outer.Inner.let(bits=(1,)), {"base": "here:Outer.Inner", "overrides": {"bits": {"tuple": [1]}}}),
    ],
    ids=lambda content: f"{content!r:.40}",
)
def test_content(content, text):
    """What a recipe may declare has a form of its own, from which the same comes back."""
    recipe = Recipe.let(reference=content)
    back = again(recipe).__declared__["reference"].content
    assert json.dumps({"reference": text}) == json.dumps(written(recipe)[1]).replace(__name__, "here")
    assert (type(content), repr(content)) == (type(back), repr(back))


def test_steps_of_a_reference():
    """A reference to items and attributes of a name comes back as it was."""
    recipe = Shaped.let(levels=this.tensor_shape[0], reference=this.tensor_shape["a"].size)
    back = again(recipe).__declared__
    assert (this.tensor_shape[0], this.tensor_shape["a"].size) == (back["levels"].content, back["reference"].content)


def test_classes():
    """A class is written by its path, whether it is built or passed as it is."""
    recipe = Recipe.let(scale_impl=Scale, kind_class=Grid)
    assert {"class": f"{__name__}:Scale"} == written(recipe)[1]["scale_impl"]
    built = build(again(recipe))
    assert (Scale, Grid) == (type(built.scale_impl), built.kind_class)


def test_loaded_is_derived():
    """What is loaded is what `let` derives, and pickles as that does."""
    loaded = load(dump(local()), HERE)
    assert Recipe.let(bit_width=4) is loaded
    assert loaded is pickle.loads(pickle.dumps(loaded))
    assert Recipe is again(Recipe)


def test_same_text_in_any_order():
    """The order of overrides leaves no trace in the text."""
    assert dump(Recipe.let(signed=False, levels=3)) == dump(Recipe.let(levels=3).let(signed=False))


# Fingerprints


class Renamed(Recipe):
    """Another name, another docstring."""


class Explicit(Recipe):
    levels = 4
    scale_impl = None


class Chosen(Recipe):
    scale_impl = Scale


class Named(Recipe):
    scale_impl = Scale
    factor = this.bit_width


class Inert(Chosen):
    scale_impl = None
    factor = 3.0  # taken by the part that was replaced


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Recipe, Renamed),
        (Recipe.let(bit_width=4), local()),
        (Recipe, Explicit),
        (Recipe, Inert),
        (Picked, Chosen),
        (Picked.let(bit_width=4), Recipe.let(bit_width=4)),
        (Levels, Recipe.let(levels=256)),
        (Levels.let(bit_width=2), Recipe.let(bit_width=2)),
        (Named, Chosen.let(factor=8)),
        (Shaped, Shaped.let(tensor_shape=supplied("a shape"))),
        (Recipe.let(reference=Recipe), Recipe.let(reference=Renamed)),
        (Recipe.let(reference=float("nan")), Recipe.let(reference=math.nan)),
        (WithFunction, WithFunction.let(levels=4)),
    ],
    ids=lambda recipe: recipe.__name__,
)
def test_same_fingerprint(left, right):
    """Recipes that build the same have one fingerprint."""
    assert fingerprint(left) == fingerprint(right)


DIFFERENT = [
    Recipe,
    *(Recipe.let(bit_width=bits) for bits in (1, 1.0, True, 0, 0.0, -0.0, "1", None, (1,), [1])),
    Recipe.let(signed=False),
    Recipe.let(signed=True),
    Recipe.let(signed=1),
    Recipe.let(role="weight"),
    Recipe.let(levels=256),
    Recipe.let(reference=Rule.FLOOR),
    Recipe.let(reference=Rule.CEIL),
    Recipe.let(reference="FLOOR"),
    Recipe.let(reference=Format("a", 4)),
    Recipe.let(reference=Format("b", 4)),
    Recipe.let(reference=Recipe),
    Recipe.let(reference=Four),
    Recipe.let(reference=Outer.Inner),
    Recipe.let(reference=Outer.Inner.let(bits=2)),
    Recipe.let(kind_class=Scale),
    Recipe.let(kind_class=Grid),
    Chosen,
    Shaped,
    Shaped.let(levels=this.tensor_shape),
    Open,
    Open.let(factor=2.0),
    Open.let(factor=3.0),
    Open.let(bit_width=4),
    WithFunction,
]


def test_different_fingerprints():
    """Recipes that build differently have different fingerprints."""
    assert len(DIFFERENT) == len({fingerprint(recipe) for recipe in DIFFERENT})


def test_lasting_fingerprint():
    """A fingerprint is the same in every process and under every Python."""
    recipe = Injector.let(tensor_quant=dict)
    assert "sha256:31dac1b1a4f265a6f90f7465ee18f1e7182fd3bfafd4e241b51ae1b0a5931256" == fingerprint(recipe)


# What can not be written


def test_faults_of_dump():
    """All that can not be written is listed, each with its name, what it is, and the way out."""

    class Part:
        pass

    class Own(Recipe):
        scale_impl = Part
        reference = (1, lambda x: x, object)
        kind_class = Mutable(4)
        signed = Flags.A | Flags.B

        @value
        def levels(bit_width):
            return bit_width

    message = re.sub(r" at 0x[0-9a-f]+", "", told(dump, Own))
    assert (
        """
Can not write Own: 5 faults.

1. `kind_class` (=Mutable(bits=4)) is an instance of Mutable, which can not be written.
   What can: numbers, strings, None, lists, tuples, Enum members, attrs.frozen data, classes and recipes.
   Declare one of them, or declare it in a recipe at the top level of a module, and derive from that recipe.

2. `levels` (=@value levels) can not be imported: `here` has no `@value` under the name `QUALNAME.levels`.
   Define it at the top level of a module that others can import.

3. `reference[1]` (=<lambda>) is a function, which can not be written.
   Compute the name with a `@value`, in a recipe at the top level of a module, and derive from that recipe.

4. `scale_impl` (=Part) can not be imported: `here` has no class under the name `test_faults_of_dump.<locals>.Part`.
   Define it at the top level of a module that others can import.

5. `signed` (=FLAGS) is an instance of Flags, which can not be written.
   What can: numbers, strings, None, lists, tuples, Enum members, attrs.frozen data, classes and recipes.
   Declare one of them, or declare it in a recipe at the top level of a module, and derive from that recipe.
""".strip()
        .replace("FLAGS", repr(Flags.A | Flags.B))
        .replace("QUALNAME", Own.__qualname__)
        == message
    )


def test_places_of_faults():
    """What stands inside a format or a recipe is told by its place in it."""
    inner = Recipe.let(kind_class=Format("x", 4, rule=lambda: 0))
    assert (
        """
Can not write Recipe.let(reference=Recipe.let(kind_class=Format(name='x'...).

`reference.kind_class.rule` (=<lambda>) is a function, which can not be written.
Compute the name with a `@value`, in a recipe at the top level of a module, and derive from that recipe.
""".strip()
        == told(dump, Recipe.let(reference=inner))
    )


def test_faults_of_the_recipe():
    """A recipe that can not be built can not be written, and its faults are listed beside the others."""
    assert (
        """
Can not write Recipe.let(bitwidth=4, reference=<lambda>): 2 faults.

1. `reference` (=<lambda>) is a function, which can not be written.
   Compute the name with a `@value`, in a recipe at the top level of a module, and derive from that recipe.

2. Nothing takes `bitwidth`, which Recipe.let(...) declares. Did you mean `bit_width`?
""".strip()
        == told(dump, Recipe.let(bitwidth=4, reference=lambda: 0))
    )
    assert (
        """
Can not take the fingerprint of Recipe.let(bitwidth=4).

Nothing takes `bitwidth`, which Recipe.let(...) declares. Did you mean `bit_width`?
""".strip()
        == told(fingerprint, Recipe.let(bitwidth=4))
    )


def test_function_in_an_importable_recipe():
    """What a recipe with a path declares need not be written: its path stands for it."""
    assert ("here:WithFunction", {"levels": 3}) == written(WithFunction.let(levels=3))
    assert "`reference` (=plain_function) is a function" in told(dump, MODULE_LEVEL_FUNCTION)


def test_private_reference():
    """A reference to what is private is not written, because it would not be read."""
    assert (
        """
Can not write Recipe.let(reference=this.bit_width._value).

`reference` (=this.bit_width._value) refers to a name that begins with an underscore.
Refer to a public name.
""".strip()
        == told(dump, Recipe.let(reference=this.bit_width._value))
    )


def test_endless_list():
    """A list that holds itself is refused."""
    endless = []
    endless.append(endless)
    assert told(dump, Recipe.let(reference=endless)).endswith(
        "It is nested too deeply, or its names refer to each other too often."
    )


def test_defined_in_main(python, tmp_path):
    """A class of the main program has no path that another program could import."""
    code = """
    from brevq.inject import Injector, dump
    class Part: pass
    class Recipe(Injector):
        tensor_quant = Part
    try:
        dump(Recipe)
    except ValueError as error:
        print(error)
    """
    assert (
        """
Can not write Recipe.

`tensor_quant` (=Part) can not be imported: `__main__` has no class under the name `Part`.
Define it at the top level of a module that others can import.
""".strip()
        == python(textwrap.dedent(code)).stdout.strip()
    )


@pytest.mark.parametrize("call", [dump, fingerprint])
def test_no_recipe(call):
    """What is no recipe is refused."""
    with pytest.raises(ArgumentTypeError, match=r"`recipe` \(=4\) must be a recipe"):
        call(4)


# What must not be read


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "The text is no JSON: Expecting value: line 1 column 1 (char 0)."),
        ("[1]", "The text is no JSON object, as `dump` writes it, but [1]."),
        ("NaN", 'The text is no JSON: it has NaN, which is written {"float": "..."}.'),
        ("[-1e400]", 'The number -1e400 is too large for a float. Infinity is written {"float": "inf"}.'),
        ('{"base": 1, "base": 2}', "A JSON object has the field `base` twice."),
        ("[" * 100_000, "It is nested too deeply, or its names refer to each other too often."),
        (
            '{"brevq_recipe": 2, "parts": []}',
            "The text has version 2 of the schema (`brevq_recipe`), and this brevq reads version 1.\n"
            "Write it anew with this brevq, or install one that reads it.",
        ),
        (
            '{"brevq_recipe": true}',
            "The text has version True of the schema (`brevq_recipe`), and this brevq reads version 1.\n"
            "Write it anew with this brevq, or install one that reads it.",
        ),
    ],
    ids=lambda text: text[:20],
)
def test_no_text_of_a_recipe(text, fault):
    """What is no JSON object of this version is refused, with what is wrong."""
    assert f"Can not load the recipe.\n\n{fault}" == told(load, text)


def test_fields():
    """Fields that are missing and fields that mean nothing are all named."""
    assert (
        """
Can not load the recipe: 4 faults.

1. The text lacks the field `brevq_recipe`.

2. The text lacks the field `overrides`.

3. The text lacks the field `fingerprint`.

4. The text has a field `colour`, which means nothing there.
""".strip()
        == told(load, '{"base": "injectors:Int8WeightPerTensor", "colour": 1}')
    )


@pytest.mark.parametrize("text", [None, b"{}", 4])
def test_no_string(text):
    """What is no string is refused."""
    with pytest.raises(ArgumentTypeError, match="must be a string, which `dump` wrote"):
        load(text)


@pytest.mark.parametrize("allowed", ["brevq", [4]])
def test_allowed_is_a_collection_of_names(allowed):
    """One string in the place of a collection of them is refused."""
    with pytest.raises(ArgumentTypeError, match=r"`allowed` \(=.*\) must be a collection of names of packages"):
        load("{}", allowed)


def test_changed_text():
    """A text whose overrides no longer fit its hash is refused, and says how to accept it."""
    message = told(load, changed(Recipe, overrides={"bit_width": 3}), HERE)
    assert (
        f"""
Can not load the recipe.

The text says that it builds
  {fingerprint(Recipe)}
and what it describes builds
  {fingerprint(Recipe.let(bit_width=3))}
It was changed after it was written, or a package that it names has changed since.
Write it anew from its source; or, to accept what it describes, put the second line in the place of the first.
""".strip()
        == message
    )


def test_faults_of_what_is_described():
    """A text that describes a recipe with faults is refused with those."""
    assert "Nothing takes `bitwidth`, which Recipe.let(...) declares. Did you mean `bit_width`?" == overridden(
        bitwidth=4
    )


HIDDEN = "{place} (={path!r}) is no import path, `package.module:Name`, or has a name that begins with two underscores."


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        (
            {"class": "os:system"},
            "`x` (='os:system') is of `os`, which is not allowed: allowed are here, brevq.\n"
            "If you trust it: load(text, allowed=(..., 'os')).",
        ),
        (
            {"class": "brevqx:Part"},
            "`x` (='brevqx:Part') is of `brevqx`, which is not allowed: allowed are here, brevq.\n"
            "If you trust it: load(text, allowed=(..., 'brevqx')).",
        ),
        (
            {"class": "here:OrderedDict"},
            "`x` (='here:OrderedDict') is a name for something of `collections`, which is not allowed: allowed are "
            "here, brevq.\nIf you trust it: load(text, allowed=(..., 'collections')).",
        ),
        *(
            ({"class": path}, HIDDEN.format(place="`x`", path=path))
            for path in [
                "brevq",
                ":",
                "brevq:",
                "brevq:a:b",
                "brevq.__main__:main",
                "here:Grid.__init__",
                ".:x",
                4,
                None,
            ]
        ),
        (
            {"class": "brevq.absent:Part"},
            "`x` (='brevq.absent:Part') can not be imported: ModuleNotFoundError: No module named 'brevq.absent'.",
        ),
        ({"class": "here:Absent"}, "`x` (='here:Absent') does not exist: there is no `Absent` in here."),
        (
            {"class": "here:DIFFERENT.copy"},
            "`x` (='here:DIFFERENT.copy') does not exist: there is no `DIFFERENT.copy` in here.",
        ),
        ({"class": "here:Recipe"}, "`x` (='here:Recipe') must be a class, and no recipe, and is a recipe."),
        ({"class": "here:local"}, "`x` (='here:local') must be a class, and no recipe, and is of type function."),
        ({"enum": "here:Grid", "member": "A"}, "`x` (='here:Grid') must be an Enum class, and is another class."),
        ({"enum": "here:Rule", "member": "mro"}, "`x` (='mro') must be a member of Rule: FLOOR, CEIL."),
        ({"enum": "here:Rule", "member": [1]}, "`x` (=[1]) must be a member of Rule: FLOOR, CEIL."),
        (
            {"attrs": "here:Mutable", "fields": {"bits": 4}},
            "`x` (='here:Mutable') must be a class made by attrs.frozen, and is another class.",
        ),
        ({"attrs": "here:Format", "fields": []}, "`x` (=[]) must be a JSON object."),
        (
            {"attrs": "here:Format", "fields": {"name": "a", "bits": 0, "rule": None, "inner": None}},
            "`x` can not be made: ValueError: bits (=0) must be positive",
        ),
        ({"value": "here:local"}, "`x` (='here:local') must be a `@value`, and is of type function."),
        (
            {"base": "here:Grid", "overrides": {}},
            "`x.base` (='here:Grid') must be a recipe, and is another class.",
        ),
        ({"base": "here:Recipe", "overrides": [1]}, "`x.overrides` (=[1]) must be a JSON object."),
        ({"float": "1.5"}, "`x` (='1.5') must be 'inf', '-inf' or 'nan'."),
        ({"float": [1]}, "`x` (=[1]) must be 'inf', '-inf' or 'nan'."),
        ({"tuple": 4}, "`x` (=4) must be a tuple, written as a JSON array."),
        *(
            (
                {"this": steps},
                f'`x` (={steps!r}) must be steps to public names, [".", name], and to items, ["[]", key].',
            )
            for steps in [
                4,
                [1],
                [[".", "__class__"]],
                [[".", "_x"]],
                [["[]", True]],
                [["()", "x"]],
                [[[], "x"]],
                [[".", []]],
            ]
        ),
        (
            {"eval": "1"},
            "`x` is a JSON object with the fields 'eval', which stands for nothing.\n"
            "Those that do have one of these sets of fields: float; tuple; class; enum, member; attrs, fields; value; "
            "this; base, overrides.",
        ),
        ([1, {"float": "x"}], "`x[1]` (='x') must be 'inf', '-inf' or 'nan'."),
    ],
    ids=lambda override: f"{override!r:.40}",
)
def test_faults_of_an_override(override, fault):
    """Whatever stands for nothing, or for what must not be read, is refused by its place, its value and the rule."""
    text = json.loads(json.dumps(override).replace('"here:', f'"{__name__}:'))
    assert fault == overridden(x=text)


def test_all_faults_of_a_text():
    """The faults of the base, of all overrides and of what is in them are told together."""
    text = changed(Recipe, base="os:path", overrides={"a": {"tuple": [{"class": "sys:x"}, {"float": 1}]}, "b": {}})
    message = told(load, text, HERE)
    assert "Can not load the recipe: 4 faults." == message.split("\n")[0]
    assert ["`base`", "`a[0]`", "`a[1]`", "`b`"] == re.findall(r"^\d\. (`.*?`)", message, re.MULTILINE)


def test_fields_of_data():
    """An instance is made from all its fields and from no others."""
    fields = {"name": "a", "rule": None, "inner": None, "wide": True}
    assert (
        """
1. `x`, of class Format, lacks the field `bits`.

2. `x`, of class Format, has a field `wide`, which means nothing there.
""".strip()
        == overridden(x={"attrs": f"{__name__}:Format", "fields": fields})
    )


@pytest.mark.parametrize("name", ["__doc__", "__module__", "a b", "", "class", "1"])
def test_names_of_overrides(name):
    """Only names that the body of a recipe could declare are overridden."""
    assert f"The text overrides {name!r}, which is no name that a recipe can declare." == overridden(**{name: "x"})


def test_methods_of_recipes():
    """Nor are the methods of recipes overridden."""
    fault = "Recipe.let(let=4) declares `let`, which is a method of every recipe: choose another name"
    assert fault == overridden(let=4)


def test_deep_texts():
    """Nesting beyond any use, and endless chains of references, are refused."""
    deep = json.loads("[" * 70 + "]" * 70)
    assert overridden(x=deep).endswith("is nested more than 64 deep.")
    chain = {f"a{i}": {"this": [[".", f"a{i + 1}"]]} for i in range(3000)} | {"bit_width": {"this": [[".", "a0"]]}}
    assert "It is nested too deeply, or its names refer to each other too often." == overridden(**chain)


def test_huge_number():
    """A number with more digits than Python reads is refused, where Python refuses it."""
    text = changed(Recipe, overrides={"bit_width": 0}).replace('"bit_width": 0', '"bit_width": ' + "1" * 5000)
    assert told(load, text, HERE).startswith("Can not load the recipe.\n\nThe text ")


# What is imported


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two packages that say when they are imported, and one that can not be."""
    source = """
    from brevq.inject import Injector, value
    class Part:
        def __init__(self, x=1): ...
    class Recipe(Injector):
        tensor_quant = Part
    """
    for name in ("acme_good", "acme_bad"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "recipes.py").write_text(textwrap.dedent(source))
    (tmp_path / "acme_broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    for name in [name for name in sys.modules if name.startswith("acme_")]:
        del sys.modules[name]


TEXT = {
    "brevq_recipe": 1,
    "base": "acme_good.recipes:Recipe",
    "overrides": {"x": {"class": "acme_bad.recipes:Part"}},
    "fingerprint": "",
}


def test_nothing_else_is_imported(packages):
    """What is not allowed is refused before it is imported, and what is allowed is imported."""
    assert (
        """
Can not load the recipe.

`x` (='acme_bad.recipes:Part') is of `acme_bad`, which is not allowed: allowed are acme_good.
If you trust it: load(text, allowed=(..., 'acme_bad')).
""".strip()
        == told(load, json.dumps(TEXT), ["acme_good"])
    )
    assert ["acme_good", "acme_good.recipes"] == sorted(name for name in sys.modules if name.startswith("acme_"))


def test_allowed_module(packages):
    """A single module can be allowed."""
    text = json.dumps(TEXT | {"overrides": {}})
    assert "is of `acme_good`, which is not allowed" in told(load, text, ["acme_good.recip"])
    assert "The text says that it builds" in told(load, text, ["acme_good.recipes"])


def test_nothing_is_allowed():
    """With nothing allowed, nothing is read."""
    assert "which is not allowed: allowed are none." in told(load, dump(Recipe), ())


def test_broken_module(packages):
    """A module that raises when it is imported is told with its error."""
    with pytest.raises(RecipeError) as error:
        load(json.dumps(TEXT | {"base": "acme_broken:Recipe", "overrides": {}}), ["acme_broken"])
    fault = "`base` (='acme_broken:Recipe') can not be imported: ZeroDivisionError: division by zero."
    assert f"Can not load the recipe.\n\n{fault}" == str(error.value)
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_module_that_exits(packages, tmp_path):
    """A module that ends the process when it is imported, as scripts do, ends nothing."""
    (tmp_path / "acme_script.py").write_text("raise SystemExit(0)")
    text = json.dumps(TEXT | {"base": "acme_script:Recipe", "overrides": {}})
    assert "`base` (='acme_script:Recipe') can not be imported: SystemExit: 0." in told(load, text, ["acme_script"])


def test_another_process(python, tmp_path):
    """A text that one process writes is read by another, whatever that has imported."""
    (tmp_path / "carpool.py").write_text(
        textwrap.dedent("""
        from brevq.inject import Injector
        class Part:
            def __init__(self, bits): self.bits = bits
        class Recipe(Injector):
            tensor_quant = Part
            bits = 8
        """)
    )
    wrote = python("import carpool, brevq.inject as i; print(i.dump(carpool.Recipe.let(bits=(3, 4))))")
    (tmp_path / "recipe.json").write_text(wrote.stdout)
    code = "import brevq.inject as i; print(i.build(i.load(open('recipe.json').read(), ['carpool'])).bits)"
    assert "(3, 4)\n" == python(code).stdout
