"""Videos to clips; nothing here knows of models, and no decoder is imported before it is used."""

from lvt_ff.data.dataset import EvalDataset, TrainDataset, collate, read_views
from lvt_ff.data.reader import DECODER_CHOICES, Decoder, header, read_clip
from lvt_ff.data.sampling import SAMPLINGS, sample_indices
from lvt_ff.data.transforms import EvalTransform, TrainTransform
from lvt_ff.data.video_list import VideoList, load_video_list
from lvt_ff.utils.errors import FrameSizeError, VideoReadError

__all__ = [
    "DECODER_CHOICES",
    "Decoder",
    "SAMPLINGS",
    "EvalDataset",
    "EvalTransform",
    "FrameSizeError",
    "TrainDataset",
    "TrainTransform",
    "VideoList",
    "VideoReadError",
    "collate",
    "header",
    "load_video_list",
    "read_clip",
    "read_views",
    "sample_indices",
]
