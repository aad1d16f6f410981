"""What a file holds, from all its packets and its first frame: the ground on which backends read.

Frames are numbered as they are shown. Where the container's times can be trusted, a frame is found
by its time; elsewhere only decoding from the first packet on tells which frame is which.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from lvt_ff.video.clip_buffer import MAX_PIXELS, too_large
from lvt_ff.video.display import Shape
from lvt_ff.video.file_end import is_cut_off
from lvt_ff.video.frame_times import Clock
from lvt_ff.video.packets import PacketFacts, PacketReader
from lvt_ff.video.stream import (
    decode_packet,
    marks_damage,
    most_packets,
    open_stream,
    packets_of,
)

__all__ = ["Probe", "Start", "probe"]

# Containers with a time for every frame, in which FFmpeg jumps exactly.
_TIMED = {"mov", "matroska", "flv"}
_REMEMBERED = 64
_PROGRESSIVE = (0, 1)  # FFmpeg's field orders: unknown, one frame at a time


@dataclass(frozen=True)
class Start:
    """A packet from which decoding may start.

    Args:
        number: of the first frame that is right from there on.
        pts: presentation time.
        seek: time to ask the container for.
    """

    number: int
    pts: int
    seek: int


@dataclass(frozen=True)
class Probe:
    """What a file holds.

    Args:
        codec: FFmpeg's name.
        num_shown: frames that the packets show; where `untimed`, only decoding proves it.
        times: of all shown frames, ascending (num_shown,), in units of the stream's time base;
            empty where `untimed`.
        clock: how the file counts time.
        shown_s: when frames are shown (num_shown,), in seconds; where `untimed`, a guess.
        starts: in the order of the file; empty where `untimed`.
        unneeded: whether a shown frame is one that no other refers to (num_shown,) bool; empty
            where `untimed`.
        untimed: why frames cannot be found by their times, or "".
        special: what of it not every decoder shows rightly, or "".
        open_groups: frames around a key frame refer to what lies before it.
        num_bad: packets whose structure is damaged.
        ending: why the file ends early, or "".
        shape: how frames are shown.
        seconds: of the container or of the packets, whichever says more.
    """

    codec: str
    num_shown: int
    times: np.ndarray
    clock: Clock
    shown_s: np.ndarray
    starts: tuple[Start, ...]
    unneeded: np.ndarray
    untimed: str
    special: str
    open_groups: bool
    num_bad: int
    ending: str
    shape: Shape
    seconds: float

    @property
    def damage(self) -> str:
        """What is lost in the file's structure, in words, or ""."""
        bad = f"{self.num_bad} of its packets are damaged" if self.num_bad else ""
        return ", ".join(part for part in (bad, self.ending) if part)

    @property
    def not_plain(self) -> str:
        """Why decoders that rely on a container's index and times must not read it, or ""."""
        return "is damaged" if self.damage else self.untimed or self.special

    def check_count(self, count: int) -> None:
        """Raise ValueError where a decoder counts other frames than are shown."""
        if count != self.num_shown:
            raise ValueError(f"it counts {count} frames of {self.num_shown}")


_recent: dict[tuple, Probe] = {}


def probe(
    path: str, max_pixels: int = MAX_PIXELS, progress: Callable[[], None] = lambda: None
) -> Probe:
    """Go through the packets of a file and decode its first frame.

    Args:
        path: a video file.
        max_pixels: of the first frame.
        progress: called after every packet.

    Raises:
        FrameSizeError: the first frame is larger.
        ValueError, av.FFmpegError: not a video, or none that can be decoded.
    """
    state = os.stat(path)
    key = (path, state.st_size, state.st_mtime_ns, max_pixels)
    found = _recent.get(key)
    if found is None:
        scan = _Scan()
        with open_stream(path, max_pixels) as (container, stream):
            scan.run(container, stream, max_pixels, progress)
            context = stream.codec_context
            if scan.first is None and context.width * context.height > max_pixels:
                raise too_large(max_pixels)
            found = scan.result(container, stream, is_cut_off(path))
        while len(_recent) >= _REMEMBERED:
            _recent.pop(next(iter(_recent)), None)
        _recent[key] = found
    return found


