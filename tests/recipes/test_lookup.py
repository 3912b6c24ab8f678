"""Recipes of all installed libraries are listed, and found by name."""

import pickle
import subprocess
import sys

import pytest

import brevq
import injectors
from brevq import recipes
from brevq.errors import ArgumentTypeError
from brevq.inject import Injector
from brevq.recipes import LibraryError, RecipeLookupError
from injectors.bases import IntWeight


def names(*arguments, **filters):
    """The names of the recipes that are listed."""
    return [record.name for record in recipes.list(*arguments, **filters)]


def told(error, call, *arguments):
    """The text of the error that a call raises."""
    with pytest.raises(error) as caught:
        call(*arguments)
    return str(caught.value)


# The library that comes with brevq


def test_all_recipes_of_brevq_are_listed():
    """The list has what `injectors` exports, in that order, and no bases."""
    assert injectors.__all__ == names("injectors")


@pytest.mark.parametrize("name", injectors.__all__)
def test_every_recipe_is_found(name):
    """A recipe is found by its name alone, and with its library before it."""
    assert getattr(injectors, name) is recipes.get(name)
    assert getattr(injectors, name) is recipes.get(f"injectors:{name}")


def test_base():
    """A base is found with the module that has it before it, and not without."""
    assert IntWeight is recipes.get("injectors.bases:IntWeight")
    assert "No installed library has a recipe `IntWeight`." in told(RecipeLookupError, recipes.get, "IntWeight")


def test_filters():
    """Bits and role choose, alone and together."""
    assert ["BinaryActPerTensor", "BinaryWeightPerChannel"] == names("injectors", bits=1)[:2]
    assert {"bias"} == {record.role for record in recipes.list(role="bias")}
    assert ["Int8Bias", "Int8BiasPerTensor", "Int8BiasPerTensorPoT"] == names("injectors", 8, "bias")
    assert [] == names(bits=7)


def test_wrong_filters():
    """A role, a library or bits that do not exist are refused, with what there is."""
    assert (
        "No recipe has the role `wieght`: roles are activation, bias, truncation, weight. Did you mean `weight`?"
        == told(RecipeLookupError, recipes.list, None, None, "wieght")
    )
    assert "No library `injector` is installed: there are injectors. Did you mean `injectors`?" == told(
        RecipeLookupError, recipes.list, "injector"
    )
    assert "`bits` (='4') must be a whole number" == told(ArgumentTypeError, recipes.list, None, "4")


def test_unknown_names():
    """An unknown name is told with the nearest, in a library, a module of it, and everywhere."""
    assert "No installed library has a recipe `Int8WeightPertensor`. Did you mean `Int8WeightPerTensor`?" == told(
        RecipeLookupError, recipes.get, "Int8WeightPertensor"
    )
    assert "No installed library has a recipe `Zyx`. `brevq list` shows those that are installed." == told(
        RecipeLookupError, recipes.get, "Zyx"
    )
    stock = f"Library injectors (injectors, of brevq {brevq.__version__})"
    assert f"{stock} has no recipe `Int8Biass`. Did you mean `Int8Bias`?" == told(
        RecipeLookupError, recipes.get, "injectors:Int8Biass"
    )
    assert f"{stock} has no recipe `IntWieght`. Did you mean `IntWeight`?" == told(
        RecipeLookupError, recipes.get, "injectors.bases:IntWieght"
    )
    assert f"{stock} has no module `injectors.weights`: No module named 'injectors.weights'" == told(
        RecipeLookupError, recipes.get, "injectors.weights:Int8WeightPerTensor"
    )
    assert f"{stock} has no recipe `weight.AbsAve`." == told(RecipeLookupError, recipes.get, "injectors:weight.AbsAve")
    assert "`name` (=4) must be a string, such as 'Int8WeightPerTensor'" == told(ArgumentTypeError, recipes.get, 4)


# Libraries of others


def test_library(acme):
    """A library without `__all__` has the recipes that it defines; its base is apart, what it imports is left out."""
    acme()
    assert ["Int3Weight", "Int5Weight"] == names("acme")
    assert ("NarrowWeight",) == recipes.contents_of(recipes.library("acme")).bases
    assert (3, 5) == (recipes.get("Int3Weight").bit_width, recipes.get("acme:Int5Weight").bit_width)
    assert "acme:Int3Weight" == recipes.record("Int3Weight").prefixed
    assert "a paper" == recipes.record("acme:Int3Weight").source


def test_all_decides(acme):
    """With `__all__` a library has what that names, also what it has imported."""
    acme(source="from injectors import Int8Bias, Int8ActPerTensor as Eight\nV = 1\n__all__ = ['Eight', 'V']")
    assert ["Eight"] == names("acme")
    assert injectors.Int8ActPerTensor is recipes.get("Eight")


