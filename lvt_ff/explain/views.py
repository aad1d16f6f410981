"""The pictures that `lvt-ff explain` draws, one function each."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lvt_ff.explain import figures
from lvt_ff.explain.attention_recorder import (
    AttentionRecord,
    attention_map,
    concentration,
    core_of,
    frame_attention,
    record_attention,
)
from lvt_ff.explain.relevance import Explanation
from lvt_ff.hf.scores import format_score
from lvt_ff.layers.attention import JointSequences
from lvt_ff.model import LinearVideoTransformer

__all__ = ["ANIMATION_SUFFIXES", "VIEWS", "View", "Viewer", "relevance_overlay"]

ANIMATION_SUFFIXES = (".gif", ".mp4")
_ROWS = 300  # of an attention matrix in a picture


def heatmap_overlay(
    core: LinearVideoTransformer, frames: np.ndarray, token_map: np.ndarray, low: float, high: float
) -> np.ndarray:
    """A token map (T, h, w) over frames (T, H, W, 3), black at `low` and brightest at `high`."""
    proj = core.patch_embed.proj
    stem = (proj.kernel_size[0], proj.stride[0], proj.padding[0])
    heatmap = figures.upsample_token_map(token_map, core.img_size, stem)
    return figures.overlay_heatmap(frames, np.clip((heatmap - low) / max(high - low, 1e-12), 0, 1))


def relevance_overlay(core: LinearVideoTransformer, explained: Explanation) -> np.ndarray:
    """Relevance over the frames, brightest at its 99.5th percentile."""
    shares = explained.relevance
    return heatmap_overlay(core, explained.frames, shares, 0, np.quantile(shares, 0.995))


class Viewer:
    """One video, one model: what the views have in common.

    Args:
        model: of timm or transformers.
        explained: the video.
        name: of the video, for titles.
        layer: block from 0, or -1 for the last.
        head: None takes the mean of all.
        query: row and column of a token, behind its frame where attention is joint; None takes the
            place that counts most.

    Raises:
        ValueError: the model has no such layer, head or place.
    """

    def __init__(
        self,
        model: nn.Module,
        explained: Explanation,
        name: str,
        layer: int | None = None,
        head: int | None = None,
        query: tuple[int, ...] | None = None,
    ):
        self.explained, self.name, self.head, self.query = explained, name, head, query
        self.core = core_of(model)
        self.layer = -1 if layer is None else layer
        _, records = record_attention(self.core, explained.clip)
        self.space = [item for item in records if item.name == "attn"]
        self.time = [item for item in records if item.name == "temporal_attn"]
        self.joint = self.space[0].module.sequences is JointSequences
        # Weights to show by name, and whether of the features after fixation.
        self.kinds = {"attention": True}
        if self.space[0].has_fixation:
            self.kinds = {"before fixation": False, "after fixation": True}
        heads = self.space[0].module.head_split[0]
        if not -1 <= self.layer < len(self.space):
            last = len(self.space) - 1
            raise ValueError(f"--layer must be between 0 and {last}, or -1, got {self.layer}.")
        if self.head is not None and not 0 <= self.head < heads:
            raise ValueError(f"--head must be between 0 and {heads - 1}, got {self.head}.")
        self.layer %= len(self.space)
        self.heads = "mean of all heads" if self.head is None else f"head {self.head}"
        self.which = f"block {self.layer}, {self.heads}"

    def overlay(self, token_map: np.ndarray, low: float, high: float) -> np.ndarray:
        return heatmap_overlay(self.core, self.explained.frames, token_map, low, high)

    def best_classes(self) -> dict:
        """A plot of the best classes: probabilities in percent, or the values of a regression."""
        rows = self.explained.predictions
        if self.explained.score_function == "none":
            return dict(title="values", bars=[(row["label"], row["score"]) for row in rows])
        bars = [(row["label"], 100 * row["score"]) for row in rows]
        return dict(title="best classes (%)", bars=bars, xlim=(0, 100))

    def of_head(self, weights: Tensor) -> Tensor:
        """Weights (S, A, ·, L) of the chosen head, (S, 1, ·, L), or of all."""
        return weights if self.head is None else weights[:, [self.head]]

    def concentration_plots(self, items: list[AttentionRecord]) -> list[dict]:
        """Figures of every layer, before and after fixation, mean over heads or of one."""
        measured = {
            kind: [concentration(self.of_head(item.weights(_rows(item), on))) for item in items]
            for kind, on in self.kinds.items()
        }
        return [
            dict(
                title=title,
                curves={kind: [pair[which] for pair in rows] for kind, rows in measured.items()},
                xlabel="block",
                ylim=(0, 1.05),
            )
            for which, title in enumerate(
                ("entropy (1: uniform)", "share of a query's top tenth (uniform: 0.1)")
            )
        ]

    def sheet(
        self, path: Path, overlays: dict, title: str, plots: list, marker: tuple | None = None
    ) -> None:
        """A contact sheet, or by the suffix an animation of its last overlay."""
        frames = self.explained.frames
        if path.suffix.lower() in ANIMATION_SUFFIXES:
            last = list(overlays.values())[-1]
            drawn = figures.animation_frames(frames, last, title, self.best_classes())
            figures.save_animation(path, drawn)
        else:
            figures.contact_sheet(path, frames, overlays, title, plots, marker)


def _rows(item: AttentionRecord) -> Tensor:
    """Up to `_ROWS` queries, evenly spaced."""
    length = item.q.shape[2]
    return torch.linspace(0, length - 1, min(length, _ROWS), device=item.q.device).round().long()


def _view_relevance(view: Viewer, path: Path) -> None:
    explained = view.explained
    per_frame = explained.relevance.sum(axis=(1, 2))
    plots = [
        view.best_classes(),
        dict(
            title="relevance by frame (%)",
            curves={"relevance": 100 * per_frame},
            xlabel="frame",
        ),
    ]
    score = format_score(explained.score, explained.score_function)
    title = f"{view.name}: what counts for {explained.label!r} ({score})"
    view.sheet(path, {"relevance": relevance_overlay(view.core, explained)}, title, plots)


def _view_attention(view: Viewer, path: Path) -> None:
    item, relevant = view.space[view.layer], view.explained.relevance
    (num_frames, _), (rows, columns) = item.size, view.core.grid
    limits = (num_frames, rows, columns) if view.joint else (rows, columns)
    if view.query is None:
        counted = relevant if view.joint else relevant.sum(axis=0)
        place = np.unravel_index(counted.argmax(), counted.shape)
    else:
        place = view.query
        if len(place) != len(limits) or any(
            not 0 <= number < limit for number, limit in zip(place, limits, strict=True)
        ):
            names = "frame, row and column" if view.joint else "row and column"
            raise ValueError(
                f"--query takes {names} of this model below {list(limits)}, got {list(place)}."
            )
    frame, row, column = (0, *place)[-3:]
    token = row * columns + column

    def weights(fixed: bool) -> np.ndarray:
        if view.joint:
            found = attention_map(item, (frame, token), view.head, fixed)
        else:  # the same place in every frame
            found = sum(
                attention_map(item, (t, token), view.head, fixed) for t in range(num_frames)
            )
        return found[0].unflatten(-1, view.core.grid).float().cpu().numpy()

    maps = {name: weights(fixed) for name, fixed in view.kinds.items()}
    top = max(np.quantile(values, 0.99) for values in maps.values())
    proj = view.core.patch_embed.proj
    y, x = (
        np.clip(place * stride + patch / 2 - padding, 0, side - 1)
        for place, stride, patch, padding, side in zip(
            (row, column), proj.stride, proj.kernel_size, proj.padding, view.core.img_size,
            strict=True,
        )
    )  # fmt: skip
    where = f"frame {frame}, " if view.joint else ""
    view.sheet(
        path,
        {name: view.overlay(values, 0, top) for name, values in maps.items()},
        f"{view.name}: what the token at {where}row {row}, column {column} attends to "
        f"({view.which})",
        view.concentration_plots(view.space),
        marker=(frame if view.joint else None, y, x),
    )


def _view_fixation(view: Viewer, path: Path) -> None:
    kinds = {"time": view.time, "space": view.space} if view.time else {"attention": view.space}
    ratios = {}
    for name, items in kinds.items():
        shared = items[0].module.fixation.num_ratios == 1 if items[0].has_fixation else True
        found = [item.ratios() for item in items]
        for number, kind in enumerate(("",) if shared else (" queries", " keys")):
            ratios[f"{name}{kind}"] = [
                (pair[number].mean(-1) if view.head is None else pair[number][..., view.head])[0]
                .unflatten(-1, view.core.grid)
                .float()
                .cpu()
                .numpy()
                for pair in found
            ]
    overlays = {}
    for name, layers in ratios.items():
        low, high = layers[view.layer].min(), layers[view.layer].max()
        title = f"γ {name}\n{low:.2f} to {high:.2f}"
        overlays[title] = view.overlay(layers[view.layer], low, high)
    mean = {name: [values.mean() for values in layers] for name, layers in ratios.items()}
    plots = [dict(title="mean γ", curves=mean, xlabel="block", ylim=(0, 1.05))]
    view.sheet(path, overlays, f"{view.name}: fixation ratios ({view.which})", plots)


def _view_time(view: Viewer, path: Path) -> None:
    items = view.time or view.space
    tables = [frame_attention(item, view.head)[0].cpu().numpy() for item in items]
    away = np.abs(np.subtract.outer(*[np.arange(view.core.num_frames)] * 2))
    reach = [float((table * away).sum() / table.sum()) for table in tables]
    figures.matrix_figure(
        path,
        [{"frame attends to frame": table} for table in tables],
        [
            {"frame attends to frame": f"block {n}: {r:.2f} frames away"}
            for n, r in enumerate(reach)
        ],
        f"{view.name}: attention over time (rows to columns), mean over places, {view.heads}",
        [
            dict(
                title="mean distance in frames",
                curves={"model": reach, "uniform": [float(away.mean())] * len(reach)},
                xlabel="block",
            )
        ],
    )


def _view_layers(view: Viewer, path: Path) -> None:
    sequence = 0 if view.joint else view.core.num_frames // 2
    matrices, titles = [], []
    for item in view.space:
        found = {
            name: view.of_head(item.weights(_rows(item), on))[sequence]
            for name, on in view.kinds.items()
        }
        matrices.append({name: weights.mean(0).cpu().numpy() for name, weights in found.items()})
        titles.append({})
        for name, weights in found.items():
            entropy, top = concentration(weights)
            titles[-1][name] = f"block {item.block}: entropy {entropy:.2f}, top 10 % {top:.2f}"
    where = "all frames" if view.joint else f"frame {sequence}"
    figures.matrix_figure(
        path,
        matrices,
        titles,
        f"{view.name}: attention of tokens (rows) to tokens in {where}, {view.heads}",
        view.concentration_plots(view.space),
    )


class View(NamedTuple):
    """A function that draws, whether it can be animated, and the options it takes."""

    draw: Callable[[Viewer, Path], None]
    animated: bool
    options: frozenset[str]


VIEWS = {
    "relevance": View(_view_relevance, True, frozenset({"label"})),
    "attention": View(_view_attention, True, frozenset({"label", "layer", "head", "query"})),
    "fixation": View(_view_fixation, True, frozenset({"layer", "head"})),
    "time": View(_view_time, False, frozenset({"head"})),
    "layers": View(_view_layers, False, frozenset({"head"})),
}
