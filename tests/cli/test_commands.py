"""The commands on recipes: what they print, for people and for programs, and how they fail."""

import importlib
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest

import injectors
from brevq import recipes
from brevq.inject import diff, dump, explain, load
from injectors import Int4WeightPerTensor, Int8WeightPerTensor

ENVIRONMENT = dict(os.environ)
MINE = """
from injectors import Int8WeightPerTensor
from injectors.bases import IntWeight

class Narrow(IntWeight):
    '''What mine have in common.'''
    scaling_min_val = 1e-8

class Int3Weight(Narrow):
    '''Signed 3-bit weights.'''
    bit_width = 3
"""
FAULTY = f"""{MINE}
class Wrong(Int3Weight):
    '''Not meant so.'''
    bitwidth = 4
"""


@pytest.fixture
def mine(tmp_path):
    """A file with a recipe of one's own and a base, and its name in that folder."""
    (tmp_path / "mine.py").write_text(textwrap.dedent(MINE))
    yield "mine.py"
    sys.modules.pop("mine", None)


@pytest.fixture
def acme(distribution):
    """An installed library with two recipes and a base."""
    source = f"{MINE}\nBits = Int3Weight.let(bit_width=5)"
    return distribution("acme-quant", {"acme": "acme"}, {"acme/__init__.py": source})


# list


def test_list(brevq):
    """All recipes are listed, a line each, below a head."""
    said = brevq("list")
    assert (0, "") == (said.status, said.err)
    lines = said.out.splitlines()
    assert ["name", "role", "format", "bits", "granularity", "scale"] == lines[0].split()
    assert injectors.__all__ == [line.split()[0] for line in lines[1:]]


def test_list_some(brevq):
    """Options choose by library, bits and role."""
    said = brevq("list --library injectors --bits 2 --role weight")
    assert [
        "name                         role    format   bits  granularity  scale",
        "TernaryWeightPerChannel      weight  ternary  2     channel      StatsScaling of AbsAveAboveThreshold",
        "TernaryWeightPerTensor       weight  ternary  2     tensor       StatsScaling of AbsAveAboveThreshold",
        "TernaryWeightPerTensorConst  weight  int2     2     tensor       ConstScaling of 0.1",
    ] == said.out.splitlines()


def test_list_none(brevq):
    """Where no recipe fits, that is told, and is no fault."""
    said = brevq("list --bits 7")
    assert (0, "", "No recipe fits.\n") == (said.status, said.out, said.err)


def test_list_json(brevq):
    """A program reads the records."""
    said = json.loads(brevq("list --role bias --json").out)
    assert [record.as_json() for record in recipes.list(role="bias")] == said["recipes"]
    assert [] == said["problems"]


def test_list_other_libraries(brevq, acme):
    """Recipes of all libraries are listed, each with its library."""
    said = brevq("list --bits 3")
    assert (0, "") == (said.status, said.err)
    assert [
        "name        role    format  bits  granularity  scale",
        "Int3Weight  weight  int3    3     tensor       StatsScaling of AbsMax",
    ] == said.out.splitlines()
    assert ["Int3Weight", "Bits"] == [
        it["name"] for it in json.loads(brevq("list --library acme --json").out)["recipes"]
    ]


def test_list_broken_library(brevq, acme, distribution):
    """A library that can not be imported is told beside the others; asked for, it is a failure."""
    distribution("broken", {"broken": "broken"}, {"broken.py": "1 / 0"})
    reason = "Library broken (broken, of broken 1.0) can not be imported: ZeroDivisionError: division by zero"
    said = brevq("list")
    assert (0, f"{reason}\n") == (said.status, said.err)
    assert "Int3Weight" in said.out
    said = brevq("list --library broken")
    assert (1, "", f"No recipe fits.\n{reason}\n") == (said.status, said.out, said.err)
    [problem] = json.loads(brevq("list --json").out)["problems"]
    assert {
        "name": "broken",
        "module": "broken",
        "distribution": "broken",
        "version": "1.0",
        "recipe": None,
        "reason": reason,
    } == problem