class _Scan:
    """One way through the packets of a file."""

    def __init__(self):
        self.first = None
        self.alone = True  # no packet was decoded yet
        self.num_shown = 0
        self.pts: list[int | None] = []  # of packets that show a frame
        self.dts: list[int | None] = []
        self.layers: list[int] = []  # of these packets; -1 of those that others refer to
        self.keys: list[tuple[int | None, int | None]] = []  # times of starts
        self.delay = 0  # from the first packet's decoding to its presentation
        self.parameters = b""
        self.top_layer = 0
        self.num_bad = 0
        self.error = ""
        self.hidden = self.many = False  # some packet shows no frame, or several
        self.any_packet = self.opened = False  # there are any; a key frame among them
        self.inexact = False  # its first key frame leans on what is not there
        self.changes = self.open_groups = False
        self.gradual = False  # frames become right only some way behind a key frame
        self.skip_leading = True  # at the file's first start
        self.span: tuple[float, float] = (float("inf"), 0)

    def run(self, container, stream, max_pixels: int, progress: Callable[[], None]) -> None:
        """Look at every packet."""
        import av

        context = stream.codec_context
        reader = PacketReader(context.name, context.extradata, marks_damage(container))
        self.codec_known = reader.known
        most = most_packets(container)
        try:
            for number, packet in enumerate(packets_of(container, stream)):
                if number > most:
                    raise ValueError("it lists more packets than it has bytes")
                progress()
                if packet.size:
                    if not self.any_packet and None not in (packet.pts, packet.dts):
                        self.delay = packet.pts - packet.dts
                    self.any_packet = True
                    self._add(packet, reader(packet))
                if self.opened and self.first is None:
                    self._decode(stream, packet, max_pixels)
        except av.FFmpegError as error:
            self.error = f"it ends in an error ({error.strerror})"

    def _add(self, packet, facts: PacketFacts) -> None:
        if packet.pts is not None:
            self.span = min(self.span[0], packet.pts), max(self.span[1], packet.pts)
        self.num_bad += not facts.whole
        if facts.starts and facts.whole:
            self.skip_leading = facts.skips_leading or not self.keys
            self.keys.append((packet.pts, packet.dts))
            self.changes |= self.parameters not in (b"", facts.parameters)
            self.parameters = facts.parameters
            self.changes |= packet.has_sidedata("new_extradata")
        self.opened |= facts.opens
        if facts.opens:
            self.open_groups |= facts.open_group
            self.gradual |= not facts.starts or (facts.open_group and len(self.keys) == 1)
        self.inexact |= self.opened and not self.keys
        leading = facts.leading and self.skip_leading
        unseen = packet.is_discard or not self.opened or leading or self._is_early(packet)
        shown = 0 if unseen else facts.shown
        if not shown:
            self.hidden = True
            return
        self.many |= shown > 1
        self.num_shown += shown
        self.pts.append(packet.pts)
        self.dts.append(packet.dts)
        self.layers.append(-1 if facts.reference else facts.layer)
        self.top_layer = max(self.top_layer, facts.layer)

    def _is_early(self, packet) -> bool:
        """Whether a packet leans on what would be before the file's first start."""
        return (
            len(self.keys) == 1
            and None not in (packet.pts, self.keys[0][0])
            and packet.pts < self.keys[0][0]
        )

    def _decode(self, stream, packet, max_pixels: int) -> None:
        """Look for a frame: in one packet alone, as decoders keep frames back; else in all."""
        import av

        alone, self.alone = self.alone, False
        frames = []
        with suppress(av.FFmpegError):
            frames = decode_packet(stream, packet, max_pixels)
            if alone and not frames:
                frames = decode_packet(stream, None, max_pixels)
        self.first = next((frame for frame in frames if not frame.is_corrupt), None)
        if alone and self.first is None:
            stream.codec_context.flush_buffers()
            self._decode(stream, packet, max_pixels)

    def result(self, container, stream, cut_off: bool) -> Probe:
        """What was found.

        Raises:
            ValueError: no frame can be shown.
        """
        import av

        if self.first is None:
            why = "it has no key frame" if self.any_packet else "it has no packets"
            why = "no frame of it can be decoded" if self.opened else why
            raise ValueError(f"{why}{': ' + self.error if self.error else ''}")
        shape = Shape.of(self.first, stream.sample_aspect_ratio)
        times = np.array([0 if time is None else time for time in self.pts], np.int64)
        times.sort()
        untimed = self._untimed(container, stream, times)
        starts, unneeded = (), np.empty(0, bool)
        if not untimed:
            starts = self._starts(times)
            unneeded = self._unneeded(times)
        first, last = self.span
        span = float((last - min(first, last)) * stream.time_base)
        clock = Clock.of(container, stream)
        return Probe(
            codec=stream.codec_context.name,
            num_shown=self.num_shown,
            times=times if not untimed else times[:0],
            clock=clock,
            shown_s=self._shown_s(clock, times),
            starts=starts,
            unneeded=unneeded,
            untimed=untimed,
            special=self._special(shape, times),
            open_groups=self.open_groups,
            num_bad=self.num_bad,
            ending=self.error or ("it is cut off" if cut_off else ""),
            shape=shape,
            seconds=max((container.duration or 0) / av.time_base, span),
        )

    def _unneeded(self, times: np.ndarray) -> np.ndarray:
        """Frames that no other refers to, by their times; none where these do not prove it.

        A packet that is not shown may have the time of one that is; and a frame at a wrong time is
        noticed only as it is decoded.
        """
        if self.hidden or _has_gaps(times):
            return np.zeros(len(times), bool)
        return (np.array(self.layers) == self.top_layer)[np.argsort(self.pts)]

    def _shown_s(self, clock: Clock, times: np.ndarray) -> np.ndarray:
        """When frames are shown; there may be several in a packet, which only decoding tells."""
        pts = self.pts if None in self.pts else times.tolist()
        missing = [None] * (self.num_shown - len(pts))
        return clock.seconds([*pts, *missing], [*self.dts, *missing])

    def _starts(self, times: np.ndarray) -> tuple[Start, ...]:
        numbers = np.searchsorted(times, [pts for pts, _ in self.keys]).tolist()
        # FFmpeg jumps by decoding times that it moves by the first one's delay.
        seeks = [pts if dts is None else max(pts, dts + self.delay) for pts, dts in self.keys]
        return tuple(
            Start(number, pts, seek)
            for number, (pts, _), seek in zip(numbers, self.keys, seeks, strict=True)
        )

    def _untimed(self, container, stream, times: np.ndarray) -> str:
        reasons = {
            f"is in {container.format.name}": not _TIMED & {*container.format.name.split(",")},
            f"is coded in {stream.codec_context.name}": not self.codec_known,
            "begins to be right only some way behind a key frame": self.inexact,
            "has packets of several frames": self.many,
            "has damaged packets": bool(self.num_bad),
            "is interlaced": self._is_interlaced(stream),
            "has frames without a time of their own": None in self.pts
            or bool((np.diff(times) <= 0).any())
            or any(pts is None for pts, _ in self.keys),
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    def _special(self, shape: Shape, times: np.ndarray) -> str:
        reasons = {
            "has packets that show nothing, as behind an edit list": self.hidden,
            "has times before its start": bool(len(times)) and times[0] < 0,
            "has key frames that lean on others": self.gradual,
            "has frames that may change their size": self.changes,
            "has pixels that are not square": not shape.square_pixels,
            "is mirrored": shape.is_mirrored,
            "has gaps in its times": _has_gaps(times),
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    def _is_interlaced(self, stream) -> bool:
        order = getattr(stream.codec_context, "field_order", 0)
        return self.first.interlaced_frame or int(order) not in _PROGRESSIVE


def _has_gaps(times: np.ndarray) -> bool:
    """Whether frames may be lost that others refer to."""
    steps = np.diff(times)
    return len(steps) > 0 and bool(steps.max() > 1.5 * np.median(steps))
