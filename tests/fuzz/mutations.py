"""What may happen to a video file: each function makes other bytes of some, by random numbers."""

import random
from collections.abc import Callable, Sequence

from containers import Field, fields, frame_sizes

__all__ = ["MUTATIONS", "mutate"]


# --- Bytes -----------------------------------------------------------------------------------


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    """Some bits, anywhere or in the first part."""
    changed = bytearray(content)
    end = len(changed) if rng.random() < 0.6 else min(len(changed), 2000)
    for _ in range(rng.choice((1, 2, 5, 20, rng.randint(1, 200)))):
        changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(content: bytes, rng: random.Random) -> bytes:
    """A run of bytes becomes zeros, ones or noise."""
    start, end = _part(content, rng)
    filling = rng.choice((bytes(1), b"\xff", None))
    run = rng.randbytes(end - start) if filling is None else filling * (end - start)
    return content[:start] + run + content[end:]


def truncate(content: bytes, rng: random.Random) -> bytes:
    """The end is lost, all but a header, or the beginning."""
    place = rng.randrange(len(content))
    way = rng.random()
    if way < 0.3:
        return content[: min(place, rng.randint(0, 2000))]
    return content[:place] if way < 0.85 else content[place:]


def remove(content: bytes, rng: random.Random) -> bytes:
    """A part is lost."""
    start, end = _part(content, rng)
    return content[:start] + content[end:]


def repeat(content: bytes, rng: random.Random) -> bytes:
    """A part comes several times."""
    start, end = _part(content, rng)
    return content[:end] + content[start:end] * rng.choice((1, 1, 2, 20)) + content[end:]


def move(content: bytes, rng: random.Random) -> bytes:
    """A part comes elsewhere."""
    start, end = _part(content, rng)
    rest = content[:start] + content[end:]
    place = rng.randint(0, len(rest))
    return rest[:place] + content[start:end] + rest[place:]


def _part(content: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(content) if rng.random() < 0.6 else min(len(content), 2000))
    longest = rng.choice((4, 64, 1000, 20_000))
    return start, min(start + rng.randint(1, longest), len(content))


