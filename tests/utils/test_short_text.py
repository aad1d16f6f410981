"""What users gave, shortened for messages."""

import pytest

from lvt_ff.utils.short_text import counted, listed, shortened


@pytest.mark.parametrize("length", [1, 2, 3, 10, 11, 25, 26, 27])
def test_shortened_texts_keep_their_ends(length):
    text = "abcdefghijklmnopqrstuvwxyz"
    short = shortened(text, length)
    assert len(short) == min(length, 26)
    start, _, end = short.partition("…")
    assert text.startswith(start) and text.endswith(end)


def test_lists_name_the_first_and_count_the_rest():
    assert listed([]) == "" and listed(["a", "b"], 2) == "a, b"
    assert listed(["a" * 9, "b", "c", "d"], 2, length=3) == "a…a, b and 2 more"


def test_one_is_singular():
    assert [counted(number, "video") for number in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]
    assert counted(2, "class", "classes") == "2 classes"
