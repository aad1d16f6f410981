"""Functions as commands: forms of options, help, errors, recipe files, and calls from Python."""

import importlib
import inspect
import io
import json
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt

from lvt_ff.cli import COMMANDS, main
from lvt_ff.training.finetune import finetune
from lvt_ff.utils.command_line import command, execute, run
from lvt_ff.utils.errors import UsageError
from lvt_ff.utils.option_parser import command_parser
from lvt_ff.utils.option_types import LIMITS, Factor, as_typed, placeholder

SEEN = []


@command({"scale": "sizes", "fast": "speed"})
def toy(
    clips: list[str],
    model: str,
    scale: tuple[Factor, Factor] = (8 / 7, 10 / 7),
    place: tuple[int, ...] | None = None,
    num_steps: PositiveInt | None = None,
    lr: NonNegativeFloat = 5e-4,
    kind: Literal["one", "two"] = "one",
    fields: dict[str, Any] | None = None,
    output_dir: Path = Path("out"),
    fast: bool = False,
) -> None:
    """Do nothing much.

    Args:
        clips: What to do nothing with.
        model: What does nothing.
        scale: Two factors.
        place: Some numbers.
        num_steps: How often.
        lr: How fast: 100 % is 1.
        kind: Which one.
        fields: Other things.
        output_dir: Where nothing goes.
        fast: At once.
    """
    SEEN.append(dict(locals()))


@pytest.fixture
def call(capsys):
    """Runs the toy command; its arguments, or the line of its error."""

    def run_it(*args):
        SEEN.clear()
        status = run(toy, "lvt-ff toy", args, ["clips"])
        captured = capsys.readouterr()
        if status == 0:
            return SEEN[-1]
        assert status == 2 and captured.err.count("\n") == 1, captured.err
        return captured.err.removeprefix("lvt-ff toy: error: ").partition(" (see ")[0]

    return run_it


def function_of(name):
    return getattr(importlib.import_module(COMMANDS[name].module), COMMANDS[name].function)


def help_of(name, capsys):
    with pytest.raises(SystemExit):
        run(function_of(name), f"lvt-ff {name}", ["--help"], COMMANDS[name].positional)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "form", ["1.1,2", "(1.1,2)", "(1.1, 2)", "[1.1,2]", "[1.1, 2]", "1.1, 2.0"]
)
def test_numbers_are_taken_in_every_usual_form(form, call, tmp_path):
    assert call("a.mp4", "--model", "m", "--scale", form)["scale"] == (1.1, 2.0)
    (tmp_path / "recipe.yaml").write_text(f"scale: {form}\n")
    found = call("a.mp4", "--model", "m", "--config", str(tmp_path / "recipe.yaml"))
    assert found["scale"] == (1.1, 2.0)


def test_numbers_below_zero_are_taken(call):
    assert call("a.mp4", "--model", "m", "--place=-1,2")["place"] == (-1, 2)


