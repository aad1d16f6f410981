"""PyAV: reads every file, by the frames' times where they can be trusted, else in order.

By their times, frames that are not wanted are left out where no other refers to them.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import chain, dropwhile

import numpy as np

from lvt_ff.video.clip_buffer import ClipBuffer
from lvt_ff.video.display import Deinterlacer, Painter
from lvt_ff.video.packets import PacketFacts, PacketReader
from lvt_ff.video.probe import Probe, Start
from lvt_ff.video.stream import container_keys, decode_packet, marks_damage, open_stream, packets_of

__all__ = ["decode"]

_MAX_READINGS = 3  # of a file whose number of frames turns out to be another


class _OtherFrames(Exception):
    """Decoding gave other frames than the packets' times said."""


def decode(path: str, found: Probe, clip: ClipBuffer, threads: int) -> str:
    """Put the frames that are wanted into `clip`; returns what was lost, or "".

    Args:
        path: a video file.
        found: what it holds.
        clip: what is wanted.
        threads: of the decoder.

    Raises:
        FrameSizeError: a frame is larger than allowed.
        ValueError, IndexError, av.FFmpegError: the frames cannot be had.
    """
    if not found.untimed:
        try:
            _decode_by_time(path, found, clip, threads)
            return found.damage
        except _OtherFrames:
            pass
    return _decode_in_order(path, found, clip, threads)


def _decode_by_time(path: str, found: Probe, clip: ClipBuffer, threads: int) -> None:
    clip.choose(found.num_shown, found.shown_s)
    paint = Painter(found.shape, clip.needed)
    first_numbers = [start.number for start in found.starts]
    if first_numbers[0]:
        raise _OtherFrames
    missing, left_out = clip.missing, found.unneeded.copy()
    left_out[missing] = False
    numbers, unread = np.flatnonzero(~left_out).tolist(), {*found.times[left_out].tolist()}
    with open_stream(path, clip.max_pixels, threads) as (container, stream):
        frames, position = None, 0
        for wanted in missing:
            start = bisect_right(first_numbers, wanted) - 1
            # Where no start lies between, decoding on is shorter than to jump.
            if frames is None or first_numbers[start] > position:
                frames = _frames_from(container, stream, found, start, clip, numbers, unread)
            for number, frame in frames:
                position = number + 1
                if clip.wants(number):
                    clip.put(number, paint(frame))
                if number >= wanted:
                    break


def _frames_from(
    container,
    stream,
    found: Probe,
    number: int,
    clip: ClipBuffer,
    numbers: list[int],
    unread: set[int],
) -> Iterator[tuple[int, object]]:
    """Frames with their numbers, from a start on; _OtherFrames where they are not as expected.

    Args:
        container, stream, found, clip: what is read.
        number: of the start.
        numbers: of the frames that are decoded, ascending.
        unread: times of the packets that are not.
    """
    import av

    try:
        start, packets = _go_to(container, stream, found, number)
        expected = iter(numbers[bisect_left(numbers, start.number) :])
        for packet in packets:
            clip.progress()
            if packet.pts in unread:
                continue
            for frame in decode_packet(stream, packet, clip.max_pixels):
                if frame.pts is not None and frame.pts < start.pts:
                    continue  # it leans on what was not decoded
                shown = next(expected, None)
                if shown is None or frame.pts != found.times[shown] or _is_odd(frame):
                    raise _OtherFrames
                yield shown, frame
    except av.FFmpegError as error:
        raise _OtherFrames from error
    if next(expected, None) is not None:
        raise _OtherFrames


def _go_to(container, stream, found: Probe, number: int) -> tuple[Start, Iterator]:
    """The start, or the last one before it, that a container finds, and the packets from there."""
    if number == 0:
        packets = packets_of(container, stream)
        return found.starts[0], dropwhile(lambda p: p.pts != found.starts[0].pts, packets)
    for target in dict.fromkeys((found.starts[number].seek, found.starts[number].pts)):
        container.seek(target, stream=stream)
        packets = packets_of(container, stream)
        first = next((packet for packet in packets if packet.size), None)
        for start in reversed(found.starts[: number + 1]):
            if first is not None and first.pts == start.pts:
                return start, chain([first], packets)
    raise _OtherFrames


def _is_odd(frame) -> bool:
    return frame.is_corrupt or frame.interlaced_frame


def _decode_in_order(path: str, found: Probe, clip: ClipBuffer, threads: int) -> str:
    guess, seconds = found.num_shown, found.shown_s
    for attempt in range(_MAX_READINGS):
        clip.choose(guess, seconds, sure=attempt > 0)
        reading = _Reading(found, clip)
        if not reading.run(path, threads):
            threads = 1  # with several, an error comes at another packet than its own
            clip.choose(guess, seconds, sure=attempt > 0)
            reading = _Reading(found, clip)
            reading.run(path, threads)
        guess, seconds = reading.count, reading.seconds(found)
        if clip.confirm(guess, seconds):
            return reading.damage(found)
    raise ValueError(f"it shows another number of frames at each reading, the last time {guess}")


