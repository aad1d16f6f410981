"""A full run on made-up videos: write, fine-tune, evaluate, load everywhere, predict, draw."""

import json
import time
from pathlib import Path

import numpy as np
import timm
import torch
from transformers import AutoModelForVideoClassification, pipeline

from lvt_ff.data import EvalDataset, load_video_list, read_clip, sample_indices
from lvt_ff.data.synthetic.demo import TIME_CLASSES
from lvt_ff.data.synthetic.writer import write_dataset
from lvt_ff.explain.explain import explain
from lvt_ff.explain.relevance import deletion_curve, relevance
from lvt_ff.hf.scores import score_function, scores_from_logits
from lvt_ff.hub.model_folder import load_folder
from lvt_ff.inference.classifier import Classifier
from lvt_ff.training.evaluate import evaluate
from lvt_ff.training.finetune import finetune
from lvt_ff.training.metrics import topk_accuracy
from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.command_line import command
from lvt_ff.utils.environment import environment
from lvt_ff.utils.errors import Failure, UsageError, usage
from lvt_ff.utils.option_types import NonNegativeInt, PositiveInt, Seed
from lvt_ff.utils.output import check_output_folder
from lvt_ff.utils.plots import prediction_picture

__all__ = ["demo", "shuffled_top1"]

# What learned best from random weights within minutes on two cores; see docs/imagenet.md.
RECIPE = dict(
    model="test_lvt_ff",
    model_args=dict(
        depth=1, num_frames=8, patch_size=8, patch_stride=8, patch_padding=0, drop_rate=0.0
    ),
    img_size=48,
    scale_jitter=(1.0, 1.0),
    optimizer="adamw",
    lr=2e-3,
    weight_decay=0.05,
    batch_size=32,
    warmup_epochs=0.5,
)


