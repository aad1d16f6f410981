"""Made-up videos: what the demo trains on, and moving objects for comparing models."""

from lvt_ff.data.synthetic.demo import TIME_CLASSES, draw_clip
from lvt_ff.data.synthetic.motion import MOTION_CLASSES, MOTION_SIZE, draw_motion
from lvt_ff.data.synthetic.writer import write_dataset, write_video

__all__ = [
    "MOTION_CLASSES",
    "MOTION_SIZE",
    "TIME_CLASSES",
    "draw_clip",
    "draw_motion",
    "write_dataset",
    "write_video",
]