def test_text_that_looks_like_numbers_stays_text(call):
    assert call("1,2", "--model", "3,4")["model"] == "3,4" and SEEN[-1]["clips"] == ["1,2"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_default_is_taken_as_help_shows_it(name, capsys):
    function, text = function_of(name), help_of(name, capsys)
    for parameter in inspect.signature(function).parameters.values():
        default = parameter.default
        if default in (None, parameter.empty) or default is False:
            continue
        words = " ".join(text.split())
        assert f"default: {as_typed(default)})" in words, parameter.name
        parser = command_parser(toy_of(parameter), "toy")
        parsed = parser.parse_args([f"--{parameter.name}={as_typed(default)}"])[parameter.name]
        if isinstance(default, tuple):
            assert parsed == pytest.approx(default, rel=1e-3)
        else:
            assert parsed == default


def toy_of(parameter):
    """A function of one parameter."""

    def function():
        """Take one parameter."""

    function.__signature__ = inspect.Signature([parameter])
    return function


def some_value(form):
    """A value, by what stands for it in the help text."""
    known = {
        "N": "3",
        "X": "0.5",
        "X,X": "1,1",
        "X,X,X": "1,2,3",
        "N,N,…": "1,2",
        "X,X,…": "1,2",
    }
    if form.startswith("{"):
        return form.strip("{}").split(",")[0]
    return known.get(form, '{"a": 1}' if form == "JSON" else "text")


@pytest.mark.parametrize("name", COMMANDS)
def test_dashes_and_underscores_are_the_same_in_every_option(name, monkeypatch):
    function, positional, found = function_of(name), COMMANDS[name].positional, []
    monkeypatch.setattr(
        "lvt_ff.utils.command_line.execute", lambda f, options, prog: found.append(options) or 0
    )
    parameters = inspect.signature(function).parameters.values()
    flags = [parameter for parameter in parameters if parameter.name not in positional]
    for join in "_-":
        args = ["some"] * len(positional)
        for parameter in flags:
            value = some_value(placeholder(parameter.annotation))
            args += [f"--{parameter.name.replace('_', join)}", value]
        assert run(function, "lvt-ff", args, positional) == 0
    assert found[0] == found[1] and len(found[0]) == len(parameters)


def test_a_value_keeps_its_dashes(call):
    found = call("--model=my-model", "--output-dir", "some-place", "--", "--a-b.mp4")
    assert (found["model"], str(found["output_dir"])) == ("my-model", "some-place")
    assert found["clips"] == ["--a-b.mp4"]


@pytest.mark.parametrize(
    "args, message",
    [
        (["--num_steps", "0"], "--num_steps must be at least 1, got 0"),
        (["--num_steps", "many"], "--num_steps must be an integer, at least 1, got many"),
        (["--num_steps", "1.5"], "--num_steps must be an integer, at least 1, got 1.5"),
        (["--lr", "nan"], "--lr must be at least 0, got nan"),
        (["--lr", "quick"], "--lr must be a number, at least 0, got quick"),
        (["--scale", "0.5,2"], "--scale must be at least 1, got 0.5"),
        (["--scale", "1,2,3"], "--scale must be 2 numbers such as 1,2, at least 1, got [1, 2, 3]"),
        (["--place", "here"], "--place must be several integers such as 1,2, got here"),
        (["--kind", "three"], "--kind must be one of one, two, got three"),
        (["--fields", "x"], '--fields must be names with values, such as {"depth": 2}, got x'),
        (["--fast", "maybe"], "--fast must be true or false, got maybe"),
        (["--num-step", "3"], "unknown option --num_step: did you mean '--num_steps'?"),
        (["--quantum"], "unknown option --quantum"),
        (["--model"], "--model needs a value; one that starts with a dash goes as --model=VALUE"),
        (
            ["--place", "-1,2"],
            "--place needs a value; one that starts with a dash goes as --place=",
        ),
        (["--model", ""], "--model has an empty value"),
        (["--model="], "--model has an empty value"),
        (["--config", "{tmp}/none"], "--config: File does not exist: '{tmp}/none'"),
        (["--config", "{tmp}"], "--config: Path is not a file: '{tmp}'"),
        (["--config", "{tmp}/unknown"], "--config has an unknown option 'num_step': did you mean"),
        (["--config", "{tmp}/broken"], "--config is not YAML: while parsing a flow sequence"),
        (["--config", "{tmp}/table"], "--config holds no options: it needs lines such as"),
        (["--config", "{tmp}/empty"], "--config holds no options: it needs lines such as"),
        (["--config", "{tmp}/kind"], "--num_steps must be an integer, at least 1, got many"),
        (["--config", "{tmp}/video"], "--config: 'utf-8' codec can't decode byte"),
    ],
)
def test_mistakes_are_told_in_a_line(args, message, call, tmp_path):
    (tmp_path / "unknown").write_text("num_step: 3\n")
    (tmp_path / "broken").write_text("a: [1\nb: 2\n")
    (tmp_path / "table").write_text("path,label\n" + "a.mp4,b\n" * 10_000)
    (tmp_path / "empty").write_text("")
    (tmp_path / "kind").write_text("num_steps: many\n")
    (tmp_path / "video").write_bytes(bytes(range(256)))
    args = [arg.replace("{tmp}", str(tmp_path)) for arg in args]
    assert call("a.mp4", "--model", "m", *args).startswith(message.replace("{tmp}", str(tmp_path)))


def test_what_is_missing_or_too_much_is_named(call):
    assert call() == "give clips and --model"
    assert call("a.mp4") == "give --model"
    assert call("", "--model", "m") == "an argument has an empty value"
    parser = command_parser(toy_of(inspect.signature(toy).parameters["model"]), "toy")
    with pytest.raises(UsageError, match="unexpected argument 'model': a value with spaces needs"):
        parser.parse_args(["--model", "my", "model"])


def test_flags_win_over_a_recipe_file_wherever_they_stand(call, tmp_path):
    (tmp_path / "recipe.yaml").write_text("lr: 1e-3\nnum_steps: 7\nmodel: m\n")
    config = ["--config", str(tmp_path / "recipe.yaml")]
    for args in ([*config, "--lr", "0.5"], ["--lr", "0.5", *config]):
        found = call("a.mp4", *args)
        assert (found["lr"], found["num_steps"]) == (0.5, 7)
    assert call("a.mp4", f"--config={tmp_path}/recipe.yaml")["lr"] == 1e-3


def test_printed_options_are_a_recipe_again(call, tmp_path, capsys):
    args = ["a.mp4", "--model", "m", "--scale", "1.5,2", "--fields", '{"a": [1]}']
    expected = call(*args)
    with pytest.raises(SystemExit) as end:
        run(toy, "lvt-ff toy", [*args, "--print_config"], ["clips"])
    assert end.value.code == 0
    (tmp_path / "recipe.yaml").write_text(capsys.readouterr().out)
    assert call("--config", str(tmp_path / "recipe.yaml")) == expected


def test_numbers_arrive_as_plain_ones(call):
    found = call("a.mp4", "--model", "m", "--num_steps", "3", "--lr", "1", "--scale", "1,2")
    assert [type(found[name]) for name in ("num_steps", "lr")] == [int, float]
    assert {type(number) for number in found["scale"]} == {float}


# Help


def test_help_has_the_groups_in_the_order_of_the_signature(capsys):
    with pytest.raises(SystemExit):
        run(toy, "lvt-ff toy", ["--help"], ["clips"])
    text = capsys.readouterr().out
    assert text.splitlines()[0] == "usage: lvt-ff toy clips [clips ...] --model TEXT [options]"
    first, sizes, speed = text.replace("\nspeed:", "\nsizes:").split("\nsizes:")
    assert "--model TEXT" in first and "--scale X,X" in sizes and "--fast" in speed
    lines = " ".join(text.split())
    assert "Two factors. (at least 1; default: 1.143,1.429)" in lines
    assert "How often. (integer, at least 1)" in lines and "--place N,N,…" in lines
    assert "How fast: 100 % is 1. (number, at least 0; default: 0.0005)" in lines
    assert "--output_dir PATH Where nothing goes. (default: out)" in lines


def test_every_option_of_finetune_is_in_a_group():
    first = next(iter(inspect.signature(finetune).parameters))
    assert first in finetune.option_groups and len(finetune.option_groups) >= 4


def test_a_group_of_no_parameter_is_refused():
    with pytest.raises(ValueError, match="function has no parameter 'size'"):
        command({"size": "sizes"})(toy_of(inspect.signature(toy).parameters["model"]))


def test_every_number_with_limits_has_words_for_them():
    for name in COMMANDS:
        for parameter in inspect.signature(function_of(name)).parameters.values():
            kinds = [parameter.annotation, *get_args(parameter.annotation)]
            kinds += [part for kind in kinds for part in get_args(kind)]
            for kind in kinds:
                limited = isinstance(kind, type) and hasattr(kind, "_restrictions")
                assert not limited or kind in LIMITS, f"{name} --{parameter.name}"


# Calls from Python


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(num_steps=0), "^num_steps must be at least 1, got 0"),
        (dict(num_steps=2.5), "^num_steps must be an integer, at least 1, got 2.5"),
        (dict(lr=float("nan")), "^lr must be at least 0, got nan"),
        (dict(lr=None), "^lr cannot be null"),
        (dict(kind="three"), "^kind must be one of one, two, got three"),
        (dict(scale=(0.5, 2)), "^scale must be at least 1, got 0.5"),
        (dict(fast="maybe"), "^fast must be true or false, got maybe"),
    ],
)
def test_a_call_with_a_bad_value_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        toy(["a.mp4"], "m", **options)


