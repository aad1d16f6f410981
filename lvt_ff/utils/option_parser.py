"""A parser made from a typed function: flags, help, recipe files, and mistakes in plain words."""

import argparse
import inspect
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, get_args, get_origin

import yaml
from jsonargparse import ArgumentError, ArgumentParser, get_loader, set_loader

from lvt_ff.utils.errors import UsageError, one_line
from lvt_ff.utils.option_classes import explanations
from lvt_ff.utils.option_types import as_typed, expected, limits, placeholder
from lvt_ff.utils.validation import suggest

__all__ = ["checked_options", "command_parser", "parse_command"]

_MODE = "lvt_ff"  # of jsonargparse, for `_load`
# What a run stored among its settings before they could be read back as options.
_NOT_OPTIONS = {"train_videos", "eval_videos", "global_batch"}
_NUMBERS = re.compile(r"\(?\s*[-+.\d][-+.\de]*(\s*,\s*[-+.\d][-+.\de]*)+\s*\)?")
# Where jsonargparse's messages repeat the value.
_GOT = (
    r"(?:Got|Given) value: (.*)",
    r"(?:int\(\) with base 10|string to float): '(.*)'",
    r"(\S+) (?:does not conform|not an? )",
)
_CONFIG_HELP = "YAML file with any of these options{}; flags win over it."
_OR_RESULTS = ", or results.json of an earlier run"
# Help and placeholder of what jsonargparse adds by itself.
_OWN_HELP = {
    "help": ("Show this help and exit.", None),
    "print_config": ("Print all options as YAML for --config, and exit.", ""),
}


