"""Frames from a decoder process to its caller, in memory that both see.

It is anonymous (memfd): it has no name that could be left behind, and the small /dev/shm of
containers does not limit it. Its file descriptor goes through a socket. New pages are slow, so that
the memory of small clips stays and is copied from; that of large ones becomes the caller's.
"""

import math
import mmap
import os
import socket

import numpy as np

__all__ = ["FramesReceiver", "FramesSender"]

_KEPT_BYTES = 2**26  # of the clips that are copied


class FramesSender:
    """Makes an array for each reading and hands it over, in the decoder process."""

    def __init__(self, channel: socket.socket):
        self._channel = channel
        self._kept: mmap.mmap | None = None
        self._file = -1  # of memory that the caller does not know yet

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of uint8."""
        size = math.prod(shape)
        memory = self._kept
        if memory is None or len(memory) < size:
            self.forget()
            self._file = os.memfd_create("lvt_ff_frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(self._file, size)
            memory = mmap.mmap(self._file, size)
            self._kept = memory if size <= _KEPT_BYTES else None
        return np.frombuffer(memory, np.uint8, size).reshape(shape)

    def send(self) -> bool:
        """Hand the last array over; whether its memory is new to the caller."""
        is_new = self._file >= 0
        if is_new:
            socket.send_fds(self._channel, [b"f"], [self._file])
            os.close(self._file)
            self._file = -1
        return is_new

    def forget(self) -> None:
        """Let go of memory that was not sent."""
        if self._file >= 0:
            os.close(self._file)
            self._file, self._kept = -1, None


class FramesReceiver:
    """Takes the arrays over, in the caller.

    Args:
        channel: the other end of the sender's.
    """

    def __init__(self, channel: socket.socket):
        self._channel = channel
        self._kept: mmap.mmap | None = None

    def receive(self, shape: tuple[int, ...], is_new: bool) -> np.ndarray:
        """The array that was sent, (T, H, W, 3) uint8, which belongs to the caller alone.

        Raises:
            EOFError: nothing, or less than that, was sent.
        """
        size = math.prod(shape)
        memory = self._new_memory() if is_new else self._kept
        if memory is None or len(memory) < size:
            raise EOFError("less came than was said")
        frames = np.frombuffer(memory, np.uint8, size).reshape(shape)
        if size > _KEPT_BYTES:
            return frames
        self._kept = memory
        return frames.copy()

    def _new_memory(self) -> mmap.mmap:
        import fcntl

        _, files, _, _ = socket.recv_fds(self._channel, 1, 1)
        if not files:
            raise EOFError("no frames came")
        try:
            # Else a decoder that makes it shorter would kill the reader.
            fcntl.fcntl(files[0], fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
            return mmap.mmap(files[0], os.fstat(files[0]).st_size)
        finally:
            os.close(files[0])
