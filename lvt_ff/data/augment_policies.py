"""Random operations on clips by their usual names: timm's policies, and TrivialAugment.

Sources: AutoAugment arXiv 1805.09501, RandAugment 1909.13719, AugMix 1912.02781, TrivialAugment
2103.10158; as timm and torchvision have them.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from lvt_ff.utils.short_text import shortened

__all__ = ["ClipPolicy", "check_policy"]

_NUMBER = r"\d+(\.\d+)?"
_NOISE = {"mstd": (_NUMBER, "deviation of the magnitude")}
_MAGNITUDE = {"m": (r"\d|10", "magnitude from 0 to 10")}
# What may follow a name, as a letter or word and a number each.
_SECTIONS = {
    "rand": {
        **_MAGNITUDE,
        "n": (r"[1-9]\d?", "number of operations"),
        "p": (r"0?\.\d*[1-9]\d*|1(\.0)?", "probability of each"),
        **_NOISE,
        "inc": ("[01]", "whether all grow with the magnitude"),
    },
    "augmix": {
        **_MAGNITUDE,
        "w": (r"[1-9]\d?", "number of chains"),
        "d": (r"[1-9]\d?", "operations of a chain"),
        "b": ("[01]", "whether chains are blended one after the other"),
        **_NOISE,
    },
    **dict.fromkeys(("original", "originalr", "v0", "v0r", "3a"), _NOISE),
    "trivial": {},
}
_TRIVIAL_MODES = {"nearest": InterpolationMode.NEAREST}  # others than this and bilinear: for images


def check_policy(policy: str) -> None:
    """Raise ValueError, with what is known, for a name that timm or torchvision would not take."""
    name, *sections = policy.split("-")
    if name not in _SECTIONS:
        raise ValueError(
            f"--auto_augment has no policy {shortened(policy, 60)!r}: choose from "
            f"none, {', '.join(_SECTIONS)}, such as rand-m7-n4-mstd0.5-inc1."
        )
    known, seen = _SECTIONS[name], set()
    for section in sections:
        key, value = re.fullmatch("([a-z]*)(.*)", section, re.DOTALL).groups()
        if key not in known or key in seen or not re.fullmatch(known[key][0], value):
            told = ", ".join(f"{key} ({what})" for key, (_, what) in known.items())
            raise ValueError(
                f"--auto_augment {shortened(policy, 60)}: cannot read {shortened(section, 60)!r}; "
                f"behind {name} may stand, once each and with a number, {told or 'nothing'}."
            )
        seen.add(key)


class ClipPolicy:
    """A policy that draws once for all frames of a clip.

    Args:
        policy: a name that `check_policy` takes.
        mean: per channel or for all, of pixels between 0 and 1: the colour of what moves into the
            frame.
        interpolation: of operations that move pixels, a name in `INTERPOLATIONS`.
    """

    def __init__(self, policy: str, mean: Sequence[float], interpolation: str):
        check_policy(policy)
        fill = tuple(min(255, round(255 * float(value))) for value in np.broadcast_to(mean, 3))
        self._takes_clips = policy == "trivial"
        if self._takes_clips:
            mode = _TRIVIAL_MODES.get(interpolation, InterpolationMode.BILINEAR)
            self._change = v2.TrivialAugmentWide(interpolation=mode, fill=list(fill))
        else:
            self._change = _timm_policy(policy, fill, interpolation)

    def __call__(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """A changed clip (T, 3, H, W) uint8, with draws from `rng`."""
        seed = int(rng.integers(2**32))
        if self._takes_clips:
            with _global_draws(seed):
                return self._change(clip)
        frames = []
        for frame in clip.permute(0, 2, 3, 1).numpy():
            with _global_draws(seed):
                frames.append(np.asarray(self._change(Image.fromarray(frame))))
        return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def _timm_policy(
    policy: str, fill: tuple[int, ...], interpolation: str
) -> Callable[[Image.Image], Image.Image]:
    # Here, as timm takes seconds to load, and lists of videos are read without it.
    from timm.data.auto_augment import (
        augment_and_mix_transform,
        auto_augment_transform,
        rand_augment_transform,
    )

    options = dict(img_mean=fill, interpolation=Image.Resampling[interpolation.upper()])
    makers = dict(rand=rand_augment_transform, augmix=augment_and_mix_transform)
    return makers.get(policy.split("-")[0], auto_augment_transform)(policy, options)


@contextmanager
def _global_draws(seed: int) -> Iterator[None]:
    """Within this block, Python's, numpy's and torch's global draws follow from a seed.

    Afterwards they go on as if nothing had been drawn.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds the GPU too
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
