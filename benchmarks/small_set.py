"""What fine-tuning's defaults reach with few videos: python benchmarks/small_set.py FOLDER

The set has eight classes of 20 clips, two of them damaged: one of four shapes goes left or right
before a ground of blots, among smaller things that go anywhere. A small ViT learns ten other shapes
on still images and is converted. `lvt-ff finetune` then starts from it, with nothing given but data
and seed, and with the defaults of the first version given one by one. Other clips choose the
epoch, as in any run, and others still are measured once, in the end.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models import VisionTransformer

from lvt_ff.convert.convert import convert
from lvt_ff.data.synthetic.writer import write_dataset
from lvt_ff.training.evaluate import evaluate
from lvt_ff.training.finetune import finetune
from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.environment import environment

CLASSES = tuple(
    f"{shape} goes {way}"
    for shape in ("disc", "square", "triangle", "cross")
    for way in ("left", "right")
)
# What was trained with when nothing was given, before there were recipes.
FORMER = dict(
    epochs=30,
    batch_size=8,
    lr_batch=8,
    optimizer="adamw",
    lr=5e-4,
    weight_decay=0.05,
    momentum=0.9,
    warmup_epochs=2.0,
    layer_decay=1.0,
    label_smoothing=0.0,
    clip_grad=1.0,
    ema_decay=0.0,
    drop_rate=0.5,
    drop_path_rate=0.0,
    num_repeats=1,
    balance="none",
    scale_jitter=(256 / 224, 320 / 224),
    auto_augment="none",
    random_erasing=0.0,
    test_clips=1,
    test_crops=1,
)
SIZE = 64  # pixels of a frame's side
_NUM_FRAMES = 16
_STATISTICS = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _box(x: np.ndarray, y: np.ndarray, width: float = 1.0, height: float = 1.0) -> np.ndarray:
    return np.minimum(width - abs(x), height - abs(y))


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(_box(x, y, 1.0, 0.3), _box(x, y, 0.3, 1.0))


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.minimum(0.8 - y, 0.45 * (y + 1.2) - 0.9 * abs(x))


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.7 + 0.4 * np.cos(5 * np.arctan2(y, x)) - np.hypot(x, y)


# Of a point about a shape's centre, in its radius: above 0 inside.
_VIDEO_SHAPES = (lambda x, y: 1 - np.hypot(x, y), _box, _triangle, _cross)
_IMAGE_SHAPES = (
    lambda x, y: 0.3 - abs(np.hypot(x, y) - 0.8),  # ring
    lambda x, y: _box(x, y, 1.0, 0.3),  # bar
    lambda x, y: np.minimum(1 - np.hypot(x, y), y + 0.2),  # half a disc
    _star,
    lambda x, y: np.maximum(_box(x + 0.7, y, 0.3, 1.0), _box(x, y - 0.7, 1.0, 0.3)),  # L
    lambda x, y: np.maximum(_box(x, y + 0.7, 1.0, 0.3), _box(x, y, 0.3, 1.0)),  # T
    lambda x, y: 0.45 - np.hypot(abs(x) - 0.6, y),  # two dots
    lambda x, y: np.minimum(1 - np.hypot(x, y), np.hypot(x - 0.5, y) - 0.8),  # crescent
    lambda x, y: np.maximum(_box(x, abs(y) - 0.7, 1.0, 0.3), _box(x, y, 0.3, 1.0)),  # H
    lambda x, y: 0.3 - abs(_box(x, y) - 0.3),  # frame
)


def _ground(rng: np.random.Generator) -> np.ndarray:
    """Blots of dark colours, (H, W, 3)."""
    coarse = rng.integers(10, 140, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.BICUBIC), np.float32)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """A light one."""
    colour = np.full(3, 255.0, np.float32)
    colour[rng.integers(3)] = rng.uniform(0, 255)
    return colour


def _paint(
    picture: np.ndarray,
    shape: Callable,
    colour: np.ndarray,
    centre: np.ndarray,
    radius: float,
    angle: float,
) -> None:
    """Cover a part of an (H, W, 3) picture with a shape about `centre` (x, y), in place."""
    start = np.clip(centre - 1.5 * radius, 0, SIZE).astype(int)
    stop = np.clip(centre + 1.5 * radius + 2, 0, SIZE).astype(int)
    part = picture[start[1] : stop[1], start[0] : stop[0]]
    y, x = np.mgrid[start[1] : stop[1], start[0] : stop[0]]
    x, y = (x - centre[0]) / radius, (y - centre[1]) / radius
    cos, sin = np.cos(angle), np.sin(angle)
    inside = radius * shape(x * cos + y * sin, y * cos - x * sin)
    part += np.clip(inside + 0.5, 0, 1)[..., None] * (colour - part)


def _noisy(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = 8 * rng.standard_normal(pictures.shape, dtype=np.float32)
    return np.clip(pictures + noise, 0, 255).astype(np.uint8)


def draw_clip(label: int, rng: np.random.Generator) -> np.ndarray:
    """Frames (16, 64, 64, 3) uint8 of one clip of class `CLASSES[label]`."""
    number, right = divmod(label, 2)
    things = [
        (_VIDEO_SHAPES[rng.integers(4)], _colour(rng), rng.uniform(10, 54, 2), rng.uniform(2, 4.5))
        for _ in range(3)
    ]
    ways = rng.uniform(-20, 20, (4, 2))
    ways[-1, 0] = rng.uniform(10, 22) * (1 if right else -1)
    things.append((_VIDEO_SHAPES[number], _colour(rng), rng.uniform(24, 40, 2), rng.uniform(9, 14)))
    angles = rng.uniform(-0.3, 0.3, 4)
    frames = np.repeat(_ground(rng)[None], _NUM_FRAMES, axis=0)
    for frame, moment in zip(frames, np.linspace(-0.5, 0.5, _NUM_FRAMES), strict=True):
        for (shape, colour, centre, radius), way, angle in zip(things, ways, angles, strict=True):
            _paint(frame, shape, colour, centre + moment * way, radius, angle)
    return _noisy(frames, rng)


def draw_image(label: int, rng: np.random.Generator) -> np.ndarray:
    """A picture (64, 64, 3) uint8 of image class `label` of ten, none of them a video's."""
    picture = _ground(rng)
    for _ in range(3):
        small = _IMAGE_SHAPES[rng.integers(len(_IMAGE_SHAPES))]
        _paint(picture, small, _colour(rng), rng.uniform(5, 59, 2), rng.uniform(2, 4.5), 0.0)
    place = rng.uniform(22, 42, 2), rng.uniform(11, 17), rng.uniform(-0.3, 0.3)
    _paint(picture, _IMAGE_SHAPES[label], _colour(rng), *place)
    return _noisy(picture, rng)


