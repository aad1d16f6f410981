"""transformers' video-classification pipeline, with what it leaves out for video processors.

Imported when `transformers.pipelines` is: other models get transformers' own behaviour.
"""

from typing import Any

from transformers import BatchFeature
from transformers.pipelines import PIPELINE_REGISTRY, VideoClassificationPipeline

from lvt_ff.hf.video_processing_lvt_ff import LVTFFVideoProcessor

__all__ = ["LVTFFVideoClassificationPipeline"]

_TASK = "video-classification"


class LVTFFVideoClassificationPipeline(VideoClassificationPipeline):
    """`frame_sampling_rate` and `batch_size` have their effect with our video processor too."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.image_processor is None and isinstance(self.video_processor, LVTFFVideoProcessor):
            # transformers 5.24 puts clips together only where there is an image processor.
            self.image_processor = self.video_processor

    def preprocess(
        self, video: Any, num_frames: int | None = None, frame_sampling_rate: int | None = None
    ) -> BatchFeature:
        """As in transformers; with `frame_sampling_rate` a dense clip of that stride."""
        if frame_sampling_rate is None:
            return super().preprocess(video, num_frames)
        if not isinstance(self.video_processor, LVTFFVideoProcessor):
            return super().preprocess(video, num_frames, frame_sampling_rate)
        # transformers 5.24 passes it on to image processors only.
        inputs = self.video_processor(
            video,
            num_frames=self.model.config.num_frames if num_frames is None else num_frames,
            do_sample_frames=True,
            sampling="dense",
            sampling_stride=frame_sampling_rate,
            return_tensors="pt",
        )
        return inputs.to(self.dtype)


PIPELINE_REGISTRY.supported_tasks[_TASK]["impl"] = LVTFFVideoClassificationPipeline
