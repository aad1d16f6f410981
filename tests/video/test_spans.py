"""Parts of files from a start to an end in seconds, whoever reads them."""

import warnings
from fractions import Fraction

import av
import numpy as np
import pytest
from films import FILMS, NUM_FRAMES, Studio, number_of, numbers_of

from lvt_ff.data import VideoReadError, read_clip
from lvt_ff.video.decoders import DECODERS
from lvt_ff.video.frame_times import Clock
from lvt_ff.video.reader import read_frames

pytestmark = pytest.mark.usefixtures("inline")  # processes have a test of their own

FPS = 25


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    return Studio(tmp_path_factory.mktemp("films"))


def shown(path) -> list[Fraction]:
    """When FFmpeg's decoder shows each frame, counted from the first, by its own times alone."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        times = [frame.pts * stream.time_base for frame in container.decode(stream)]
    return [time - times[0] for time in times]


def read(path, span, backend="auto"):
    """Numbers that all frames of a span spell, and what `choose` was told of them."""
    totals = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames = read_clip(path, lambda n: totals.append(n) or range(n), backend, span=span)
    return numbers_of(FILMS[path.name], frames), totals[-1]


SPANS = [
    (0.2, 1.0),
    (0.0, 0.04),
    (1.2, None),
    (None, 0.52),
    (0.41, 0.53),
    (2.3, 99.0),
    (None, None),
]
# By time, in order, by packets that are hidden, with a delayed or an odd clock.
BY_TIMES = [
    *("h264.mp4", "h264_no_edits.mp4", "vp9.webm", "h264_open.mkv", "variable_rate.mp4"),
    *("variable_rate.mkv", "variable_rate.ts", "late.mkv", "delayed.mp4", "h264.ts", "mpeg2.mpg"),
    *("trimmed.mp4", "both_ends.mp4", "two_edits.mp4", "hidden_vp8.webm", "hidden_vp9.mkv"),
    *("mpeg4.avi", "mpeg4_b.avi", "variable_rate.avi", "fields_mpeg2.mkv"),
]


@pytest.mark.parametrize("name", BY_TIMES)
def test_frames_of_a_span_are_those_shown_from_its_start_to_before_its_end(studio, name):
    path = studio(name)
    times, numbers = shown(path), FILMS[name].numbers
    assert len(times) == len(numbers)
    for start, end in SPANS:
        first, last = Fraction(str(start or 0)), Fraction(str(1000 if end is None else end))
        wanted = [n for n, time in zip(numbers, times, strict=True) if first <= time < last]
        if wanted:
            assert read(path, (start, end)) == (wanted, len(wanted)), (start, end)


@pytest.mark.parametrize("name", ["mpeg4_packed.avi", "h264.avi", "h264.h264", "mpeg2.ts"])
def test_frames_without_good_times_have_one_length(studio, name):
    for start, end in ((0.0, 0.4), (0.8, 1.2), (2.0, None)):
        last = NUM_FRAMES if end is None else round(end * FPS)
        wanted = list(range(round(start * FPS), last))
        assert read(studio(name), (start, end)) == (wanted, len(wanted))


@pytest.mark.parametrize("backend", DECODERS)
def test_every_backend_counts_within_the_span(studio, backend):
    if backend == "pillow":
        return
    for name in ("h264.mp4", "h264.mkv"):
        try:
            frames = read_clip(studio(name), [0, 9, 3, 9], backend, span=(0.8, 1.2))
        except VideoReadError as error:
            if "not installed" not in str(error):
                raise
            pytest.skip(f"{backend} cannot be loaded")
        assert [number_of(frame) for frame in frames] == [20, 29, 23, 29]
        with pytest.raises(VideoReadError, match=r"frames \[10\] were asked for, and there are 10"):
            read_clip(studio(name), [10], backend, span=(0.8, 1.2))


def test_parts_side_by_side_make_the_whole(studio):
    for name in ("variable_rate.mkv", "mpeg4_b.avi"):
        borders = [None, 0.1, 0.56, 1.0 / 3 + 1, 2.0, None]
        parts = [read(studio(name), span)[0] for span in zip(borders, borders[1:], strict=False)]
        assert sum(parts, []) == list(FILMS[name].numbers)


def test_a_clip_says_when_its_frames_are_shown(studio):
    for name in ("h264.mp4", "mpeg4.avi", "h264.ts"):
        for span, first in ((None, 0), ((0.8, 1.6), 20)):
            clip = read_frames(studio(name), [7, 2, 11], span=span)
            assert clip.seconds == pytest.approx(((first + 2) / FPS, (first + 11) / FPS))
            assert clip.total == (20 if span else NUM_FRAMES)


def test_nan_is_no_border(studio):
    nan = float("nan")
    for span in ((nan, 0.2), (None, 0.2)):
        assert read(studio("h264.mp4"), span) == ([0, 1, 2, 3, 4], 5)
    assert read(studio("h264.mp4"), (nan, nan))[1] == NUM_FRAMES


def test_sound_that_begins_before_the_picture_counts(studio):
    """As a player's clock does."""
    path = studio("sound_h264.ts")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        late = float(stream.start_time * stream.time_base - Fraction(container.start_time, 10**6))
    assert late > 0.05
    first = int(np.ceil((0.4 - late) * FPS))
    assert read(path, (0.4, 0.8)) == (list(range(first, first + 10)), 10)


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.avi", "h264.ts", "h264.h264"])
@pytest.mark.parametrize("span", [(2.4, 3.0), (99, None), (0.3, 0.3), (1.0, 0.5), (0.41, 0.42)])
def test_a_span_without_frames_is_an_error_that_says_how_long_the_file_is(studio, name, span):
    with pytest.raises(VideoReadError, match=rf"{name}.*no frame is shown from .*is 2\.40 s long"):
        read_clip(studio(name), lambda total: range(total), span=span)


