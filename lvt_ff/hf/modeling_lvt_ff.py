"""The transformers models: thin holders of the core module as `self.model`."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timm.layers import use_fused_attn
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.utils import can_return_tuple, logging

from lvt_ff.hf.configuration_lvt_ff import LVTFFConfig, kept_cfg
from lvt_ff.hf.files import HUB_OPTIONS, REMOTE_CODE, REMOTE_FILE, find_file
from lvt_ff.model import LinearVideoTransformer, init_weights
from lvt_ff.timm_models import load_image_weights, with_tag
from lvt_ff.utils.atomic_io import let_umask_decide
from lvt_ff.utils.json_files import read_object
from lvt_ff.utils.validation import suggest
from lvt_ff.utils.weight_files import INDEX, WEIGHTS, files_in, find_weights, read_checkpoint
from lvt_ff.weights import (
    HEAD,
    ConversionReport,
    check_finite,
    check_weights,
    expected_weights,
    plain_names,
)

try:
    from transformers.utils.hub import resolve_revision
except ImportError:  # older than 5.23
    resolve_revision = None

__all__ = [
    "LVTFFForVideoClassification",
    "LVTFFModel",
    "LVTFFPreTrainedModel",
    "check_folder",
]

logger = logging.get_logger(__name__)

_PREFIX = "model."
_LABEL_FIELDS = ("num_labels", "id2label", "label2id", "problem_type")


# What other models of transformers take, and why it means nothing here.
_MEANINGLESS = dict(
    output_attentions="the model never forms an attention matrix; `lvt-ff explain` draws its rows",
    interpolate_pos_encoding="load with another img_size= or num_frames=, which resamples",
    bool_masked_pos="the model has no mask token",
    head_mask="heads cannot be left out",
)
_ATTN_IMPLEMENTATIONS = ("eager", "sdpa")


class CoreWithTokens(LinearVideoTransformer):
    """The core module, whose call also gives tokens.

    All parameters are used within this one call, where the hooks of accelerate and FSDP are.
    """

    def forward(
        self, x: Tensor, return_tokens: bool = False, return_states: bool = False
    ) -> Tensor | tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Clips (B, T, C, H, W) to scores (B, K).

        Args:
            x: clips.
            return_tokens: also return normed tokens (B, T·N, D) and a tuple of states.
            return_states: fill that tuple, with the input of the first block and every block's
                output, (B, T·N, D) each, which later ones depend on.
        """
        if not return_tokens:
            return super().forward(x)
        x = self.embed(x)
        size, x = x.shape[1:3], x.flatten(1, 2)
        states = [x] if return_states else []
        for number in range(len(self.blocks)):
            x = self.run_block(number, x.unflatten(1, size)).flatten(1, 2)
            if return_states:
                states.append(x)
        tokens = self.norm(x.unflatten(1, size))
        return self.forward_head(tokens), tokens.flatten(1, 2), tuple(states)


