"""Model cards: the template, and those of fine-tuned and converted folders."""

from collections.abc import Sequence
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from timm.models import get_pretrained_cfg

from lvt_ff.hf import LVTFFConfig
from lvt_ff.hub.card_results import NOT_EVALUATED, NOT_MEASURED, eval_results, results_table
from lvt_ff.model import LinearVideoTransformer
from lvt_ff.profiling import count_macs, count_parameters
from lvt_ff.timm_models import SOURCES, image_datasets
from lvt_ff.utils.environment import environment

__all__ = [
    "CARD_REPOSITORY",
    "FAMILY",
    "conversion_card",
    "model_card",
    "filled_card",
]

CARD_REPOSITORY = "ORG/NAME"  # what a card calls its repository; pushing puts the real name there
FAMILY = "A [linear video transformer with feature fixation](https://arxiv.org/abs/2210.08164)"
_CITATION = """```bibtex
@article{lvt_ff_2022,
  author  = {Lu, Kaiyue and Liu, Zexiang and Wang, Jianyuan and Sun, Weixuan and Qin, Zhen and
             Li, Dong and Shen, Xuyang and Deng, Hui and Han, Xiaodong and Dai, Yuchao and
             Zhong, Yiran},
  title   = {Linear Video Transformer with Feature Fixation},
  journal = {arXiv:2210.08164},
  year    = {2022}
}
```"""
_SNIPPET = f"""```python
import lvt_ff  # registers the models in both libraries
import timm
from transformers import pipeline

classify = pipeline("video-classification", model="{CARD_REPOSITORY}")
print(classify("clip.mp4"))
model = timm.create_model("hf-hub:{CARD_REPOSITORY}", pretrained=True)
```"""


def filled_card(
    name: str,
    *,
    what: str,
    use: str,
    config: LVTFFConfig,
    num_classes: int,
    initialization: Sequence[str],
    training: Sequence[str],
    results: Sequence[str],
    limits: Sequence[str],
    measured: bool = True,
    license: str | None = None,
    **data: Any,
) -> ModelCard:
    """The template: every card has these parts, in this order."""
    card_data = ModelCardData(
        library_name="transformers",
        pipeline_tag="video-classification",
        license=license,
        tags=["lvt_ff", "timm", "transformers", "video-classification", "linear-attention"],
        model_name=name,
        **data,
    )
    shown = environment() if measured else {}
    parts = {
        "Use": [use],
        "Architecture and cost": _cost_table(config, num_classes),
        "Initialization": initialization,
        "Training": training,
        "Results": results,
        "Limits and biases": limits,
        "Environment": [f"- {key} {value}" for key, value in shown.items()],
        "Citation": [_CITATION],
    }
    lines = ["---", card_data.to_yaml(), "---", "", f"# {name}", "", what, ""]
    for title, body in parts.items():
        if body:
            lines += [f"## {title}", "", *body, ""]
    return ModelCard("\n".join(lines))


def _cost_table(config: LVTFFConfig, num_classes: int) -> list[str]:
    keywords = config.core_kwargs()
    model = LinearVideoTransformer(**keywords, num_classes=num_classes, device="meta")
    fixation = keywords["fixation"] if keywords["fixation"] == "none" else "feature fixation"
    rows = {
        "clip": f"{model.num_frames} frames of {model.img_size[0]} × {model.img_size[1]} pixels",
        "width, depth, heads": f"{model.embed_dim}, {len(model.blocks)}, {config.num_heads}",
        "attention": f"{config.attn_kernel} kernel, {config.attn_pattern}, {fixation}",
        "parameters": f"{count_parameters(model) / 1e6:.2f} M with {num_classes} classes",
        "multiply-accumulates of one clip": f"{count_macs(model) / 1e9:.2f} G (torch's counter)",
    }
    return ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]


def conversion_card(
    name: str, origin: str, lines: Sequence[str], config: LVTFFConfig, trained: bool
) -> ModelCard:
    """The card of a converted folder.

    Args:
        name: of the model.
        origin: what was converted.
        lines: what was done with its tensors.
        config: of the model.
        trained: the classifier is the source's; without one the model is a start for fine-tuning.
    """
    start = (
        "It has no classifier and parts of it are untrained: fine-tune it with "
        "`lvt-ff finetune --model PATH`."
    )
    return filled_card(
        name,
        what=f"{FAMILY}, converted from {origin} with `lvt-ff convert`.",
        use=_SNIPPET if trained else start,
        config=config,
        num_classes=config.num_labels if trained else 0,
        initialization=[
            *(f"- {line}" for line in lines),
            "- `conversion.json` lists every tensor.",
        ],
        training=["None but the source's."],
        results=[NOT_MEASURED],
        limits=["What the source learned from its data, biases included, comes along."],
        license=(config.pretrained_cfg or {}).get("license"),
    )


def model_card(
    name: str,
    *,
    base: Sequence[str],
    config: LVTFFConfig,
    results: dict | None,
    settings: dict,
    data: dict,
) -> ModelCard:
    """The card of a fine-tuned folder.

    Args:
        name: of the model.
        base: where the weights came from, and what was done with them, in lines.
        config: of the model; its classes and the licence of its start are taken from it.
        results: figures of an evaluation, `protocol`, `num_evaluated` and `num_listed`; None if not
            evaluated.
        settings: every option of the run.
        data: with `train`, `eval` and their counts.
    """
    evaluations = [] if results is None else [dict(results, data=settings.get("eval_data"))]
    shown = results_table(evaluations) if evaluations else [NOT_EVALUATED]
    names = config.class_names
    more = f" … and {len(names) - 50} more" if len(names) > 50 else ""
    cfg = config.pretrained_cfg or {}
    variant, tag = config.architecture, cfg.get("tag")
    source = get_pretrained_cfg(f"{variant}.{tag}") if tag in SOURCES.get(variant, ()) else None
    return filled_card(
        name,
        what=f"{FAMILY}, fine-tuned with `lvt-ff finetune`.",
        use=_SNIPPET,
        config=config,
        num_classes=config.num_labels,
        initialization=[
            f"- start: {base[0]}",
            *(f"  - {line}" for line in base[1:]),
            f"- licence of the start: {cfg.get('license', 'not known')}",
        ],
        training=[
            *(f"- {key}: {value}" for key, value in data.items()),
            f"- {len(names)} classes: {', '.join(names[:50])}{more}",
            "",
            *(f"- {key}: `{value}`" for key, value in settings.items()),
        ],
        results=[*shown, "", "![learning curve](curve.png)"],
        limits=[
            "Measured on the data above only; other cameras, lengths and classes are untested. It "
            "repeats the biases of that data, and of the data behind its start."
        ],
        license=cfg.get("license"),
        base_model=source.hf_hub_id if source else None,
        datasets=image_datasets([tag]) if source else None,
        eval_results=eval_results(evaluations) or None,
    )
