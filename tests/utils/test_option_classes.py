"""Commands with a dataclass among their parameters: a flag for each of its fields."""

import inspect
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from jsonargparse.typing import PositiveInt

from lvt_ff.utils.command_line import command, run
from lvt_ff.utils.errors import UsageError

SEEN = []


@dataclass(frozen=True)
class Sizes:
    """Some sizes.

    Args:
        height: How high.
        width: How wide, at least as
            much as height.
    """

    height: PositiveInt = 2
    width: PositiveInt | None = None

    def __post_init__(self):
        if self.width is not None and self.width < self.height:
            raise ValueError(f"--width must be at least --height, got {self.width}.")


@command({"height": "sizes", "name": "names"})
def toy(place: str, *, sizes: Sizes, name: str = "box") -> None:
    """Do nothing much.

    Args:
        place: Where.
        sizes: Not an option.
        name: What it is called.
    """
    SEEN.append((place, sizes, name))


@command({"height": "sizes"})
def other(place: str, *, sizes: Annotated[dict[str, Any], Sizes]) -> None:
    """Do nothing at all.

    Args:
        place: Where.
    """
    SEEN.append((place, sizes))


def called(*args, function=toy):
    SEEN.clear()
    status = run(function, "lvt-ff toy", args, ["place"])
    return SEEN[-1] if status == 0 else status


def test_fields_are_flags():
    assert called("here") == ("here", Sizes(), "box")
    assert called("here", "--height", "3", "--name=a") == ("here", Sizes(3), "a")
    assert called("here", "--width", "5") == ("here", Sizes(width=5), "box")


def test_fields_may_come_from_a_file(tmp_path):
    (tmp_path / "recipe.yaml").write_text("height: 3\nwidth: 4\n")
    found = called("here", "--config", str(tmp_path / "recipe.yaml"), "--width", "6")
    assert found[1] == Sizes(3, 6)


def test_fields_are_arguments_in_python():
    toy("there", height=4, name="b")
    assert SEEN[-1] == ("there", Sizes(4), "b")
    assert list(inspect.signature(toy).parameters) == ["place", "height", "width", "name"]
    with pytest.raises(UsageError, match="^height must be at least 1, got 0"):
        toy("there", height=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'sizes'"):
        toy("there", sizes=Sizes())


@pytest.mark.parametrize(
    "args, message",
    [
        (["--height", "0"], "--height must be at least 1, got 0"),
        (["--height", "4", "--width", "3"], "--width must be at least --height, got 3."),
        (["--sizes", "3"], "unknown option --sizes"),
    ],
)
def test_bad_fields_are_told_in_a_line(args, message, capsys):
    assert called("here", *args) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_help_says_what_the_class_says(capsys):
    with pytest.raises(SystemExit):
        run(toy, "lvt-ff toy", ["--help"], ["place"])
    text = capsys.readouterr().out
    sizes, names = text.partition("\nsizes:")[2].split("\nnames:")
    sizes = " ".join(sizes.split())
    assert "--height N How high. (integer, at least 1; default: 2)" in sizes
    assert "--width N How wide, at least as much as height. (integer, at least 1)" in sizes
    assert "--name" in names and "Not an option" not in text


def test_open_fields_are_left_to_the_function(capsys):
    def found(*args):
        return called("here", *args, function=other)

    assert found() == ("here", dict(height=None, width=None))
    assert found("--height", "3") == ("here", dict(height=3, width=None))
    assert found("--height", "null", "--width", "1")[1] == dict(height=None, width=1)
    assert found("--height", "0") == 2
    assert "--height must be at least 1, got 0" in capsys.readouterr().err
    other("there", width=4)
    assert SEEN[-1] == ("there", dict(height=None, width=4))
    with pytest.raises(SystemExit):
        run(other, "lvt-ff other", ["--help"], ["place"])
    assert "--height N How high. (integer, at least 1)" in " ".join(capsys.readouterr().out.split())