class LVTFFPreTrainedModel(PreTrainedModel):
    """What both models share: loading, saving under timm's names, initialisation."""

    config: LVTFFConfig
    config_class = LVTFFConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over the batch: Trainer divides it
    _no_split_modules = ["VideoBlock"]
    _supports_sdpa = True  # the name of what is fused, as in other models
    _input_embed_layer = "patch_embed"

    def __init__(self, config: LVTFFConfig, num_classes: int):
        super().__init__(config)
        self.model = CoreWithTokens(num_classes=num_classes, **config.core_kwargs())
        if config._attn_implementation == "eager":
            self.model.set_fused_attn(False)
        self.register_load_state_dict_pre_hook(_add_prefix)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        init_weights(module)

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable = checkpoint,
        every_n_layers: int = 1,
    ) -> None:
        self.model.set_grad_checkpointing(enable, every_n_layers, gradient_checkpointing_func)

    @property
    def is_activation_checkpointing(self) -> bool:
        """Whether blocks are recomputed in the backward pass."""
        return self.model.grad_checkpointing

    @property
    def is_gradient_checkpointing(self) -> bool:
        """The former name of `is_activation_checkpointing`."""
        return self.is_activation_checkpointing

    def _check_and_adjust_attn_implementation(
        self, attn_implementation: str | None, *args: Any, **kwargs: Any
    ) -> str:
        if attn_implementation not in (None, *_ATTN_IMPLEMENTATIONS):
            raise ValueError(
                f"attn_implementation must be one of {list(_ATTN_IMPLEMENTATIONS)} (sdpa: "
                "fused operators where there are some, eager: plain torch), got "
                f"{attn_implementation!r}. "
                "To change the attention itself, set attn_kernel."
            )
        return super()._check_and_adjust_attn_implementation(attn_implementation, *args, **kwargs)

    def set_attn_implementation(self, attn_implementation: str, *args: Any, **kwargs: Any) -> None:
        """As in transformers: "sdpa" (fused operators where there are some) or "eager"."""
        super().set_attn_implementation(attn_implementation, *args, **kwargs)
        self.model.set_fused_attn(attn_implementation != "eager" and bool(use_fused_attn()))

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """As in transformers, with timm's names for the weights: both libraries load them."""
        if self.model.num_classes not in (0, self.config.num_labels):
            logger.warning("The head was changed: labels are numbered, set config.id2label.")
            self.config.num_labels = self.model.num_classes
        if not getattr(self, "_hf_peft_config_loaded", False):
            state_dict = _whole_state_dict(self) if state_dict is None else state_dict
            state_dict = {name.removeprefix(_PREFIX): t for name, t in state_dict.items()}
        if is_main_process:
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            Path(save_directory, REMOTE_FILE).write_text(REMOTE_CODE)
        super().save_pretrained(save_directory, is_main_process, state_dict=state_dict, **kwargs)
        if is_main_process:
            let_umask_decide(*Path(save_directory).glob("*.safetensors"))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args: Any,
        config: LVTFFConfig | None = None,
        **kwargs: Any,
    ) -> "LVTFFPreTrainedModel":
        """As in transformers; another `num_frames` or `img_size` resamples, with a warning.

        Raises:
            ValueError: a folder whose files are damaged, or do not belong together. A classifier of
                another size takes `num_labels` and `ignore_mismatched_sizes=True`.
        """
        source, wanted = pretrained_model_name_or_path, {}
        config = copy.deepcopy(config)
        _pin_revision(source, kwargs)
        if find_file(source, "config.json", kwargs) is not None:
            options = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
            stored = LVTFFConfig.from_pretrained(source, **options)
            if isinstance(config, str | os.PathLike):
                config = LVTFFConfig.from_pretrained(config)
            for name, alias in (("num_frames", None), ("img_size", "image_size")):
                value = kwargs.pop(name, kwargs.pop(alias, None))
                if value is None:
                    value = getattr(config or stored, name)
                if value != getattr(stored, name):
                    wanted[name] = value
                    if config is not None:
                        setattr(config, name, getattr(stored, name))
            built = config or LVTFFConfig.from_pretrained(source, **options, **_fields_in(kwargs))
            _check_files(source, stored, built, kwargs)
        adapter = find_file(source, "adapter_config.json", kwargs, needed=False)
        if adapter is not None:
            read_object(adapter)
        try:
            loaded = super().from_pretrained(source, *model_args, config=config, **kwargs)
        except (AttributeError, LookupError, TypeError) as error:
            if adapter is None:
                raise
            raise ValueError(f"{adapter} is not an adapter that peft can load: {error}") from error
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        check_finite(model.state_dict(), str(source))
        if wanted:
            model.set_clip_size(**wanted)
        return loaded

    @classmethod
    def from_timm(
        cls,
        name: str,
        *,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        temporal_init: str = "zero",
        cache_dir: str | None = None,
        dtype: torch.dtype | None = None,
        **fields: Any,
    ) -> "LVTFFPreTrainedModel":
        """The weights of `timm.create_model(name, pretrained=True)`, in evaluation mode.

        Args:
            name: variant, or variant and tag such as "lvt_ff_default.fb_in22k_ft_in1k".
            pretrained_cfg_overlay: as in timm, such as `dict(file="weights.safetensors")`.
            temporal_init: "zero" or "spatial", see `lvt_ff.weights.vit_to_video`.
            cache_dir: of downloads; the Hub's own if not given.
            dtype: of the parameters; float32 if not given.
            **fields: configuration fields, such as `num_labels` and `num_frames`.

        Raises:
            ValueError: unknown name or field, or weights that do not fit.
            RuntimeError: no weights behind the name.
        """
        LVTFFConfig.check_fields(fields, _LABEL_FIELDS)
        name = with_tag(name)
        model = cls(LVTFFConfig.from_variant(name, **fields))
        load_image_weights(
            model.model,
            name,
            pretrained_cfg_overlay=pretrained_cfg_overlay,
            temporal_init=temporal_init,
            cache_dir=cache_dir,
        )
        model.config.pretrained_cfg = kept_cfg(model.model.pretrained_cfg)
        if dtype is not None:
            model.to(dtype)
            model.config.dtype = dtype
        return model.eval()

    @property
    def pretrained_report(self) -> ConversionReport | None:
        """What loading an image model's weights did with every tensor."""
        return self.model.pretrained_report

    def set_clip_size(
        self, num_frames: int | None = None, img_size: int | tuple[int, int] | None = None
    ) -> list[str]:
        """Resample the embeddings to clips of another length or size; None keeps either.

        Returns:
            A line for each embedding that was resampled; they are logged too.

        Raises:
            ValueError: a size that does not fit, or weights that are offloaded.
        """
        if _is_offloaded(self):
            raise ValueError(
                "The clip size cannot be changed while weights are offloaded: load without "
                "device_map, save the model, and load that folder with device_map."
            )
        changes = self.model.set_input_size(img_size=img_size, num_frames=num_frames)
        for change in changes:
            logger.warning("Resampled %s.", change)
        self.config.num_frames = self.model.num_frames
        if img_size is not None:
            self.config.img_size = img_size
        return changes


