"""Small made-up videos of two objects that move about each other, for comparing models.

Every clip shows a red disc and a blue square before a textured ground, with green and yellow
distractors that move in any way, a camera that drifts, and noise. Classes come in pairs: in the
second of each, both objects do the first's motion backwards. All the rest is as likely backwards as
forwards, so that single frames, and frames in shuffled order, have the same distribution in both.
"""

import numpy as np

__all__ = ["MOTION_CLASSES", "MOTION_SIZE", "draw_motion"]

MOTION_CLASSES = (
    "disc approaches square",
    "disc leaves square",
    "disc circles square clockwise",
    "disc circles square anticlockwise",
    "disc passes square rightwards",
    "disc passes square leftwards",
    "disc and square turn clockwise",
    "disc and square turn anticlockwise",
    "disc follows square",
    "square follows disc",
    "disc blinks before square",
    "square blinks before disc",
    "disc moves before square",
    "square moves before disc",
    "disc grows and square shrinks",
    "disc shrinks and square grows",
)
MOTION_SIZE = 40  # pixels of a frame's side
_NUM_FRAMES = 16
_DISC, _SQUARE = (255, 0, 0), (0, 0, 255)
_DISTRACTORS = ((0, 255, 0), (255, 255, 0))
_TIMES = np.linspace(0, 1, _NUM_FRAMES)


def _heading(angle: float | np.ndarray) -> np.ndarray:
    """Unit vectors (..., 2) as (x, y), y downwards: growing angles turn clockwise."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _still(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two places apart from each other, (2,) each."""
    half = rng.uniform(5, 9) * _heading(rng.uniform(0, 2 * np.pi))
    return half, -half


def _motion(kind: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What tells a pair of classes: paths (2, T, 2), sizes (2, T) and visibilities (2, T)."""
    t = _TIMES[:, None]
    sizes, visible = np.ones((2, _NUM_FRAMES)), np.ones((2, _NUM_FRAMES))
    angle = rng.uniform(0, 2 * np.pi)
    towards = _heading(angle)
    disc, square = (np.tile(place, (_NUM_FRAMES, 1)) for place in _still(rng))
    if kind == 0:  # the gap closes
        square = rng.uniform(-3, 3, 2) + 0 * t
        disc = square + towards * (rng.uniform(8, 18) * (1 - t) + rng.uniform(4, 7) * t)
    elif kind == 1:
        square = rng.uniform(-3, 3, 2) + 0 * t
        disc = square + rng.uniform(8, 11) * _heading(angle + rng.uniform(3, 5) * _TIMES)
    elif kind == 2:
        square = rng.uniform(-3, 3, 2) + 0 * t
        reach, beside = rng.uniform(4, 14), rng.choice([-1, 1]) * rng.uniform(4, 9)
        disc = square + np.concatenate([(2 * t - 1) * reach, beside + 0 * t], axis=1)
    elif kind == 3:
        disc = rng.uniform(6, 9) * _heading(angle + rng.uniform(2, 4) * _TIMES)
        square = -disc
    elif kind == 4:  # both go the same way, the disc behind
        middle = towards * (2 * t - 1) * rng.uniform(2, 9)
        disc, square = middle - 6 * towards, middle + 6 * towards
    elif kind == 5:
        first = rng.uniform(0.05, 0.3)
        for seen, start in zip(visible, (first, first + rng.uniform(0.15, 0.5)), strict=True):
            seen[abs(_TIMES - start - 0.1) <= 0.1] = 0
    elif kind == 6:
        way = rng.uniform(4, 12) * _heading(rng.uniform(0, 2 * np.pi, 2))
        disc = disc + way[0] * (np.clip(2 * t, 0, 1) - 0.5)
        square = square + way[1] * (np.clip(2 * t - 1, 0, 1) - 0.5)
    else:
        ramp = 1 + rng.uniform(0.1, 0.9) * (_TIMES - 0.5)
        sizes = np.stack([ramp, ramp[::-1]])
    return np.stack([disc, square]), sizes, visible


def _ground(rng: np.random.Generator, drift: np.ndarray) -> np.ndarray:
    """A smooth random texture seen by a camera that drifts, (T, H, W, 3)."""
    waves = rng.normal(size=(6, 2)) * 0.25
    phases, colors = rng.uniform(0, 2 * np.pi, 6), rng.normal(size=(6, 3))
    y, x = np.mgrid[:MOTION_SIZE, :MOTION_SIZE]
    x = x[None, None] - drift[None, :, 0, None, None]  # (1, T, H, W)
    y = y[None, None] - drift[None, :, 1, None, None]
    fields = np.sin(
        waves[:, 0, None, None, None] * x
        + waves[:, 1, None, None, None] * y
        + phases[:, None, None, None]
    )
    return 110 + 7 * np.einsum("ithw,ic->thwc", fields, colors)


def _paint(frames, path, size, color, visible, square: bool) -> None:
    """Draw one object of radius `size` (T,) along `path` (T, 2), in place."""
    y, x = np.mgrid[:MOTION_SIZE, :MOTION_SIZE]
    dx, dy = x - path[:, 0, None, None], y - path[:, 1, None, None]
    far = np.maximum(abs(dx), abs(dy)) if square else np.hypot(dx, dy)
    cover = np.clip(size[:, None, None] - far + 0.5, 0, 1) * visible[:, None, None]
    frames += cover[..., None] * (np.asarray(color) - frames)


def draw_motion(label: int, rng: np.random.Generator) -> np.ndarray:
    """Frames (16, 40, 40, 3) uint8 of one clip of class `MOTION_CLASSES[label]`."""
    kind, backwards = divmod(label, 2)
    paths, sizes, visible = _motion(kind, rng)
    if backwards:
        paths, sizes, visible = paths[:, ::-1], sizes[:, ::-1], visible[:, ::-1]
    swing = rng.uniform(0, 2.5) * np.sin(2 * np.pi * (rng.uniform() + _TIMES))
    drift = rng.uniform(-4, 4, 2) * (_TIMES[:, None] - 0.5)
    drift = drift + swing[:, None] * _heading(rng.uniform(0, 2 * np.pi))
    frames = _ground(rng, drift)
    centre = (MOTION_SIZE - 1) / 2 + rng.uniform(-3, 3, 2) + drift
    for color in 2 * _DISTRACTORS:
        way = rng.uniform(-12, 12, 2) * (_TIMES[:, None] - 0.5)
        angles = rng.uniform(0, 2 * np.pi) + rng.uniform(-5, 5) * _TIMES
        turning = rng.uniform(0, 6) * _heading(angles)
        path = centre + rng.uniform(-14, 14, 2) + way + turning
        _paint(
            frames,
            path,
            rng.uniform(2, 3.5) + 0 * _TIMES,
            color,
            1 + 0 * _TIMES,
            rng.random() < 0.5,
        )
    for number, color in enumerate((_DISC, _SQUARE)):
        size = rng.uniform(3.5, 5.4) * sizes[number]
        _paint(frames, centre + paths[number], size, color, visible[number], square=number == 1)
    frames += 10 * rng.standard_normal(frames.shape)
    return np.clip(frames, 0, 255).astype(np.uint8)
