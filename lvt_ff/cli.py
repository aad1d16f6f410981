"""The command `lvt-ff`: names of commands, no logic."""

import importlib
import signal
import sys
from typing import NamedTuple

from lvt_ff._version import __version__
from lvt_ff.utils.validation import suggest

__all__ = ["COMMANDS", "GROUPS", "Command", "main"]


class Command(NamedTuple):
    """A command: the function behind it, and what `lvt-ff --help` says of it."""

    module: str
    function: str
    summary: str
    positional: tuple[str, ...] = ()  # parameters without a flag


GROUPS: dict[str, dict[str, Command]] = {
    "see what there is": {
        "demo": Command("lvt_ff.demo", "demo", "train and try a small model, in 4 minutes"),
        "models": Command("lvt_ff.profiling", "models", "list the variants with size and cost"),
        "kernels": Command("lvt_ff.profiling", "kernels", "list the attention kernels with cost"),
        "benchmark": Command(
            "lvt_ff.benchmarking.benchmark", "benchmark", "measure speed and memory of models"
        ),
    },
    "get data ready": {
        "check-data": Command(
            "lvt_ff.data.check_data", "check_data", "find what is wrong with videos", ("data",)
        ),
        "prepare-data": Command(
            "lvt_ff.data.prepare_data",
            "prepare_data",
            "write videos as tar shards",
            ("source", "dest"),
        ),
        "benchmark-data": Command(
            "lvt_ff.benchmarking.benchmark_data",
            "benchmark_data",
            "measure how fast videos are read",
            ("data",),
        ),
    },
    "train a model": {
        "finetune": Command("lvt_ff.training.finetune", "finetune", "train on your own videos"),
        "show-batch": Command(
            "lvt_ff.training.show_batch", "show_batch", "draw what a model sees in training"
        ),
        "evaluate": Command("lvt_ff.training.evaluate", "evaluate", "accuracy on labelled videos"),
        "ensemble": Command(
            "lvt_ff.training.ensemble",
            "ensemble",
            "average scores of several models",
            ("files",),
        ),
        "convert": Command(
            "lvt_ff.convert.convert",
            "convert",
            "start from another model's checkpoint",
            ("src", "dst"),
        ),
        "ablate": Command(
            "lvt_ff.ablation.ablate", "ablate", "train the paper's comparisons again"
        ),
    },
    "use a model": {
        "verify": Command(
            "lvt_ff.hub.verify", "verify", "check that a model computes what it should", ("model",)
        ),
        "predict": Command("lvt_ff.inference.predict", "predict", "classify videos", ("videos",)),
        "explain": Command(
            "lvt_ff.explain.explain", "explain", "draw what a model sees in a video", ("video",)
        ),
        "app": Command("lvt_ff.app.server", "app", "open a page to try models on, or make a Space"),
    },
    "share a model": {
        "push": Command(
            "lvt_ff.hub.push", "push", "send a model folder to the Hub", ("folder", "repository")
        ),
        "pull": Command(
            "lvt_ff.hub.pull", "pull", "fetch a model folder from the Hub", ("repository", "folder")
        ),
        "export": Command(
            "lvt_ff.inference.export", "export", "write one file for ONNX Runtime or torch.export"
        ),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}


def main(args: list[str] | None = None) -> int:
    """Run `lvt-ff COMMAND …`; returns the exit status."""
    args = sys.argv[1:] if args is None else args
    if args[:1] == ["--version"]:
        print(f"lvt-ff {__version__}")
        return 0
    if not args or args[0] in ("-h", "--help"):
        print(_overview())
        return 0 if args else 2
    if args[0] not in COMMANDS:
        option = args[0].startswith("-")
        known = suggest(args[0], ["--help", "--version"] if option else [*COMMANDS])
        kind = "option" if option else "command"
        print(f"lvt-ff: error: unknown {kind} {args[0]!r}: {known}", file=sys.stderr)
        return 2
    command = COMMANDS[args[0]]
    try:  # the libraries take seconds to load, in which Ctrl+C is as likely as later
        from lvt_ff.utils.command_line import run

        function = getattr(importlib.import_module(command.module), command.function)
        return run(function, f"lvt-ff {args[0]}", args[1:], command.positional)
    except KeyboardInterrupt:
        print(f"lvt-ff {args[0]}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _overview() -> str:
    lines = ["usage: lvt-ff COMMAND [options]; every command has --help"]
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:<14} {command.summary}" for name, command in commands.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
