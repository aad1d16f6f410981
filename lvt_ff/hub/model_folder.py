"""Model folders: building a model by name or folder, writing a folder for both libraries."""

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from safetensors import SafetensorError
from timm.models import get_pretrained_cfg, split_model_name_tag

from lvt_ff.hf import LVTFFConfig, LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.hf.modeling_lvt_ff import LVTFFPreTrainedModel
from lvt_ff.hub.resolve import local_folder
from lvt_ff.timm_models import SOURCES, with_tag
from lvt_ff.utils.atomic_io import atomic_files
from lvt_ff.utils.validation import suggest
from lvt_ff.variants import VARIANTS

__all__ = [
    "build_model",
    "is_variant",
    "load_folder",
    "stored_classes",
    "write_model_folder",
]


_LOADING = logging.getLogger("transformers.modeling_utils")


def _folder_problem(folder: Path) -> str | None:
    if is_variant(str(folder)):
        return f"{folder} is a variant, not trained on videos: fine-tune it, then give that folder"
    if not folder.is_dir():
        return f"{folder} is not a folder: give one written by fine-tuning or save_pretrained"
    if not (folder / "config.json").is_file():
        return (
            f"{folder} has no config.json: give a folder written by fine-tuning or save_pretrained"
        )
    return None


def load_folder(
    folder: str | Path, new_head: bool = False, **overrides: Any
) -> tuple[LVTFFForVideoClassification, LVTFFVideoProcessor]:
    """A trained model and its processor from a folder of either library.

    Args:
        folder: with `config.json` and `model.safetensors`, or ORG/NAME[@REVISION] of a repository
            on the Hub; without a processor file, one with the variant's statistics is made.
        new_head: a classifier that is not in the folder, or does not fit, is no error.
        **overrides: configuration fields, such as `num_frames`.

    Raises:
        ValueError: not a model folder, or one whose weights are not all there.
    """
    folder = local_folder(str(folder))
    problem = _folder_problem(folder)
    if problem:
        raise ValueError(problem)
    try:
        with _loading_reports_held() as held:
            model, report = LVTFFForVideoClassification.from_pretrained(
                folder, output_loading_info=True, ignore_mismatched_sizes=True, **overrides
            )
    except (OSError, SafetensorError, TypeError) as error:
        raise ValueError(f"{folder} cannot be loaded as an lvt_ff model: {error}") from error
    renewed = {name for name, *_ in report["mismatched_keys"]} | set(report["missing_keys"])
    lost = sorted(name for name in renewed if not (new_head and ".head.fc." in name))
    if lost or not renewed or report["unexpected_keys"]:  # more than the new head that is wanted
        for record in held:
            _LOADING.handle(record)
    if lost:
        raise ValueError(
            f"{folder} lacks weights: {len(lost)} tensors such as {lost[0]}. Its config.json and "
            "model.safetensors do not belong together, or it was saved without a classifier."
        )
    if (folder / "video_preprocessor_config.json").is_file():
        processor = LVTFFVideoProcessor.from_pretrained(folder)
        processor.num_frames = model.config.num_frames
        height, width = model.model.img_size
        if (processor.crop_size["height"], processor.crop_size["width"]) != (height, width):
            processor = _resized(processor, height, width)
    else:
        processor = LVTFFVideoProcessor.from_config(model.config)
    return model, processor


@contextmanager
def _loading_reports_held() -> Iterator[list[logging.LogRecord]]:
    """Keep what transformers reports of loaded tensors, for the caller to show or to leave out."""
    held = []

    def show(record: logging.LogRecord) -> bool:
        if "LOAD REPORT" in record.getMessage():
            held.append(record)
        return record not in held

    _LOADING.addFilter(show)
    try:
        yield held
    finally:
        _LOADING.removeFilter(show)


def _resized(processor: LVTFFVideoProcessor, height: int, width: int) -> LVTFFVideoProcessor:
    factor = processor.size["height"] / processor.crop_size["height"]
    return LVTFFVideoProcessor(
        **{
            **processor.to_dict(),
            "size": {"height": round(height * factor), "width": round(width * factor)},
            "crop_size": {"height": height, "width": width},
        }
    )


def is_variant(name: str) -> bool:
    """Whether a name is a variant's, with or without the tag of pretrained weights.

    Raises:
        ValueError: a variant with a tag that it does not have.
    """
    variant, tag = split_model_name_tag(name)
    if variant not in VARIANTS:
        return False
    if tag and tag not in SOURCES.get(variant, ()):
        if Path(name).exists():
            return False
        tags = ", ".join(SOURCES.get(variant, ())) or "none"
        raise ValueError(f"{variant} has no weights {tag!r}; its tags: {tags}.")
    return True