def write_videos(folder: Path, num_clips: int, seed: int, num_workers: int) -> None:
    """Clips of all classes together, as `folder/CLASS/NUMBER.mp4`."""
    write_dataset(folder, num_clips, seed, max(num_workers, 1), CLASSES, draw_clip)


def damage(folder: Path) -> list[Path]:
    """Cut the first video of the folder in half, and leave nothing of the last; their paths."""
    paths = sorted(folder.glob("*/*.mp4"))
    cut, emptied = paths[0], paths[-1]
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    emptied.write_bytes(b"")
    return [cut, emptied]


def write_image_start(folder: Path, num_steps: int) -> float:
    """Train a ViT on still images and convert it to a model folder; its accuracy on others."""
    num_images = 64 * min(num_steps, 100)
    sizes = dict(img_size=SIZE, patch_size=16, embed_dim=64, depth=3, num_heads=4)
    torch.manual_seed(0)
    model = VisionTransformer(**sizes, num_classes=len(_IMAGE_SHAPES))
    rng = np.random.default_rng(0)
    labels = rng.integers(len(_IMAGE_SHAPES), size=num_images)
    images = np.stack([draw_image(label, rng) for label in labels])
    images = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    labels = torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=num_steps)
    num_held = num_images // 10
    for _ in range(num_steps):
        drawn = torch.from_numpy(rng.integers(num_held, num_images, 64))
        shift = rng.integers(-4, 5, 2).tolist()
        moved = torch.roll(images[drawn], shift, (2, 3))
        loss = torch.nn.functional.cross_entropy(model(moved), labels[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        right = model(images[:num_held]).argmax(1) == labels[:num_held]
    weights = folder.with_suffix(".safetensors")
    save_file(model.state_dict(), weights)
    convert(str(weights), folder, model="test_lvt_ff", **_STATISTICS)
    return right.float().mean().item()


def measured(options: dict, test_data: Path, num_workers: int) -> dict:
    """One run of fine-tuning, and its accuracy on videos that it has not seen, one view each."""
    start = time.perf_counter()
    results = finetune(**options, num_workers=num_workers, cpu=True)
    seconds = time.perf_counter() - start
    tested = evaluate(
        options["output_dir"], test_data, clips=1, crops=1, num_workers=num_workers, cpu=True
    )
    return dict(
        seed=options["seed"],
        top1=tested["top1"],
        best_epoch=results["best"]["epoch"],
        bad_files=results["bad_files"],
        seconds=seconds,
        settings=results["settings"],
    )


def summary(runs: list[dict]) -> dict:
    """Mean and range of the accuracies of runs that differ in their seed."""
    accuracies = [run["top1"] for run in runs]
    return dict(mean=statistics.mean(accuracies), lowest=min(accuracies), highest=max(accuracies))


def compare(folder: Path, data: dict[str, Path], seeds: list[int], num_workers: int) -> dict:
    """Runs of both ways by name, which take turns, and what they reached."""
    ways: dict[str, dict] = dict(defaults={}, former=FORMER)
    runs: dict[str, list[dict]] = {way: [] for way in ways}
    for seed in seeds:
        for way, given in ways.items():
            options = dict(
                model=str(folder / "image_start"),
                train_data=data["train"],
                eval_data=data["val"],
                output_dir=folder / f"{way}_{seed}",
                seed=seed,
                **given,
            )
            runs[way].append(measured(options, data["test"], num_workers))
    found = {way: dict(summary(those), runs=those) for way, those in runs.items()}
    return found | dict(difference=found["defaults"]["mean"] - found["former"]["mean"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="to be made; results.json in it has the figures")
    parser.add_argument("--clips", type=int, default=20, help="of a class, to train on")
    parser.add_argument("--test_clips", type=int, default=50, help="of a class, measured once")
    parser.add_argument("--image_steps", type=int, default=1200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data_seed", type=int, default=0)
    parser.add_argument("--num_workers", type=int, default=2)
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    data = {part: args.folder / part for part in ("train", "val", "test")}
    counts = dict(train=args.clips, val=(args.test_clips + 4) // 5, test=args.test_clips)
    for number, (part, clips) in enumerate(counts.items()):
        seed = 3 * args.data_seed + number
        write_videos(data[part], clips * len(CLASSES), seed, args.num_workers)
    damaged = damage(data["train"])
    image_top1 = write_image_start(args.folder / "image_start", args.image_steps)
    results = dict(
        image_top1=image_top1,
        damaged=[str(path.relative_to(args.folder)) for path in damaged],
        **compare(args.folder, data, args.seeds, args.num_workers),
        dtype="float32",
        environment=environment(cpu=True),
    )
    write_text(args.folder / "results.json", json.dumps(results, indent=2) + "\n")
    print(f"image model: {100 * image_top1:.1f} % of other images")
    for way in ("defaults", "former"):
        found = results[way]
        each = ", ".join(f"{100 * run['top1']:.1f}" for run in found["runs"])
        print(f"{way}: {100 * found['mean']:.1f} % of other videos (seeds: {each})")
    print(f"difference: {100 * results['difference']:+.1f} points")


if __name__ == "__main__":
    main()