def test_pictures_have_no_span(tmp_path):
    from PIL import Image

    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    assert len(read_clip(tmp_path, [0, 2])) == 2
    with pytest.raises(VideoReadError, match="pictures have no times.*leave both out"):
        read_clip(tmp_path, [0], span=(0.0, 1.0))


def test_decoder_processes_read_spans_too(studio, monkeypatch):
    expected = [read_frames(studio(name), [3, 5], span=(1, 2)) for name in ("h264.mp4", "h264.ts")]
    monkeypatch.delenv("LVT_FF_DECODE")
    for name, there in zip(("h264.mp4", "h264.ts"), expected, strict=True):
        here = read_frames(studio(name), [3, 5], span=(1, 2))
        np.testing.assert_array_equal(here.frames, there.frames)
        assert (
            (here.total, here.seconds) == (there.total, there.seconds) == (25, (28 / 25, 30 / 25))
        )
        with pytest.raises(VideoReadError, match=f"{name}.*no frame is shown from 3 s to 4 s"):
            read_clip(studio(name), [0], span=(3, 4))


def test_times_are_rounded_once():
    clock = Clock(Fraction(1, 12800), None, Fraction(1, 25))
    ticks = [512 * number for number in range(1000)]
    assert clock.seconds(ticks, ticks).tolist() == [number / 25 for number in range(1000)]


def test_times_of_decoding_count_where_those_of_presentation_do_not_ascend():
    clock = Clock(Fraction(1, 10), 3, Fraction(1, 25))
    assert clock.seconds([4, 3, 8], [2, 3, 7]).tolist() == [0, 0.1, 0.5]
    assert clock.seconds([None] * 4, [2, 5, None, None]).tolist() == pytest.approx(
        [0, 0.3, 0.6, 0.9]
    )
    assert clock.seconds([4, 5, 8], [None] * 3).tolist() == pytest.approx([0.1, 0.2, 0.5])
    assert clock.seconds([4, 3], [None, 5]).tolist() == [0, 1 / 25]
