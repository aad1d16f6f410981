"""What the video processor takes: grey and transparent frames, filters, means, names of options."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import clips_of, random_frames
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, AutoVideoProcessor

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.cli import main
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.data.transforms import EvalTransform, normalize_clip
from lvt_ff.inference.classifier import Classifier
from lvt_ff.inference.export import description

GREY = np.random.default_rng(0).integers(0, 255, (6, 48, 56), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 255, (6, 48, 56, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "video",
    [
        GREY,
        torch.from_numpy(GREY),
        GREY[..., None],
        GREY[:, None],
        list(GREY),
        list(torch.from_numpy(GREY)),
        [frame[..., None] for frame in GREY],
        [Image.fromarray(frame) for frame in GREY],
        [Image.fromarray(frame).convert("P") for frame in GREY],
        [Image.fromarray(GREY[0]), *(Image.fromarray(frame).convert("RGB") for frame in GREY[1:])],
        [GREY],
    ],
    ids=[
        *("array", "tensor", "channel last", "channel first", "arrays", "tensors"),
        *("arrays with channel", "PIL L", "PIL P", "PIL L and RGB", "batch"),
    ],
)
def test_grey_frames_are_rgb_of_one_value(processor, video):
    expected = clips_of(processor, np.repeat(GREY[..., None], 3, -1))
    torch.testing.assert_close(clips_of(processor, video), expected)


def test_several_videos_may_have_different_layouts(processor):
    expected = torch.cat([clips_of(processor, RGB), clips_of(processor, GREY)])
    for videos in (
        [RGB, GREY[..., None]],
        [RGB.transpose(0, 3, 1, 2), GREY[..., None]],
        [[Image.fromarray(frame) for frame in RGB], [Image.fromarray(frame) for frame in GREY]],
        [torch.from_numpy(RGB), torch.from_numpy(GREY[..., None])],
    ):
        torch.testing.assert_close(clips_of(processor, videos), expected)


def test_transparent_frames_lie_on_white(processor):
    alpha = np.full((6, 48, 56, 1), 255, np.uint8)
    opaque = np.concatenate([RGB, alpha], axis=-1)
    expected = clips_of(processor, RGB)
    for video in (opaque, [Image.fromarray(frame) for frame in opaque]):
        torch.testing.assert_close(clips_of(processor, video), expected, atol=0.01, rtol=0)
    clear = np.concatenate([RGB, 0 * alpha], axis=-1)
    assert clips_of(processor, clear).min() > 0.99


def test_one_frame_is_a_video(processor):
    expected = clips_of(processor, RGB[:1].repeat(4, 0))
    for video in (RGB[0], Image.fromarray(RGB[0]), RGB[:1]):
        torch.testing.assert_close(clips_of(processor, video), expected)
    three = RGB[0].transpose(2, 0, 1)
    with pytest.raises(ValueError, match="one RGB frame or three grey ones"):
        processor(three, return_tensors="pt")
    found = clips_of(processor, three, input_data_format="channels_first")
    torch.testing.assert_close(found, expected)


def test_frames_of_different_shapes_are_refused(processor):
    for frames in ([Image.fromarray(RGB[0]), Image.fromarray(RGB[1, :20])], [GREY[0], GREY[1, :9]]):
        with pytest.raises(ValueError, match="must have one shape"):
            processor(frames, return_tensors="pt")


def test_files_may_be_paths(processor, tmp_path):
    write_video(tmp_path / "a.mp4", random_frames(8, 48, 56))
    expected = clips_of(processor, str(tmp_path / "a.mp4"))
    assert isinstance(tmp_path, Path)
    torch.testing.assert_close(clips_of(processor, tmp_path / "a.mp4"), expected)
    both = clips_of(processor, [tmp_path / "a.mp4", str(tmp_path / "a.mp4")])
    torch.testing.assert_close(both, torch.cat([expected] * 2))


@pytest.mark.parametrize("name", ["NEAREST", "BILINEAR", "BICUBIC"])
def test_filters_are_pils(processor, name, tmp_path):
    member = Image.Resampling[name]
    images = [Image.fromarray(frame).resize((32, 32), member) for frame in RGB[:4, :48, :48]]
    expected = clips_of(processor, images)
    for number in (member, int(member)):
        found = clips_of(processor, RGB[:4, :48, :48], resample=number)
        assert (found - expected).abs().max() <= 2 * 2 / 255 + 1e-6
        made = LVTFFVideoProcessor(num_frames=4, resample=number)
        made.save_pretrained(tmp_path)
        loaded = LVTFFVideoProcessor.from_pretrained(tmp_path)
        assert type(loaded.resample) is int and loaded.resample == made.resample == int(member)
        assert type(made.resample) is int
    config = LVTFFConfig.from_variant("test_lvt_ff")
    config.pretrained_cfg = dict(interpolation=name.lower())
    of_config = LVTFFVideoProcessor.from_config(config)
    assert of_config.resample == member
    assert of_config.eval_transform().interpolation == name.lower()


@pytest.mark.parametrize("name", ["LANCZOS", "BOX", "HAMMING"])
def test_filters_that_are_not_offered_are_named(processor, name):
    number = getattr(Image, name)
    offered = r"resample must be one of PIL's filters 0 .nearest., 2 .bilinear., 3 .bicubic., got"
    with pytest.raises(ValueError, match=offered):
        processor(RGB, resample=number, return_tensors="pt")
    with pytest.raises(ValueError, match=offered):
        LVTFFVideoProcessor(num_frames=4, resample=number)
    processor.resample = number
    config = LVTFFConfig.from_variant("test_lvt_ff")
    for use in (lambda: processor(RGB), processor.eval_transform):
        with pytest.raises(ValueError, match="resample must be"):
            use()
    config.pretrained_cfg = dict(interpolation=name.lower())
    with pytest.raises(ValueError, match=f"interpolation must be .*got '{name.lower()}'"):
        LVTFFVideoProcessor.from_config(config)


def test_folders_with_another_filter_are_one_line(tmp_path, capsys):
    config = LVTFFConfig.from_variant("test_lvt_ff")
    LVTFFForVideoClassification(config).save_pretrained(tmp_path / "model")
    LVTFFVideoProcessor.from_config(config).save_pretrained(tmp_path / "model")
    file = tmp_path / "model/video_preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(resample=1)))
    capsys.readouterr()
    model = ["--model", str(tmp_path / "model")]
    for command in (
        ["predict", "a.mp4", *model],
        ["evaluate", "--data", "a.csv", *model, "--output_dir", str(tmp_path)],
        ["export", "--output", str(tmp_path / "a.pt2"), "--format", "torch", *model],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "resample must be one of" in error and error.count("\n") == 1


def test_means_may_be_one_number(processor, tmp_path):
    expected = clips_of(processor, RGB, image_mean=[0.4] * 3, image_std=[0.2] * 3)
    torch.testing.assert_close(clips_of(processor, RGB, image_mean=0.4, image_std=0.2), expected)
    size = dict(height=32, width=32)
    LVTFFVideoProcessor(
        num_frames=4, image_mean=0.4, image_std=0.2, size=size, crop_size=size
    ).save_pretrained(tmp_path)
    loaded = LVTFFVideoProcessor.from_pretrained(tmp_path)
    torch.testing.assert_close(clips_of(loaded, RGB), expected)
    numbers = [0, 2, 3, 5]
    by_transform = loaded.eval_transform()(RGB[numbers])
    by_processor = clips_of(loaded, RGB[numbers])[0]
    torch.testing.assert_close(by_transform, by_processor)
    config = LVTFFConfig.from_variant("test_lvt_ff")
    preprocessing = description(config, loaded)["preprocessing"]
    assert preprocessing["mean"] == [0.4] * 3 and preprocessing["std"] == [0.2] * 3


def test_means_of_another_number_of_channels_are_refused(processor):
    for mean, std in (([0.5, 0.5], 0.5), (0.5, [0.5] * 4)):
        with pytest.raises(ValueError, match="for each of the clip's 3 channels"):
            processor(RGB, image_mean=mean, image_std=std)
    grey = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match="Expected a mean for each of the clip's 1 channels"):
        normalize_clip(grey, (0.5,) * 3, (0.5,) * 3)


def test_shortest_edge_is_what_frames_cover(processor):
    expected = clips_of(processor, RGB, size=dict(height=40, width=40))
    torch.testing.assert_close(clips_of(processor, RGB, size=dict(shortest_edge=40)), expected)
    other = LVTFFVideoProcessor(num_frames=4, size=dict(shortest_edge=40), crop_size=32)
    torch.testing.assert_close(clips_of(other, RGB), expected)
    assert other.eval_transform().resize_to == other.resize_to == (40, 40)
    with pytest.raises(ValueError, match="size needs height and width"):
        processor(RGB, size=dict(shortest_edge=40, longest_edge=80))


def test_unknown_options_are_refused_with_the_right_name(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    for option, hint in (
        ("samplings", "did you mean 'sampling'"),
        ("num_frame", "did you mean 'num_frames'"),
        ("do_sample_frame", "did you mean 'do_sample_frames'"),
        ("frame_sampling_rate", "its name here is 'sampling_stride'"),
        ("qqq", "num_frames"),
    ):
        for use in (
            lambda option=option: processor(RGB, **{option: 2}),
            lambda option=option: LVTFFVideoProcessor(**{option: 2}),
            lambda option=option: LVTFFVideoProcessor.from_pretrained(tmp_path, **{option: 2}),
            lambda option=option: AutoVideoProcessor.from_pretrained(tmp_path, **{option: 2}),
        ):
            with pytest.raises(TypeError, match=f"Unknown option '{option}'.*{hint}"):
                use()
    _, unused = LVTFFVideoProcessor.from_pretrained(
        tmp_path, return_unused_kwargs=True, qqq=1, num_frames=6
    )
    assert unused["qqq"] == 1
    again = LVTFFVideoProcessor(**processor.to_dict())
    assert again.to_dict() == processor.to_dict()


def test_files_of_other_versions_may_say_more(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    file = tmp_path / "video_preprocessor_config.json"
    file.write_text(file.read_text().replace('"num_frames"', '"of_tomorrow": 1, "num_frames"'))
    assert LVTFFVideoProcessor.from_pretrained(tmp_path).num_frames == 4


def test_frames_that_are_sampled_already_keep_their_order(processor):
    for sampling in ("uniform", "dense"):
        four = clips_of(processor, RGB[:4], sampling=sampling)
        torch.testing.assert_close(four, clips_of(processor, RGB[:4], do_sample_frames=False))
    with pytest.raises(ValueError, match="stride >= 1"):
        processor(RGB, sampling="dense", sampling_stride=0)


def test_auto_classes_find_the_processor_as_scripts_for_videomae_do(tmp_path):
    config = LVTFFConfig.from_variant("test_lvt_ff")
    model = LVTFFForVideoClassification(config).eval()
    model.save_pretrained(tmp_path)
    LVTFFVideoProcessor.from_config(config).save_pretrained(tmp_path)
    expected = clips_of(LVTFFVideoProcessor.from_pretrained(tmp_path), RGB[:4])
    for auto in (AutoImageProcessor, AutoVideoProcessor, AutoProcessor):
        found = auto.from_pretrained(tmp_path)
        assert type(found) is LVTFFVideoProcessor
        inputs = found(list(RGB[:4]), return_tensors="pt")
        torch.testing.assert_close(inputs["pixel_values_videos"], expected)
        with torch.no_grad():
            assert model(**inputs).logits.shape == (1, 2)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_pictures_of_any_number_of_channels(tmp_path, channels):
    config = LVTFFConfig.from_variant("test_lvt_ff", in_chans=channels)
    LVTFFForVideoClassification(config).save_pretrained(tmp_path)
    LVTFFVideoProcessor.from_config(config).save_pretrained(tmp_path)
    classify = Classifier(tmp_path, "cpu")
    pixels = RGB[..., [0, 1, 2, 0, 1][:channels]]
    clip = normalize_clip(torch.from_numpy(pixels).permute(0, 3, 1, 2), 0.5, 0.5)
    shown = pixels[..., :3] if channels >= 3 else pixels[..., :1].repeat(3, -1)
    np.testing.assert_array_equal(classify.pictures(clip), shown)


def test_models_of_other_channels_say_that_files_are_rgb(tmp_path, capsys):
    config = LVTFFConfig.from_variant("test_lvt_ff", in_chans=4)
    LVTFFForVideoClassification(config).save_pretrained(tmp_path / "model")
    LVTFFVideoProcessor.from_config(config).save_pretrained(tmp_path / "model")
    write_video(tmp_path / "a.mp4", random_frames(8, 80, 96))
    capsys.readouterr()
    files = (str(tmp_path / "a.mp4"), "--model", str(tmp_path / "model"))
    (tmp_path / "a.csv").write_text("path,label\na.mp4,LABEL_0\n")
    for command in (
        ["predict", *files],
        ["explain", *files, "--output", str(tmp_path / "a.png")],
        ["evaluate", *files[1:], "--data", str(tmp_path / "a.csv"), "--cpu"],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "4 channels" in error and "RGB" in error and error.count("\n") == 1


def test_eval_transform_takes_one_number_for_all_channels():
    one = EvalTransform((32, 32), (32, 32), 0.5, 0.25, "bilinear")
    three = EvalTransform((32, 32), (32, 32), (0.5,) * 3, (0.25,) * 3, "bilinear")
    torch.testing.assert_close(one(RGB), three(RGB))


def test_the_name_of_an_image_processors_argument_is_told():
    with pytest.raises(TypeError, match="its name here is 'videos'"):
        LVTFFVideoProcessor()(images=[])
    with pytest.raises(TypeError, match="needs videos"):
        LVTFFVideoProcessor()()