def test_base_and_hidden_are_found_with_a_prefix(acme):
    """What is not listed is found where its library is named."""
    acme()
    assert "NarrowWeight" == recipes.get("acme:NarrowWeight").__name__
    assert "_Hidden" == recipes.get("acme:_Hidden").__name__


def test_name_of_a_library_and_its_module(acme):
    """A library is found by its name and by its module, and so are modules below that."""
    acme("acme", "corp.quant", more={"corp/quant/extra.py": "from corp.quant import Int3Weight"})
    three = recipes.get("acme:Int3Weight")
    assert [three, three] == [recipes.get("corp.quant:Int3Weight"), recipes.get("corp.quant.extra:Int3Weight")]
    assert ["corp.quant:Int3Weight", "corp.quant:Int5Weight"] == [record.path for record in recipes.list("corp.quant")]


def test_one_name_in_two_libraries(acme):
    """A name that two libraries have is found with either before it; alone, it is refused with both."""
    acme("acme")
    acme("other")
    assert "acme" == recipes.get("acme:Int3Weight").__module__
    assert "other" == recipes.get("other:Int3Weight").__module__
    expected = "Several libraries have a recipe `Int3Weight`: say which, acme:Int3Weight, other:Int3Weight."
    assert expected == told(RecipeLookupError, recipes.get, "Int3Weight")
    assert expected == told(RecipeLookupError, recipes.record, "Int3Weight")


def test_a_name_that_brevq_has_too(acme):
    """The library that comes with brevq has no precedence."""
    acme(source="from injectors import Int8WeightPerTensor as I\nclass Int8WeightPerTensor(I):\n    '''Mine.'''")
    expected = "say which, acme:Int8WeightPerTensor, injectors:Int8WeightPerTensor."
    assert expected in told(RecipeLookupError, recipes.get, "Int8WeightPerTensor")
    assert injectors.Int8WeightPerTensor is recipes.get("injectors:Int8WeightPerTensor")


def test_two_libraries_of_one_name(distribution):
    """Libraries of one name go by their modules; the name alone is refused with both."""
    for package, bits in (("one", 3), ("two", 5)):
        source = (
            f"from injectors import Int8WeightPerTensor as I\nclass Small(I):\n    '''Small.'''\n    bit_width = {bits}"
        )
        distribution(package, {"acme": f"{package}_acme"}, {f"{package}_acme.py": source})
    assert (3, 5) == (recipes.get("one_acme:Small").bit_width, recipes.get("two_acme:Small").bit_width)
    assert ["one_acme", "two_acme"] == [it.name for it in recipes.libraries() if it.distribution != "brevq"]
    assert (
        "Several libraries are called `acme`: name the module of one, acme (one_acme, of one 1.0), "
        "acme (two_acme, of two 1.0)." == told(RecipeLookupError, recipes.get, "acme:Small")
    )


def test_import_that_fails(acme):
    """A library that can not be imported is a problem of the listing, with its cause, and hides no other."""
    acme("acme")
    acme("broken", source="import no_such_package")
    listing = recipes.list()
    assert {"injectors", "acme"} == {record.library for record in listing}
    [problem] = listing.problems
    reason = (
        "Library broken (broken, of broken-quant 1.0) can not be imported: "
        "ModuleNotFoundError: No module named 'no_such_package'"
    )
    assert ("broken", None, reason) == (problem.library.name, problem.recipe, problem.reason)
    assert isinstance(problem.cause, ModuleNotFoundError)
    assert reason == str(listing).splitlines()[-1]
    assert reason == told(LibraryError, recipes.get, "broken:Int3Weight")


def test_name_that_a_broken_library_may_have(acme):
    """A name that no library has is told with the libraries that could not be searched; one that is there is found."""
    acme("broken", source="1 / 0")
    assert recipes.get("Int8WeightPerTensor") is injectors.Int8WeightPerTensor
    assert [
        "No installed library has a recipe `Zyx`. `brevq list` shows those that are installed.",
        "Library broken (broken, of broken-quant 1.0) can not be imported: ZeroDivisionError: division by zero",
    ] == told(RecipeLookupError, recipes.get, "Zyx").splitlines()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise SystemExit('no')", "SystemExit: no"),
        ("def (", "SyntaxError: invalid syntax (__init__.py, line 1)"),
        ("class E(Exception): pass\nraise E", "E: "),
    ],
    ids=["exit", "syntax", "own error"],
)
def test_imports_fail_in_many_ways(acme, source, reason):
    """Whatever a library raises when it is imported is told."""
    acme("broken", source=source)
    [problem] = recipes.list("broken").problems
    assert problem.reason.endswith(f"can not be imported: {reason}")


