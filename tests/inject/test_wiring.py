"""`explain`: the wiring tree of a recipe, as text and as HTML."""

from html.parser import HTMLParser
from inspect import cleandoc

import pytest

from brevq.errors import ArgumentTypeError, RecipeError
from brevq.inject import Injector, explain, supplied, this, value


class Grid:
    def __init__(self, bit_width, signed=True, narrow_range=False):
        self.bit_width = bit_width


class Scaler:
    def __init__(self, grid_impl, scaling_min_val=1e-10, restrict_impl=None):
        self.grid_impl = grid_impl


class ChannelScaler:
    def __init__(self, channels, grid_impl):
        self.channels = channels


class Quant:
    def __init__(self, grid_impl, scaling_impl):
        self.grid_impl = grid_impl


class Bare:
    def __init__(self, *args, **kwargs):
        pass


class Base(Injector):
    tensor_quant = Quant
    grid_impl = Grid
    bit_width = 8
    scaling_impl = Scaler


class Int4(Base):
    bit_width = 4
    narrow_range = True


class Owned(Base):
    shape = supplied("shape of the weight")
    device = supplied("device of the weight")

    @value
    def channels(shape):
        return shape[0]

    scaling_impl = ChannelScaler


class Layer:
    """An owner of recipes."""

    def __init__(self, **supplies):
        self.given = supplies

    def supplies(self, recipe):
        return self.given


def test_one_part():
    """A recipe of one part without arguments is one line."""

    class Single(Injector):
        tensor_quant = Bare

    expected = """
        Single
        tensor_quant = Bare  Single
        """
    assert cleandoc(expected) == str(explain(Single))


def test_tree():
    """Each name is shown with what it is and who declared it; shared parts once; defaults as such."""
    expected = """
        Int4
        tensor_quant = Quant            Base
        ├─ grid_impl = Grid             Base
        │  ├─ bit_width = 4             Int4
        │  ├─ narrow_range = True       Int4
        │  └─ signed = True             default of Grid
        └─ scaling_impl = Scaler        Base
           ├─ grid_impl = Grid (above)  Base
           ├─ scaling_min_val = 1e-10   default of Scaler
           └─ restrict_impl = None      default of Scaler
        """
    assert cleandoc(expected) == str(explain(Int4))


def test_derived():
    """What an override declares is shown as declared by `let`."""
    expected = """
        Int4.let(signed=False, restrict_impl=Bare)
        tensor_quant = Quant            Base
        ├─ grid_impl = Grid             Base
        │  ├─ bit_width = 4             Int4
        │  ├─ signed = False            Int4.let(...)
        │  └─ narrow_range = True       Int4
        └─ scaling_impl = Scaler        Base
           ├─ grid_impl = Grid (above)  Base
           ├─ restrict_impl = Bare      Int4.let(...)
           └─ scaling_min_val = 1e-10   default of Scaler
        """
    assert cleandoc(expected) == str(explain(Int4.let(signed=False, restrict_impl=Bare)))


def test_values_and_references():
    """A `@value` is shown by name, or by the class that it returned; `this` as it was written."""

    class Computed(Base):
        bits = (2, 4)
        bit_width = this.bits[1]
        signed = True

        @value
        def scaling_impl(signed):
            return Scaler

        @value
        def scaling_min_val(bit_width):
            return 2.0**-bit_width

    expected = """
        Computed
        tensor_quant = Quant                            Base
        ├─ grid_impl = Grid                             Base
        │  ├─ bit_width = this.bits[1]                  Computed
        │  │  └─ bits = (2, 4)                          Computed
        │  ├─ signed = True                             Computed
        │  └─ narrow_range = False                      default of Grid
        └─ scaling_impl = Scaler                        Computed (@value)
           ├─ signed = True                             Computed
           ├─ grid_impl = Grid (above)                  Base
           ├─ scaling_min_val = @value scaling_min_val  Computed
           │  └─ bit_width = this.bits[1] (above)       Computed
           └─ restrict_impl = None                      default of Scaler
        """
    assert cleandoc(expected) == str(explain(Computed))


def test_supplied_without_owner():
    """Without an owner, a supplied name is shown as what it will be."""
    expected = """
        Owned
        tensor_quant = Quant                    Base
        ├─ grid_impl = Grid                     Base
        │  ├─ bit_width = 8                     Base
        │  ├─ signed = True                     default of Grid
        │  └─ narrow_range = False              default of Grid
        └─ scaling_impl = ChannelScaler         Owned
           ├─ channels = @value channels        Owned
           │  └─ shape = <shape of the weight>  supplied by the layer (Owned)
           └─ grid_impl = Grid (above)          Base
        """
    assert cleandoc(expected) == str(explain(Owned))