def splice(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """A part of another file, in the place of a part or before it."""
    other = rng.choice(others)
    start, end = _part(content, rng)
    first, last = _part(other, rng)
    return content[:start] + other[first:last] + content[rng.choice((start, end)) :]


# --- Numbers of containers -------------------------------------------------------------------


def extreme(rng: random.Random, bits: int, old: int) -> int:
    """A value of so many bits that a reader may not expect."""
    top = (1 << bits) - 1
    value = rng.choice(
        (
            *(0, 1, 2, 7, top, top - 1, top >> 1, (top >> 1) + 1),
            *(2**31 - 1, 2**31, 2**24, 65535, 65536),
            *(old + 1, old - 1, 2 * old, old >> 1, old << 8, -old),
            *(rng.getrandbits(bits), rng.getrandbits(rng.randint(1, bits))),
        )
    )
    return value & top


def _write(changed: bytearray, field: Field, value: int) -> None:
    content = value.to_bytes(field.length, field.order)
    changed[field.place : field.place + field.length] = content


def _read(content: bytes, field: Field) -> int:
    return int.from_bytes(content[field.place : field.place + field.length], field.order)


def _edit(kind: str, most: int) -> Callable[[bytes, random.Random], bytes]:
    """A mutation of fields of one kind, of as many groups as of fields."""

    def edit(content: bytes, rng: random.Random) -> bytes:
        found = [field for field in fields(content) if field.kind == kind]
        if not found:
            return flip_bits(content, rng)
        changed, groups = bytearray(content), sorted({field.group for field in found})
        for _ in range(rng.randint(1, most)):
            group = rng.choice(groups)
            field = rng.choice([field for field in found if field.group == group])
            _write(changed, field, _new_value(rng, content, field, found))
        return bytes(changed)

    edit.__name__ = f"change_{kind}s"
    return edit


def _new_value(rng: random.Random, content: bytes, field: Field, found: list[Field]) -> int:
    if field.kind == "type" and rng.random() < 0.7:  # that of another part
        like = [other for other in found if other.length == field.length]
        return _read(content, rng.choice(like))
    if field.marker:
        old = _read(content, field) & ~field.marker
        return extreme(rng, 7 * field.length, old) | field.marker
    return extreme(rng, 8 * field.length, _read(content, field))


def swap_numbers(content: bytes, rng: random.Random) -> bytes:
    """Two numbers of a container change places."""
    found = [field for field in fields(content) if field.kind == "number"]
    if not found:
        return move(content, rng)
    group = rng.choice(sorted({field.group for field in found}))
    first = rng.choice([field for field in found if field.group == group])
    second = rng.choice([field for field in found if field.length == first.length])
    changed = bytearray(content)
    _write(changed, first, _read(content, second))
    _write(changed, second, _read(content, first))
    return bytes(changed)


def fill_table(content: bytes, rng: random.Random) -> bytes:
    """Every number of one part is another, or all are the same."""
    found = [field for field in fields(content) if field.kind == "number"]
    if not found:
        return overwrite(content, rng)
    group = rng.choice(sorted({field.group for field in found}))
    changed = bytearray(content)
    same = rng.getrandbits(64) if rng.random() < 0.5 else None
    share = rng.choice((0.1, 0.5, 1))
    for field in found:
        if field.group == group and rng.random() < share:
            bits = 8 * field.length
            value = same if same is not None else extreme(rng, bits, _read(content, field))
            _write(changed, field, value & (1 << bits) - 1)
    return bytes(changed)


_TABLES = (b"stts", b"ctts", b"stsc", b"stsz", b"stco", b"elst", b"trun", b"stss", b"sbgp")


def claim_counts(content: bytes, rng: random.Random) -> bytes:
    """An MP4's tables say that they go on for ever; sizes of samples become one for all."""
    changed = bytearray(content)
    places = [(name, content.find(name)) for name in _TABLES if name in content]
    if not places:
        return fill_table(content, rng)
    for name, place in places:
        if rng.random() < 0.5:
            many = rng.choice((2**31 - 1, 2**32 - 1, 2**28, 10**6, 2**24, 65536))
            size = rng.choice((1, 1, 7, 1000, 2**20)) if name == b"stsz" else many
            changed[place + 8 : place + 12] = size.to_bytes(4, "big")
            if name in (b"stsz", b"stts", b"ctts"):
                changed[place + 12 : place + 16] = many.to_bytes(4, "big")
    return bytes(changed[: len(content)])


# --- Sizes of frames -------------------------------------------------------------------------

_SIZES = (0, 1, 2, 15, 16, 4096, 4320, 7680, 8191, 8192, 16383, 16384, 32767, 65535, 2**31 - 1)


def claim_sizes(content: bytes, rng: random.Random) -> bytes:
    """Frames say that they are huge, or nothing, wherever their size stands or at one place."""
    found = frame_sizes(content)
    if not found:
        return _edit("number", 8)(content, rng)
    changed = bytearray(content)
    width, height = rng.choice(_SIZES), rng.choice(_SIZES)
    share = rng.choice((0, 0.3, 1))
    chosen = rng.randrange(len(found))
    for index, (place, bits, order) in enumerate(found):
        if index == chosen or rng.random() < share:
            _write_bits(changed, place, bits, order, height if index % 2 else width)
    return bytes(changed)


def _write_bits(changed: bytearray, place: int, bits: int, order: str, value: int) -> None:
    value = min(value, (1 << bits) - 1)
    if order == "little":
        value = int.from_bytes(value.to_bytes(bits // 8, "little"), "big")
    start, end = place // 8, -(-(place + bits) // 8)
    after = 8 * end - place - bits
    mask = (1 << bits) - 1 << after
    old = int.from_bytes(changed[start:end], "big")
    changed[start:end] = (old & ~mask | value << after).to_bytes(end - start, "big")


# Names and how often.
MUTATIONS = {
    flip_bits: 4,
    overwrite: 3,
    truncate: 2,
    remove: 2,
    repeat: 2,
    move: 1,
    splice: 2,
    _edit("size", 4): 3,
    _edit("type", 3): 2,
    _edit("number", 8): 6,
    swap_numbers: 2,
    fill_table: 3,
    claim_counts: 3,
    claim_sizes: 4,
}


def mutate(content: bytes, rng: random.Random, others: Sequence[bytes]) -> tuple[bytes, str]:
    """One to three mutations of a file, and their names.

    Args:
        content: of the file; others: of files from which parts may come.
        rng: decides all.
    """
    names = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        change = rng.choices(tuple(MUTATIONS), tuple(MUTATIONS.values()))[0]
        more = (others,) if change is splice else ()
        content = change(content, rng, *more) or b"\0"
        names.append(change.__name__)
    return content, ", ".join(names)
