"""Texts in arrays are the texts that went in."""

import pickle

import numpy as np
import pytest

from lvt_ff.data.texts import Texts

TEXTS = ["a/1.mp4", "", "ö/日本.mp4", "not UTF-8: \udcff.mp4"]


def test_texts_come_back_in_order():
    texts = Texts(TEXTS)
    assert list(texts) == TEXTS and len(texts) == 4 and texts == TEXTS
    assert texts[-1] == TEXTS[-1] and texts[np.int64(2)] == TEXTS[2]


def test_texts_survive_pickling_and_taking():
    texts = pickle.loads(pickle.dumps(Texts(TEXTS)))
    assert list(texts.take(np.array([2, 0]))) == [TEXTS[2], TEXTS[0]]


def test_texts_refuse_a_number_beyond_them():
    with pytest.raises(IndexError, match="There are 4 texts"):
        Texts(TEXTS)[4]
    assert list(Texts([])) == []


def test_texts_take_about_the_memory_of_their_characters():
    texts = Texts(f"folder/{n:08d}.mp4" for n in range(1000))
    assert len(pickle.dumps(texts)) < 1000 * (len("folder/00000000.mp4") + 10)