def test_supplied_by_an_owner():
    """With an owner, what it supplies is shown, as are all names that it has to give."""
    expected = """
        Owned
        tensor_quant = Quant              Base
        ├─ grid_impl = Grid               Base
        │  ├─ bit_width = 8               Base
        │  ├─ signed = True               default of Grid
        │  └─ narrow_range = False        default of Grid
        └─ scaling_impl = ChannelScaler   Owned
           ├─ channels = @value channels  Owned
           │  └─ shape = (16, 3)          supplied by Layer
           └─ grid_impl = Grid (above)    Base
        Layer supplies shape = (16, 3), device = cpu
        """
    assert cleandoc(expected) == str(explain(Owned, Layer(shape=(16, 3), device="cpu")))


@pytest.mark.parametrize(("waiting", "ready"), [("a", "b"), ("b", "a")], ids=["first", "last"])
def test_value_beside_one_that_waits(waiting, ready):
    """The class that a `@value` returned is shown, wherever in the order another waits for an owner."""

    class Pair:
        def __init__(self, a, b):
            pass

    names = {waiting: value(lambda shape: shape), ready: value(lambda: Bare)}
    recipe = Injector.let(tensor_quant=Pair, shape=supplied("shape of the weight"), **names)
    assert ["Bare"] == [line.content for line in explain(recipe).lines if line.name == ready]


def test_owner_that_supplies_nothing():
    """An owner with nothing to give changes nothing."""
    assert str(explain(Owned)) == str(explain(Owned, Layer()))


def test_class_name():
    """A class that is passed as it is, is shown by its name."""

    class Holds:
        def __init__(self, part_class):
            pass

    class Passing(Injector):
        tensor_quant = Holds
        part_class = Grid

    expected = """
        Passing
        tensor_quant = Holds  Passing
        └─ part_class = Grid  Passing
        """
    assert cleandoc(expected) == str(explain(Passing))


def test_lines():
    """The tree can be walked: each line has a depth, a name, a content and an origin."""
    lines = [(line.depth, line.name, line.content, line.origin) for line in explain(Int4).lines]
    assert [
        (0, "tensor_quant", "Quant", "Base"),
        (1, "grid_impl", "Grid", "Base"),
        (2, "bit_width", "4", "Int4"),
    ] == lines[:3]


def test_repr_is_the_text():
    """At a prompt the tree shows itself."""
    assert str(explain(Int4)) == repr(explain(Int4))


def test_explaining_builds_no_trace():
    """Explaining a recipe changes neither its tree nor another's."""
    before = str(explain(Int4))
    explain(Owned, Layer(shape=(1,)))
    explain(Int4.let(bit_width=3))
    assert before == str(explain(Int4))


def test_deep_diamond_is_short():
    """Each part of a ladder of diamonds is drawn out once."""

    def rung(name, below):
        namespace = {}
        exec(f"def __init__(self, {', '.join(below)}): pass", namespace)
        return type(name, (), {"__init__": namespace["__init__"]})

    depth = 40
    parts = {"tensor_quant": rung("Root", ["a0", "b0"])}
    for i in range(depth):
        below = [f"a{i + 1}", f"b{i + 1}"] if i + 1 < depth else []
        parts |= {f"a{i}": rung(f"A{i}", below), f"b{i}": rung(f"B{i}", below)}
    assert 1 + 4 * depth - 2 == len(explain(Injector.let(**parts)).lines)


@pytest.mark.parametrize("content", [3, None, Grid, "Int4"], ids=repr)
def test_not_a_recipe(content):
    """`explain` refuses what is not a recipe."""
    with pytest.raises(ArgumentTypeError) as caught:
        explain(content)
    assert f"`recipe` (={content!r}) must be a recipe: a subclass of brevq.inject.Injector" == str(caught.value)


@pytest.mark.parametrize("owner", [3, "conv", (2, 3)], ids=repr)
def test_not_an_owner(owner):
    """`explain` refuses an owner that supplies nothing to recipes."""
    with pytest.raises(ArgumentTypeError) as caught:
        explain(Int4, owner)
    assert f"`owner` (={owner!r}) must be a layer that recipes can be given to" == str(caught.value)


def test_faulty_recipe():
    """A recipe with faults has no tree."""
    with pytest.raises(RecipeError) as caught:
        explain(Int4.let(bitwidth=3))
    expected = """
        Can not build Int4.let(bitwidth=3).

        Nothing takes `bitwidth`, which Int4.let(...) declares. Did you mean `bit_width`?
        """
    assert cleandoc(expected) == str(caught.value)


