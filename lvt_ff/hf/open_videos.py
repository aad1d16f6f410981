"""Videos that are read with a function that chooses frames: sources, and what others have opened.

Objects of torchcodec and decord are known by their methods; none of the libraries is imported.
"""

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lvt_ff.data import read_clip
from lvt_ff.utils.errors import FrameSizeError, VideoReadError
from lvt_ff.video.clip_buffer import MAX_CLIP_BYTES, Choose, ClipBuffer
from lvt_ff.video.display import Deinterlacer, Painter, Shape
from lvt_ff.video.sources import source_name
from lvt_ff.video.stream import packets_of

__all__ = ["read_video"]


def read_video(video: Any, choose: Choose) -> np.ndarray | Tensor:
    """Chosen frames of a video, (T, H, W, 3) uint8.

    Args:
        video: a source as in `lvt_ff.video.sources`, an item of a `datasets` column (a dict with
            "path" and "bytes"), torchcodec's `VideoDecoder`, decord's `VideoReader`, or a container
            or video stream of PyAV, which is rewound where it can be.
        choose: frame numbers for the total number of frames; called again where that number
            turned out to be another.

    Raises:
        VideoReadError: the video cannot be read.
        TypeError: something else than a video.
    """
    if isinstance(video, dict):
        video = _of_item(video)
    if callable(getattr(video, "get_frames_at", None)):
        return _from_torchcodec(video, choose)
    if callable(getattr(video, "get_batch", None)):
        return _from_decord(video, choose)
    stream = _video_stream(video)
    if stream is not None:
        return _from_pyav(stream, choose)
    return read_clip(video, choose)


def _of_item(item: dict) -> str | os.PathLike | io.BytesIO:
    """The source in an item of `datasets`, which prefers bytes to a path."""
    path, content = item.get("path"), item.get("bytes")
    if content is not None:
        file = io.BytesIO(content)
        file.name = path  # for messages
        return file
    if path is None:
        raise TypeError(
            "A video given as a dict must have a path or bytes that are not None, "
            f"got the keys {list(item)}: see what `datasets` gives with Video(decode=False)."
        )
    return path


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except VideoReadError:
        raise
    except Exception as error:  # every library has errors of its own, some not RuntimeError
        reason = " ".join(str(error).split())[:300] or "no message"
        raise VideoReadError(
            f"Cannot read video from {what}: {type(error).__name__}: {reason}."
        ) from error


def _plain(numbers: Any) -> list[int]:
    return [int(number) for number in numbers]


def _from_torchcodec(decoder: Any, choose: Choose) -> Tensor:
    numbers = _plain(choose(len(decoder)))
    with _reading("torchcodec's VideoDecoder"):
        frames = decoder.get_frames_at(numbers).data
    if frames.is_floating_point():  # between 0 and 1
        frames = frames.mul(255).round().clamp(0, 255).to(torch.uint8)
    # The decoder's dimension_order is not public; "NCHW" is usual.
    return frames if frames.shape[1] != 3 else frames.permute(0, 2, 3, 1)


def _from_decord(reader: Any, choose: Choose) -> np.ndarray | Tensor:
    numbers = _plain(choose(len(reader)))
    with _reading("decord's VideoReader"):
        frames = reader.get_batch(numbers)
        # A tensor where decord's bridge to torch is set.
        return frames if isinstance(frames, Tensor) else frames.asnumpy()


def _video_stream(video: Any) -> Any:
    """The stream of an object of PyAV; None for other objects."""
    av = sys.modules.get("av")
    if av is None:
        return None
    if isinstance(video, av.container.InputContainer):
        stream = video.streams.best("video")
        if stream is None:
            name = _container_name(video)
            raise VideoReadError(f"Cannot read video from {name}: it has no video stream.")
        return stream
    return video if isinstance(video, av.VideoStream) else None


def _from_pyav(stream: Any, choose: Choose) -> np.ndarray:
    clip, container = ClipBuffer(choose), stream.container
    what = _container_name(container)
    with _reading(what):
        # What cannot be moved may yet go back by as much as was buffered.
        stays = _rewind(container) and container.size > 0
        if stays:
            total = sum(1 for packet in packets_of(container, stream) if packet.size)
        else:
            kept = _rest(stream)
            total = len(kept)
    while total:
        clip.choose(total)
        with _reading(what):
            if stays and not _rewind(container):
                raise VideoReadError(f"Cannot read video from {what}: it cannot be rewound.")
            total = _put_wanted(container.decode(stream) if stays else kept, stream, clip)
        if total == clip.total:
            return clip.frames
        # Some packets show no frame: choose again among those that there are.
    raise VideoReadError(f"Cannot read video from {what}: it has no frame.")


def _container_name(container: Any) -> str:
    if container.file is not None:
        return "PyAV's container"
    return f"PyAV's container {source_name(container.name)!r}"


def _rewind(container: Any) -> bool:
    """Go to the first frame; False where the container only goes on."""
    import av

    start = min(container.start_time or 0, 0)
    # Streams without times are rewound by bytes, which containers with an index refuse.
    for place, options in ((start, {}), (0, {"unsupported_byte_offset": True})):
        with suppress(av.FFmpegError, OSError):
            container.seek(place, **options)
            return True
    return False


def _rest(stream: Any) -> list:
    """The frames from where a container is, before any is chosen."""
    frames, num_bytes = [], 0
    for frame in stream.container.decode(stream):
        frames.append(frame)
        num_bytes += 3 * frame.width * frame.height
        if num_bytes > MAX_CLIP_BYTES:
            raise FrameSizeError(
                "A stream that cannot be rewound has more frames than are kept: write it to a "
                "file, and read that."
            )
    return frames


def _put_wanted(frames: Iterable, stream: Any, clip: ClipBuffer) -> int:
    """Put the frames that are wanted into `clip`; returns how many there are."""
    deinterlace, paint, number = Deinterlacer(), None, 0
    for frame in chain(frames, [None]):
        if frame is not None:
            clip.check_size(frame.width, frame.height)
            paint = paint or Painter(Shape.of(frame, stream.sample_aspect_ratio))
        for ready in deinterlace(frame):
            if clip.wants(number):
                clip.put(number, paint(ready))
            number += 1
    return number