def checked_options(
    function: Callable, options: dict[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """Options as given, but numbers of the type that a function's signature says.

    Args:
        function: typed.
        options: some or all of its arguments.
        prefix: of an option's name in the message.

    Raises:
        ValueError: an option that is not what the signature says.
    """
    annotations = _annotations(function)
    parser = ArgumentParser(exit_on_error=False)
    for name, value in options.items():
        # jsonargparse takes null for an option that was left out, and says nothing.
        if value is None and type(None) not in get_args(annotations[name]):
            raise ValueError(f"{prefix}{name} cannot be null.")
        parser.add_argument(f"--{name}", type=annotations[name])
    try:
        parsed = parser.parse_object({name: _without_classes(v) for name, v in options.items()})
    except ArgumentError as error:
        labels = {name: f"{prefix}{name}" for name in options}
        raise ValueError(f"{_explained(str(error), annotations, labels)}.") from error
    numbers = {name: _plain(parsed[name]) for name in options}
    return options | {name: n for name, n in numbers.items() if type(n) in (int, float)}


def _annotations(function: Callable) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    return {name: parameter.annotation for name, parameter in parameters.items()}


def _without_classes(value: Any) -> Any:
    """A value as a command line or recipe would hold it: paths are text, tuples are lists."""
    if isinstance(value, list | tuple):
        return [_without_classes(part) for part in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _explained(message: str, annotations: dict[str, Any], labels: dict[str, str]) -> str:
    """What jsonargparse says of a value, in our words where it is about an option."""
    key = re.search(r'Parser key "(\w+)"', message)
    if key is None or key[1] not in annotations:
        return one_line(message)
    annotation = annotations[key[1]]
    within, words = limits(annotation), expected(annotation)
    if within and "does not conform" in message:
        words = within
    elif within:
        words = f"{words}, {within}"
    told = f"{labels[key[1]]} must be {words}"
    for pattern in _GOT:
        if found := re.search(pattern, message):
            return f"{told}, got {found[1][:60]}"
    return told


class _OneLineParser(ArgumentParser):
    """Tells a mistake in one line, and what was meant."""

    labels: dict[str, str]  # of options, by parameter
    annotations: dict[str, Any]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UsageError(f"{self._told(message)} (see {self.prog} --help)")

    def _told(self, message: str) -> str:
        unknown = re.match(r"unrecognized arguments: (\S+)", message, re.I)
        if unknown and unknown[1].startswith("-"):
            name = unknown[1].partition("=")[0]
            return f"unknown option {name}{_meant(name, self._option_string_actions)}"
        if unknown:
            return f"unexpected argument {unknown[1]!r}: a value with spaces needs quotes"
        # Of either of these two, the second form is that of older versions of jsonargparse.
        missing = r"the following arguments are required: (.*)|.*Key \"(.*)\" is required"
        if found := re.match(missing, message):
            names = (found[1] or found[2]).split(", ")
            return f"give {' and '.join(self.labels.get(name, name) for name in names)}"
        if key := re.search(r"(?:Option|Key) '(.*)' is not (?:accepted|expected)", message):
            return f"--config has an unknown option {key[1]!r}{_meant(key[1], self.labels)}"
        if lone := re.match(r"argument (--\w+).*: expected one argument", message):
            return f"{lone[1]} needs a value; one that starts with a dash goes as {lone[1]}=VALUE"
        if message.startswith("Unexpected config"):  # the whole file follows
            return "--config holds no options: it needs lines such as `name: value`"
        if message.startswith("Problems parsing config"):
            where = message.partition(": ")[2].replace(' in "<unicode string>",', " in")
            return f"--config is not YAML: {one_line(where)}"
        message = message.replace('Parser key "config"', "--config")
        return _explained(message, self.annotations, self.labels)


def _meant(name: str, known: Iterable[str]) -> str:
    told, question, _ = suggest(name, [*known]).partition("?")
    return f": {told}?" if question else ""


def command_parser(function: Callable, prog: str, positional: Sequence[str] = ()) -> ArgumentParser:
    """A parser whose options are a function's parameters.

    Args:
        function: a command, with a Google-style docstring.
        prog: what the user types.
        positional: parameters given without a flag; one annotated as a list takes several
            values, one with a default may be left out.
    """
    parser = _OneLineParser(
        prog=prog,
        description=(function.__doc__ or "").split("\n\n")[0],
        formatter_class=argparse.HelpFormatter,
        parser_mode=_MODE,
        allow_abbrev=False,
    )
    parser.annotations = _annotations(function)
    parser.labels = {
        name: name if name in positional else f"--{name}" for name in parser.annotations
    }
    results = _OR_RESULTS if getattr(function, "stores_options", False) else ""
    told = _CONFIG_HELP.format(results)
    parser.add_argument("--config", action="config", metavar="FILE", help=told)
    explained = explanations(function)
    titles, group, usage = getattr(function, "option_groups", {}), parser, [prog]
    for name, parameter in inspect.signature(function).parameters.items():
        if name in titles:
            group = parser.add_argument_group(titles[name])
        form, needed = (_positional if name in positional else _flag)(parameter)
        facts = "" if name in positional else _facts(parameter)
        text = f"{explained.get(name, '')} {facts}".strip().replace("%", "%%")
        group.add_argument(parser.labels[name], help=text, **form)
        usage += needed
    for action in parser._actions:
        # jsonargparse's own way to add to a list, which would stand in the help beside each.
        action.option_strings = [s for s in action.option_strings if not s.endswith("+")]
        action.help, action.metavar = _OWN_HELP.get(action.dest, (action.help, action.metavar))
    parser.usage = " ".join([*usage, "[options]"])
    return parser


def _positional(parameter: inspect.Parameter) -> tuple[dict[str, Any], list[str]]:
    """How argparse takes a parameter without a flag, and its words in the usage line."""
    name, kind = parameter.name, parameter.annotation
    if get_origin(kind) is list:  # its members are checked one by one
        return dict(type=get_args(kind)[0], metavar=name, nargs="+"), [name, f"[{name} ...]"]
    if parameter.default is parameter.empty:
        return dict(type=kind, metavar=name), [name]
    return dict(type=kind, metavar=name, nargs="?"), [f"[{name}]"]


def _flag(parameter: inspect.Parameter) -> tuple[dict[str, Any], list[str]]:
    """How argparse takes a parameter with a flag, and its words in the usage line if needed."""
    kind = parameter.annotation
    form = dict(type=kind, metavar=placeholder(kind))
    if kind is bool:  # `--resume` alone means true
        form |= dict(nargs="?", const="true")
    if parameter.default is parameter.empty:
        return dict(form, required=True), [f"--{parameter.name} {form['metavar']}"]
    return dict(form, default=parameter.default), []


def _facts(parameter: inspect.Parameter) -> str:
    """The kind of a number, its limits and its default, in brackets behind an explanation."""
    annotation, default = parameter.annotation, parameter.default
    kind = {"N": "integer", "X": "number"}.get(placeholder(annotation))
    told = [", ".join(filter(None, [kind, limits(annotation)]))]
    if default is parameter.empty:
        told.append("required")
    elif default is not None and default is not False:
        told.append(f"default: {as_typed(default)}")
    told = "; ".join(filter(None, told))
    return f"({told})" if told else ""


def _load(text: str) -> Any:
    """A value or a recipe in YAML; the options of a run where it is a run's results.json."""
    value = get_loader("yaml")(text)
    if isinstance(value, str) and _NUMBERS.fullmatch(value):  # 1,2 or (1,2) beside YAML's [1,2]
        return get_loader("yaml")(f"[{value.strip('()')}]")
    stored = value.get("settings") if isinstance(value, dict) else None
    if isinstance(stored, dict) and {"environment", "environments"} & value.keys():
        return {key: found for key, found in stored.items() if key not in _NOT_OPTIONS}
    return value


set_loader(_MODE, _load, (yaml.YAMLError,))


def parse_command(parser: ArgumentParser, args: Sequence[str]) -> dict[str, Any]:
    """The options that a command line gives, by parameter; raises UsageError for a mistake."""
    words = _in_order(args)
    for flag, word in zip(["", *words], words, strict=False):
        if word == "" or re.fullmatch(r"--\w+=", word):
            named = word.rstrip("=") or flag
            parser.error(f"{named if named.startswith('--') else 'an argument'} has an empty value")
    try:
        options = parser.parse_args(words).as_dict()
    except UsageError:
        raise
    except (OSError, ValueError) as error:  # of a file for --config that is no text
        parser.error(f"--config: {error}")
    options.pop("config", None)
    return {name: _plain(value) for name, value in options.items()}


def _in_order(args: Sequence[str]) -> list[str]:
    """Arguments with underscores in the names of options, and --config first: flags win over it."""
    words, config = [], []
    args = list(args)
    while args:
        word = args.pop(0)
        if word == "--":
            return [*config, *words, word, *args]
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            word = f"--{name[2:].replace('-', '_')}{equals}{value}"
        if word == "--config" and args:
            config += [word, args.pop(0)]
        else:
            (config if word.startswith("--config=") else words).append(word)
    return [*config, *words]


def _plain(value: Any) -> Any:
    """A parsed value with Python's own numbers in place of those with limits."""
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    for kind in (int, float):
        if isinstance(value, kind) and not isinstance(value, bool):
            return kind(value)
    return value