@pytest.mark.parametrize(
    ("columns", "head", "left"),
    [(200, "name role format bits granularity scale", ""), (70, "name role format bits granularity", "scale")],
)
def test_list_on_a_terminal(brevq, monkeypatch, columns, head, left):
    """On a terminal the table has as many columns as fit, and names those that are left off."""
    monkeypatch.setattr("brevq.cli.output.sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    said = brevq("list --library injectors --bits 2")
    lines = re.sub("\x1b\\[[0-9]*m", "", said.out).splitlines()
    assert columns >= max(map(len, lines))
    assert [head.split(), "TernaryActPerTensorConst"] == [lines[0].split(), lines[1].split()[0]]
    assert (f"This terminal is too narrow for: {left}. `brevq show NAME` tells them.\n" if left else "") == said.err


# show


def test_show(brevq):
    """What a recipe is, a line each."""
    said = brevq("show MXFp4Weight")
    assert (0, "") == (said.status, said.err)
    assert [
        "MXFp4Weight",
        "Weights in OCP MXFP4 (E2M1): 32 weights share scale = 2 ** (floor(log2 max |w|) - 2).",
        "",
        "library      injectors",
        "import       from injectors import MXFp4Weight",
        "role         weight",
        "format       mxfp4, signed",
        "bits         4, with scales 4.25",
        "granularity  block of 32",
        "scale        BlockScaling: e8m0 (floor)",
        "source       OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3",
    ] == said.out.splitlines()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Int8ActPerTensorLearnedBits", "bits         learned, from 8"),
        ("Uint4ActPerTensor", "format       uint4, unsigned"),
        ("Int8Trunc", "format       int8"),
        ("Int32Bias", "scale        given by the layer"),
    ],
)
def test_show_what_is_special(brevq, name, line):
    """Learned bits, formats without a sign, and what the layer gives are told as such."""
    assert line in brevq(f"show {name}").out.splitlines()


@pytest.mark.parametrize("name", injectors.__all__)
def test_show_any(brevq, name):
    """Every recipe is shown from the index as it is described from itself."""
    assert recipes.describe(getattr(injectors, name), name, "injectors", "injectors").as_json() == json.loads(
        brevq(f"show {name} --json").out
    )


def test_show_derived(brevq):
    """A recipe with overrides is described as what it builds then."""
    said = json.loads(brevq("show Int8WeightPerTensor --set bit_width=3 --set granularity_impl=PerChannel --json").out)
    assert ("int3", 3, "channel", "") == (said["format"], said["bits"], said["granularity"], said["library"])


def test_show_file(brevq, mine):
    """A recipe in a file is shown as one of a library."""
    assert "bits         3\n" in brevq("show mine.py:Int3Weight").out


# explain, diff


def test_explain(brevq):
    """The wiring tree is that of `brevq.inject.explain`."""
    assert f"{explain(Int8WeightPerTensor)}\n" == brevq("explain Int8WeightPerTensor").out


def test_explain_json(brevq):
    """A program reads the names with their depth."""
    said = json.loads(brevq("explain Int8WeightPerTensor --json").out)
    lines = [(line.depth, line.name, line.content, line.origin) for line in explain(Int8WeightPerTensor).lines]
    assert ["Int8WeightPerTensor", lines] == [said["recipe"], [tuple(line.values()) for line in said["lines"]]]


SET = {
    "bit_width=4": {"bit_width": 4},
    "bit_width = 4": {"bit_width": 4},
    "signed=false": {"signed": False},
    "signed=False": {"signed": False},
    "scaling_min_val=1e-8": {"scaling_min_val": 1e-8},
    "scaling_min_val=none": {"scaling_min_val": None},
    "role='bias'": {"role": "bias"},
}


@pytest.mark.parametrize("text", SET)
def test_set(brevq, text):
    """Contents are numbers, words and quoted text, as Python writes them."""
    said = brevq("export Int8WeightPerTensor --set", text)
    assert Int8WeightPerTensor.let(**SET[text]) is load(said.out)


def test_set_parts(brevq):
    """Parts of brevq.core go by their name, those of others by their import path; formats do too."""
    said = brevq(
        "export Fp8e4m3OCPWeightPerTensor --set scaling_stats_impl=brevq.core.stats:AbsAve "
        "--set float_to_int_impl=FloorSte --set granularity_impl=PerChannel"
    )
    overrides = json.loads(said.out)["overrides"]
    assert {
        "float_to_int_impl": {"class": "brevq.core.function_wrapper:FloorSte"},
        "granularity_impl": {"class": "brevq.core.function_wrapper:PerChannel"},
        "scaling_stats_impl": {"class": "brevq.core.stats:AbsAve"},
    } == overrides
    said = brevq("show Fp8e4m3OCPWeightPerTensor --set float_format=FP6_E2M3 --json")
    assert "fp6_e2m3" == json.loads(said.out)["format"]


