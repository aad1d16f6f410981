"""Options that commands share: a dataclass as a function's parameter, each field of it a flag."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from docstring_parser import parse

__all__ = ["explanations", "flat_signature", "with_classes"]


def flat_signature(function: Callable) -> inspect.Signature:
    """A function's signature with the fields of dataclasses in place of their parameters."""
    signature = inspect.signature(function)
    parameters = []
    for parameter in signature.parameters.values():
        if not is_dataclass(parameter.annotation):
            parameters.append(parameter)
            continue
        parameters += [
            parameter.replace(name=field.name, annotation=field.type, default=field.default)
            for field in fields(parameter.annotation)
        ]
    return signature.replace(parameters=parameters)


def explanations(function: Callable) -> dict[str, str]:
    """What docstrings say of a function's parameters, and of the fields of its dataclasses."""
    parameters = inspect.signature(inspect.unwrap(function)).parameters.values()
    classes = [p.annotation for p in parameters if is_dataclass(p.annotation)]
    texts = [parse(part.__doc__ or "") for part in (function, *classes)]
    return {part.arg_name: part.description for text in texts for part in text.params}


def with_classes(function: Callable, options: dict[str, Any]) -> dict[str, Any]:
    """Options by their flat names to a function's arguments.

    Raises:
        ValueError: a dataclass that does not take its fields.
    """
    arguments = dict(options)
    for name, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(parameter.annotation):
            names = [field.name for field in fields(parameter.annotation)]
            given = {key: arguments.pop(key) for key in names if key in arguments}
            arguments[name] = parameter.annotation(**given)
    return arguments
