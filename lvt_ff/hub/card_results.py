"""The figures of a model folder, in its `results.json` and on its card, kept in step."""

import json
import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

import yaml
from huggingface_hub import EvalResult, ModelCard

from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.json_files import read_object

__all__ = [
    "NOT_EVALUATED",
    "NOT_MEASURED",
    "add_evaluation",
    "eval_results",
    "evaluations_of",
    "results_table",
]

_RESULTS = "results.json"
_CARD = "README.md"
_PART = re.compile(r"^## Results$\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
# What cards say where nothing was measured yet.
NOT_MEASURED = "Not measured."
NOT_EVALUATED = "Nothing was evaluated: no evaluation data was given."
# Title, and name of the metric on the Hub; shares are shown in percent.
_SHARES = {
    "top1": ("top-1", "accuracy"),
    "top5": ("top-5", "accuracy"),
    "mean_class_accuracy": ("mean class accuracy", "accuracy"),
    "mean_average_precision": ("mAP", "mean_average_precision"),
}
_ERRORS = {
    "mean_absolute_error": ("mean absolute error", "mae"),
    "root_mean_square_error": ("root mean square error", "rmse"),
}


def evaluations_of(record: dict) -> list[dict]:
    """The evaluations that a `results.json` tells of: that of the run, then later ones."""
    best = record.get("best") or {}
    found = {name.removeprefix("eval_"): v for name, v in best.items() if name.startswith("eval_")}
    settings, derived = record.get("settings") or {}, record.get("derived") or {}
    own = dict(found, data=settings.get("eval_data"), videos=derived.get("eval_videos"))
    later = record.get("evaluations", [])
    # Of the same videos with the same protocol the later one counts.
    return [*{_key(one): one for one in [*([own] if found else []), *later]}.values()]


def results_table(evaluations: Sequence[dict]) -> list[str]:
    """A table in Markdown, with a row for each evaluation."""
    titles = _titles(evaluations)
    head = ["data", *(title for title, _ in titles.values()), "protocol", "videos"]
    return [
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(_cells(evaluation, titles))} |" for evaluation in evaluations),
    ]


def _titles(evaluations: Sequence[dict]) -> dict[str, tuple[str, str]]:
    known = _SHARES | _ERRORS
    return {
        name: known[name]
        for name in known
        if any(evaluation.get(name) is not None for evaluation in evaluations)
    }


def _cells(evaluation: dict, titles: dict[str, tuple[str, str]]) -> list[str]:
    cells = [_data_name(evaluation)]
    for name in titles:
        shown = "–" if evaluation.get(name) is None else _shown(name, evaluation[name])
        if interval := (evaluation.get("intervals") or {}).get(name):
            low, high = (_shown(name, value).removesuffix(" %") for value in interval)
            shown += f" ({low}–{high})"
        cells.append(shown)
    total = evaluation["num_listed"] + evaluation.get("num_missing", 0)
    read = f"{evaluation['num_evaluated']} of {total}"
    return [cell.replace("|", "\\|") for cell in (*cells, evaluation["protocol"], read)]


def _shown(name: str, value: float) -> str:
    return f"{100 * value:.2f} %" if name in _SHARES else f"{value:.4g}"


def _data_name(evaluation: dict) -> str:
    """What the data of an evaluation is called, without the folders of this machine."""
    return PureWindowsPath(str(evaluation.get("data") or "evaluation data")).name


def eval_results(evaluations: Sequence[dict]) -> list[EvalResult]:
    """The figures as the Hub's metadata has them."""
    titles = _titles(evaluations)
    return [
        EvalResult(
            task_type="video-classification",
            dataset_type="custom",
            dataset_name=_data_name(evaluation),
            metric_type=kind,
            metric_name=f"{title} ({evaluation['protocol']})",
            metric_value=round(100 * evaluation[name], 2) if name in _SHARES else evaluation[name],
        )
        for evaluation in evaluations
        for name, (title, kind) in titles.items()
        if evaluation.get(name) is not None
    ]


def add_evaluation(folder: Path, evaluation: dict) -> list[str]:
    """Enter an evaluation into a model folder's `results.json` and its card.

    It takes the place of an earlier one of the same videos with the same protocol; those of other
    weights are dropped. To enter it again changes nothing.

    Args:
        folder: of the model.
        evaluation: with `data`, `videos`, `weights`, `protocol`, counts and figures.

    Returns:
        The names of the files that were written.

    Raises:
        ValueError: a file of the folder is damaged.
    """
    file = folder / _RESULTS
    record = read_object(file) if file.exists() else {}
    former = evaluations_of(record)
    later = [
        one
        for one in record.get("evaluations", [])
        if one.get("weights") == evaluation["weights"] and _key(one) != _key(evaluation)
    ]
    record["evaluations"] = sorted([*later, evaluation], key=lambda one: json.dumps(_key(one)))
    texts = {_RESULTS: json.dumps(record, indent=2) + "\n"}
    if (folder / _CARD).is_file():
        texts[_CARD] = _updated_card(folder, former, evaluations_of(record))
    for name, text in texts.items():
        write_text(folder / name, text)
    return [*texts]


def _key(evaluation: dict) -> tuple:
    return evaluation.get("videos"), evaluation["protocol"]


def _updated_card(folder: Path, former: list[dict], evaluations: list[dict]) -> str:
    """The text of a folder's card with these evaluations in place of the former ones."""
    try:
        card = ModelCard.load(folder / _CARD)
    except (UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{folder / _CARD} is not a model card: {error}") from error
    new = eval_results(evaluations)
    ours = [*eval_results(former), *new]
    names = {(result.dataset_name, result.metric_name) for result in ours}
    others = [
        result
        for result in card.data.eval_results or []
        if (result.dataset_name, result.metric_name) not in names
    ]
    card.data.eval_results = others + new
    card.data.model_name = card.data.model_name or folder.resolve().name
    card.text = _with_table(card.text, results_table(evaluations))
    if (folder / "confusion.png").is_file() and "(confusion.png)" not in card.text:
        picture = "![confusion matrix](confusion.png)"
        card.text = _PART.sub(lambda part: f"{part[0].rstrip()}\n\n{picture}\n\n", card.text, 1)
    return str(card)


def _with_table(text: str, table: list[str]) -> str:
    """A card's text with this table in its part on results, in the place of the one it had."""
    lines = "\n".join(table) + "\n"
    if not _PART.search(text):
        return f"{text.rstrip()}\n\n## Results\n\n{lines}"

    def replaced(part: re.Match) -> str:
        for former in (_TABLE, re.compile(re.escape(NOT_MEASURED) + "\n"), NOT_EVALUATED + "\n"):
            body, number = re.subn(former, lambda _: lines, part[1], count=1)
            if number:
                return f"## Results\n{body}"
        return f"## Results\n\n{lines}\n{part[1].lstrip()}"

    return _PART.sub(replaced, text, count=1)
