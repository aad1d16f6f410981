"""transformers' pipeline: options that it takes must have their effect."""

import subprocess
import sys

import pytest
import torch
from conftest import random_frames
from transformers import VideoMAEConfig, VideoMAEForVideoClassification, pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from lvt_ff import LVTFFVideoProcessor, read_clip
from lvt_ff.data import sample_indices
from lvt_ff.data.synthetic.writer import write_video


@pytest.fixture
def folder(hf_model, tmp_path):
    hf_model.save_pretrained(tmp_path / "model")
    LVTFFVideoProcessor.from_config(hf_model.config).save_pretrained(tmp_path / "model")
    for seed in range(3):
        write_video(tmp_path / f"{seed}.mp4", random_frames(40, 80, 96, seed))
    return tmp_path


def scores(rows):
    return {row["label"]: pytest.approx(row["score"], abs=1e-5) for row in rows}


@pytest.mark.parametrize("stride", [1, 3])
def test_frame_sampling_rate_is_the_stride_of_a_dense_clip(folder, hf_model, stride):
    file = str(folder / "0.mp4")
    classify = pipeline("video-classification", model=str(folder / "model"), device="cpu")
    usual = classify(file)
    numbers = sample_indices(40, 4, sampling="dense", stride=stride)
    assert set(numbers[1:] - numbers[:-1]) == {stride}
    clip = classify.video_processor.eval_transform()(read_clip(file, numbers))
    with torch.no_grad():
        expected = hf_model(clip[None]).logits[0].softmax(-1)
    expected = {hf_model.config.id2label[n]: p for n, p in enumerate(expected.tolist())}
    found = classify(file, frame_sampling_rate=stride)
    assert {row["label"]: row["score"] for row in found} == pytest.approx(expected, abs=1e-5)
    assert scores(found) != {row["label"]: row["score"] for row in usual}
    options = dict(device="cpu", frame_sampling_rate=stride)
    always = pipeline("video-classification", model=str(folder / "model"), **options)
    assert {row["label"]: row["score"] for row in always(file)} == scores(found)


def test_frame_sampling_rate_of_nothing_is_refused(folder):
    classify = pipeline("video-classification", model=str(folder / "model"), device="cpu")
    with pytest.raises(ValueError, match="stride >= 1"):
        classify(str(folder / "0.mp4"), frame_sampling_rate=0)


@pytest.mark.parametrize("by_object", [False, True])
def test_batches_of_files_give_what_single_files_do(folder, hf_model, by_object):
    files = [str(folder / f"{seed}.mp4") for seed in range(3)]
    if by_object:
        processor = LVTFFVideoProcessor.from_pretrained(folder / "model")
        given = dict(model=hf_model, video_processor=processor)
    else:
        given = dict(model=str(folder / "model"))
    classify = pipeline("video-classification", device="cpu", **given)
    single = [classify(file) for file in files]
    sizes = []
    handle = classify.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["pixel_values_videos"])),
        with_kwargs=True,
    )
    for batch_size in (2, 3):
        batches = classify(files, batch_size=batch_size)
        assert [{row["label"]: row["score"] for row in rows} for rows in batches] == [
            scores(rows) for rows in single
        ]
    handle.remove()
    assert sizes == [2, 1, 3]


@pytest.mark.parametrize("problem_type", ["regression", "multi_label_classification", None])
def test_function_follows_the_problem_unless_one_is_asked_for(folder, hf_model, problem_type):
    hf_model.config.problem_type = problem_type
    hf_model.save_pretrained(folder / "model")
    file, options = str(folder / "0.mp4"), dict(model=str(folder / "model"), device="cpu")
    classify = pipeline("video-classification", **options)
    clip = classify.video_processor(file, return_tensors="pt")["pixel_values_videos"]
    with torch.no_grad():
        logits = hf_model(clip).logits[0]
    functions = dict(softmax=logits.softmax(-1), sigmoid=logits.sigmoid(), none=logits)
    usual = {"regression": "none", None: "softmax"}.get(problem_type, "sigmoid")
    for name, found in (
        (usual, classify(file)),
        *((name, classify(file, function_to_apply=name)) for name in functions),
        ("none", pipeline("video-classification", function_to_apply="none", **options)(file)),
    ):
        expected = sorted(functions[name].tolist(), reverse=True)
        assert [row["score"] for row in found] == pytest.approx(expected, abs=1e-5)


def test_other_models_keep_their_pipeline(folder, monkeypatch):
    config = VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=4, hidden_size=32, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=32, id2label={0: "a", 1: "b"},
    )  # fmt: skip
    torch.manual_seed(0)
    VideoMAEForVideoClassification(config).save_pretrained(folder / "other")
    (folder / "other/preprocessor_config.json").write_text(
        '{"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 32}, '
        '"crop_size": {"height": 32, "width": 32}}'
    )
    ours = PIPELINE_REGISTRY.supported_tasks["video-classification"]["impl"]
    file, found = str(folder / "0.mp4"), []
    for kind in (ours, ours.__mro__[1]):
        monkeypatch.setitem(PIPELINE_REGISTRY.supported_tasks["video-classification"], "impl", kind)
        classify = pipeline("video-classification", model=str(folder / "other"), device="cpu")
        assert type(classify) is kind
        classify.video_processor = None  # the way on which transformers passes the rate on
        found.append([classify(file), classify(file, frame_sampling_rate=3)])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "first", ["import lvt_ff, transformers.pipelines", "import transformers.pipelines, lvt_ff"]
)
def test_pipeline_is_known_whichever_is_imported_first(first):
    code = (
        f"{first}\nfrom transformers.pipelines import PIPELINE_REGISTRY as registry\n"
        "print(registry.supported_tasks['video-classification']['impl'].__module__)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "lvt_ff.hf.pipeline_lvt_ff", result.stderr
