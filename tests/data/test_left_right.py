"""Which classes a flip turns into which."""

import pytest

from lvt_ff.data.left_right import left_right_pairs, unpaired

SSV2 = [
    "Putting something upright on the table",
    "Pulling something from left to right",
    "Turning the camera right while filming something",
    "Pulling something from right to left",
    "Turning the camera left while filming something",
    "Poking something so lightly that it doesn't or almost doesn't move",
]


def test_left_right_pairs_of_official_names_are_their_own_inverse():
    pairs = left_right_pairs(SSV2)
    assert pairs == {1: 3, 3: 1, 2: 4, 4: 2}
    assert all(pairs[pairs[index]] == index for index in pairs)
    assert unpaired(SSV2) == []


@pytest.mark.parametrize(
    "one, other",
    [
        ("left", "right"),
        ("Left", "Right"),
        ("LEFT TURN", "RIGHT TURN"),
        ("move_left", "move_right"),
        ("left2", "right2"),
        ("SwipeLeft", "SwipeRight"),
        ("going leftwards", "going rightwards"),
        ("left-handed serve", "right-handed serve"),
        ("Left to right", "Right to left"),
    ],
)
def test_left_right_pairs_ways_to_write_a_side(one, other):
    assert left_right_pairs([one, "jump", other]) == {0: 2, 2: 0}


@pytest.mark.parametrize("name", ["upright", "leftover food", "brightness", "copyright", "cleft"])
def test_words_that_hold_a_side_by_chance_name_none(name):
    other = name.replace("left", "?").replace("right", "left").replace("?", "right")
    assert left_right_pairs([name, other]) == {}
    assert unpaired([name]) == []


def test_unpaired_names_a_side_whose_mirror_image_is_no_class():
    names = ["turn left", "turn right", "look left", "left and right"]
    assert unpaired(names) == ["look left", "left and right"]
    assert left_right_pairs(names) == {0: 1, 1: 0}
