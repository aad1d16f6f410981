"""Videos to clips; nothing here knows of models, and no decoder is imported before it is used."""

from lvt_ff.data.augment_labels import flip_warning
from lvt_ff.data.augmentation import Augmentation
from lvt_ff.data.dataset import EvalDataset, TrainDataset, collate, read_views
from lvt_ff.data.formats import DataFormat
from lvt_ff.data.sampling import SAMPLINGS, sample_indices
from lvt_ff.data.transforms import EvalTransform, TrainTransform
from lvt_ff.data.video_list import Missing, VideoList, load_video_list
from lvt_ff.utils.errors import DamagedVideoWarning, FrameSizeError, VideoReadError
from lvt_ff.video.clip_buffer import MAX_PIXELS
from lvt_ff.video.decoders import DECODER_CHOICES, Decoder
from lvt_ff.video.reader import OnDamage, header, read_clip

__all__ = [
    "DECODER_CHOICES",
    "DamagedVideoWarning",
    "DataFormat",
    "Decoder",
    "MAX_PIXELS",
    "Missing",
    "OnDamage",
    "SAMPLINGS",
    "Augmentation",
    "EvalDataset",
    "EvalTransform",
    "FrameSizeError",
    "TrainDataset",
    "TrainTransform",
    "VideoList",
    "VideoReadError",
    "collate",
    "flip_warning",
    "header",
    "load_video_list",
    "read_clip",
    "read_views",
    "sample_indices",
]