def test_set_twice(brevq):
    """Of a name that is set twice, the last content counts."""
    said = brevq("show Int8WeightPerTensor --json --set bit_width=4 --set bit_width=3")
    assert 3 == json.loads(said.out)["bits"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("bit_width", "'bit_width' must be NAME=CONTENT, such as bit_width=4."),
        ("bit-width=4", "'bit-width=4' must be NAME=CONTENT, such as bit_width=4."),
        ("scaling_stats_impl=AbsMx", "'AbsMx' is no number and no part of brevq.core. Did you mean `AbsMax`?"),
        (
            "scaling_stats_impl=json:Absent",
            "'json:Absent' can not be imported: module 'json' has no attribute 'Absent'.",
        ),
        ("scaling_stats_impl=absent:X", "'absent:X' can not be imported: No module named 'absent'."),
    ],
)
def test_wrong_set(brevq, text, reason):
    """What is no override is wrong usage."""
    said = brevq("explain Int8WeightPerTensor --set", text)
    assert (2, "") == (said.status, said.out)
    assert said.err.splitlines()[-1].startswith(f"Error: Invalid value for '--set': {reason}")


@pytest.mark.parametrize(("source", "reason"), [("1 / 0", "division by zero"), ("raise SystemExit('no')", "no")])
def test_set_from_a_module_that_fails(brevq, distribution, source, reason):
    """Whatever a module raises when it is imported for an override is told."""
    distribution("acme-parts", {}, {"acme_parts.py": source})
    said = brevq("explain Int8WeightPerTensor --set scaling_stats_impl=acme_parts:X")
    assert (2, "") == (said.status, said.out)
    assert said.err.endswith(f"'acme_parts:X' can not be imported: {reason}.\n")


def test_explain_faults(brevq):
    """A recipe that can not be built is told with all its faults, as they are written, and exit status 1."""
    said = brevq("explain Int8WeightPerTensor --set bitwidth=4")
    assert (
        "Error: Can not build Int8WeightPerTensor.let(bitwidth=4).\n\n"
        "Nothing takes `bitwidth`, which Int8WeightPerTensor.let(...) declares. Did you mean `bit_width`?\n" == said.err
    )
    assert 1 == said.status


def test_diff(brevq):
    """The differences are those of `brevq.inject.diff`; to differ is no fault."""
    said = brevq("diff Int8WeightPerTensor Int4WeightPerTensor")
    assert (0, f"{diff(Int8WeightPerTensor, Int4WeightPerTensor)}\n") == (said.status, said.out)


def test_diff_json(brevq):
    """A program reads names, and what either has."""
    assert {
        "left": "Int8WeightPerTensor",
        "right": "Int4WeightPerTensor",
        "rows": [
            {
                "name": "bit_width",
                "left": "8",
                "left_by": "Int8WeightPerTensor",
                "right": "4",
                "right_by": "Int4WeightPerTensor",
            }
        ],
    } == json.loads(brevq("diff Int8WeightPerTensor Int4WeightPerTensor --json").out)


# check


def test_check(brevq):
    """Sound recipes are told so."""
    said = brevq("check Int8WeightPerTensor injectors:MXFp4Act")
    assert (0, "Int8WeightPerTensor: no faults\ninjectors:MXFp4Act: no faults\n") == (said.status, said.out)


def test_check_file(brevq, mine, tmp_path):
    """Of a file of Python code all recipes are checked; what others derive from may lack names."""
    said = brevq("check mine.py")
    assert "mine.py:Int3Weight: no faults\nmine.py:Narrow: a base, which leaves to declare: bit_width\n" == said.out
    assert 0 == said.status


def test_check_finds(brevq, mine, tmp_path):
    """Faults are told in full, beside what has none, with exit status 1."""
    (tmp_path / mine).write_text(FAULTY)
    said = brevq("check mine.py")
    assert 1 == said.status
    assert (
        "mine.py:Int3Weight: no faults\n"
        "mine.py:Wrong: faults\n\nCan not build Wrong.\n\n"
        "Nothing takes `bitwidth`, which Wrong declares. Did you mean `bit_width`?\n\n"
        "mine.py:Narrow: a base, which leaves to declare: bit_width\n" == said.out
    )
    said = json.loads(brevq("check mine.py --json").out)
    assert [
        ("mine.py:Int3Weight", False, []),
        ("mine.py:Wrong", True, []),
        ("mine.py:Narrow", False, ["bit_width"]),
    ] == [(it["name"], it["faults"] is not None, it["lacks"]) for it in said]


def test_check_library(brevq, acme):
    """All recipes of a library are checked by its name."""
    assert ["acme:Int3Weight: no faults", "acme:Bits: no faults"] == brevq("check acme").out.splitlines()[:2]
    assert len(injectors.__all__) == brevq("check injectors").out.count("no faults")


