"""A loaded model folder that classifies videos."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lvt_ff.data import MAX_PIXELS, OnDamage, header, read_clip, read_views, sample_indices
from lvt_ff.hf.pooling import default_pooling, pool_logits
from lvt_ff.hf.scores import score_function, scores_from_logits
from lvt_ff.hub.model_folder import load_folder
from lvt_ff.utils.errors import Failure, usage
from lvt_ff.utils.validation import check_rgb
from lvt_ff.video.sources import VideoSource, local_video

__all__ = ["Classifier"]

_FRAMES_BYTES = 2**29  # of the frames in memory while parts of a video are read


class Classifier:
    """A loaded model folder that takes videos: files, and all else of `lvt_ff.video.sources`.

    Args:
        folder: model folder, or ORG/NAME[@REVISION] on the Hub.
        device: torch device; None takes a GPU where there is one.
        num_clips: clips per video whose scores are averaged, times the crops; of models of several
            labels a video, the largest score of a class counts.
        num_crops: crops of each clip, along the longer side.
        decoder: see `lvt_ff.data.read_clip`, as are the next three.
        timeout_s: seconds without progress that reading a video may take.
        max_pixels: of a frame.
        on_damage: what is done with damaged videos.

    Raises:
        ValueError: not a model folder, or a device that is not there.
    """

    @torch.inference_mode(False)  # weights made in inference mode have no gradients to explain
    def __init__(
        self,
        folder: str | Path,
        device: str | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        decoder: str = "auto",
        timeout_s: float = 60.0,
        max_pixels: int = MAX_PIXELS,
        on_damage: OnDamage = "skip",
    ):
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.empty(1, device=self.device).cpu()  # nothing comes back from "meta"
        except (AssertionError, RuntimeError) as error:
            raise ValueError(f"Device {device!r} cannot be used: {error}") from error
        model, self.processor = load_folder(folder)
        self.model = model.to(self.device).eval()
        self.transform = self.processor.eval_transform()
        self.clip_options = dict(self.processor.clip_options(), num_clips=num_clips)
        self.num_crops = num_crops
        self.read_options = dict(
            decoder=decoder, timeout_s=timeout_s, max_pixels=max_pixels, on_damage=on_damage
        )

    def read(self, video: VideoSource) -> Tensor:
        """The clips of a video as the model takes them, (num_clips · num_crops, T, C, H, W).

        Args:
            video: a path, an http(s) address, "-" for standard input, bytes, or a file opened in
                binary mode.

        Raises:
            UsageError: a model of other channels than red, green and blue.
            VideoReadError: the video cannot be read.
        """
        with usage():
            check_rgb(self.model.config.in_chans)
        views = read_views(
            video, self.transform, self.clip_options, self.num_crops, **self.read_options
        )
        return views.to(self.device)

    @property
    def score_function(self) -> str:
        """What makes scores of logits, see `lvt_ff.hf.scores`."""
        return score_function(self.model.config)

    def pictures(self, clip: Tensor) -> np.ndarray:
        """A clip (T, C, H, W) as frames to look at, (T, H, W, 3) uint8.

        The first three channels are red, green and blue; of fewer the first is shown in grey.
        """
        shown = 3 if clip.shape[1] >= 3 else 1
        mean, std = (
            torch.tensor(values[:shown]).view(-1, 1, 1)
            for values in (self.transform.mean, self.transform.std)
        )
        pixels = (clip[:, :shown].cpu().float() * std + mean).mul(255).round().clamp(0, 255)
        return pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).byte().numpy()

    def __call__(self, video: VideoSource, top_k: int = 5) -> list[dict]:
        """The best classes of a video, as `[{"label": …, "score": …}, …]`.

        Raises:
            VideoReadError: the video, any of those of `read`, cannot be read.
            Failure: the model's scores are not numbers.
        """
        return self.classify_clips(self.read(video), top_k)

    @torch.inference_mode()
    def classify_clips(self, clips: Tensor, top_k: int = 5) -> list[dict]:
        """The best classes of clips (V, T, C, H, W) of one video; see `__call__`."""
        return self.ranked(self.model(clips).logits, top_k)

    @torch.inference_mode()
    def scores_over_time(self, video: VideoSource, num_parts: int) -> Tensor:
        """Scores (num_parts, K) of equal parts of a video, each read as one of its own."""
        with local_video(video) as path:
            return self._scores_over_time(path, num_parts)

    def _scores_over_time(self, path: str, num_parts: int) -> Tensor:
        clip_options = self.processor.clip_options()
        rows = []
        for parts in self._parts_at_once(path, num_parts):

            def choose(total: int, parts: range = parts) -> np.ndarray:
                bounds = [total * place // num_parts for place in (*parts, parts.stop)]
                return np.concatenate(
                    [
                        first + sample_indices(max(end - first, 1), **clip_options)
                        for first, end in zip(bounds[:-1], bounds[1:], strict=True)
                    ]
                )

            frames = read_clip(path, choose, **self.read_options)
            for part in np.split(frames, len(parts)):
                clip = self.transform(part)[None].to(self.device)
                rows.append(self.scores(self.model(clip).logits)[0])
        return torch.stack(rows)

    def _parts_at_once(self, path: str, num_parts: int) -> list[range]:
        """Numbers of the parts that are read together: a decoder starts from the first frame."""
        known = header(path, self.read_options["max_pixels"])
        at_once = 1
        if known is not None:
            part_bytes = 3 * known[1] * self.processor.num_frames
            at_once = min(max(_FRAMES_BYTES // max(part_bytes, 1), 1), num_parts)
        starts = range(0, num_parts, at_once)
        return [range(start, min(start + at_once, num_parts)) for start in starts]

    def scores(self, logits: Tensor) -> Tensor:
        """Scores of logits (..., K), on the CPU."""
        return scores_from_logits(logits.detach().cpu(), self.score_function)

    def ranked(self, logits: Tensor, top_k: int = 5) -> list[dict]:
        """The best classes of clips of one video from their logits (V, K)."""
        function = self.score_function
        pooled = pool_logits(logits.detach().cpu(), function, default_pooling(function))
        scores = self.scores(pooled)
        if not scores.isfinite().all():
            raise Failure(
                "The model's scores are not numbers (NaN): its weights are damaged, or its "
                "training diverged."
            )
        best, classes = scores.topk(min(top_k, len(scores)))
        names = self.model.config.class_names
        return [
            dict(label=names[index], score=score)
            for index, score in zip(classes.tolist(), best.tolist(), strict=True)
        ]
