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
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from timm.models import get_pretrained_cfg, split_model_name_tag

from lvt_ff.hf import LVTFFConfig, LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.hf.modeling_lvt_ff import LVTFFPreTrainedModel
from lvt_ff.hf.video_processing_lvt_ff import FILE as PROCESSOR_FILE
from lvt_ff.hub.local_paths import local_paths, without_paths
from lvt_ff.hub.resolve import adapter_problem, local_folder, origin
from lvt_ff.hub.retry import TRANSIENT
from lvt_ff.hub.verification import make_verification, write_verification
from lvt_ff.schema import check_channels
from lvt_ff.timm_models import SOURCES, with_tag
from lvt_ff.utils.atomic_io import atomic_files
from lvt_ff.utils.json_files import read_object
from lvt_ff.utils.validation import suggest
from lvt_ff.utils.weight_files import files_in
from lvt_ff.variants import VARIANTS

__all__ = [
    "build_model",
    "is_variant",
    "load_folder",
    "stored_classes",
    "write_model_folder",
]

CONVERSION = "conversion.json"


_LOADING = logging.getLogger("transformers.modeling_utils")
_LOGGER = logging.getLogger(__name__)


def _folder_problem(folder: Path) -> str | None:
    if is_variant(str(folder)):
        return f"{folder} is a variant, not trained on videos: fine-tune it, then give that folder"
    if not folder.is_dir():
        return f"{folder} is not a folder: give one written by fine-tuning or save_pretrained"
    if problem := adapter_problem(folder):
        return problem
    if not (folder / "config.json").is_file():
        return (
            f"{origin(folder)} has no config.json: give a folder written by fine-tuning or "
            "save_pretrained"
        )
    return None


def load_folder(
    folder: str | Path, new_head: bool = False, **overrides: Any
) -> tuple[LVTFFForVideoClassification, LVTFFVideoProcessor]:
    """A trained model and its processor from a folder of either library.

    Args:
        folder: with `config.json` and `model.safetensors`, or ORG/NAME[@REVISION] of a repository
            on the Hub; without a processor file, one with the variant's statistics is made.
        new_head: accept a classifier that is not in the folder, or does not fit.
        **overrides: configuration fields, such as `num_frames`.

    Raises:
        ValueError: not a model folder, or one whose weights are not all there.
    """
    folder = local_folder(folder)
    problem = _folder_problem(folder)
    if problem:
        raise ValueError(problem)
    try:
        if not new_head and not LVTFFConfig.from_pretrained(folder).num_stored_classes:
            raise ValueError("it was saved without a classifier: fine-tune it first.")
        with _no_loading_report():
            model, report = LVTFFForVideoClassification.from_pretrained(
                folder, output_loading_info=True, ignore_mismatched_sizes=new_head, **overrides
            )
    except (OSError, SafetensorError, StrictDataclassError, TypeError, ValueError) as error:
        raise ValueError(
            f"{origin(folder)} cannot be loaded as an lvt_ff model: {error}"
        ) from error
    renewed = {name for name, *_ in report["mismatched_keys"]} | set(report["missing_keys"])
    if fresh := sorted(name for name in renewed if ".head.fc." not in name):
        _LOGGER.warning(
            "%d tensors are not in %s and begin as in a new model: %s%s",
            len(fresh),
            origin(folder),
            ", ".join(fresh[:3]),
            ", …" * (len(fresh) > 3),
        )
    if files_in(folder)(PROCESSOR_FILE) is None:
        return model, LVTFFVideoProcessor.from_config(model.config)
    processor = LVTFFVideoProcessor.from_pretrained(folder)
    processor.num_frames = model.config.num_frames
    height, width = model.model.img_size
    if (processor.crop_size["height"], processor.crop_size["width"]) != (height, width):
        processor = _resized(processor, height, width)
    for name in ("image_mean", "image_std"):
        place = str(folder / PROCESSOR_FILE)
        check_channels(getattr(processor, name), model.config.in_chans, place, name)
    processor.eval_transform()  # preprocessing that we do not have is told here
    return model, processor


@contextmanager
def _no_loading_report() -> Iterator[None]:
    """transformers' table of missing and mismatched tensors alarms where all of it is meant."""

    def keep(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    _LOADING.addFilter(keep)
    try:
        yield
    finally:
        _LOADING.removeFilter(keep)


def _resized(processor: LVTFFVideoProcessor, height: int, width: int) -> LVTFFVideoProcessor:
    factor = processor.resize_to[0] / processor.crop_size["height"]
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


def stored_classes(name_or_folder: str | Path) -> tuple[str, ...] | None:
    """The class names of a model folder, in order; None for a variant.

    Raises:
        ValueError: neither a variant nor a model folder.
    """
    if is_variant(str(name_or_folder)):
        return None
    folder = local_folder(name_or_folder)
    if not folder.exists():
        known = suggest(str(name_or_folder), [*VARIANTS])
        raise ValueError(
            f"{str(name_or_folder)!r} is neither a variant nor a model folder: {known}"
        )
    problem = _folder_problem(folder)
    if problem:
        raise ValueError(problem)
    return LVTFFConfig.from_pretrained(folder).class_names


def build_model(
    name_or_folder: str | Path,
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
    if is_variant(str(name_or_folder)):
        return _build_variant(str(name_or_folder), pretrained, id2label=labels, **overrides)
    folder = local_folder(name_or_folder)
    stored = stored_classes(folder)
    if pretrained is False:
        raise ValueError(
            f"--pretrained false takes a variant, got the model folder {name_or_folder}, whose "
            "weights are always loaded."
        )
    same = stored == tuple(class_names)
    if not same:
        overrides["id2label"] = labels
    model, processor = load_folder(folder, new_head=not same, dtype=torch.float32, **overrides)
    model.config.id2label = labels
    model.config.label2id = {name: index for index, name in labels.items()}
    model.config.problem_type = None  # one class a clip, whatever the folder's model was made for
    if not same:
        model.model.reset_classifier(len(labels))
    head = "its classifier" if same else f"a new classifier for {len(labels)} classes"
    record = files_in(folder)(CONVERSION)
    told = read_object(record).get("origin") if record else None
    source = f" (from {told})" if isinstance(told, str) else ""
    return model, processor, f"weights of {origin(folder)}{source} with {head}"


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
        except (OSError, *TRANSIENT) as error:
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

    What the model gives for a few made-up clips goes with it, for `lvt-ff verify`.

    A card is made to be shown: paths of this machine stay out of it. Records keep them, for those
    who look for the data or run the settings again; pushing takes them out.

    Args:
        folder: may hold other files, which stay.
        model, processor, card: saved as transformers and the Hub expect them.
        records: data to write as JSON, by file name.
        pictures: files to move in.

    Raises:
        Failure: the model gives what are not numbers; nothing is written.
    """
    kept = make_verification(model, processor)
    with atomic_files(folder, last="config.json") as new:
        model.save_pretrained(new)
        write_verification(new, kept)
        processor.save_pretrained(new)
        ModelCard(without_paths(str(card), local_paths(records))).save(new / "README.md")
        for name, record in records.items():
            (new / name).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        for picture in pictures:
            shutil.move(picture, new / picture.name)
