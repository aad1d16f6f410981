"""A typed function as a command: flags and help from its signature, errors in one line."""

import functools
import inspect
import io
import os
import re
import runpy
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.utils.logging import disable_progress_bar

from lvt_ff.utils.errors import (
    DamagedVideoWarning,
    Failure,
    Stopped,
    UsageError,
    VideoReadError,
    one_line,
)
from lvt_ff.utils.option_classes import flat_signature, with_classes
from lvt_ff.utils.option_parser import checked_options, command_parser, parse_command

__all__ = ["command", "execute", "is_out_of_memory", "run"]

# What takes less memory, by the option that it needs.
_SMALLER = {
    "batch_size": "lower --batch_size",
    "clips": "lower --clips",
    "crops": "lower --crops",
    "views_per_forward": "lower --views_per_forward",
    "grad_checkpointing": "use --grad_checkpointing",
    "mixed_precision": "use --mixed_precision bf16",
    "recipe": "lower batch_size in --recipe",
}
_SMALLER_CLIPS = {"num_frames": "lower --num_frames", "img_size": "lower --img_size"}
_OFF_THE_GPU = {"device": "use --device cpu", "cpu": "use --cpu"}
_WORKERS = {"num_workers": "lower --num_workers"}


def command(
    groups: dict[str, str] | None = None, stores_options: bool = False
) -> Callable[[Callable], Callable]:
    """Make a typed function a command, whose arguments are checked wherever they come from.

    A parameter whose type is a dataclass becomes an option for each field, with the field's default
    and what the class's docstring says of it. One of type `Annotated[dict[str, Any], dataclass]`
    has the same options without defaults, and gets a value or None for each.

    Args:
        groups: titles in the help text, each by the first option that stands below it.
        stores_options: it writes a results.json that `--config` takes.

    Raises:
        ValueError: a title for a parameter that the function does not have.
    """
    groups = groups or {}

    def decorate(function: Callable) -> Callable:
        if function.__module__ == "__main__":  # python -m lvt_ff.training.finetune
            sys.argv[1:1] = [function.__name__]
            runpy.run_module("lvt_ff", run_name="__main__", alter_sys=True)
        signature = flat_signature(function)
        for name in groups.keys() - signature.parameters.keys():
            raise ValueError(f"{function.__name__} has no parameter {name!r}.")

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            try:
                given = signature.bind(*args, **kwargs).arguments
                arguments = with_classes(function, checked_options(checked, given))
            except ValueError as error:
                raise UsageError(str(error)) from error
            return function(**arguments)

        checked.__signature__ = signature
        checked.option_groups, checked.stores_options = groups, stores_options
        return checked

    return decorate


def run(
    function: Callable, prog: str, args: Sequence[str] | None = None, positional: Sequence[str] = ()
) -> int:
    """Parse a command line (None: the process's) and run it; returns the exit status."""
    _print_all_names()
    parser = command_parser(function, prog, positional)
    try:
        options = parse_command(parser, sys.argv[1:] if args is None else args)
    except UsageError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 2
    disable_progress_bar()  # transformers' bars for loading weights; commands have their own
    with warnings.catch_warnings():
        _tell_damage_in_a_line(prog)
        return execute(function, options, prog)


def _tell_damage_in_a_line(prog: str) -> None:
    """Show warnings of damaged videos without the place in the code."""
    show = warnings.showwarning

    def show_plainly(message, category, *place, **more) -> None:
        if issubclass(category, DamagedVideoWarning):
            print(f"{prog}: warning: {message}", file=sys.stderr)
        else:
            show(message, category, *place, **more)

    warnings.showwarning = show_plainly
    warnings.simplefilter("always", DamagedVideoWarning)


def _print_all_names() -> None:
    """Let names of files print that the terminal's encoding has no characters for, as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # notebooks have others
            stream.reconfigure(errors="backslashreplace")


def execute(function: Callable, options: dict[str, Any], prog: str) -> int:
    """Run a command: 0 where it is done, 1 where it failed, 2 where it was asked wrongly.

    128 and its number where a signal ended it.
    """
    try:
        function(**options)
    except BrokenPipeError:  # of `lvt-ff models | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains
        return 1
    except UsageError as error:
        print(f"{prog}: error: {one_line(error)}", file=sys.stderr)
        return 2
    except Stopped as error:
        if os.environ.get("RANK", "0") == "0":  # all processes were told
            print(f"{prog}: {one_line(error)}", file=sys.stderr)
        return error.exit_status
    except (Failure, OSError, SafetensorError, VideoReadError) as error:
        print(f"{prog}: failed: {one_line(error)}", file=sys.stderr)
        return 1
    except (RuntimeError, MemoryError) as error:
        told = _shortage(error, inspect.signature(function).parameters)
        if told is None:  # a bug
            raise
        print(f"{prog}: failed: {told}", file=sys.stderr)
        return 1
    # Not where a run ends, as a command may have several; nor after a failure, where other
    # processes may wait for this one.
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory of the machine, or of its GPU, did not suffice."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator" in str(error)


def _ended(error: Exception) -> str:
    """What torch says of the end of a data loader's process."""
    told = f"{error} {error.__cause__ or ''}"
    killed = re.search(r"killed by signal: [\w ]+", told)
    code = re.search(r"exit code (\d+)", told)
    how = killed[0] if killed else f"ended with exit code {code[1]}" if code else "ended"
    return f"a process that reads videos was {how}"


def _shortage(error: Exception, options: Iterable[str]) -> str | None:
    """What was short of memory, and which of a command's options take less; None for a bug."""
    if isinstance(error, torch.OutOfMemoryError):
        what, wanted = "out of GPU memory", (*_SMALLER, *_OFF_THE_GPU)
    elif is_out_of_memory(error):
        what, wanted = "out of memory", (*_SMALLER, *_SMALLER_CLIPS)
    elif "DataLoader worker" in str(error):
        what, wanted = f"{_ended(error)}, perhaps for want of memory", _WORKERS
    else:
        return None
    known = _SMALLER | _SMALLER_CLIPS | _OFF_THE_GPU | _WORKERS
    advice = [known[name] for name in wanted if name in options]
    rest = ", and go on with --resume" if wanted is _WORKERS and "resume" in options else ""
    return f"{what}: {', or '.join(advice) or 'use a smaller model'}{rest}"