def _is_offloaded(model: LVTFFPreTrainedModel) -> bool:
    return any(parameter.is_meta for parameter in model.parameters())


def _whole_state_dict(model: LVTFFPreTrainedModel) -> dict[str, Tensor]:
    """All weights, those too that accelerate keeps on the CPU or on disk."""
    state_dict = model.state_dict()
    if _is_offloaded(model):
        from accelerate.utils.modeling import get_state_dict_offloaded_model

        state_dict = get_state_dict_offloaded_model(model)
    return state_dict


def _pin_revision(source: str | os.PathLike | None, kwargs: dict[str, Any]) -> None:
    """All files of one call come from one commit, though a branch may move in between."""
    if resolve_revision is not None:
        known = ("revision", "token", "local_files_only", "cache_dir")
        options = {name: kwargs[name] for name in known if name in kwargs}
        if revision := resolve_revision(source, **options):
            kwargs["revision"] = revision


def _fields_in(kwargs: dict[str, Any]) -> dict[str, Any]:
    known = {*LVTFFConfig.__dataclass_fields__, *LVTFFConfig.attribute_map, "num_labels"}
    return {name: value for name, value in kwargs.items() if name in known and name != "dtype"}


def check_folder(folder: Path) -> None:
    """Raise ValueError where the files of a model folder are damaged or do not belong together."""
    stored = LVTFFConfig.from_pretrained(folder)
    if files_in(folder)(WEIGHTS) is None and files_in(folder)(INDEX) is None:
        raise ValueError(f"{folder} is incomplete: it has neither {WEIGHTS} nor {INDEX}.")
    _check_files(folder, stored, stored, {})


def _check_files(
    source: str | os.PathLike, stored: LVTFFConfig, built: LVTFFConfig, kwargs: dict[str, Any]
) -> None:
    """Raise ValueError where the weights of a folder are not those that a model takes from it.

    Args:
        source: folder or repository.
        stored: its configuration.
        built: that of the model to be built, which may have another number of classes.
        kwargs: of from_pretrained.
    """
    if kwargs.get("gguf_file") or getattr(stored, "quantization_config", None):
        return  # other names and numbers, which transformers checks
    variant = kwargs.get("variant")
    files = None
    if kwargs.get("use_safetensors") is not False:
        files = find_weights(lambda name: find_file(source, name, kwargs), variant)
    if files is not None:
        found, place = files.tensors, files.source
    else:
        if shards := find_file(source, "pytorch_model.bin.index.json", kwargs):
            raise ValueError(f"{shards}: weights in several files must be safetensors.")
        place = find_file(source, "pytorch_model.bin", kwargs)
        if place is None:
            return  # transformers says what it looked for
        found = read_checkpoint(place)
        if odd := [name for name, value in found.items() if not isinstance(value, Tensor)]:
            raise ValueError(
                f"{place} must hold tensors by name, got something else as {odd[0]!r}."
            )
    names = plain_names(found, str(place))
    known = [name for name, plain in names.items() if name in (plain, _PREFIX + plain)]
    if len(known) < len(found):
        odd = min(set(names) - set(known))
        raise ValueError(f"{place}: names must be as {names[odd]!r}, got {odd!r}.")
    found = {plain: found[name] for name, plain in names.items()}
    classes = stored.num_stored_classes, built.num_labels
    options, own = (
        dict(config.core_kwargs(), num_classes=classes[0]) for config in (built, stored)
    )
    expected = expected_weights(options, str(source))
    free = set()
    if options != own:  # what the call's own options add begins as in a new model
        free.update(expected.keys() - expected_weights(own, str(source)).keys() - found.keys())
    if classes[0] != classes[1] and kwargs.get("ignore_mismatched_sizes"):
        free.update(set(HEAD) - found.keys())
    check_weights(found, expected, str(place), free)
    if 0 < classes[0] != classes[1] and not kwargs.get("ignore_mismatched_sizes"):
        raise ValueError(
            f"{place} has a classifier of {classes[0]} classes, expected {classes[1]}: pass "
            "ignore_mismatched_sizes=True for a new one."
        )


