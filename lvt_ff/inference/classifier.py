"""A loaded model folder that classifies video files."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lvt_ff.data import read_clip, read_views, sample_indices
from lvt_ff.hub.model_folder import load_folder
from lvt_ff.utils.validation import check_rgb

__all__ = ["Classifier"]


class Classifier:
    """A loaded model folder that takes paths of videos.

    Args:
        folder: model folder.
        device: torch device; None takes a GPU where there is one.
        num_clips, num_crops: views per video whose probabilities are averaged.
        decoder: see `lvt_ff.read_clip`.

    Raises:
        ValueError: not a model folder, or a device that is not there.
    """

    def __init__(
        self,
        folder: str | Path,
        device: str | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        decoder: str = "auto",
    ):
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.empty(1, device=self.device).cpu()  # nothing comes back from "meta"
        except (AssertionError, RuntimeError) as error:
            raise ValueError(f"Device {device!r} cannot be used: {error}") from error
        model, self.processor = load_folder(folder)
        check_rgb(model.config.in_chans)
        self.model = model.to(self.device).eval()
        self.transform = self.processor.eval_transform()
        self.clip_options = dict(self.processor.clip_options(), num_clips=num_clips)
        self.num_crops = num_crops
        self.decoder = decoder

    def read(self, path: str | Path) -> Tensor:
        """The clips of a video as the model takes them, (num_clips · num_crops, T, C, H, W)."""
        views = read_views(
            path, self.transform, self.clip_options, self.num_crops, decoder=self.decoder
        )
        return views.to(self.device)

    def pictures(self, clip: Tensor) -> np.ndarray:
        """A clip (T, C, H, W) as frames to look at, (T, H, W, 3) uint8."""
        mean, std = (
            torch.tensor(values).view(-1, 1, 1)
            for values in (self.transform.mean, self.transform.std)
        )
        pixels = (clip.cpu().float() * std + mean).mul(255).round().clamp(0, 255)
        return pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).byte().numpy()

    @torch.inference_mode()
    def __call__(self, path: str | Path, top_k: int = 5) -> list[dict]:
        """The best classes of a video, as `[{"label": …, "score": …}, …]`."""
        return self.ranked(self.model(self.read(path)).logits, top_k)

    @torch.inference_mode()
    def over_time(self, path: str | Path, num_parts: int) -> Tensor:
        """Probabilities (num_parts, K) of equal parts of a video, each read as one of its own."""
        options = dict(self.processor.clip_options())
        rows = []
        for part in range(num_parts):

            def choose(total: int, part: int = part) -> np.ndarray:
                first, end = (total * place // num_parts for place in (part, part + 1))
                return first + sample_indices(max(end - first, 1), **options)

            clip = self.transform(read_clip(path, choose, self.decoder))
            rows.append(self.model(clip[None].to(self.device)).logits[0].float().softmax(-1).cpu())
        return torch.stack(rows)

    def ranked(self, logits: Tensor, top_k: int = 5) -> list[dict]:
        """The best classes of clips of one video from their scores (V, K)."""
        probabilities = logits.detach().float().cpu().double().softmax(-1).mean(0)
        scores, classes = probabilities.topk(min(top_k, len(probabilities)))
        names = self.model.config.id2label
        return [
            dict(label=names[index], score=score)
            for index, score in zip(classes.tolist(), scores.tolist(), strict=True)
        ]
