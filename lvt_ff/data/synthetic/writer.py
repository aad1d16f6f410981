"""Videos of made-up clips: one file, or a folder of class folders."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from lvt_ff.data.synthetic.demo import TIME_CLASSES, draw_clip
from lvt_ff.utils.atomic_io import atomic_folder
from lvt_ff.utils.progress import progress_bar

__all__ = ["write_dataset", "write_video"]


def write_video(
    path: str | os.PathLike,
    frames: np.ndarray,
    *,
    fps: int = 16,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    times_ms: list[int] | None = None,
) -> None:
    """Encode frames with PyAV; the container follows from the file's name.

    Args:
        path: file to write.
        frames: (T, H, W, 3) uint8, even height and width.
        fps: frames per second.
        codec: name of an FFmpeg encoder.
        options: of the encoder.
        times_ms: presentation time of each frame, for a variable frame rate; None spaces them
            evenly.
    """
    from fractions import Fraction

    import av

    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_clip(task: tuple[str, int, int, int], draw: Callable) -> None:
    path, label, seed, index = task
    frames = draw(label, np.random.default_rng((seed, index)))
    write_video(path, frames, options={"crf": "18", "preset": "ultrafast", "g": "16"})


def write_dataset(
    folder: str | os.PathLike,
    num_clips: int,
    seed: int,
    num_workers: int = 2,
    class_names: Sequence[str] = TIME_CLASSES,
    draw: Callable[[int, np.random.Generator], np.ndarray] = draw_clip,
) -> None:
    """Write clips as `folder/CLASS/NUMBER.mp4`; the folder appears when it is complete.

    Args:
        folder: to be made.
        num_clips: of all classes together.
        seed: of the clips; different seeds share no clip.
        num_workers: processes.
        class_names: as many clips of each, up to one.
        draw: gives the frames (T, H, W, 3) uint8 of a clip of a class, by its number; a function
            of a module, which processes can find.
    """
    with atomic_folder(Path(folder)) as new:
        tasks = []
        for index in range(num_clips):
            label = index % len(class_names)
            place = new / class_names[label]
            place.mkdir(exist_ok=True)
            tasks.append((str(place / f"{index:05d}.mp4"), label, seed, index))
        with ProcessPoolExecutor(num_workers) as pool:
            done = pool.map(partial(_write_clip, draw=draw), tasks, chunksize=32)
            with progress_bar(num_clips, "video", desc="writing") as bar:
                for _ in done:
                    bar.update()
