"""Folders of numbered pictures and animated WebP: which, in what order, in which colours."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import random_frames
from PIL import Image, features

from lvt_ff.utils.errors import FrameSizeError
from lvt_ff.video.clip_buffer import ClipBuffer
from lvt_ff.video.pictures import decode_pictures, is_pictures, rgb_picture

FRAMES = random_frames(12, 32, 48)


def read(path, choose=range, **options):
    clip = ClipBuffer(choose, **options)
    decode_pictures(str(path), clip)
    return clip.frames


def save(folder, names, frames=FRAMES, **options):
    folder.mkdir(exist_ok=True)
    for name, frame in zip(names, frames, strict=False):
        Image.fromarray(frame).save(folder / name, **options)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        [f"{number}.png" for number in range(12)],
        [f"frame{number}.PNG" for number in range(95, 107)],
        [f"img_{number:05d}.bmp" for number in range(0, 120, 10)],
        [f"cam{number // 6}-{number % 6 * 5}.tiff" for number in range(12)],
        [f"{name}{number}.ppm" for number, name in enumerate("qwertyuiopas")],
    ],
    ids=["numbers", "natural", "gaps", "two numbers", "other names"],
)
def test_pictures_are_read_in_the_order_of_their_numbers(tmp_path, names):
    save(tmp_path, names)
    assert is_pictures(str(tmp_path))
    np.testing.assert_array_equal(read(tmp_path), FRAMES)
    chosen = [7, 0, 7, 11]
    np.testing.assert_array_equal(read(tmp_path, lambda total: chosen), FRAMES[chosen])


def test_what_is_no_numbered_picture_is_passed_over(tmp_path):
    save(tmp_path, ["2.png", "10.png"])
    save(tmp_path, [".1.png", "cover.png", "1.gif"], frames=FRAMES[4:])
    (tmp_path / "3.png").mkdir()
    (tmp_path / "4.txt").write_text("5")
    np.testing.assert_array_equal(read(tmp_path), FRAMES[:2])


def test_folders_and_files_that_are_no_pictures(tmp_path):
    save(tmp_path / "one", ["1.png"])
    save(tmp_path / "unnumbered", ["a.png", "b.png"])
    save(tmp_path / "hidden", [".1.png", ".2.png"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "short.webp").write_bytes(b"RIFF")
    (tmp_path / "sound.wav").write_bytes(b"RIFF\0\0\0\0WAVEfmt ")
    for path in (tmp_path / "missing", *tmp_path.iterdir()):
        assert not is_pictures(str(path)), path


def test_pictures_of_other_sizes_are_made_the_firsts(tmp_path):
    save(tmp_path, ["1.png", "2.png"], frames=[FRAMES[0], np.repeat(FRAMES[1], 2, 0)])
    found = read(tmp_path)
    assert found.shape == (2, 32, 48, 3)
    scaled = Image.fromarray(np.repeat(FRAMES[1], 2, 0)).resize((48, 32), Image.BILINEAR)
    np.testing.assert_array_equal(found[1], np.asarray(scaled))
    # Also where the first itself is not asked for.
    np.testing.assert_array_equal(read(tmp_path, lambda total: [1]), found[1:])


def test_pictures_are_upright(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    save(tmp_path, ["1.png", "2.png"], exif=turned)
    expected = np.rot90(FRAMES[:2], -1, axes=(1, 2))
    np.testing.assert_array_equal(read(tmp_path), expected)
    np.testing.assert_array_equal(read(tmp_path, lambda total: [1]), expected[1:])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_metadata_does_not_hide_a_picture(tmp_path):
    save(tmp_path, ["1.png", "2.png"], exif=b"Exif\0\0MM\0*\xff\xff\xff\xffnonsense")
    np.testing.assert_array_equal(read(tmp_path), FRAMES[:2])


def grey(image):
    return np.asarray(image.convert("L"))


MODES = {
    "1": lambda image: image.convert("1"),
    "L": lambda image: image.convert("L"),
    "P": lambda image: image.quantize(32),
    "RGBA": lambda image: image.convert("RGBA"),
    "RGBa": lambda image: image.convert("RGBA").convert("RGBa"),
    "LA": lambda image: image.convert("LA"),
    "La": lambda image: image.convert("LA").convert("La"),
    "PA": lambda image: image.convert("L").convert("PA"),
    "CMYK": lambda image: image.convert("CMYK"),
    "YCbCr": lambda image: image.convert("YCbCr"),
    "HSV": lambda image: image.convert("HSV"),
    "LAB": lambda image: Image.merge(
        "LAB", [image.convert("L"), *[Image.new("L", image.size, 128)] * 2]
    ),
    "I": lambda image: image.convert("I"),
    "F": lambda image: image.convert("F"),
    "I;16": lambda image: Image.fromarray(grey(image).astype(np.uint16) * 257),
    "I;16B": lambda image: Image.frombytes(
        "I;16B", image.size, (grey(image).astype(">u2") * 257).tobytes()
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb(mode):
    image = MODES[mode](Image.fromarray(FRAMES[0]))
    found = rgb_picture(image)
    assert image.mode == mode and found.mode == "RGB"
    coloured = mode in ("P", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV")
    expected = FRAMES[0] if coloured else grey(Image.fromarray(FRAMES[0]))[..., None]
    error = np.abs(np.asarray(found).astype(float) - expected).mean()
    # The first two have few colours, and lightness in LAB is not linear in grey values.
    assert error < {"1": 128, "P": 24, "LAB": 40, "HSV": 4}.get(mode, 2)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 256, 257, 32768, 65535]], np.uint16)
    for name in ("1.png", "2.tiff"):
        Image.fromarray(values).save(tmp_path / name)
    (tmp_path / "3.ppm").write_bytes(b"P5 5 1 65535\n" + values.astype(">u2").tobytes())
    for frame in read(tmp_path):
        assert frame[0, :, 0].tolist() == [0, 1, 1, 128, 255]
    assert (read(tmp_path) == read(tmp_path)[..., :1]).all()
    whole = Image.fromarray(np.array([[0, 700, 65535]], np.int32))
    assert np.asarray(rgb_picture(whole))[0, :, 0].tolist() == [0, 3, 255]
    small = Image.fromarray(np.array([[0, 70, 255]], np.int32))
    assert np.asarray(rgb_picture(small))[0, :, 0].tolist() == [0, 70, 255]


def test_transparency_lies_on_white(tmp_path):
    alpha = np.linspace(0, 255, 48).astype(np.uint8)[None, :, None].repeat(32, 0)
    save(tmp_path, ["1.png", "2.png"], frames=[np.concatenate([FRAMES[0], alpha], -1)] * 2)
    share = alpha / 255.0
    expected = FRAMES[0] * share + 255 * (1 - share)
    np.testing.assert_allclose(read(tmp_path)[0], expected, atol=1)
    palette = Image.fromarray(FRAMES[0]).quantize(8)
    palette.info["transparency"] = bytes(8)
    assert np.asarray(rgb_picture(palette)).min() == 255


def test_damaged_pictures_are_named(tmp_path):
    save(tmp_path, [f"{number}.jpg" for number in range(5)])
    damaged = tmp_path / "3.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-60])
    assert len(read(tmp_path, lambda total: [0, 4])) == 2
    with pytest.raises(ValueError, match="the picture '3.jpg' is damaged: .*truncated"):
        read(tmp_path)
    damaged.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="'3.jpg' is damaged: cannot identify image file$"):
        read(tmp_path)


def test_sizes_are_checked_before_pixels_are_decoded(tmp_path, monkeypatch):
    save(tmp_path, ["1.png", "2.png"], frames=[FRAMES[0], np.repeat(FRAMES[1], 4, 0)])
    monkeypatch.setattr(Image.Image, "resize", lambda *args: pytest.fail("decoded"))
    limit = FRAMES[0][..., 0].size
    assert len(read(tmp_path, lambda total: [0], max_pixels=limit)) == 1
    with pytest.raises(FrameSizeError, match="more than 1,536 pixels"):
        read(tmp_path, max_pixels=limit)


@pytest.mark.filterwarnings("error")
def test_limits_of_pil_are_ours(tmp_path, monkeypatch):
    save(tmp_path, ["1.png", "2.png"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # above it PIL warns
    np.testing.assert_array_equal(read(tmp_path), FRAMES[:2])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # above twice that PIL raises
    with pytest.raises(FrameSizeError, match="more than 1,000 pixels"):
        read(tmp_path)


@pytest.fixture
def animation(tmp_path):
    if not features.check("webp"):
        pytest.skip("PIL without WebP")
    images = [Image.fromarray(frame) for frame in FRAMES]
    images[0].save(
        tmp_path / "a.webp", save_all=True, append_images=images[1:], lossless=True, duration=40
    )
    return (tmp_path / "a.webp").rename(tmp_path / "a.bin")


def test_animated_webp_is_known_by_its_first_bytes(animation):
    assert is_pictures(str(animation))
    np.testing.assert_array_equal(read(animation), FRAMES)
    chosen = [9, 2, 9]
    np.testing.assert_array_equal(read(animation, lambda total: chosen), FRAMES[chosen])
    calls = []
    read(animation, lambda total: [10], progress=lambda: calls.append(1))
    assert len(calls) >= 11
    with pytest.raises(FrameSizeError):
        read(animation, max_pixels=1000)
    animation.write_bytes(animation.read_bytes()[:-700])
    with pytest.raises(ValueError, match="the picture 'a.bin' is damaged"):
        read(animation)


def test_a_still_webp_is_one_frame(tmp_path):
    Image.fromarray(FRAMES[0]).save(tmp_path / "a.webp", lossless=True)
    assert is_pictures(str(tmp_path / "a.webp"))
    np.testing.assert_array_equal(read(tmp_path / "a.webp"), FRAMES[:1])


def test_reading_pictures_imports_no_torch():
    code = "import sys, lvt_ff.video.pictures, lvt_ff.video.sources\n"
    code += "print([name for name in ('torch', 'transformers', 'timm') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stderr