def test_a_call_gets_what_it_was_given():
    fields = dict(depth=1, sizes=(1, 2))
    toy([Path("a.mp4")], Path("m"), scale=[1, 2], fields=fields, output_dir="there")
    assert SEEN[-1]["clips"] == [Path("a.mp4")] and SEEN[-1]["model"] == Path("m")
    assert SEEN[-1]["scale"] == [1, 2] and SEEN[-1]["fields"] is fields
    assert fields == dict(depth=1, sizes=(1, 2)) and SEEN[-1]["output_dir"] == "there"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_checks_calls_from_python(name):
    for parameter in inspect.signature(function_of(name)).parameters.values():
        if placeholder(parameter.annotation) in ("N", "X"):
            with pytest.raises(UsageError, match=f"^{parameter.name} must be a"):
                function_of(name)(**{**needed(name), parameter.name: "many"})


def needed(name):
    """Something for each parameter without a default."""
    parameters = inspect.signature(function_of(name)).parameters.values()
    missing = [parameter for parameter in parameters if parameter.default is parameter.empty]
    return {p.name: ["x"] if get_origin(p.annotation) is list else "x" for p in missing}


# Memory


@pytest.mark.parametrize("name", COMMANDS)
def test_advice_on_memory_names_options_of_the_command(name, capsys):
    function = function_of(name)

    def full():
        raise torch.OutOfMemoryError("CUDA out of memory.")

    full.__signature__ = inspect.signature(function)
    assert execute(full, {}, f"lvt-ff {name}") == 1
    line = capsys.readouterr().err
    assert line.startswith(f"lvt-ff {name}: failed: out of GPU memory: ") and line.count("\n") == 1
    flags = [word.strip(",") for word in line.split() if word.startswith("--")]
    assert {flag[2:] for flag in flags} <= inspect.signature(function).parameters.keys()
    if name == "finetune":
        assert {"--batch_size", "--grad_checkpointing", "--mixed_precision"} <= set(flags)
    if name == "predict":
        assert "--batch_size" not in flags and "--device" in flags


