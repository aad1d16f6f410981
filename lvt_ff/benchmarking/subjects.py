"""What a benchmark compares: our variants with any kernel, and other video models, by name.

No weights are loaded: speed does not depend on their values.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import timm
import torch
from torch import Tensor, nn
from torchvision.models.video import mvit_v2_s, swin3d_t
from transformers import (
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VivitConfig,
    VivitForVideoClassification,
)

from lvt_ff.kernels import KERNELS
from lvt_ff.utils.validation import suggest
from lvt_ff.variants import VARIANTS

__all__ = ["NUM_CLASSES", "PEERS", "Subject", "find_subject", "find_subjects"]

NUM_CLASSES = 400  # of Kinetics, as the published models have
# A block as it was before the paper: what softmax attention is commonly compared as.
_PLAIN = dict(fixation="none", temporal_shift_div=0, spatial_shift=0)
_WORDS = ("plain", "eager")


@dataclass(frozen=True)
class Subject:
    """A model that is measured.

    Args:
        name: as it was asked for.
        num_frames: of its clips, T.
        img_size: height and width of a frame in pixels.
        build: makes a model that takes clips (B, T, 3, H, W) and gives scores (B, K), on the
            current default device.
        is_ours: whether it is a `LinearVideoTransformer`.
    """

    name: str
    num_frames: int
    img_size: int
    build: Callable[[], nn.Module]
    is_ours: bool

    @property
    def clip_size(self) -> tuple[int, int]:
        """Frames and pixels: what two models must share to be compared."""
        return self.num_frames, self.img_size

    def clips(self, batch_size: int, device: torch.device | str, dtype: torch.dtype) -> Tensor:
        """Random clips (B, T, 3, H, W)."""
        size = (batch_size, self.num_frames, 3, self.img_size, self.img_size)
        return torch.randn(size, device=device, dtype=dtype)


class _Transformers(nn.Module):
    """A model of transformers, whose output has more than scores."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, clips: Tensor) -> Tensor:
        return self.model(pixel_values=clips).logits


class _Torchvision(nn.Module):
    """A model of torchvision, whose clips are (B, C, T, H, W)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, clips: Tensor) -> Tensor:
        return self.model(clips.transpose(1, 2))


def _from_config(model: type[nn.Module], config: type, num_frames: int, img_size: int) -> nn.Module:
    size = dict(num_frames=num_frames, image_size=img_size)
    return _Transformers(model(config(**size, num_labels=NUM_CLASSES)))


def _mvit_v2_s(num_frames: int, img_size: int) -> nn.Module:
    if (num_frames, img_size) != (16, 224):  # torchvision's function sets it itself
        raise ValueError("its clips are 16 frames of 224 pixels")
    return _Torchvision(mvit_v2_s(num_classes=NUM_CLASSES))


def _swin3d_t(num_frames: int, img_size: int) -> nn.Module:
    return _Torchvision(swin3d_t(num_classes=NUM_CLASSES))  # windows move over any size


# Name: what builds a model for frames and pixels, and those of the published one.
PEERS: dict[str, tuple[Callable[[int, int], nn.Module], tuple[int, int]]] = {
    "timesformer": (
        partial(_from_config, TimesformerForVideoClassification, TimesformerConfig),
        (8, 224),
    ),
    "videomae": (partial(_from_config, VideoMAEForVideoClassification, VideoMAEConfig), (16, 224)),
    "vivit": (partial(_from_config, VivitForVideoClassification, VivitConfig), (32, 224)),
    "mvit_v2_s": (_mvit_v2_s, (16, 224)),
    "swin3d_t": (_swin3d_t, (16, 224)),
}


def find_subjects(
    names: str, num_frames: int | None = None, img_size: int | None = None
) -> list[Subject]:
    """Models of a list of names with commas between them; see `find_subject`."""
    listed = [name.strip() for name in names.split(",")]
    if "" in listed:
        raise ValueError(f"Names of models with commas between them, got {names!r}.")
    twice = sorted({name for name in listed if listed.count(name) > 1})
    if twice:
        raise ValueError(f"{twice[0]!r} is named twice among the models.")
    return [find_subject(name, num_frames, img_size) for name in listed]


def find_subject(name: str, num_frames: int | None = None, img_size: int | None = None) -> Subject:
    """The model behind a name.

    Args:
        name: a key of `PEERS`, or `VARIANT[:KERNEL][:plain][:eager]`: "plain" is without shifts
            and fixation, "eager" plain torch instead of fused operators.
        num_frames, img_size: of the clips; None takes the model's own.

    Raises:
        ValueError: an unknown name.
    """
    first, *words = name.split(":")
    if first in PEERS and not words:
        build, (frames, pixels) = PEERS[first]
        num_frames, img_size = num_frames or frames, img_size or pixels
        return Subject(name, num_frames, img_size, partial(build, num_frames, img_size), False)
    if first in PEERS:
        raise ValueError(f"{name!r}: only our own models take a kernel, {first} does not.")
    if first not in VARIANTS:
        raise ValueError(f"Unknown model {first!r}: {suggest(first, [*VARIANTS, *PEERS])}.")
    size = VARIANTS[first]
    num_frames, img_size = num_frames or size["num_frames"], img_size or size["img_size"]
    build = partial(_build_ours, first, _chosen(name, words), num_frames, img_size)
    return Subject(name, num_frames, img_size, build, True)


def _chosen(name: str, words: list[str]) -> dict[str, str | bool]:
    """Kernel, "plain" and "eager" of the words behind a variant's name."""
    kernel = words[0] if words and words[0] not in _WORDS else None
    if kernel is not None and kernel not in KERNELS:
        raise ValueError(f"{name!r}: unknown kernel {kernel!r}: {suggest(kernel, [*KERNELS])}.")
    rest = words[1:] if kernel else words
    for word in rest:
        if word not in _WORDS or rest.count(word) > 1:
            raise ValueError(
                f"{name!r}: behind the kernel stand {' and '.join(_WORDS)}, each at most once, got "
                f"{word!r}."
            )
    return dict(kernel=kernel or "relu", plain="plain" in rest, eager="eager" in rest)


def _build_ours(
    variant: str, chosen: dict[str, str | bool], num_frames: int, img_size: int
) -> nn.Module:
    model = timm.create_model(
        variant,
        num_classes=NUM_CLASSES,
        num_frames=num_frames,
        img_size=img_size,
        attn_kernel=chosen["kernel"],
        **(_PLAIN if chosen["plain"] else {}),
    )
    if chosen["eager"]:
        model.set_fused_attn(False)
    return model
