"""transformers' video-classification pipeline, with what it leaves out for video processors.

Imported when `transformers.pipelines` is: other models get transformers' own behaviour.
"""

from typing import Any

from transformers import BatchFeature
from transformers.pipelines import PIPELINE_REGISTRY, VideoClassificationPipeline

from lvt_ff.hf.scores import score_function
from lvt_ff.hf.video_processing_lvt_ff import LVTFFVideoProcessor

__all__ = ["LVTFFVideoClassificationPipeline"]

_TASK = "video-classification"


class LVTFFVideoClassificationPipeline(VideoClassificationPipeline):
    """With our video processor: `frame_sampling_rate`, `batch_size` and `problem_type` count."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.image_processor is None and self._is_ours:
            # transformers 5.24 puts clips together only where there is an image processor.
            self.image_processor = self.video_processor

    @property
    def _is_ours(self) -> bool:
        return isinstance(self.video_processor, LVTFFVideoProcessor)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict, dict, dict]:
        preprocessing, forward, postprocessing = super()._sanitize_parameters(**kwargs)
        if self._is_ours and kwargs.get("function_to_apply") is None:
            postprocessing.pop("function_to_apply", None)  # transformers 5.17 fills in softmax
        return preprocessing, forward, postprocessing

    def preprocess(
        self, video: Any, num_frames: int | None = None, frame_sampling_rate: int | None = None
    ) -> BatchFeature:
        """As in transformers; with `frame_sampling_rate` a dense clip of that stride."""
        if frame_sampling_rate is None:
            return super().preprocess(video, num_frames)
        if not self._is_ours:
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

    def postprocess(self, model_outputs: Any, **options: Any) -> list[dict]:
        """As in transformers from 5.24 on, which decides by `problem_type`."""
        if self._is_ours and options.get("function_to_apply") is None:
            options["function_to_apply"] = score_function(self.model.config)
        return super().postprocess(model_outputs, **options)


PIPELINE_REGISTRY.supported_tasks[_TASK]["impl"] = LVTFFVideoClassificationPipeline
