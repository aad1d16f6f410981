"""Small made-up videos whose class only the order of their frames tells.

Every clip shows one arrow whose place, size, brightness and direction each take the same set of
values. In the clip's class one of the four rises or falls steadily; the other three take their
values in random order. So single frames, and frames in shuffled order, have the same distribution
in all eight classes.
"""

import numpy as np

__all__ = ["TIME_CLASSES", "draw_clip"]

# Which quantity rises (even number) or falls (odd number).
TIME_CLASSES = (
    "moves right",
    "moves left",
    "grows",
    "shrinks",
    "fades in",
    "fades out",
    "turns clockwise",
    "turns anticlockwise",
)
_NUM_FRAMES, _HEIGHT, _WIDTH = 16, 48, 56


def draw_clip(label: int, rng: np.random.Generator) -> np.ndarray:
    """Frames (16, 48, 56, 3) uint8 of one clip of class `TIME_CLASSES[label]`."""
    quantity, falling = divmod(label, 2)
    ramp = np.linspace(0, 1, _NUM_FRAMES, dtype=np.float32)
    place, size, brightness, direction = (
        (ramp[::-1] if falling else ramp) if number == quantity else rng.permutation(ramp)
        for number in range(4)
    )

    def per_frame(values: np.ndarray) -> np.ndarray:
        return np.asarray(values, dtype=np.float32)[:, None, None]

    dx = np.arange(_WIDTH, dtype=np.float32)[None, None, :] - per_frame(16 + 24 * place)
    dy = np.arange(_HEIGHT, dtype=np.float32)[None, :, None] - np.float32(rng.uniform(18, 30))
    angle = per_frame(rng.uniform(-0.3, 0.3) + 1.4 * np.pi * (direction - 0.5))
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = dy * np.cos(angle) - dx * np.sin(angle)
    length = per_frame(6 + 12 * size)
    inside = np.minimum(along + length, 0.3 * (length - along) - np.abs(across))
    cover = np.clip(inside + 0.5, 0, 1) * per_frame(0.15 + 0.85 * brightness)
    color = rng.uniform(128, 255, 3).astype(np.float32)
    ground = rng.uniform(0, 64, 3).astype(np.float32)
    frames = ground + cover[..., None] * (color - ground)
    frames += 5 * rng.standard_normal(frames.shape, dtype=np.float32)
    return np.clip(frames, 0, 255).astype(np.uint8)
