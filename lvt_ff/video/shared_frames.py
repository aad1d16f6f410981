"""Frames from a decoder process to its caller: in memory that both see, or through a pipe.

Shared memory is anonymous (memfd): it has no name that could be left behind, and the small
/dev/shm of containers does not limit it. Its file descriptor goes through a socket of its own.
"""

import fcntl
import math
import mmap
import os
import socket

import numpy as np

__all__ = ["SharedFrames", "receive_frames"]


class SharedFrames:
    """Makes an array for each reading and hands it over, in the decoder process."""

    def __init__(self, channel: socket.socket):
        self._channel, self._file = channel, -1

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of uint8."""
        self.close()
        self._file = os.memfd_create("lvt_ff_frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self._file, math.prod(shape))
        return np.frombuffer(mmap.mmap(self._file, math.prod(shape)), np.uint8).reshape(shape)

    def send(self) -> None:
        """Hand the last array over."""
        socket.send_fds(self._channel, [b"f"], [self._file])
        self.close()

    def close(self) -> None:
        """Forget an array that is not sent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def receive_frames(channel: socket.socket, shape: tuple[int, ...]) -> np.ndarray:
    """The array that was sent, (T, H, W, 3) uint8, which belongs to the caller alone.

    Raises:
        EOFError: nothing, or another size, was sent.
    """
    _, files, _, _ = socket.recv_fds(channel, 1, 1)
    if not files:
        raise EOFError("no frames came")
    try:
        # Else a decoder that makes it shorter would kill the reader.
        fcntl.fcntl(files[0], fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        if os.fstat(files[0]).st_size != math.prod(shape):
            raise EOFError("frames of another size came")
        return np.frombuffer(mmap.mmap(files[0], math.prod(shape)), np.uint8).reshape(shape)
    finally:
        os.close(files[0])
