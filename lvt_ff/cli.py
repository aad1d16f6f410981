"""The command `lvt-ff`: names of commands, no logic."""

import importlib
import sys

from lvt_ff._version import __version__

__all__ = ["COMMANDS", "main"]

# Command: (module, function, parameters without a flag, what it does).
COMMANDS: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "models": ("lvt_ff.profiling", "models", (), "list the variants with their size and cost"),
    "finetune": ("lvt_ff.training.finetune", "finetune", (), "train on your own videos"),
    "kernels": ("lvt_ff.profiling", "kernels", (), "list the attention kernels with their cost"),
    "evaluate": ("lvt_ff.training.evaluate", "evaluate", (), "accuracy on labelled videos"),
    "predict": ("lvt_ff.inference.predict", "predict", ("videos",), "classify video files"),
    "explain": (
        "lvt_ff.explain.explain",
        "explain",
        ("video",),
        "draw what a model sees in a video",
    ),
    "app": ("lvt_ff.app.server", "app", (), "a page to try models on, or a Space"),
    "convert": (
        "lvt_ff.convert.convert",
        "convert",
        ("src", "dst"),
        "start from another model's checkpoint",
    ),
    "push": ("lvt_ff.hub.push", "push", ("folder", "repository"), "a model folder to the Hub"),
    "pull": ("lvt_ff.hub.pull", "pull", ("repository", "folder"), "a model folder from the Hub"),
    "export": (
        "lvt_ff.inference.export",
        "export",
        (),
        "one file for ONNX Runtime or torch.export",
    ),
    "ablate": ("lvt_ff.ablation.ablate", "ablate", (), "the paper's comparisons, trained again"),
    "demo": ("lvt_ff.demo", "demo", (), "the whole way on made-up videos, in minutes"),
}


def main(args: list[str] | None = None) -> int:
    """Run `lvt-ff COMMAND …`; returns the exit status."""
    args = sys.argv[1:] if args is None else args
    if args[:1] == ["--version"]:
        print(f"lvt-ff {__version__}")
        return 0
    if not args or args[0] in ("-h", "--help"):
        print("usage: lvt-ff COMMAND [options]; every command has --help\n")
        for name, (*_, summary) in COMMANDS.items():
            print(f"  {name:<10} {summary}")
        return 0 if args else 2
    if args[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"lvt-ff: error: unknown command {args[0]!r}; choose one of {known}", file=sys.stderr)
        return 2
    from lvt_ff.utils.command_line import run

    module, function, positional, _ = COMMANDS[args[0]]
    command = getattr(importlib.import_module(module), function)
    return run(command, f"lvt-ff {args[0]}", args[1:], positional)
