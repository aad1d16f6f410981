"""The transformers models: thin holders of the core module as `self.model`."""

import os
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.utils import can_return_tuple, logging

from lvt_ff.hf.configuration_lvt_ff import LVTFFConfig
from lvt_ff.model import LinearVideoTransformer, init_weights

__all__ = ["LVTFFForVideoClassification", "LVTFFModel", "LVTFFPreTrainedModel"]

logger = logging.get_logger(__name__)

_PREFIX = "model."
_HUB_OPTIONS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
)


class LVTFFPreTrainedModel(PreTrainedModel):
    """What both models share: loading, saving under timm's names, initialisation."""

    config: LVTFFConfig
    config_class = LVTFFConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["VideoBlock"]

    def __init__(self, config: LVTFFConfig, num_classes: int):
        super().__init__(config)
        self.model = LinearVideoTransformer(num_classes=num_classes, **config.core_kwargs())
        self.register_load_state_dict_pre_hook(_add_prefix)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        init_weights(module)

    def _set_gradient_checkpointing(self, enable: bool = True, **kwargs: Any) -> None:
        self.model.set_grad_checkpointing(enable)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether blocks are recomputed in the backward pass."""
        return self.model.grad_checkpointing

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        state_dict: dict[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """As in transformers, with timm's names for the weights: both libraries load them."""
        if not getattr(self, "_hf_peft_config_loaded", False):
            state_dict = self.state_dict() if state_dict is None else state_dict
            state_dict = {name.removeprefix(_PREFIX): t for name, t in state_dict.items()}
        super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args: Any,
        config: LVTFFConfig | None = None,
        **kwargs: Any,
    ) -> "LVTFFPreTrainedModel":
        """As in transformers; another `num_frames` or `img_size` resamples, with a warning."""
        if pretrained_model_name_or_path is None or (
            config and not isinstance(config, LVTFFConfig)
        ):
            return super().from_pretrained(
                pretrained_model_name_or_path, *model_args, config=config, **kwargs
            )
        hub_options = {name: kwargs[name] for name in _HUB_OPTIONS if name in kwargs}
        stored = LVTFFConfig.from_pretrained(pretrained_model_name_or_path, **hub_options)
        wanted = {}
        for name, alias in (("num_frames", None), ("img_size", "image_size")):
            value = kwargs.pop(name, kwargs.pop(alias, None))
            if value is None:
                value = getattr(config or stored, name)
            if value != getattr(stored, name):
                wanted[name] = value
                if config is not None:
                    setattr(config, name, getattr(stored, name))
        loaded = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, config=config, **kwargs
        )
        if wanted:
            model = loaded[0] if isinstance(loaded, tuple) else loaded
            model.set_clip_size(**wanted)
        return loaded

    def set_clip_size(
        self, num_frames: int | None = None, img_size: int | tuple[int, int] | None = None
    ) -> None:
        """Resample the embeddings to clips of another length or size; None keeps either."""
        for change in self.model.set_input_size(img_size=img_size, num_frames=num_frames):
            logger.warning("Resampled %s.", change)
        self.config.num_frames = self.model.num_frames
        if img_size is not None:
            self.config.img_size = img_size


def _add_prefix(module: LVTFFPreTrainedModel, state_dict: dict, prefix: str, *_: Any) -> None:
    # Weights of a folder have no prefix; transformers' Trainer passes them to load_state_dict as
    # they are.
    for name in list(state_dict):
        rest = name.removeprefix(prefix)
        if name.startswith(prefix) and not rest.startswith(_PREFIX):
            state_dict[prefix + _PREFIX + rest] = state_dict.pop(name)


class LVTFFModel(LVTFFPreTrainedModel):
    """Clips to normed tokens (B, T·N, D) and pooled features (B, F)."""

    def __init__(self, config: LVTFFConfig):
        super().__init__(config, num_classes=0)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Run the backbone.

        Args:
            pixel_values_videos: clips (B, T, C, H, W), normalised.
            output_hidden_states: also return the input of the first block and every block's output,
                each (B, T·N, D).
            **kwargs: what transformers passes along, such as `return_dict`.
        """
        tokens, hidden_states = _run(self, pixel_values_videos, output_hidden_states)
        return BaseModelOutputWithPooling(
            last_hidden_state=tokens.flatten(1, 2),
            pooler_output=self.model.forward_head(tokens),
            hidden_states=hidden_states,
        )


class LVTFFForVideoClassification(LVTFFPreTrainedModel):
    """Clips to class scores (B, K), and a loss where labels are given."""

    def __init__(self, config: LVTFFConfig):
        super().__init__(config, num_classes=config.num_labels)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> ImageClassifierOutput:
        """Classify clips.

        Args:
            pixel_values_videos: clips (B, T, C, H, W), normalised.
            labels: class numbers (B,), or 0/1 floats (B, K) for several labels a clip.
            output_hidden_states: as in `LVTFFModel`.
            **kwargs: what transformers passes along, such as `return_dict` or `num_items_in_batch`.
        """
        tokens, hidden_states = _run(self, pixel_values_videos, output_hidden_states)
        logits = self.model.forward_head(tokens)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels, logits, self.config, **kwargs)
        return ImageClassifierOutput(loss=loss, logits=logits, hidden_states=hidden_states)


def _run(
    holder: LVTFFPreTrainedModel, clips: Tensor, output_hidden_states: bool | None
) -> tuple[Tensor, tuple[Tensor, ...] | None]:
    if output_hidden_states is None:
        output_hidden_states = holder.config.output_hidden_states
    core = holder.model
    clips = clips.to(holder.dtype)
    if not output_hidden_states:
        return core.forward_features(clips), None
    tokens, outputs = core.forward_intermediates(clips, output_fmt="NLC")
    return tokens, (core.embed(clips).flatten(1, 2), *outputs)
