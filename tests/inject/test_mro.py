"""Names of recipes merge as attributes of plain classes do."""

import random

import pytest

from brevq.inject import Injector, diff

ABSENT = object()
NAMES = ("u", "v", "w", "x", "y", "z")


def make(kind, name, bases, names):
    """A plain class, or a recipe, of the same shape."""
    root = object if kind is type else Injector
    return kind(name, tuple(bases) or (root,), dict(names))


def lookup(cls, name):
    return getattr(cls, name, ABSENT)


def order(cls):
    return [base.__name__ for base in cls.__mro__ if base.__name__ not in ("object", "Injector")]


class Hierarchy:
    """Random classes, once as plain Python classes and once as recipes."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.plain = []
        self.recipes = []
        self.refused = 0
        for number in range(16):
            self.add(f"C{number}")

    def add(self, name):
        chosen = self.random.sample(range(len(self.plain)), min(len(self.plain), self.random.choice((1, 1, 2, 2, 3))))
        if self.random.random() < 0.7:  # Python accepts most orders in which the newer class comes first
            chosen.sort(reverse=True)
        names = {key: f"{name}.{key}" for key in NAMES if self.random.random() < 0.25}
        try:
            plain = make(type, name, [self.plain[i] for i in chosen], names)
        except TypeError:  # Python finds no order of these bases
            self.refused += 1
            with pytest.raises(TypeError, match="method resolution"):
                make(type(Injector), name, [self.recipes[i] for i in chosen], names)
            return
        self.plain.append(plain)
        self.recipes.append(make(type(Injector), name, [self.recipes[i] for i in chosen], names))

    @property
    def pairs(self):
        return list(zip(self.plain, self.recipes, strict=True))


@pytest.mark.parametrize("kind", [type, type(Injector)], ids=["plain classes", "recipes"])
def test_diamond(kind):
    """In a diamond the second base's own name wins over one that the first only inherits."""
    a = make(kind, "A", (), {"x": 1})
    b = make(kind, "B", (a,), {})
    c = make(kind, "C", (a,), {"x": 2})
    d = make(kind, "D", (b, c), {})
    assert (1, 1, 2, 2) == (a.x, b.x, c.x, d.x)


@pytest.mark.parametrize("kind", [type, type(Injector)], ids=["plain classes", "recipes"])
def test_order_of_bases(kind):
    """Of two bases that declare a name, the first wins."""
    a = make(kind, "A", (), {"x": 1})
    b = make(kind, "B", (), {"x": 2})
    assert (1, 2) == (make(kind, "AB", (a, b), {}).x, make(kind, "BA", (b, a), {}).x)


@pytest.mark.parametrize("kind", [type, type(Injector)], ids=["plain classes", "recipes"])
def test_double_diamond(kind):
    """A mixin in the middle of two diamonds overrides the common base and nothing else."""
    base = make(kind, "Base", (), {"x": 0, "y": 0, "z": 0})
    left = make(kind, "Left", (base,), {"y": 1})
    right = make(kind, "Right", (base,), {"x": 2, "y": 2})
    middle = make(kind, "Middle", (left, right), {})
    other = make(kind, "Other", (right,), {"z": 3})
    last = make(kind, "Last", (middle, other), {})
    assert (2, 1, 3) == (last.x, last.y, last.z)


@pytest.mark.parametrize("seed", range(40))
def test_random_hierarchy(seed):
    """Every name of every class is what Python's own attribute lookup gives, in the same order of bases."""
    for plain, recipe in Hierarchy(seed).pairs:
        expected = {name: lookup(plain, name) for name in NAMES}
        assert expected == {name: lookup(recipe, name) for name in NAMES}
        assert {name for name in NAMES if hasattr(plain, name)} == {name for name in NAMES if name in recipe}
        assert order(plain) == order(recipe)


@pytest.mark.parametrize("seed", range(10))
def test_random_hierarchy_origins(seed):
    """The class that is told as a name's origin is the one in which Python finds the name."""
    for plain, recipe in Hierarchy(seed).pairs:
        expected = {
            name: next(base.__name__ for base in plain.__mro__ if name in vars(base))
            for name in NAMES
            if hasattr(plain, name)
        }
        assert expected == {row.name: row.left_by for row in diff(recipe, Injector)}


@pytest.mark.parametrize("seed", range(10))
def test_random_hierarchy_derived(seed):
    """What `let` derives is looked up as a subclass with these names is."""
    for plain, recipe in Hierarchy(seed).pairs:
        derived, twin = recipe.let(x="other").let(w="again"), type("Twin", (plain,), {"x": "other", "w": "again"})
        assert [lookup(twin, name) for name in NAMES] == [lookup(derived, name) for name in NAMES]


def test_random_hierarchies_are_varied():
    """The random hierarchies have diamonds whose merge depends on the order, and orders that Python refuses."""
    made = [Hierarchy(seed) for seed in range(40)]
    classes = [plain for hierarchy in made for plain in hierarchy.plain]
    pairs = [(cls, name) for cls in classes for name in NAMES]
    subtle = [pair for pair in pairs if _flattened(*pair) != lookup(*pair)]
    assert len(subtle) > 20
    assert sum(len(cls.__bases__) > 1 for cls in classes) > 100
    assert sum(hierarchy.refused for hierarchy in made) > 20


def _flattened(cls, name):
    """A name merged base by base, each with all that it inherits: what Python does not do."""
    if name in vars(cls):
        return vars(cls)[name]
    return next((getattr(base, name) for base in cls.__bases__ if hasattr(base, name)), ABSENT)
