"""The transformers video processor: our reader, our sampling, our preprocessing."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_utils import ChannelDimension, infer_channel_dimension_format
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata, make_batched_metadata

from lvt_ff.data.sampling import sample_indices
from lvt_ff.data.transforms import (
    INTERPOLATIONS,
    EvalTransform,
    crop_clip,
    interpolation_name,
    normalize_clip,
    resize_to_cover,
)
from lvt_ff.hf.configuration_lvt_ff import LVTFFConfig
from lvt_ff.hf.files import find_file
from lvt_ff.hf.open_videos import read_video
from lvt_ff.hf.video_inputs import as_videos
from lvt_ff.schema import check_processor
from lvt_ff.timm_models import with_tag
from lvt_ff.utils.json_files import read_object
from lvt_ff.utils.validation import check_choice, suggest

__all__ = ["LVTFFVideoProcessor"]

FILE = "video_preprocessor_config.json"
# What a processor's file holds besides its options, and what loading one takes.
_FILE_KEYS = {
    *("auto_map", "feature_extractor_type", "image_processor_type", "processor_class"),
    "video_processor_type",
}
_LOADING_OPTIONS = {
    *("backend", "cache_dir", "code_revision", "force_download", "local_files_only", "proxies"),
    *("return_unused_kwargs", "revision", "subfolder", "token", "trust_remote_code", "use_fast"),
    *("attn_implementation", "device_map", "dtype", "torch_dtype"),  # AutoProcessor passes them on
}
_BACKEND = "lvt_ff"  # in the metadata of videos that were read from files
_OTHER_NAMES = {"frame_sampling_rate": "sampling_stride"}  # VideoMAE's


class LVTFFVideoKwargs(VideosKwargs, total=False):
    """Options beyond those of every video processor.

    sampling (`str`): "uniform" or "dense", see `lvt_ff.data.sample_indices`.
    sampling_stride (`int`): frames between two of a dense clip.
    """

    sampling: str
    sampling_stride: int


class LVTFFVideoProcessor(BaseVideoProcessor):
    """Videos, in files or opened by other libraries, and frames to `pixel_values_videos`.

    The result is (B, T, C, H, W). Frames are resized, keeping their shape, to cover `size` (height,
    width), and `crop_size` is cut from the centre. Videos are sampled to `num_frames` frames while
    they are read; `preprocess` lists what they may be.
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
        self._check_names(kwargs.keys() - _FILE_KEYS)
        if isinstance(kwargs.get("resample"), Image.Resampling):
            kwargs["resample"] = kwargs["resample"].value  # what a file holds
        super().__init__(**kwargs)
        check_processor(self.to_dict(), type(self).__name__)

    @classmethod
    def _check_names(cls, names: Iterable[str]) -> None:
        known = sorted(cls.valid_kwargs.__annotations__)
        for name in sorted(names):
            if name not in known:
                hint = _OTHER_NAMES.get(name)
                hint = f"its name here is {hint!r}" if hint else suggest(name, known)
                raise TypeError(f"Unknown option {name!r} of the video processor: {hint}.")

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> "LVTFFVideoProcessor":
        """The processor of a folder or repository, with options changed.

        Raises:
            TypeError: an unknown option, unless `return_unused_kwargs`.
        """
        # transformers' pipeline gives the model's options to every part of it.
        if not kwargs.get("return_unused_kwargs") and "_from_pipeline" not in kwargs:
            names = (name for name in kwargs if not name.startswith("_"))
            cls._check_names(set(names) - _LOADING_OPTIONS)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_dict(
        cls, video_processor_dict: dict[str, Any], **kwargs: Any
    ) -> "LVTFFVideoProcessor":
        """The processor of a file's content; files of other versions may say more than it knows."""
        known = {*cls.valid_kwargs.__annotations__, *_FILE_KEYS}
        stored = {name: value for name, value in video_processor_dict.items() if name in known}
        return super().from_dict(stored, **kwargs)

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
                    raise ValueError(f"{file}: {name} is not a key of a processor: leave it out.")
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
        check_choice("interpolation", cfg["interpolation"], INTERPOLATIONS.values())
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

    @property
    def resize_to(self) -> tuple[int, int]:
        """Height and width that a resized frame covers."""
        return _height_and_width(self.size, "size")

    def eval_transform(self) -> EvalTransform:
        """The same preprocessing for several crops, without transformers."""
        return EvalTransform(
            _height_and_width(self.crop_size, "crop_size"),
            self.resize_to,
            self.image_mean,
            self.image_std,
            interpolation_name(self.resample),
        )

    def __call__(self, videos: Any = None, **kwargs: Any) -> BatchFeature:
        """See `preprocess`."""
        if videos is None:
            hint = "its name here is 'videos'" if "images" in kwargs else "files or frames"
            raise TypeError(f"The video processor needs videos: {hint}.")
        return self.preprocess(videos, **kwargs)

    def preprocess(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """Videos to `pixel_values_videos`.

        Videos that are read are sampled as files are; frames that are given only where there are
        more or fewer than `num_frames`. Transparent frames lie on white.

        Args:
            videos: one of these, or lists of them in any nesting:
                a file, a folder of numbered pictures, an http(s) address, bytes, a file opened in
                binary mode; an item of a `datasets` column; torchcodec's `VideoDecoder`, decord's
                `VideoReader`, a container or video stream of PyAV;
                frames (T, H, W, C), (T, C, H, W) or grey (T, H, W); a list of PIL images of any
                mode, or of arrays.
            **kwargs: options to set differently for this call.

        Raises:
            TypeError: an unknown option, or something else than a video.
            ValueError: an option that does not fit, or an array that is not a video.
            VideoReadError: a video cannot be read.
        """
        self._check_names(kwargs.keys() - {"return_tensors"})
        videos = as_videos(videos, kwargs.get("input_data_format") is not None)
        return super().preprocess(videos, **kwargs)

    def _decode_and_sample_videos(
        self,
        videos: list,
        video_metadata: Any = None,
        do_sample_frames: bool | None = None,
        sample_indices_fn: Any = None,
    ) -> tuple[list, list[VideoMetadata]]:
        # transformers' own leaves out what it does not know, and takes no frames beside files.
        given = None if video_metadata is None else make_batched_metadata(videos, video_metadata)
        found = []
        for place, video in enumerate(videos):
            if not isinstance(video, np.ndarray | Tensor):
                found.append(self.fetch_videos(video, sample_indices_fn))
                continue
            metadata = given[place] if given else make_batched_metadata([video], None)[0]
            if do_sample_frames:
                metadata.frames_indices = sample_indices_fn(metadata)
                video = video[metadata.frames_indices]
            found.append((video, metadata))
        return [video for video, _ in found], [metadata for _, metadata in found]

    def _prepare_input_videos(
        self,
        videos: list,
        do_convert_rgb: bool | None = None,
        input_data_format: Any = None,
        device: Any = None,
    ) -> list[Tensor]:
        # transformers takes the first video's layout for all, and none with transparency.
        prepared = []
        for video in videos:
            layout = input_data_format
            layout = layout or infer_channel_dimension_format(video, num_channels=(1, 3, 4))
            video = torch.as_tensor(video)
            if layout == ChannelDimension.LAST:
                video = video.permute(0, 3, 1, 2)
            video = video.contiguous()
            video = self.convert_to_rgb(video) if do_convert_rgb else video
            prepared.append(video if device is None else video.to(device))
        return prepared

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
        num_frames = self.num_frames if num_frames is None else num_frames
        if metadata.total_num_frames == num_frames and metadata.video_backend != _BACKEND:
            return np.arange(num_frames)  # frames that somebody has sampled already
        return sample_indices(
            metadata.total_num_frames,
            num_frames,
            sampling=self.sampling if sampling is None else sampling,
            stride=self.sampling_stride if sampling_stride is None else sampling_stride,
        )

    def fetch_videos(self, video_url_or_urls: Any, sample_indices_fn: Any = None) -> tuple:
        """Frames and metadata of a video that `preprocess` takes, or lists of both for a list."""
        if isinstance(video_url_or_urls, list):
            read = [self.fetch_videos(item, sample_indices_fn) for item in video_url_or_urls]
            return [frames for frames, _ in read], [metadata for _, metadata in read]
        metadata = VideoMetadata(total_num_frames=0, video_backend=_BACKEND)

        def choose(total: int) -> np.ndarray:
            metadata.total_num_frames = total
            whole = np.arange(total)
            metadata.frames_indices = sample_indices_fn(metadata) if sample_indices_fn else whole
            return metadata.frames_indices

        return read_video(video_url_or_urls, choose), metadata

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
        do_convert_rgb: bool = False,
        **kwargs: Any,
    ) -> BatchFeature:
        clips = []
        for clip in videos:
            if do_convert_rgb:  # transformers before 5.2x, which does it only here
                clip = self.convert_to_rgb(clip)
            if do_resize:
                wanted = _height_and_width(size, "size")
                clip = resize_to_cover(clip, wanted, interpolation_name(resample))
            if do_center_crop:
                clip = crop_clip(clip, _height_and_width(crop_size, "crop_size"), (0.5, 0.5))
            clips.append(
                normalize_clip(
                    clip,
                    image_mean if do_normalize else 0.0,
                    image_std if do_normalize else 1.0,
                    rescale_factor if do_rescale else 1.0,
                )
            )
        return BatchFeature({"pixel_values_videos": clips}, tensor_type=return_tensors)


def _height_and_width(size: Any, name: str) -> tuple[int, int]:
    sides = size if isinstance(size, dict) else vars(size)
    height, width = sides.get("height"), sides.get("width")
    shortest = sides.get("shortest_edge")
    if name == "size" and shortest is not None and sides.get("longest_edge") is None:
        return shortest, shortest  # what a frame that keeps its shape covers
    if height is None or width is None:
        raise ValueError(
            f"{name} needs height and width, got {size}: frames are resized, keeping their shape, "
            "to cover size."
        )
    return height, width
