"""Videos written anew, in a decoder process that may die without harm."""

import math
import os
from pathlib import Path

from lvt_ff.utils.errors import FrameSizeError, VideoReadError
from lvt_ff.video import pool
from lvt_ff.video.clip_buffer import MAX_PIXELS, Span, SpanError
from lvt_ff.video.decoder_process import Died
from lvt_ff.video.decoders import Refused
from lvt_ff.video.encoder import Encoded, EncodeSettings
from lvt_ff.video.file_names import problem_of_file
from lvt_ff.video.sources import VideoSource, local_video

__all__ = ["EncodeSettings", "Encoded", "reencode"]


def reencode(
    video: VideoSource,
    target: Path,
    settings: EncodeSettings,
    span: Span | None = None,
    timeout_s: float = 60.0,
    max_pixels: int = MAX_PIXELS,
) -> Encoded:
    """Write a video, or a part of it, as MP4 with H.264, without sound.

    All shown frames are kept, upright and in square pixels, at their times; pictures become 25
    frames a second.

    Args:
        video: see `read_clip`.
        target: the new file.
        settings: size, key frames and quality.
        span: see `read_clip`.
        timeout_s: without progress.
        max_pixels: of a frame of the original.

    Raises:
        VideoReadError: the file cannot be read, shows nothing within the span, or its decoder died.
    """
    start, end = span or (None, None)
    with local_video(video) as path:
        problem = problem_of_file(path)
        if problem:
            raise VideoReadError(f"Cannot read video {path!r}: {problem}.")
        message = dict(
            do="encode",
            path=os.path.abspath(path),
            target=os.path.abspath(target),
            settings=settings._asdict(),
            span=[None if time is None or math.isnan(time) else time for time in (start, end)],
            max_pixels=max_pixels,
        )
        try:
            return Encoded(*pool.request(message, lambda total: [], timeout_s)["encoded"])
        except FrameSizeError as error:
            raise FrameSizeError(f"Cannot read video {path!r}: {error}") from error
        except (Refused, Died, SpanError) as error:
            raise VideoReadError(f"Cannot read video {path!r}: {error}.") from error