class _Reading:
    """One way through a file, in which every frame is decoded and counted."""

    def __init__(self, found: Probe, clip: ClipBuffer):
        self._clip, self._paint = clip, Painter(found.shape, clip.needed)
        self._deinterlace = Deinterlacer()
        self.count = self.num_lost = self.num_doubtful = 0
        self._times: list[tuple[int | None, int | None]] = []
        self.reason = ""
        self._keys: set[int] | None = None

    def run(self, path: str, threads: int) -> bool:
        """Whether it came to the end, or with one thread past every error, to the end."""
        import av

        with open_stream(path, self._clip.max_pixels, threads) as (container, stream):
            context = stream.codec_context
            self._path, self._codec = path, context.name
            self._marked = marks_damage(container)
            facts_of = PacketReader(context.name, context.extradata, self._marked)
            self._started, self._waiting, self._resumed_at = False, True, None
            packets = packets_of(container, stream)
            while True:
                try:
                    packet = next(packets, None)
                except av.FFmpegError as error:  # the rest is lost
                    self.reason, packet = error.strerror, None
                facts = facts_of(packet) if packet is not None and packet.size else None
                if packet is not None and facts is None:
                    continue
                try:
                    self._feed(stream, packet, facts)
                except av.FFmpegError as error:
                    if threads > 1:
                        return False
                    self._lose(packet, facts, error.strerror)
                if packet is None:
                    break
        for frame in self._deinterlace(None):
            self._take(frame)
        return True

    def _feed(self, stream, packet, facts: PacketFacts | None) -> None:
        """Decode a packet, unless what it refers to is lost; None ends the decoding."""
        self._clip.progress()
        if facts is not None:
            if not facts.whole:
                self._lose(packet, facts, "a packet is damaged")
                return
            if self._waiting and not facts.opens:
                self.num_lost += facts.shown if self.num_lost else 0
                return
            if self._waiting:
                self._resume(stream, packet)
        for frame in decode_packet(stream, packet, self._clip.max_pixels):
            self._show(frame)

    def _resume(self, stream, packet) -> None:
        """Start anew, as at the beginning of a file: leading packets are left out."""
        if self._started:
            for frame in decode_packet(stream, None, self._clip.max_pixels):
                self._show(frame)
            stream.codec_context.flush_buffers()
        self._started, self._waiting, self._resumed_at = True, False, packet.pts

    def _lose(self, packet, facts: PacketFacts | None, reason: str) -> None:
        if facts is None:
            return
        self.num_lost += max(facts.shown, 1)
        self.reason = self.reason or reason
        # What refers to a lost key frame is grey; HEVC has grey in place of any lost reference.
        grey = facts.starts or (self._codec == "hevc" and facts.reference)
        self._waiting = self._waiting or grey or packet.pos in self._container_keys()

    def _container_keys(self) -> set[int]:
        if self._keys is None:
            self._keys = container_keys(self._path, self._clip.progress)
        return self._keys

    def _show(self, frame) -> None:
        early = None not in (frame.pts, self._resumed_at) and frame.pts < self._resumed_at
        if early:
            return
        if frame.is_corrupt and self._marked:
            self.num_lost += 1
            return
        self.num_doubtful += frame.is_corrupt
        self._times.append((frame.pts, frame.dts))  # a deinterlacer counts otherwise
        for ready in self._deinterlace(frame):
            self._take(ready)

    def _take(self, frame) -> None:
        if self._clip.wants(self.count):
            self._clip.put(self.count, self._paint(frame))
        self.count += 1
        self._clip.progress()

    def seconds(self, found: Probe) -> np.ndarray:
        """When the frames that were counted are shown."""
        times = (*self._times, *[(None, None)] * self.count)[: self.count]
        pts, dts = zip(*times, strict=True) if times else ((), ())
        return found.clock.seconds(pts, dts)

    def damage(self, found: Probe) -> str:
        """What was lost, in words, or ""."""
        if not found.untimed:  # every packet shows one frame, and some did not
            self.num_lost = max(self.num_lost, found.num_shown - self.count)
        if not self.num_lost and not self.num_doubtful:
            return found.damage
        total = self.count + self.num_lost
        reason = f" ({self.reason})" if self.reason else ""
        lost = f"{self.num_lost} of {total} frames are lost{reason}" if self.num_lost else ""
        doubtful = f"{self.num_doubtful} frames may be damaged" if self.num_doubtful else ""
        return ", ".join(part for part in (lost, doubtful, found.ending) if part)