def test_check_text(brevq, tmp_path):
    """A file that `export` wrote is read, and compared with its fingerprint."""
    text = dump(Int4WeightPerTensor)
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "b.json").write_text(text.replace('"overrides": {}', '"overrides": {"bit_width": 5}'))
    said = brevq("check a.json b.json")
    assert (1, "a.json: no faults") == (said.status, said.out.splitlines()[0])
    assert "b.json: faults\n\nCan not load the recipe.\n\nThe text says that it builds" in said.out


def test_check_text_of_another_package(brevq, tmp_path):
    """What a file may import beside libraries is said on the command line."""
    (tmp_path / "parts.py").write_text(textwrap.dedent(MINE))
    importlib.invalidate_caches()
    (tmp_path / "a.json").write_text(dump(importlib.import_module("parts").Int3Weight))
    del sys.modules["parts"]  # only the text is left of it
    said = brevq("check a.json")
    assert 1 == said.status
    assert "`base` (='parts:Int3Weight') is of `parts`, which is not allowed" in said.out
    assert "parts" not in sys.modules
    assert "a.json: no faults\n" == brevq("check a.json --allow parts").out
    sys.modules.pop("parts")


# draw, export


def test_draw(brevq, tmp_path):
    """A picture is written to a file, or to standard output, as SVG that names the parts."""
    assert "Wrote a.svg\n" == brevq("draw Int4WeightPerTensor -o a.svg").out
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "{http://www.w3.org/2000/svg}svg" == ElementTree.fromstring(text).tag
    assert "RescalingIntQuant" in text
    assert text == brevq("draw Int4WeightPerTensor").out


def test_draw_derived(brevq):
    """Overrides are drawn."""
    assert "FloorSte" in brevq("draw Int4WeightPerTensor --set float_to_int_impl=FloorSte").out


def test_draw_is_svg(brevq, tmp_path):
    """A file that promises another format is refused."""
    said = brevq("draw Int4WeightPerTensor -o a.png")
    assert (2, "") == (said.status, said.out)
    assert "Error: Invalid value for '--out': 'a.png' must end in .svg, which is what is written." in said.err
    assert [] == list(tmp_path.iterdir())


def test_export(brevq, tmp_path):
    """What is written is what `dump` gives, which other commands read as `load` does."""
    assert f"{dump(Int4WeightPerTensor)}\n" == brevq("export Int4WeightPerTensor").out
    assert "Wrote a.json\n" == brevq("export Int8WeightPerTensor --set bit_width=3 -o a.json").out
    assert Int8WeightPerTensor.let(bit_width=3) is load((tmp_path / "a.json").read_text())
    assert "bits         3\n" in brevq("show a.json").out
    assert (
        f"{diff(Int8WeightPerTensor, Int8WeightPerTensor.let(bit_width=3))}\n"
        == brevq("diff Int8WeightPerTensor a.json").out
    )


def test_folder_that_is_not_there(brevq):
    """A file that can not be written is told in one line."""
    said = brevq("export Int4WeightPerTensor -o no/folder/a.json")
    assert (1, "Error: No such file or directory: no/folder/a.json\n") == (said.status, said.err)


# index


def test_index(brevq, acme):
    """The index of a library is written into its package, and told stale once its sources change."""
    assert f"Wrote {acme / 'acme' / 'index.json'}\n" == brevq("index acme").out
    assert "The index of acme is current.\n" == brevq("index acme --check").out
    with (acme / "acme" / "__init__.py").open("a") as file:
        file.write("\n")
    said = brevq("index acme --check")
    assert (1, "", "Error: The index of acme is not current: write it anew, brevq index acme\n") == (
        said.status,
        said.out,
        said.err,
    )


# new-library


def test_new_library(brevq, tmp_path):
    """A library is begun in this folder, or in another; its recipe has no faults."""
    (tmp_path / "below").mkdir()
    said = brevq("new-library acme-quant --folder below")
    assert (0, f"Wrote {Path('below/acme-quant')}. Its README.rst says what to do next.\n") == (said.status, said.out)
    said = brevq("check below/acme-quant/acme_quant/weight.py")
    assert (0, True) == (said.status, said.out.endswith(": no faults\n"))


@pytest.mark.parametrize("name", ["4bits", "acme", "-"])
def test_new_library_of_no_name(brevq, acme, tmp_path, name):
    """A name that can be no library's, or is another's, is wrong usage, and nothing is written."""
    said = brevq("new-library --", name)
    assert (2, "") == (said.status, said.out)
    assert f"Error: Invalid value for 'NAME': `name` (='{name}') of a library must be " in said.err
    assert ["installed"] == [file.name for file in tmp_path.iterdir()]


