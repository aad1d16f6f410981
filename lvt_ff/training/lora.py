"""Fine-tuning with low-rank adapters (LoRA) in a model's linear layers, by PEFT.

Source: Hu et al., arXiv 2106.09685. The adapters lie in the network itself, so that loops,
checkpoints and timm's parameter groups find plain modules and parameters.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

from safetensors.torch import save_file
from torch import Tensor, nn

from lvt_ff.hf import LVTFFConfig, LVTFFForVideoClassification
from lvt_ff.utils.atomic_io import atomic_folder, let_umask_decide
from lvt_ff.utils.environment import install_hint
from lvt_ff.utils.errors import UsageError
from lvt_ff.utils.short_text import listed

__all__ = [
    "LORA_TARGETS",
    "adapter_state",
    "add_lora",
    "check_adapter",
    "check_lora_options",
    "merge_lora",
    "save_adapter",
]

# The gates are left out: they are small, and fused operators read them only where they are plain.
LORA_TARGETS = ("qkv", "proj", "fc1", "fc2")
_BLOCKS, _HEAD = "model.blocks.", "model.head."
_ADAPTER = "default"  # PEFT's name for a single one
_PARTS = (".lora_A.", ".lora_B.")
_OF_TRAINING = ("drop_rate", "attn_drop_rate", "drop_path_rate")


def _peft() -> ModuleType:
    try:
        import peft
    except ImportError as error:
        raise UsageError(f"LoRA needs PEFT: {install_hint('lora')}") from error
    return peft


def add_lora(
    network: LVTFFForVideoClassification,
    rank: int,
    *,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
) -> list[str]:
    """Give linear layers of the blocks adapters, which then train in place of their weights.

    The head trains whole, and so does what an image model's weights left new. What did not train
    before (frozen blocks) does not now, and has no adapters.

    Args:
        network: classifier; changed in place. Its adapters begin as nothing added, with random
            values from torch's generator.
        rank: of the adapters' products.
        alpha: what an adapter gives is multiplied by alpha / rank; as `rank` if None.
        dropout: on the adapters' inputs.
        targets: names of linear layers in a block, whole or their end, such as "qkv" or
            "temporal_attn.proj"; `LORA_TARGETS` if None.

    Returns:
        The names of the layers with adapters.

    Raises:
        ValueError: PEFT is not installed, a target is no linear layer, or no layer is left.
    """
    peft = _peft()
    fresh = _fresh_parameters(network)
    whole = [
        parameter
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and (name in fresh or name.startswith(_HEAD))
    ]
    layers = [
        name
        for name, layer in _target_layers(network, targets or LORA_TARGETS).items()
        if layer.weight.requires_grad and f"{name}.weight" not in fresh
    ]
    if not layers:
        raise ValueError("No layer is left to adapt with LoRA: all that are named train whole.")
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=layers,
    )
    peft.inject_adapter_in_model(config, network)
    for parameter in whole:
        parameter.requires_grad_(True)
    return layers


def _fresh_parameters(network: LVTFFForVideoClassification) -> set[str]:
    """Parameters that an image model's weights left as they begin."""
    report = network.pretrained_report
    return {f"model.{name}" for name in report.fresh} if report else set()


def _target_layers(
    network: LVTFFForVideoClassification, targets: Sequence[str]
) -> dict[str, nn.Linear]:
    """Linear layers of the blocks by name, those whose name ends as a target says."""
    linear = {
        name: module
        for name, module in network.named_modules()
        if name.startswith(_BLOCKS) and isinstance(module, nn.Linear)
    }
    for target in targets:
        if not any(_ends_with(name, target) for name in linear):
            known = dict.fromkeys(name.split(".", 3)[3] for name in linear)
            raise ValueError(
                f"LoRA takes linear layers of a block, got {target!r}; there are "
                f"{listed([*known], number=20)}."
            )
    return {
        name: layer
        for name, layer in linear.items()
        if any(_ends_with(name, target) for target in targets)
    }


def _ends_with(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def _is_adapter(name: str) -> bool:
    return any(part in name for part in _PARTS)


def merge_lora(network: LVTFFForVideoClassification) -> None:
    """Add the adapters to the weights: a plain model again, with the same scores and names.

    Raises:
        ValueError: an adapter with values that are not finite.
    """
    from peft.tuners.lora import LoraLayer

    for name, layer in list(network.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge(safe_merge=True)
            network.set_submodule(name, layer.get_base_layer())
    if hasattr(network, "peft_config"):
        del network.peft_config  # transformers would take the model for one with adapters


def check_lora_options(options: SimpleNamespace) -> None:
    """Raise ValueError for options of adapters where there are none."""
    names = ("lora_alpha", "lora_dropout", "lora_targets", "lora_keep_adapter")
    if options.lora_rank is None and (given := [name for name in names if getattr(options, name)]):
        raise ValueError(f"--{given[0]} goes with adapters: give --lora_rank too.")


def check_adapter(network: LVTFFForVideoClassification, base: LVTFFConfig) -> None:
    """Raise ValueError where adapters and head are not all that makes a model of its base.

    An adapter is loaded into a model that is there without it. One that began with an image
    model's weights is not: its new parts are nowhere else.

    Args:
        network: with adapters.
        base: configuration of the model that was adapted.
    """
    others = [
        name
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and not _is_adapter(name) and not name.startswith(_HEAD)
    ]
    if others:
        raise ValueError(
            "Adapters can be kept where a model trained on videos is adapted; this one has parts "
            f"that are new ({listed([name.removeprefix('model.') for name in others], 3)}), which "
            "no adapter holds: keep the merged model alone."
        )
    now, before = network.config.core_kwargs(), base.core_kwargs()
    if changed := [name for name in now if now[name] != before[name] and name not in _OF_TRAINING]:
        raise ValueError(
            f"An adapter is loaded into its model as that is; {listed(changed)} is another here: "
            "keep the merged model alone."
        )


def adapter_state(network: LVTFFForVideoClassification) -> dict[str, Tensor]:
    """The adapters' tensors and the head's, under the names that PEFT gives them in a file."""
    return {
        f"base_model.model.{name.replace(f'.{_ADAPTER}.', '.')}": tensor.detach().contiguous()
        for name, tensor in network.state_dict().items()
        if _is_adapter(name) or name.startswith(_HEAD)
    }


def save_adapter(network: LVTFFForVideoClassification, folder: Path, base: str) -> None:
    """Write a folder that `peft.PeftModel.from_pretrained(model, folder)` loads.

    Args:
        network: with adapters, that `check_adapter` passes.
        folder: written whole, or not at all.
        base: the model that was adapted, as users name it.
    """
    used = network.peft_config[_ADAPTER]
    config = _peft().LoraConfig(
        r=used.r,
        lora_alpha=used.lora_alpha,
        lora_dropout=used.lora_dropout,
        target_modules=used.target_modules,
        modules_to_save=[_HEAD.strip(".")],
        base_model_name_or_path=base,
        inference_mode=True,
    )
    with atomic_folder(folder) as new:
        config.save_pretrained(new)
        save_file(adapter_state(network), new / "adapter_model.safetensors")
        let_umask_decide(new / "adapter_model.safetensors")
