"""Whether weights are a model's: names, shapes, kinds of numbers, and that all of them are numbers.

Every loader asks here before it builds a model or puts a value into it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lvt_ff.model import LinearVideoTransformer

__all__ = ["HEAD", "check_finite", "check_weights", "expected_weights", "plain_names"]

HEAD = ("head.fc.weight", "head.fc.bias")  # of another size where the number of classes differs
# What data parallelism, torch.compile and transformers put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.")


def plain_names(names: Iterable[str], source: str) -> dict[str, str]:
    """Names of tensors to our own, without a prefix that all of them have.

    Raises:
        ValueError: some have one, others not: two models in one file.
    """
    plain = {name: name for name in names}
    while plain and (
        shared := [p for p in _PREFIXES if all(n.startswith(p) for n in plain.values())]
    ):
        plain = {name: inner.removeprefix(shared[0]) for name, inner in plain.items()}
    odd = sorted(name for name, inner in plain.items() if inner.startswith(_PREFIXES))
    if odd:
        rest = min(name for name in plain if name not in odd)
        raise ValueError(
            f"{source} mixes {len(odd)} names with a prefix, such as {odd[0]}, with names without, "
            f"such as {rest}: expected the tensors of one model."
        )
    return plain


def expected_weights(options: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """A model's tensors on the meta device, which takes no memory, whatever its size.

    Args:
        options: keywords of `LinearVideoTransformer`, all of them, as `lvt_ff.schema` allows them.
        source: the file that they come from, for the message.

    Raises:
        ValueError: options that do not go together.
    """
    try:
        with torch.device("meta"):
            model = LinearVideoTransformer(**{**options, "depth": 1})
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:  # too large for torch
        raise ValueError(f"{source}: no model can be built from these options: {error}") from error
    one = model.state_dict()
    blocks = {
        name.replace(".0.", f".{number}.", 1): tensor
        for number in range(options["depth"])
        for name, tensor in one.items()
        if name.startswith("blocks.0.")
    }
    return blocks | {name: tensor for name, tensor in one.items() if not name.startswith("blocks.")}


def check_weights(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    source: str,
    free: Iterable[str] = (),
) -> None:
    """Raise ValueError where weights are not those of a model, down to the last tensor.

    Args:
        found: under our names; only shapes and dtypes are looked at.
        expected: the model's own.
        source: where the weights are, for the message.
        free: names that may be missing, or of another shape.
    """
    free = set(free)
    said = []
    if lacking := sorted(expected.keys() - found.keys() - free):
        said.append(f"lack {len(lacking)} tensors of the model, such as {lacking[0]}")
    if surplus := sorted(found.keys() - expected.keys() - free):
        said.append(f"have {len(surplus)} tensors without a place in it, such as {surplus[0]}")
    both = [name for name in expected if name in found and name not in free]
    if wrong := [name for name in both if found[name].shape != expected[name].shape]:
        got, wanted = (tuple(tensors[wrong[0]].shape) for tensors in (found, expected))
        said.append(
            f"have {len(wrong)} tensors of another shape, such as {wrong[0]}: got {got}, expected "
            f"{wanted}"
        )
    if odd := [name for name in both if _kind(found[name]) != _kind(expected[name])]:
        got, wanted = (tensors[odd[0]].dtype for tensors in (found, expected))
        said.append(
            f"have {len(odd)} tensors of another kind of numbers, such as {odd[0]}: got {got}, "
            f"expected {wanted}"
        )
    kinds = sorted({str(found[name].dtype) for name in both if _kind(found[name]) == "real"})
    if len(kinds) > 1:
        said.append(f"have several precisions, {' and '.join(kinds)}, where one model has one")
    if said:
        raise ValueError(
            f"{source}: the weights {'; '.join(said)}. Give those that belong to this model, or "
            "the options that they were trained with."
        )


def _kind(tensor: Tensor) -> str:
    if tensor.is_floating_point():
        return "small" if tensor.dtype.itemsize < 2 else "real"
    return "integer" if tensor.dtype in (torch.int64, torch.int32) else str(tensor.dtype)


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise ValueError for the first tensor that holds NaN or an infinity.

    Tensors without memory, and those of other kinds (packed, or spread over machines), are passed.
    """
    for name, tensor in tensors.items():
        plain = type(tensor) in (Tensor, nn.Parameter) and not tensor.is_meta
        if plain and tensor.is_floating_point() and tensor.numel():
            least, most = torch.aminmax(tensor.detach())  # either is NaN where any value is
            if not (least.isfinite() and most.isfinite()):
                bad = tensor.numel() - int(tensor.detach().isfinite().sum())
                raise ValueError(
                    f"{source}: {name} must hold finite numbers, got NaN or infinity in {bad:,} of "
                    f"{tensor.numel():,} places."
                )
