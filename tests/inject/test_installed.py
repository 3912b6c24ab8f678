"""Libraries of recipes are known by what their distributions declare, and none is imported for that."""

import json
import sys

import pytest

from brevq.errors import RecipeError
from brevq.inject import dump, load
from brevq.inject.installed import Library, installed, locate, package_of, packages

RECIPES = """
from brevq.inject import Injector

class Part:
    def __init__(self, bits=8): ...

class Recipe(Injector):
    tensor_quant = Part
"""


def theirs():
    """The libraries that are not ours."""
    return [library for library in installed() if library.distribution != "brevq"]


def test_our_own():
    """The recipes that come with brevq are declared as those of any distribution are."""
    found = [(it.name, it.module) for it in installed() if it.distribution == "brevq"]
    assert [("injectors", "injectors")] == found


def test_declared(distribution):
    """A library has the name and the module of its entry point, and the name and version of its distribution."""
    distribution("acme-quant", {"acme": "acme.recipes", "more": "acme.more"}, {}, version="1.2")
    acme = Library("acme", "acme.recipes", "acme-quant", "1.2")
    assert [acme, Library("more", "acme.more", "acme-quant", "1.2")] == theirs()
    assert "acme (acme.recipes, of acme-quant 1.2)" == str(acme)


def test_nothing_is_imported(distribution):
    """To know what is installed, and which packages these libraries are in, none of them is imported."""
    distribution("acme", {"acme": "acme.recipes"}, {"acme/__init__.py": "1 / 0", "acme/recipes.py": "1 / 0"})
    assert ("brevq", "injectors", "acme") == packages()
    assert "acme" not in sys.modules


def test_without_metadata(distribution):
    """A distribution that lacks its metadata is known all the same."""
    place = distribution("acme", {"acme": "acme"}, {"acme.py": ""})
    (place / "acme-1.0.dist-info" / "METADATA").unlink()
    assert [Library("acme", "acme", "?", "?")] == theirs()


def test_what_is_no_module(distribution):
    """An entry point that names no module is listed, and allows nothing."""
    distribution("acme", {"acme": "acme.recipes:RECIPES", "odd": "!"}, {})
    assert ["acme.recipes:RECIPES", "!"] == [library.module for library in theirs()]
    assert [False, False] == [library.is_module for library in theirs()]
    assert ("brevq", "injectors") == packages()


def test_package_in_a_namespace(distribution):
    """The package of a library in a namespace is the part below, since others share the namespace."""
    distribution("acme", {"acme": "corp.quant.recipes"}, {"corp/quant/__init__.py": "", "corp/quant/recipes.py": ""})
    assert "corp.quant" == package_of("corp.quant.recipes")
    assert "corp.quant" in packages()
    assert "corp" not in packages()


@pytest.mark.parametrize(
    ("module", "found"),
    [("json.decoder", "json.decoder"), ("sys", "sys"), ("json.absent", None), ("absent.x", None), ("sys.x", None)],
)
def test_locate(module, found):
    """A module is found below its packages, which are not imported, or is not."""
    spec = locate(module)
    assert found == (None if spec is None else spec.name)


# What `load` imports from


def text(base, **overrides):
    """A text that describes a recipe, with a hash that fits no recipe."""
    return json.dumps({"brevq_recipe": 1, "base": base, "overrides": overrides, "fingerprint": ""})


def told(*arguments):
    """What `load` says is wrong."""
    with pytest.raises(RecipeError) as error:
        load(*arguments)
    return str(error.value)


def test_load_from_an_installed_library(distribution):
    """By default a text may name what installed libraries have, in any module of their packages."""
    files = {"acme/__init__.py": "", "acme/recipes.py": RECIPES, "acme/parts.py": RECIPES}
    distribution("acme", {"acme": "acme.recipes"}, files)
    from acme.parts import Part  # noqa: PLC0415  # it is installed now
    from acme.recipes import Recipe  # noqa: PLC0415  # as above

    recipe = Recipe.let(tensor_quant=Part)
    assert recipe is load(dump(recipe))


def test_load_from_what_is_no_library(distribution):
    """What is installed and declares no library is refused, and not imported."""
    distribution("acme", {"acme": "acme"}, {"acme.py": RECIPES})
    distribution("other", {}, {"other.py": RECIPES})
    fault = "`x` (='other:Part') is of `other`, which is not allowed: allowed are brevq, injectors, acme."
    assert fault in told(text("acme:Recipe", x={"class": "other:Part"}))
    assert "other" not in sys.modules


def test_load_from_allowed_alone(distribution):
    """What a caller allows takes the place of what is installed."""
    distribution("acme", {"acme": "acme"}, {"acme.py": RECIPES})
    assert "which is not allowed: allowed are brevq." in told(text("acme:Recipe"), ["brevq"])
    assert "acme" not in sys.modules
    assert "The text says that it builds" in told(text("acme:Recipe"), ["acme"])


def test_library_that_borrows_a_name(distribution):
    """A library lends its permission to nothing that it has imported from elsewhere."""
    distribution("acme", {"acme": "acme"}, {"acme.py": f"{RECIPES}\nfrom collections import OrderedDict"})
    assert "is a name for something of `collections`, which is not allowed" in told(
        text("acme:Recipe", x={"class": "acme:OrderedDict"})
    )
