"""The card of every variant: `python -m lvt_ff.hub.variant_cards FOLDER` writes them.

Source: the paper's figures are arXiv 2210.08164's own, from its tables and text.
"""

import sys
from pathlib import Path

from huggingface_hub import ModelCard
from timm.models import get_pretrained_cfg

from lvt_ff.hf import LVTFFConfig
from lvt_ff.hub.model_card import FAMILY, filled_card
from lvt_ff.timm_models import SOURCES, image_datasets
from lvt_ff.variants import VARIANTS

__all__ = ["variant_card", "write_cards"]

# Top-1 / top-5 by data set, as the paper prints them; its authors published no weights.
_PAPER = {
    "lvt_ff_s": {"Something-Something v2": "63.48 / 88.68"},
    "lvt_ff_default": {
        "Something-Something v2": "65.46 / 90.11",
        "Kinetics-400": "78.0 / 94.2",
        "Kinetics-600": "84.1 / 96.2",
    },
    "lvt_ff_h": {"Something-Something v2": "65.67 / 90.27"},
    "lvt_ff_hr": {"Something-Something v2": "65.85 / 89.97"},
}


def variant_card(name: str) -> ModelCard:
    """The card of a variant: a start for fine-tuning, with nothing trained on videos."""
    tags = SOURCES.get(name, {})
    sources = {tag: get_pretrained_cfg(f"{name}.{tag}") for tag in tags}
    paper = _PAPER.get(name)
    use = "\n".join(
        [
            "```python",
            "import lvt_ff  # registers the models in both libraries",
            "import timm",
            "",
            f'model = timm.create_model("{name}", pretrained={bool(tags)}, num_classes=174)',
            f'twin = lvt_ff.LVTFFForVideoClassification.from_timm("{name}", num_labels=174)'
            if tags
            else f'config = lvt_ff.LVTFFConfig.from_variant("{name}", num_labels=174)\n'
            "twin = lvt_ff.LVTFFForVideoClassification(config)",
            "```",
        ]
    )
    initialization = [
        "| tag | image model | licence |",
        "|---|---|---|",
        *(
            f"| `{tag}` | [{cfg.hf_hub_id}](https://huggingface.co/{cfg.hf_hub_id}) "
            f"| {cfg.license} |"
            for tag, cfg in sources.items()
        ),
        "",
        "Positions are resampled, layer scale is folded in, the class token and the classifier are "
        "dropped; temporal attention adds nothing at first, fixation and head are new. "
        "`model.pretrained_report` lists every tensor.",
    ]
    ours = "Ours: not measured; no weights trained on videos are published yet."
    results = [ours]
    if paper:
        results = [
            "The paper's, by its authors (top-1 / top-5 in %), not reproduced here:",
            "",
            "| data set | top-1 / top-5 |",
            "|---|---|",
            *(f"| {dataset} | {figures} |" for dataset, figures in paper.items()),
            "",
            ours,
        ]
    return filled_card(
        name,
        what=f"{FAMILY}, as it starts.",
        use=use,
        config=LVTFFConfig.from_variant(name),
        num_classes=1000,
        initialization=initialization if tags else ["Random weights: no image model has its size."],
        training=["Nothing was trained on videos. `lvt-ff finetune` trains it on yours."],
        results=results,
        limits=[
            "Its classifier is random until it is trained. What the image model learned from its "
            "data, biases included, comes along. It looks at whole clips: it is not a streaming "
            "model."
        ],
        measured=False,
        license="apache-2.0",
        base_model=[cfg.hf_hub_id for cfg in sources.values()] or None,
        datasets=image_datasets(tags) or None,
    )


def write_cards(folder: str = "model_cards") -> None:
    """Write the card of every variant into a folder."""
    Path(folder).mkdir(exist_ok=True)
    for name in VARIANTS:
        variant_card(name).save(Path(folder, f"{name}.md"))


if __name__ == "__main__":
    write_cards(*sys.argv[1:])