# Names that nothing has


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            "show Int8WeightPerTensr",
            "No installed library has a recipe `Int8WeightPerTensr`. Did you mean `Int8WeightPerTensor`?",
        ),
        ("explain acne:X", "No library `acne` is installed: there are injectors."),
        ("diff Int8Bias Int9Bias", "No installed library has a recipe `Int9Bias`. Did you mean `Int8Bias`?"),
        (
            "check mine.py:Int4Weight",
            "'mine.py' has no recipe `Int4Weight`: there are Int3Weight, Narrow. Did you mean `Int3Weight`?",
        ),
        (
            "explain mine.py",
            "`mine.py` is a file: say which recipe of it is meant; there are mine.py:Int3Weight, mine.py:Narrow.",
        ),
        ("check none.py", "There is no file 'none.py'."),
        ("check none.json", "There is no file 'none.json'."),
        ("check empty.py", "'empty.py' has no recipes."),
        (
            "list --role wieght",
            "No recipe has the role `wieght`: roles are activation, bias, truncation, weight. Did you mean `weight`?",
        ),
        (
            "list --library injector",
            "No library `injector` is installed: there are injectors. Did you mean `injectors`?",
        ),
        ("index injector", "No library `injector` is installed: there are injectors. Did you mean `injectors`?"),
        ("exprot Int8Bias", "No such command 'exprot'. Did you mean `export`?"),
        ("zyx", "No such command 'zyx'."),
    ],
)
def test_unknown_names(brevq, mine, tmp_path, line, reason):
    """What does not exist is wrong usage, told with the nearest that does."""
    (tmp_path / "empty.py").write_text("")
    said = brevq(line)
    assert (2, "", f"Error: {reason}") == (said.status, said.out, said.err.splitlines()[-1])


def test_file_that_fails(brevq, tmp_path):
    """A file that raises an error is told with it."""
    (tmp_path / "bad.py").write_text("1 / 0")
    said = brevq("check bad.py")
    assert (1, "Error: 'bad.py' can not be run: ZeroDivisionError: division by zero\n") == (said.status, said.err)


def test_text_that_is_none(brevq, tmp_path):
    """A file that is no text, or no text of a recipe, is told so."""
    (tmp_path / "a.json").write_bytes(b"\xff")
    assert "Error: 'a.json' is no text in UTF-8:" in brevq("explain a.json").err
    (tmp_path / "a.json").write_text("{")
    assert "Error: Can not load the recipe.\n\nThe text is no JSON:" in brevq("explain a.json").err


# Completion, and what it costs


def completed(words):
    """What a shell is offered for the last of these words, in a process of its own, and which heavy modules it took."""
    code = (
        "import atexit, sys\nfrom brevq.cli import main\n"
        "atexit.register(lambda: print([it for it in ('torch', 'numpy', 'injectors') if it in sys.modules]))\nmain()"
    )
    environment = {"_BREVQ_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**ENVIRONMENT, **environment}
    )
    *offered, heavy = done.stdout.splitlines()
    assert ("[]", "") == (heavy, done.stderr)
    return [line.partition(",")[2] for line in offered]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("brevq ex", ["explain", "export"]),
        ("brevq explain Int8WeightPerChannelA", ["Int8WeightPerChannelA2Q", "Int8WeightPerChannelA2QPlus"]),
        ("brevq diff Int8Bias Int32B", ["Int32Bias"]),
        ("brevq check Int32B", ["Int32Bias"]),
        ("brevq show injectors:Int32B", ["injectors:Int32Bias"]),
        ("brevq list --library inj", ["injectors"]),
        ("brevq list --role t", ["truncation"]),
        ("brevq explain mine.p", ["mine.p"]),
    ],
)
def test_completion(words, offered):
    """A shell is offered commands, recipes, libraries and roles, and else files, without an import of torch."""
    assert offered == completed(words)


@pytest.mark.parametrize(
    "line", ["--help", "list", "list --json", "show Int8Bias", "list --help", "lst", "list --role x"]
)
def test_nothing_heavy_is_imported(line):
    """What needs no recipe built imports neither torch nor NumPy nor the libraries."""
    code = (
        f"import sys\nfrom brevq.cli import main\ntry:\n    main({line.split()})\nexcept SystemExit:\n"
        "    print([it for it in ('torch', 'numpy', 'injectors', 'rich') if it in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.splitlines()[-1]
