"""transformers' side: importing this registers our classes, twice without harm."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
)

from lvt_ff.hf.configuration_lvt_ff import LVTFFConfig, TimmFolderConfig
from lvt_ff.hf.modeling_lvt_ff import LVTFFForVideoClassification, LVTFFModel
from lvt_ff.hf.video_processing_lvt_ff import LVTFFVideoProcessor

__all__ = ["LVTFFConfig", "LVTFFForVideoClassification", "LVTFFModel", "LVTFFVideoProcessor"]

AutoConfig.register("lvt_ff", LVTFFConfig, exist_ok=True)
AutoConfig.register("timm_wrapper", TimmFolderConfig, exist_ok=True)
AutoModel.register(LVTFFConfig, LVTFFModel, exist_ok=True)
AutoModelForVideoClassification.register(LVTFFConfig, LVTFFForVideoClassification, exist_ok=True)
AutoVideoProcessor.register(LVTFFConfig, LVTFFVideoProcessor, exist_ok=True)
# Scripts for VideoMAE and others ask for an image processor, which takes frames all the same.
AutoImageProcessor.register(
    LVTFFConfig, image_processor_classes={"torchvision": LVTFFVideoProcessor}, exist_ok=True
)