def _add_prefix(module: LVTFFPreTrainedModel, state_dict: dict, prefix: str, *_: Any) -> None:
    # Weights of a folder have no prefix; transformers' Trainer passes them to load_state_dict as
    # they are.
    for name in list(state_dict):
        rest = name.removeprefix(prefix)
        if name.startswith(prefix) and not rest.startswith(_PREFIX):
            state_dict[prefix + _PREFIX + rest] = state_dict.pop(name)


def _check_keywords(
    model: LVTFFPreTrainedModel, keywords: dict[str, Any], known: tuple[str, ...]
) -> None:
    """Raise for keywords that `forward` does not take; those that ask for nothing pass."""
    if model.config.output_attentions:
        keywords = {"output_attentions": True} | keywords
    for name, value in keywords.items():
        if name in _MEANINGLESS:
            if value is not None and value is not False:
                raise ValueError(f"{name} is not supported: {_MEANINGLESS[name]}.")
        elif name == "pixel_values":
            raise TypeError(
                "forward() has no argument 'pixel_values': did you mean 'pixel_values_videos'?"
            )
        else:
            raise TypeError(f"forward() has no argument {name!r}: {suggest(name, known)}.")


class LVTFFModel(LVTFFPreTrainedModel):
    """Clips to normed tokens (B, T·N, D) and pooled features (B, F)."""

    _keys_to_ignore_on_load_unexpected = [r"head\.fc\."]  # of a folder with a classifier

    def __init__(self, config: LVTFFConfig):
        super().__init__(config, num_classes=0)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Run the backbone.

        Args:
            pixel_values_videos: clips (B, T, C, H, W), normalised.
            output_hidden_states: also return the input of the first block and every block's output,
                each (B, T·N, D).
            **kwargs: `return_dict`, as everywhere in transformers; any other is an error.
        """
        _check_keywords(self, kwargs, ("pixel_values_videos", "output_hidden_states"))
        clips = _checked_clips(self, pixel_values_videos)
        wanted = _wants_hidden_states(self, output_hidden_states)
        pooled, tokens, states = self.model(clips, return_tokens=True, return_states=wanted)
        return BaseModelOutputWithPooling(
            last_hidden_state=tokens,
            pooler_output=pooled,
            hidden_states=states if wanted else None,
        )


class LVTFFForVideoClassification(LVTFFPreTrainedModel):
    """Clips to class scores (B, K), and a loss where labels are given."""

    def __init__(self, config: LVTFFConfig):
        super().__init__(config, num_classes=config.num_labels)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> ImageClassifierOutput:
        """Classify clips.

        Args:
            pixel_values_videos: clips (B, T, C, H, W), normalised.
            labels: class numbers (B,), or 0/1 floats (B, K) for several labels a clip.
            output_hidden_states: as in `LVTFFModel`.
            **kwargs: `return_dict`, as everywhere in transformers; any other is an error.
        """
        _check_keywords(self, kwargs, ("pixel_values_videos", "labels", "output_hidden_states"))
        clips = _checked_clips(self, pixel_values_videos)
        states = None
        if _wants_hidden_states(self, output_hidden_states):
            logits, _, states = self.model(clips, return_tokens=True, return_states=True)
        else:
            logits = self.model(clips)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels, logits, self.config)
        return ImageClassifierOutput(loss=loss, logits=logits, hidden_states=states)


def _wants_hidden_states(model: LVTFFPreTrainedModel, asked: bool | None) -> bool:
    return model.config.output_hidden_states if asked is None else asked


def _checked_clips(model: LVTFFPreTrainedModel, clips: Tensor | None) -> Tensor:
    if clips is None:
        raise ValueError("Give clips as pixel_values_videos, (B, T, C, H, W).")
    # Frames that are not normalised yet stay integers, which the model refuses.
    return clips.to(model.dtype) if clips.is_floating_point() else clips