def test_module_of_a_library_that_can_not_be_imported(acme):
    """A module of a library that raises whatever it may is told with that; one that is not there is no name."""
    acme(
        "acme",
        more={"acme/broken.py": "1 / 0", "acme/leaving.py": "raise SystemExit", "acme/lacking.py": "import xy_z"},
    )
    for module, reason in {
        "broken": "ZeroDivisionError: division by zero",
        "leaving": "SystemExit: ",
        "lacking": "ModuleNotFoundError: No module named 'xy_z'",
    }.items():
        expected = f"Library acme (acme.{module}, of acme-quant 1.0) can not be imported: {reason}"
        assert expected == told(LibraryError, recipes.get, f"acme.{module}:Int3Weight")
    assert "has no module `acme.none`: No module named 'acme.none'" in told(
        RecipeLookupError, recipes.get, "acme.none:Int3Weight"
    )


def test_entry_point_that_names_no_module(distribution):
    """An entry point must name a package or module."""
    distribution("acme", {"acme": "acme:RECIPES"}, {"acme.py": ""})
    assert (
        "Library acme (acme:RECIPES, of acme 1.0) can not be imported: `acme:RECIPES` is no import path of a module"
        == told(LibraryError, recipes.get, "acme:Small")
    )


def test_recipe_with_faults(acme):
    """A recipe with faults is a problem of the listing, and others of its library are listed."""
    acme(source="from injectors import Int8WeightPerTensor as I\nclass Good(I): ...\nclass Bad(I):\n    bitwidth = 4")
    listing = recipes.list("acme")
    assert ["Good"] == [record.name for record in listing]
    assert (
        "acme:Bad: Can not build Bad.\n\nNothing takes `bitwidth`, which Bad declares. Did you mean `bit_width`?"
        == str(*listing.problems)
    )
    assert "Bad" == recipes.get("Bad").__name__


def test_nothing_is_installed(monkeypatch):
    """Where not even brevq is installed, that is told."""
    monkeypatch.setattr("brevq.recipes.lookup.installed", lambda: ())
    assert () == recipes.list().records
    for call, name in ((recipes.get, "Int8WeightPerTensor"), (recipes.get, "acme:X"), (recipes.list, "acme")):
        assert told(RecipeLookupError, call, name).startswith("No library of recipes is installed")


# Views


def test_table(acme):
    """A listing prints as a table, in which names that several libraries have come with their library."""
    acme("acme")
    acme("other", source="from acme import Int3Weight\n__all__ = ['Int3Weight']")
    listing = recipes.Listing(recipes.list("acme").records + recipes.list("other").records)
    assert [
        "name              library  role    format  bits  granularity  scale",
        "acme:Int3Weight   acme     weight  int3    3     tensor       StatsScaling of AbsMax",
        "Int5Weight        acme     weight  int5    5     tensor       StatsScaling of AbsMax",
        "other:Int3Weight  other    weight  int3    3     tensor       StatsScaling of AbsMax",
    ] == str(listing).splitlines()
    assert 4 == listing._repr_html_().count("<tr>")
    assert str(listing) == repr(listing)


def test_bits_in_tables():
    """Learned bits and bits with scales are told as such."""
    cells = {row[0]: row[3] for row in recipes.list("injectors").rows()}
    assert ("from 8", "4 (4.25)", "8") == (
        cells["Int8ActPerTensorLearnedBits"],
        cells["MXFp4Act"],
        cells["Int8ActPerTensor"],
    )


def test_listing_is_a_sequence():
    """A listing has a length, items and slices, and can be pickled."""
    listing = recipes.list("injectors")
    assert (len(injectors.__all__), "BFP16Act") == (len(listing), listing[0].name)
    assert ["BFP16Act", "BFP16Weight"] == [record.name for record in listing[:2]]
    assert listing[0] in listing
    assert listing == pickle.loads(pickle.dumps(listing))


# What it costs


def test_nothing_heavy_is_imported():
    """Listing and describing recipes that have an index imports neither torch nor the library."""
    code = (
        "import sys\nfrom brevq import recipes\n"
        "recipes.list(), recipes.indexed(), recipes.record('Int8WeightPerTensor')\n"
        "print([name for name in ('torch', 'numpy', 'injectors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ("[]\n", "") == (done.stdout, done.stderr)


def test_only_the_library_that_has_it_is_imported(acme):
    """To get a recipe of a library that has an index, no other library is imported."""
    acme()
    recipes.write_index(recipes.library("acme"))
    del sys.modules["acme"]
    recipes.get("Int8WeightPerTensor")
    assert "acme" not in sys.modules
    assert issubclass(recipes.get("Int3Weight"), Injector)