@command()
def demo(
    output: Path = Path("lvt_ff_demo"),
    train_videos: PositiveInt = 4000,
    test_videos: PositiveInt = 400,
    epochs: PositiveInt = 8,
    seed: Seed = 0,
    num_workers: NonNegativeInt = 2,
) -> dict:
    """Train a small model on videos that only time tells apart, and use it everywhere.

    Writes real mp4 files of eight classes (moving, growing, fading, turning, each one way or the
    other), fine-tunes a small variant from random weights, evaluates it with 2 clips × 3 crops and
    on clips with shuffled frames, loads the folder with timm, transformers and its pipeline,
    removes the tokens that count most for a class, and draws explain.png and demo.png.

    Args:
        output: Folder to make: data, model, explain.png, demo.png, demo.json.
        train_videos: Videos to train on.
        test_videos: Other videos to evaluate on; half as many choose the best epoch.
        epochs: Passes over the training videos.
        seed: Random seed of videos and training.
        num_workers: Processes that write and read videos.
    """
    output = Path(output)
    with usage():
        check_output_folder(output, "--output")
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty: give another folder with --output.")
    if min(train_videos, test_videos // 2) < len(TIME_CLASSES):
        raise UsageError(
            f"--train_videos must be at least 8 and --test_videos at least 16, got {train_videos} "
            f"and {test_videos}."
        )
    start = time.perf_counter()
    print(f"1/6 writing videos of 16 frames to {output / 'data'}")
    train_data, val_data, test_data = (output / "data" / part for part in ("train", "val", "test"))
    model = output / "model"
    counts = ((train_data, train_videos), (val_data, test_videos // 2), (test_data, test_videos))
    for number, (folder, num_clips) in enumerate(counts):
        write_dataset(folder, num_clips, 3 * seed + number, max(num_workers, 1))
    print("2/6 fine-tuning from random weights")
    finetune(
        train_data=train_data,
        eval_data=val_data,
        output_dir=model,
        epochs=epochs,
        seed=seed,
        num_workers=num_workers,
        **RECIPE,
    )
    print("3/6 evaluating")
    results = evaluate(model, test_data, clips=2, crops=3, num_workers=num_workers)
    shuffled = shuffled_top1(model, test_data)
    print(f"top-1 {100 * shuffled:.2f} %  [frames in shuffled order]")
    print("4/6 loading the folder with timm, AutoModel and the pipeline")
    videos = load_video_list(test_data)
    examples = [
        videos.paths[int((videos.labels == label).argmax())] for label in range(len(TIME_CLASSES))
    ]
    predictions = _same_everywhere(model, examples)
    print("5/6 removing the tokens that count most")
    areas = deletion_areas(model, test_data)
    print(
        f"mean probability of the best class while tokens are removed: {areas['relevant']:.2f} by "
        f"relevance, {areas['random']:.2f} at random"
    )
    explain(examples[0], str(model), output / "explain.png")
    print("6/6 drawing demo.png")
    title = (
        f"held-out top-1 {100 * results['top1']:.1f} % [{results['protocol']}], "
        f"shuffled frames {100 * shuffled:.1f} %"
    )
    _draw(output / "demo.png", examples, predictions, model, title)
    summary = dict(
        top1=results["top1"],
        top5=results["top5"],
        protocol=results["protocol"],
        top1_shuffled_frames=shuffled,
        chance=1 / len(TIME_CLASSES),
        deletion_areas=areas,
        seed=seed,
        seconds=round(time.perf_counter() - start, 1),
        environment=environment(),
    )
    write_text(output / "demo.json", json.dumps(summary, indent=2) + "\n")
    print(f"done in {summary['seconds']:.0f} s: model in {model}, picture in {output / 'demo.png'}")
    return summary


def _draw(
    file: Path, examples: list[str], predictions: list[list[dict]], model: Path, title: str
) -> None:
    rows = [json.loads(line) for line in (model / "steps.jsonl").read_text().splitlines()]
    drawn = [
        dict(
            frames=read_clip(path, lambda total: sample_indices(total, 8)),
            label=Path(path).parent.name,
            top=[(row["label"], row["score"]) for row in top],
        )
        for path, top in zip(examples, predictions, strict=True)
    ]
    epochs = json.loads((model / "results.json").read_text())["epochs"]
    prediction_picture(file, drawn, rows, epochs, title)


def shuffled_top1(model: Path, data: Path, seed: int = 0) -> float:
    """Top-1 on frames in random order: what a model knows without time."""
    network, processor = load_folder(model)
    videos = load_video_list(data, network.config.class_names)
    dataset = EvalDataset(
        videos,
        processor.eval_transform(),
        num_clips=1,
        num_crops=1,
        **processor.clip_options(),
        decoder="auto",
    )
    generator = torch.Generator().manual_seed(seed)
    scores = []
    network.eval()
    with torch.inference_mode():
        for item in (dataset[index] for index in range(len(dataset))):
            order = torch.randperm(processor.num_frames, generator=generator)
            scores.append(network(item["clip"][:, order]).logits[0].numpy())
    return topk_accuracy(np.stack(scores), videos.labels, k=1)


def deletion_areas(model: Path, data: Path, num_clips: int = 40, seed: int = 0) -> dict:
    """Area under the deletion curve of the best class: the most relevant tokens first, any first.

    The mean over clips of `lvt_ff.explain.relevance.deletion_curve`, between 0 and 1.
    """
    classify = Classifier(model, device="cpu")
    paths = np.random.default_rng(seed).permutation(list(load_video_list(data).paths))[:num_clips]
    clips = torch.cat([classify.read(path) for path in paths])
    with torch.no_grad():
        classes = classify.model(clips).logits.argmax(-1)
    relevant = relevance(classify.model, clips, classes)
    orders = dict(
        relevant=relevant,
        random=torch.rand(relevant.shape, generator=torch.Generator().manual_seed(seed)),
    )
    return {
        name: deletion_curve(classify.model, clips, classes, order).mean().item()
        for name, order in orders.items()
    }


def _same_everywhere(folder: Path, paths: list[str]) -> list[list[dict]]:
    """The pipeline's predictions, after timm and AutoModel gave the same scores for every clip."""
    classify = pipeline("video-classification", model=str(folder), device="cpu")
    predictions = classify(paths, top_k=5)
    clips = classify.video_processor(paths, return_tensors="pt")["pixel_values_videos"]
    from_timm = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    from_auto = AutoModelForVideoClassification.from_pretrained(folder).eval()
    expected = torch.tensor([[row["score"] for row in rows] for rows in predictions])
    with torch.inference_mode():
        logits = {"timm": from_timm(clips), "AutoModel": from_auto(clips).logits}
    for name, scores in logits.items():
        scores = scores_from_logits(scores, score_function(from_auto.config))
        best = scores.topk(expected.shape[1]).values
        if (best - expected).abs().max() > 1e-4:
            raise Failure(f"{name} gives other scores than the pipeline for {folder}.")
    return predictions
