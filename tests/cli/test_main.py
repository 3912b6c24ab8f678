"""The command line: what it answers, how fast, and how it fails."""

import re
import subprocess
import sys

import pytest

import brevq
from brevq.cli import main


def run(*arguments, code=None):
    """`python -m brevq`, or some code, in a process of its own; warnings are errors there."""
    start = ["-m", "brevq"] if code is None else ["-c", code]
    command = [sys.executable, "-W", "error", *start, *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False)


@pytest.fixture
def fails(capsys):
    """Runs the command line on arguments; returns its exit status and what it printed to standard error."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        if isinstance(stop.value.code, str):  # Python prints it, and exits with 1, where nothing catches it
            return 1, stop.value.code
        return stop.value.code, capsys.readouterr().err.strip()

    return call


def test_help_lists_the_commands():
    """`--help` exits with 0, and names the quickstart."""
    done = run("--help")
    assert (0, "") == (done.returncode, done.stderr)
    assert re.search("quickstart +Quantize a small network and see what it costs.\n", done.stdout)


def test_help_of_the_quickstart_names_its_options(capsys):
    """Each option is shown with its default."""
    with pytest.raises(SystemExit):
        main(["quickstart", "--help"])
    shown = "".join(capsys.readouterr().out.split())  # its line breaks are click's choice
    for text in ("[default:quickstart-out]", "[default:6;x>=1]", "[default:0;0<=x<=4294967295]", "[default:1;x>=1]"):
        assert text in shown


def test_help_loads_nothing_heavy():
    """Neither torch nor NumPy nor matplotlib is imported to answer `--help`."""
    code = (
        "import sys\nfrom brevq.cli import main\n"
        "try:\n    main(['quickstart', '--help'])\n"
        "except SystemExit:\n    print([name for name in ('torch', 'numpy', 'matplotlib') if name in sys.modules])"
    )
    assert "[]" == run(code=code).stdout.splitlines()[-1]


def test_version(capsys):
    """`--version` tells the version of the package."""
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert (0, f"brevq, version {brevq.__version__}\n") == (stop.value.code, capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["quickstrat"], "Error: No such command 'quickstrat'."),
        (["quickstart", "--epochs", "0"], "Error: Invalid value for '--epochs': 0 is not in the range x>=1."),
        (["quickstart", "--seed", "x"], "Error: Invalid value for '--seed': 'x' is not a valid integer range."),
        (["quickstart", "--bits", "4"], "Error: No such option '--bits'"),
    ],
)
def test_wrong_usage_exits_with_2(fails, arguments, reason):
    """What the command line does not understand is told in its last line, with exit status 2."""
    status, told = fails(*arguments)
    assert 2 == status
    assert told.splitlines()[-1].startswith(reason)


def test_a_folder_that_is_a_file_is_wrong_usage(fails, tmp_path):
    """`--out` must not be a file."""
    file = tmp_path / "file"
    file.touch()
    status, told = fails("quickstart", "--out", str(file))
    assert 2 == status
    assert f"Error: Invalid value for '--out': Directory '{file}' is a file." == told.splitlines()[-1]


def test_a_failed_run_exits_with_1_and_one_line(tmp_path):
    """A folder that can not be made is told in one line, without a traceback, before anything is trained."""
    file = tmp_path / "file"
    file.touch()
    done = run("quickstart", "--out", str(file / "below"))
    assert (1, "", f"Error: Not a directory: {file / 'below'}\n") == (done.returncode, done.stdout, done.stderr)


def test_without_the_command_lines_extra_it_says_what_to_install():
    """Without click, one line names the extra; nothing of click is imported before that."""
    done = run(code="import sys; sys.modules['click'] = None; import brevq.cli; brevq.cli.main(['--help'])")
    assert (1, "") == (done.returncode, done.stdout)
    assert "Error: click is not installed: pip install 'brevq[cli]'\n" == done.stderr


def test_all_missing_packages_are_named_at_once(fails, monkeypatch):
    """Two missing packages are one line."""
    monkeypatch.setitem(sys.modules, "click", None)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert (1, "Error: click, rich are not installed: pip install 'brevq[cli]'") == fails("--help")


@pytest.mark.parametrize("package", ["matplotlib", "mlxtend", "numpy"])
def test_without_the_quickstarts_extra_it_says_what_to_install(fails, monkeypatch, tmp_path, package):
    """The quickstart needs a larger extra than the command line, and asks for it before it makes its folder."""
    monkeypatch.setitem(sys.modules, package, None)
    expected = (1, f"Error: {package} is not installed: pip install 'brevq[demo]'")
    assert expected == fails("quickstart", "--out", str(tmp_path / "out"))
    assert [] == list(tmp_path.iterdir())


def test_an_interrupt_ends_it_without_a_traceback(fails, monkeypatch, tmp_path):
    """Ctrl-C in a training exits with 1 and one word."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("brevq.cli.quickstart.run._train_float", interrupted)
    assert (1, "Aborted!") == fails("quickstart", "--out", str(tmp_path))