@pytest.mark.parametrize(
    "error, message",
    [
        (MemoryError(), "out of memory: lower --batch_size"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
            "out of memory: lower --batch_size",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
            "a process that reads videos was ended, perhaps for want of memory: lower --num_",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "a process that reads videos was killed by signal: Killed, perhaps for want of memory: "
            "lower --num_workers, and go on with --resume",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) exited unexpectedly with exit code 3. Details"),
            "a process that reads videos was ended with exit code 3, perhaps for want of memory",
        ),
    ],
)
def test_other_shortages_are_a_line_too(error, message, capsys):
    def full():
        raise error

    full.__signature__ = inspect.signature(finetune)
    assert execute(full, {}, "lvt-ff finetune") == 1
    line = capsys.readouterr().err
    assert line.startswith(f"lvt-ff finetune: failed: {message}") and line.count("\n") == 1
    assert "--cpu" not in line


def test_bugs_keep_their_traceback():
    def broken():
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        execute(broken, {}, "lvt-ff")


def test_options_of_a_run_are_read_from_its_results(call, tmp_path):
    settings = dict(model="m", lr=1e-5, scale=[1.5, 2.0], num_steps=None)
    stored = dict(settings=settings, environment={}, derived=dict(global_batch=8))
    (tmp_path / "results.json").write_text(json.dumps(stored))
    found = call("a.mp4", "--config", str(tmp_path / "results.json"))
    assert (found["lr"], found["scale"], found["model"]) == (1e-5, (1.5, 2.0), "m")
    before = dict(settings=dict(settings, train_videos="8 videos", global_batch=8), environment={})
    (tmp_path / "old.json").write_text(json.dumps(before))
    assert call("a.mp4", "--config", str(tmp_path / "old.json")) == found


def test_numbers_in_calls_have_the_type_that_was_asked_for():
    toy(["a.mp4"], "m", num_steps="3", lr="1e-3")
    assert SEEN[-1]["num_steps"] == 3 and type(SEEN[-1]["num_steps"]) is int
    assert SEEN[-1]["lr"] == 1e-3


def test_only_commands_that_store_options_offer_results(capsys):
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        offered = "results.json of an earlier run" in " ".join(capsys.readouterr().out.split())
        assert offered == (name in ("finetune", "ablate", "benchmark"))


@command()
def echo(clips: list[str]) -> None:
    """Print names.

    Args:
        clips: Names.
    """
    print(*clips)


@pytest.mark.parametrize(
    "encoding, printed",
    [("utf-8", "caf\\udce9 ü 视".encode()), ("ascii", rb"caf\udce9 \xfc \u89c6")],
)
def test_names_that_are_no_text_in_an_encoding_print_as_escapes(encoding, printed, monkeypatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    assert run(echo, "lvt-ff echo", ["caf\udce9", "ü", "视"], ["clips"]) == 0
    stream.flush()
    assert raw.getvalue().strip() == printed