class Page(HTMLParser):
    """The cells of a page, all of whose elements must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.rest = [], [], ""
        self.feed(text)
        self.close()
        assert [] == self.open

    def handle_starttag(self, tag, attrs):
        if tag == "br":
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data
        else:
            self.rest += data


@pytest.mark.parametrize("recipe", [Int4, Owned, Int4.let(bit_width=2)], ids=lambda recipe: recipe.__name__)
def test_html(recipe):
    """The HTML is well formed, with the recipe's name and a row for each line of the tree."""
    wiring = explain(recipe)
    page = Page(wiring._repr_html_())
    assert recipe.__name__ == page.rest
    assert ["name", "part", "declared by"] == page.rows[0]
    assert [[line.name, line.content, line.origin] for line in wiring.lines] == page.rows[1:]


def test_html_with_owner():
    """The HTML tells what the owner supplies below the table."""
    page = Page(explain(Owned, Layer(shape=(1,), device="<cpu>"))._repr_html_())
    assert "OwnedLayer supplies shape = (1,), device = <cpu>" == page.rest
    assert ["shape", "(1,)", "supplied by Layer"] in page.rows


def test_html_is_escaped():
    """Contents are shown, and not interpreted."""
    nasty = "</table><script>alert('&amp;')</script>"
    recipe = Int4.let(restrict_impl=this.note, note=nasty)
    text = explain(recipe)._repr_html_()
    assert "<script" not in text
    page = Page(text)
    assert recipe.__name__ == page.rest
    assert ["note", repr(nasty), "Int4.let(...)"] in page.rows


def test_faults_that_show_with_an_owner():
    """A fault that only an owner brings about is told when the recipe is explained for it."""

    class Lacking(Injector):
        tensor_quant = Quant
        grid_impl = Bare
        shape = supplied("shape of the weight")

        @value
        def scaling_impl(shape):
            return Grid

    expected = """
        Can not build Lacking.

        Nothing provides `bit_width`.

          tensor_quant: Quant
            scaling_impl: Grid
              bit_width: ?

        Grid(bit_width, signed=True, narrow_range=False) asks for it.
        Declare it: `bit_width = ...` in Lacking, or Lacking.let(bit_width=...).
        """
    with pytest.raises(RecipeError) as caught:
        explain(Lacking, Layer(shape=(16, 3)))
    assert cleandoc(expected) == str(caught.value)


def test_class_that_an_owner_decides():
    """With an owner, the class that a `@value` returns for it is shown, and what that asks for."""

    class Chosen(Base):
        shape = supplied("shape of the weight")

        @value
        def scaling_impl(shape):
            return Scaler if len(shape) > 1 else Bare

    expected = """
        Chosen
        tensor_quant = Quant            Base
        ├─ grid_impl = Grid             Base
        │  ├─ bit_width = 8             Base
        │  ├─ signed = True             default of Grid
        │  └─ narrow_range = False      default of Grid
        └─ scaling_impl = Scaler        Chosen (@value)
           ├─ shape = (16, 3)           supplied by Layer
           ├─ grid_impl = Grid (above)  Base
           ├─ scaling_min_val = 1e-10   default of Scaler
           └─ restrict_impl = None      default of Scaler
        Layer supplies shape = (16, 3)
        """
    assert cleandoc(expected) == str(explain(Chosen, Layer(shape=(16, 3))))
    assert ["Bare"] == [
        line.content for line in explain(Chosen, Layer(shape=(3,))).lines if line.name == "scaling_impl"
    ]
    assert ["@value scaling_impl"] == [line.content for line in explain(Chosen).lines if line.name == "scaling_impl"]


def test_owner_that_supplies_a_list():
    """What can not be hashed may be supplied."""
    assert (
        "   │  └─ shape = [16, 3]          supplied by Layer" in str(explain(Owned, Layer(shape=[16, 3]))).splitlines()
    )


class Parts:
    """What looks like a layer, and like its quantizers: parts by name."""

    def __init__(self, **parts):
        self._modules = parts


def test_a_layer_is_no_recipe():
    """What holds recipes is no recipe, and the error says where the first one is."""
    quantizer = Parts()
    quantizer.recipe = Injector
    errors = []
    for given in (quantizer, Parts(activation=Parts(), weight_quant=quantizer), Parts()):
        with pytest.raises(ArgumentTypeError) as error:
            explain(given)
        errors.append(str(error.value).partition("must be a recipe: a subclass of brevq.inject.Injector")[2])
    made = ". It is made from one: `recipe{}.recipe`"
    assert [made.format(""), made.format(".weight_quant"), ""] == errors
