"""What importing the injector does, and does not do."""

import pytest

NOTICE = "Do not use dependencies package. Use https://github.com/hynek/svcs package instead."

# A package of the same name that says something else when it is imported.
OTHER = """
import warnings
from _dependencies.injector import Injector
from _dependencies.objects.this import this
from _dependencies.objects.value import value
warnings.warn({message!r}, {category}, stacklevel=2)
"""


@pytest.mark.parametrize("options", [(), ("-W", "always"), ("-W", "error")], ids=" ".join)
def test_silence(python, options):
    """Importing it prints nothing and warns of nothing."""
    done = python("import brevq.inject", *options)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_using_it_is_silent(python):
    """Declaring, deriving, building and showing recipes warns of nothing."""
    code = """
from brevq.inject import Injector, build, check, diff, explain, supplied, this, value

class Recipe(Injector):
    tensor_quant = dict
    x = this.y
    y = 3

    @value
    def z(y):
        return y

assert (Recipe.x, Recipe.z, Recipe.let(y=4).x, build(Recipe.let(), root="x")) == (3, 3, 4, 3)
str(diff(Recipe, Injector))
"""
    done = python(code, "-W", "error")
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_dependencies_still_warns_before(python):
    """Whoever imports `dependencies` directly gets its author's notice."""
    done = python("import dependencies, brevq.inject", "-W", "always")
    assert (0, True) == (done.returncode, f"DeprecationWarning: {NOTICE}" in done.stderr)


def test_dependencies_still_warns_after(python):
    """The notice is quiet for brevq alone: a later import elsewhere says it again."""
    code = "import brevq.inject, importlib, dependencies; importlib.reload(dependencies)"
    done = python(code, "-W", "error")
    assert (1, f"DeprecationWarning: {NOTICE}") == (done.returncode, done.stderr.splitlines()[-1])


def test_filters_are_left_alone(python):
    """The filters for warnings are the same before and after."""
    code = "import warnings; before = list(warnings.filters); import brevq.inject; print(before == warnings.filters)"
    assert "True\n" == python(code).stdout


@pytest.mark.parametrize(
    ("message", "category"),
    [
        ("Another notice", "DeprecationWarning"),
        ("Do not use dependencies package", "UserWarning"),
        ("Now: Do not use dependencies package", "DeprecationWarning"),
    ],
)
def test_exactly_that_notice(python, tmp_path, message, category):
    """Any other warning at that import is given."""
    (tmp_path / "dependencies.py").write_text(OTHER.format(message=message, category=category))
    done = python("import brevq.inject", "-W", "error")
    assert (1, f"{category}: {message}") == (done.returncode, done.stderr.splitlines()[-1])


def test_no_torch(python):
    """It loads neither torch nor NumPy, nor the rest of brevq."""
    code = """
import sys
import brevq.inject
print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "numpy"}))
print(sorted({".".join(name.split(".")[:2]) for name in sys.modules if name.startswith("brevq.")}))
"""
    assert "[]\n['brevq.errors', 'brevq.inject']\n" == python(code).stdout


def test_public_names():
    """The package offers what recipes are written and seen with."""
    import brevq.inject  # noqa: PLC0415

    expected = [
        "Injector",
        "build",
        "check",
        "diff",
        "dump",
        "explain",
        "fingerprint",
        "load",
        "supplied",
        "this",
        "value",
    ]
    assert expected == sorted(brevq.inject.__all__)