def stored_classes(name_or_folder: str) -> tuple[str, ...] | None:
    """The class names of a model folder, in order; None for a variant.

    Raises:
        ValueError: neither a variant nor a model folder.
    """
    if is_variant(name_or_folder):
        return None
    folder = local_folder(name_or_folder)
    if not folder.exists():
        known = suggest(name_or_folder, [*VARIANTS])
        raise ValueError(f"{name_or_folder!r} is neither a variant nor a model folder: {known}")
    problem = _folder_problem(folder)
    if problem:
        raise ValueError(problem)
    return LVTFFConfig.from_pretrained(folder).class_names


def build_model(
    name_or_folder: str,
    class_names: Sequence[str],
    pretrained: bool | None = None,
    **overrides: Any,
) -> tuple[LVTFFForVideoClassification, LVTFFVideoProcessor, str]:
    """A float32 model to train on these classes, its processor, and a line on its weights' origin.

    Args:
        name_or_folder: a variant, with or without a tag, or a model folder.
        class_names: in order; a folder's classifier is kept where it has the same ones.
        pretrained: whether a variant starts from its image model's weights; None does wherever
            there are any.
        **overrides: configuration fields.

    Raises:
        ValueError: unknown name, not a model folder, or fields or weights that do not fit.
        OSError: the weights cannot be downloaded.
    """
    labels = dict(enumerate(class_names))
    LVTFFConfig.check_fields(overrides)
    stored = stored_classes(name_or_folder)
    if stored is None:
        return _build_variant(name_or_folder, pretrained, id2label=labels, **overrides)
    if pretrained is False:
        raise ValueError(
            f"--pretrained false takes a variant, got the model folder {name_or_folder}, whose "
            "weights are always loaded."
        )
    same = stored == tuple(class_names)
    if not same:
        overrides["id2label"] = labels
    model, processor = load_folder(
        name_or_folder, new_head=not same, dtype=torch.float32, **overrides
    )
    model.config.id2label = labels
    model.config.label2id = {name: index for index, name in labels.items()}
    if not same:
        model.model.reset_classifier(len(labels))
    head = "its classifier" if same else f"a new classifier for {len(labels)} classes"
    record = local_folder(name_or_folder) / "conversion.json"
    source = f" (from {json.loads(record.read_text())['origin']})" if record.is_file() else ""
    return model, processor, f"weights of {name_or_folder}{source} with {head}"


def _build_variant(
    name: str, pretrained: bool | None, **fields: Any
) -> tuple[LVTFFForVideoClassification, LVTFFVideoProcessor, str]:
    variant, tag = split_model_name_tag(name)
    if tag and pretrained is False:
        raise ValueError(f"{name} names weights: give {variant} with --pretrained false.")
    if pretrained and variant not in SOURCES:
        raise ValueError(f"{variant} has no pretrained weights; with some: {', '.join(SOURCES)}.")
    if pretrained is False or variant not in SOURCES:
        model = LVTFFForVideoClassification(LVTFFConfig.from_variant(name, **fields))
        origin = f"random weights of {variant}"
    else:
        name = with_tag(name)
        try:
            model = LVTFFForVideoClassification.from_timm(name, **fields)
        except OSError as error:
            raise OSError(
                f"The weights of {name} cannot be fetched from the Hub: {error} (--pretrained "
                "false starts from random weights.)"
            ) from error
        except SafetensorError as error:
            source = get_pretrained_cfg(name).hf_hub_id
            raise OSError(
                f"The downloaded weights of {name} are damaged ({error}): delete {source} from the "
                "Hub's cache (`hf cache`) and try again."
            ) from error
        origin = f"{name} (weights of {model.model.pretrained_cfg['hf_hub_id']})"
    return model, LVTFFVideoProcessor.from_config(model.config), origin


def write_model_folder(
    folder: Path,
    model: LVTFFPreTrainedModel,
    processor: LVTFFVideoProcessor,
    card: ModelCard,
    records: dict[str, dict],
    pictures: Sequence[Path] = (),
) -> None:
    """Write a finished model folder; `config.json` comes last: a half-written one loads nowhere.

    Args:
        folder: may hold other files, which stay.
        model, processor, card: saved as transformers and the Hub expect them.
        records: data to write as JSON, by file name.
        pictures: files to move in.
    """
    with atomic_files(folder, last="config.json") as new:
        model.save_pretrained(new)
        processor.save_pretrained(new)
        card.save(new / "README.md")
        for name, record in records.items():
            (new / name).write_text(json.dumps(record, indent=2) + "\n")
        for picture in pictures:
            shutil.move(picture, new / picture.name)
