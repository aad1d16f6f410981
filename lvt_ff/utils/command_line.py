"""A typed function as a command: flags and help from its signature, errors in one line."""

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

import torch
from docstring_parser import parse
from jsonargparse import ArgumentError, ArgumentParser
from safetensors import SafetensorError
from transformers.utils.logging import disable_progress_bar

from lvt_ff.utils.errors import Failure, UsageError, VideoReadError

__all__ = [
    "check_options",
    "check_parent",
    "check_ranges",
    "command_parser",
    "execute",
    "run",
]


def check_parent(output: Path) -> None:
    """Raise ValueError where the folder that a file is to be written to is not there."""
    if not output.absolute().parent.is_dir():
        raise ValueError(f"There is no folder {output.absolute().parent} to write to.")


def check_ranges(**ranges: tuple[float | None, float, float | None]) -> None:
    """Check options given as (value, least, most); None as a value or bound is not checked.

    Raises:
        ValueError: the first option out of its range, by its flag.
    """
    for name, (value, least, most) in ranges.items():
        if value is None:
            continue
        if value < least or (most is not None and value > most):
            bound = f"at least {least}" if most is None else f"between {least} and {most}"
            raise ValueError(f"--{name} must be {bound}, got {value}.")


def check_options(function: Callable, options: dict[str, Any], source: str) -> None:
    """Raise ValueError where options are not of the kinds that a function's signature names.

    Args:
        function: typed, with a Google-style docstring.
        options: its arguments, all that have no default among them.
        source: what they come from, for the message.
    """
    parameters = inspect.signature(function).parameters
    for name, value in options.items():  # which the parser takes for an option left out
        kinds = get_args(parameters[name].annotation)
        if value is None and parameters[name].default is not None and type(None) not in kinds:
            raise ValueError(f"{source}: {name} cannot be null.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(function, as_group=False)
    try:
        parser.parse_object(options)
    except ArgumentError as error:
        raise ValueError(f"{source}: {' '.join(str(error).split())}") from error


class _OneLineParser(ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = " ".join(str(message).split())
        print(f"{self.prog}: error: {line} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def command_parser(function: Callable, prog: str, positional: Sequence[str] = ()) -> ArgumentParser:
    """A parser whose options are a function's parameters.

    Args:
        function: typed, with a Google-style docstring.
        prog: what the user types.
        positional: parameters given without a flag; one annotated as a list takes several
            values, one with a default may be left out.
    """
    parser = _OneLineParser(prog=prog, description=(function.__doc__ or "").split("\n\n")[0])
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    skip = set(positional)
    explained = {part.arg_name: part.description for part in parse(function.__doc__ or "").params}
    for name in positional:
        parameter = inspect.signature(function).parameters[name]
        options = dict(type=parameter.annotation, help=explained.get(name))
        if get_origin(parameter.annotation) is list:
            options.update(type=str, nargs="+")
        elif parameter.default is not parameter.empty:
            options.update(nargs="?", default=parameter.default)
        parser.add_argument(name, **options)
    parser.add_function_arguments(function, as_group=False, skip=skip)
    for action in parser._actions:
        if getattr(action, "_typehint", None) is bool:  # `--resume` alone means true
            action.nargs, action.const = "?", "true"
    return parser


def run(
    function: Callable, prog: str, args: Sequence[str] | None = None, positional: Sequence[str] = ()
) -> int:
    """Parse a command line (None: the process's) and run it; returns the exit status."""
    options = command_parser(function, prog, positional).parse_args(args).as_dict()
    options.pop("config", None)
    disable_progress_bar()  # transformers' bars for loading weights; commands have their own
    return execute(function, options, prog)


def execute(function: Callable, options: dict[str, Any], prog: str) -> int:
    """Run a command: 0 where it is done, 1 where it failed, 2 where it was asked wrongly."""
    try:
        function(**options)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 1
    except UsageError as error:
        print(f"{prog}: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError:
        print(
            f"{prog}: failed: out of GPU memory: lower --batch_size (with --accumulation), or use "
            "--grad_checkpointing or --mixed_precision bf16",
            file=sys.stderr,
        )
        return 1
    except (Failure, OSError, SafetensorError, VideoReadError) as error:  # the rest are bugs
        print(f"{prog}: failed: {_one_line(error)}", file=sys.stderr)
        return 1
    # Not where a run ends, as a command may have several; nor after a failure, where other
    # processes may wait for this one.
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


def _one_line(error: Exception) -> str:
    text = str(error)
    if "Original Traceback" in text:  # a data loader's worker puts its traceback into the message
        text = text.strip().splitlines()[-1]
    return " ".join(text.split()) or type(error).__name__
