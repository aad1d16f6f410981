"""Classify video files with a model folder."""

import json as json_format
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lvt_ff.console import Failure, check_ranges, run, usage
from lvt_ff.data import VideoReadError, read_clip, read_views, sample_indices
from lvt_ff.folders import load_folder

__all__ = ["Classifier", "predict"]


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
            torch.empty(1, device=self.device)
        except (AssertionError, RuntimeError) as error:
            raise ValueError(f"Device {device!r} cannot be used: {error}") from error
        model, self.processor = load_folder(folder)
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


def predict(
    videos: list[str],
    model: Path,
    top_k: int = 5,
    clips: int = 1,
    crops: int = 1,
    json: bool = False,
    decoder: Literal["auto", "decord", "pyav", "torchcodec"] = "auto",
    device: str | None = None,
) -> None:
    """Print the best classes of each video.

    Videos that cannot be read are named, the rest is classified, and the exit status is 1.

    Args:
        videos: Video files.
        model: Model folder, or ORG/NAME[@REVISION] on the Hub.
        top_k: Number of classes.
        clips: Clips in time per video; probabilities are averaged.
        crops: Crops along the longer side per clip; probabilities are averaged.
        json: One JSON object per video and line.
        decoder: Video backend; auto falls back from one to the next.
        device: Torch device; a GPU where there is one if not given.
    """
    with usage():
        check_ranges(top_k=(top_k, 1, None), clips=(clips, 1, None), crops=(crops, 1, None))
        classify = Classifier(model, device, clips, crops, decoder)
    failed = 0
    for path, result in _results(classify, videos, top_k):
        failed += isinstance(result, str)
        if json:
            key = "error" if isinstance(result, str) else "predictions"
            print(json_format.dumps({"path": path, key: result}))
            continue
        print(path)
        if isinstance(result, str):
            print(f"  {result}")
            continue
        for row in result:
            print(f"  {100 * row['score']:5.1f} %  {row['label']}")
    if failed:
        raise Failure(f"{failed} of {len(videos)} videos could not be read")


def _results(
    classify: Classifier, videos: Sequence[str], top_k: int
) -> Iterator[tuple[str, list[dict] | str]]:
    for path in videos:
        try:
            yield path, classify(path, top_k)
        except VideoReadError as error:
            yield path, str(error)


if __name__ == "__main__":
    raise SystemExit(run(predict, "lvt_ff.predict", positional=("videos",)))
