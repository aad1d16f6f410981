"""The transformers video processor: our reader, our sampling, our preprocessing."""

import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from torch import Tensor
from transformers import BatchFeature
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from lvt_ff.data.reader import read_clip
from lvt_ff.data.sampling import sample_indices
from lvt_ff.data.transforms import (
    INTERPOLATIONS,
    EvalTransform,
    crop_clip,
    normalize_clip,
    resize_to_cover,
)
from lvt_ff.hf.configuration_lvt_ff import LVTFFConfig, find_file
from lvt_ff.schema import check_processor
from lvt_ff.timm_models import with_tag
from lvt_ff.utils.json_files import read_object

__all__ = ["LVTFFVideoProcessor"]

FILE = "video_preprocessor_config.json"


class LVTFFVideoKwargs(VideosKwargs, total=False):
    """Options beyond those of every video processor.

    sampling (`str`): "uniform" or "dense", see `lvt_ff.data.sample_indices`.
    sampling_stride (`int`): frames between two of a dense clip.
    """

    sampling: str
    sampling_stride: int


class LVTFFVideoProcessor(BaseVideoProcessor):
    """Files or frame arrays to `pixel_values_videos` (B, T, C, H, W).

    Frames are resized, keeping their shape, to cover `size` (height, width), and `crop_size` is
    cut from the centre. Files are sampled to `num_frames` frames while they are read.
    """

    resample = 2
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    size = {"height": 224, "width": 224}
    crop_size = {"height": 224, "width": 224}
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames = True
    num_frames = 16
    sampling = "uniform"
    sampling_stride = 4
    valid_kwargs = LVTFFVideoKwargs
    model_input_names = ["pixel_values_videos"]

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        check_processor(self.to_dict(), type(self).__name__)

    @classmethod
    def get_video_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values in the file of a folder or repository.

        Raises:
            ValueError: a file that holds no processor of ours.
        """
        source = pretrained_model_name_or_path
        file = Path(source) if os.path.isfile(source) else find_file(source, FILE, kwargs)
        if file is not None:
            values = read_object(file)
            for name in values.keys() - cls.valid_kwargs.__annotations__.keys():
                if hasattr(cls, name):  # it would take a method's place
                    raise ValueError(f"{file}: {name} is no key of a processor: leave it out.")
            usual = {name: getattr(cls, name) for name in ("size", "crop_size")}
            check_processor(usual | values, str(file))
        return super().get_video_processor_dict(source, **kwargs)

    @classmethod
    def from_config(cls, config: LVTFFConfig, **options: Any) -> "LVTFFVideoProcessor":
        """The processor of a model: its clip size, the pixel statistics of its weights.

        Args:
            config: of the model.
            **options: attributes to set differently, such as `sampling`.
        """
        cfg = config.data_cfg()
        img_size = config.img_size
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        crop_pct = cfg["crop_pct"]
        fitting = dict(
            num_frames=config.num_frames,
            size={"height": round(height / crop_pct), "width": round(width / crop_pct)},
            crop_size={"height": height, "width": width},
            image_mean=list(cfg["mean"]),
            image_std=list(cfg["std"]),
            resample={name: number for number, name in INTERPOLATIONS.items()}[
                cfg["interpolation"]
            ],
        )
        return cls(**{**fitting, **options})

    @classmethod
    def from_timm(cls, name: str, **fields: Any) -> "LVTFFVideoProcessor":
        """The processor that belongs to `LVTFFForVideoClassification.from_timm(name, **fields)`."""
        return cls.from_config(LVTFFConfig.from_variant(with_tag(name), **fields))

    def clip_options(self) -> dict[str, Any]:
        """How clips are sampled, as `lvt_ff.data` takes it."""
        return dict(num_frames=self.num_frames, sampling=self.sampling, stride=self.sampling_stride)

    def eval_transform(self) -> EvalTransform:
        """The same preprocessing for several crops, without transformers."""
        return EvalTransform(
            (self.crop_size["height"], self.crop_size["width"]),
            (self.size["height"], self.size["width"]),
            self.image_mean,
            self.image_std,
            INTERPOLATIONS[int(self.resample)],
        )

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        sampling: str | None = None,
        sampling_stride: int | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Frame numbers of the middle clip; `fps` is refused: models take a number of frames."""
        if fps is not None:
            raise ValueError(f"fps={fps} is not supported: models take num_frames frames.")
        return sample_indices(
            metadata.total_num_frames,
            num_frames or self.num_frames,
            sampling=sampling or self.sampling,
            stride=sampling_stride or self.sampling_stride,
        )

    def fetch_videos(self, video_url_or_urls: Any, sample_indices_fn: Any = None) -> tuple:
        """Read files or http(s) addresses with `lvt_ff.data.read_clip`."""
        if isinstance(video_url_or_urls, list):
            read = [self.fetch_videos(item, sample_indices_fn) for item in video_url_or_urls]
            return [frames for frames, _ in read], [metadata for _, metadata in read]
        metadata = VideoMetadata(total_num_frames=0, video_backend="lvt_ff")

        def choose(total: int) -> np.ndarray:
            metadata.total_num_frames = total
            whole = np.arange(total)
            metadata.frames_indices = sample_indices_fn(metadata) if sample_indices_fn else whole
            return metadata.frames_indices

        address = str(video_url_or_urls)
        if not address.startswith(("http://", "https://")):
            return read_clip(address, choose), metadata
        with tempfile.TemporaryDirectory() as folder, urlopen(address, timeout=60) as response:
            file = Path(folder, "video")
            file.write_bytes(response.read())
            return read_clip(file, choose), metadata

    def _preprocess(
        self,
        videos: list[Tensor],
        do_resize: bool,
        size: Any,
        resample: Any,
        do_center_crop: bool,
        crop_size: Any,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: list[float],
        image_std: list[float],
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        if None in (size.height, size.width, crop_size.height, crop_size.width):
            raise ValueError(
                f"size and crop_size need height and width, got {size} and {crop_size}: frames are "
                "resized, keeping their shape, to cover size."
            )
        clips = []
        for clip in videos:
            if do_resize:
                wanted = (size.height, size.width)
                clip = resize_to_cover(clip, wanted, INTERPOLATIONS[int(resample)])
            if do_center_crop:
                clip = crop_clip(clip, (crop_size.height, crop_size.width), (0.5, 0.5))
            clips.append(
                normalize_clip(
                    clip,
                    image_mean if do_normalize else [0.0] * clip.shape[1],
                    image_std if do_normalize else [1.0] * clip.shape[1],
                    rescale_factor if do_rescale else 1.0,
                )
            )
        return BatchFeature({"pixel_values_videos": clips}, tensor_type=return_tensors)
