"""Options of a block as the model sets them by default."""

import inspect
from dataclasses import fields

from lvt_ff.layers import BlockConfig
from lvt_ff.model import LinearVideoTransformer


def block_config(**changes):
    """The default configuration of a block, with some options changed."""
    defaults = inspect.signature(LinearVideoTransformer).parameters
    options = {field.name: defaults[field.name].default for field in fields(BlockConfig)}
    return BlockConfig(**{**options, **changes})
