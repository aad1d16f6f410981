"""Video backends used bare, as in a script: what reading is held against.

No frame is counted, no file is checked, nothing is decoded apart.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from lvt_ff.video.pictures import numbered_pictures

__all__ = ["BARE_DECODERS"]


def _decord(path: str, indices: Sequence[int]) -> np.ndarray:
    import decord

    return decord.VideoReader(path, num_threads=1).get_batch(indices).asnumpy()


def _pyav(path: str, indices: Sequence[int]) -> np.ndarray:
    import av

    frames, wanted, last = {}, {*indices}, max(indices)
    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                frames[number] = frame.to_ndarray(format="rgb24")
            if number >= last:
                break
    return np.stack([frames[index] for index in indices if index in frames])


def _torchcodec(path: str, indices: Sequence[int]) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    reader = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1)
    return reader.get_frames_at(list(indices)).data.numpy()


def _pillow(path: str, indices: Sequence[int]) -> np.ndarray:
    import os

    files = numbered_pictures(os.listdir(path))
    pictures = (Image.open(os.path.join(path, files[index])) for index in indices)
    return np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])


# By the names that our own have: from a file and frame numbers to frames (T, H, W, 3) uint8. Those
# that scripts read with come first.
BARE_DECODERS: dict[str, Callable[[str, Sequence[int]], np.ndarray]] = {
    "torchcodec": _torchcodec,
    "decord": _decord,
    "pyav": _pyav,
    "pillow": _pillow,
}
