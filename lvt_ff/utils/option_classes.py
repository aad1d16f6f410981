"""Options that commands share: the fields of a dataclass, each of them a flag."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from docstring_parser import parse

__all__ = ["explanations", "flat_signature", "with_classes"]


class _Options(NamedTuple):
    """A dataclass whose fields stand for a parameter, and whether each may be left to others."""

    kind: type
    open: bool


def _options(parameter: inspect.Parameter) -> _Options | None:
    annotation = parameter.annotation
    for kind in getattr(annotation, "__metadata__", ()):  # of Annotated[dict[str, Any], kind]
        if is_dataclass(kind):
            return _Options(kind, open=True)
    return _Options(annotation, open=False) if is_dataclass(annotation) else None


def flat_signature(function: Callable) -> inspect.Signature:
    """A function's signature with the fields of dataclasses in place of their parameters."""
    signature = inspect.signature(function)
    parameters = []
    for parameter in signature.parameters.values():
        options = _options(parameter)
        parameters += [parameter] if options is None else _flat(parameter, options)
    return signature.replace(parameters=parameters)


def _flat(parameter: inspect.Parameter, options: _Options) -> list[inspect.Parameter]:
    return [
        parameter.replace(
            name=field.name,
            annotation=field.type | None if options.open else field.type,
            default=None if options.open else field.default,
        )
        for field in fields(options.kind)
    ]


def explanations(function: Callable) -> dict[str, str]:
    """What docstrings say of a function's parameters, and of the fields of its dataclasses."""
    parameters = inspect.signature(inspect.unwrap(function)).parameters.values()
    classes = [options.kind for options in map(_options, parameters) if options]
    texts = [parse(part.__doc__ or "") for part in (function, *classes)]
    return {part.arg_name: part.description for text in texts for part in text.params}


def with_classes(function: Callable, options: dict[str, Any]) -> dict[str, Any]:
    """Options by their flat names to a function's arguments.

    Raises:
        ValueError: a dataclass that does not take its fields.
    """
    arguments = dict(options)
    for name, parameter in inspect.signature(function).parameters.items():
        if found := _options(parameter):
            names = [field.name for field in fields(found.kind)]
            given = {key: arguments.pop(key) for key in names if key in arguments}
            whole = dict.fromkeys(names) | given
            arguments[name] = whole if found.open else found.kind(**given)
    return arguments
