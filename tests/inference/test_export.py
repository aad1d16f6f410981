"""Exported files give the model's scores in other runtimes, and say what they take."""

import json

import numpy as np
import pytest
import torch
from conftest import random_frames

import lvt_ff
from lvt_ff import LVTFFConfig, LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.cli import main
from lvt_ff.data.synthetic.writer import write_video

PAPER = list(lvt_ff.VARIANTS)[:4]


def write_folder(path, variant="test_lvt_ff", **fields):
    torch.manual_seed(0)
    cfg = dict(mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4], interpolation="bicubic")
    labels = {0: "push", 1: "pull"}
    config = LVTFFConfig.from_variant(variant, id2label=labels, pretrained_cfg=cfg, **fields)
    model = LVTFFForVideoClassification(config).eval()
    model.save_pretrained(path)
    LVTFFVideoProcessor.from_config(config).save_pretrained(path)
    return model


def export(folder, output, *args):
    return main(["export", "--model", str(folder), "--output", str(output), *args])


def run_onnx(path, clips):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return torch.from_numpy(session.run(None, {"pixel_values_videos": clips.numpy()})[0])


@pytest.mark.parametrize("kernel", ["relu", "softmax", "castling", "focused"])
def test_onnx_gives_the_scores_for_any_batch(tmp_path, kernel):
    model = write_folder(tmp_path / "model", attn_kernel=kernel)
    assert export(tmp_path / "model", tmp_path / "model.onnx") == 0
    for number in (1, 3):
        clips = torch.randn(number, 4, 3, 64, 64)
        with torch.no_grad():
            assert (
                run_onnx(tmp_path / "model.onnx", clips) - model(clips).logits
            ).abs().max() < 1e-4
    assert {path.name for path in tmp_path.iterdir()} == {"model", "model.onnx"}  # one file


@pytest.mark.parametrize("variant", PAPER)
def test_every_paper_variant_exports(tmp_path, variant):
    write_folder(tmp_path / "model", variant, depth=1)
    assert export(tmp_path / "model", tmp_path / "model.onnx") == 0


def test_torch_archive_gives_the_scores_for_any_batch(tmp_path):
    model = write_folder(tmp_path / "model")
    assert export(tmp_path / "model", tmp_path / "model.pt2", "--format", "torch") == 0
    described = {"lvt_ff.json": ""}
    program = torch.export.load(str(tmp_path / "model.pt2"), extra_files=described)
    assert json.loads(described["lvt_ff.json"])["output"]["classes"] == ["push", "pull"]
    clips = torch.randn(3, 4, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(clips), model(clips).logits)


def test_description_is_enough_to_classify_a_file_without_lvt_ff(tmp_path):
    import av
    import onnx
    from torchvision.transforms.v2 import functional as F

    write_folder(tmp_path / "model")
    write_video(tmp_path / "clip.mp4", random_frames(4, 90, 120))
    assert export(tmp_path / "model", tmp_path / "model.onnx") == 0
    proto = onnx.load(str(tmp_path / "model.onnx"))
    (entry,) = [entry for entry in proto.metadata_props if entry.key == "lvt_ff"]
    described = json.loads(entry.value)
    steps = described["preprocessing"]
    with av.open(str(tmp_path / "clip.mp4")) as video:  # as many frames as the model takes: all
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
    height, width = steps["resize_to_cover"]
    factor = max(height / clip.shape[2], width / clip.shape[3])
    size = [round(side * factor) for side in clip.shape[2:]]
    mode = F.InterpolationMode(steps["interpolation"])
    clip = F.center_crop(F.resize(clip, size, mode, antialias=True), steps["centre_crop"])
    clip = F.normalize(clip.float() * steps["scale"], steps["mean"], steps["std"])
    scores = run_onnx(tmp_path / "model.onnx", clip[None])[0]
    from lvt_ff.inference.classifier import Classifier

    (best, other) = Classifier(tmp_path / "model")(tmp_path / "clip.mp4")
    assert described["output"]["classes"][scores.argmax()] == best["label"]
    assert scores.softmax(0).max().item() == pytest.approx(best["score"], abs=1e-4)


def test_half_precision_keeps_sums_in_float32(tmp_path):
    import onnx

    model = write_folder(tmp_path / "model")
    assert export(tmp_path / "model", tmp_path / "half.onnx", "--half") == 0
    proto = onnx.load(str(tmp_path / "half.onnx"))
    casts = [node for node in proto.graph.node if node.op_type == "Cast"]
    targets = {attribute.i for node in casts for attribute in node.attribute}
    assert onnx.TensorProto.FLOAT in targets and onnx.TensorProto.FLOAT16 in targets
    clips = torch.randn(2, 4, 3, 64, 64)
    with torch.no_grad():
        got = run_onnx(tmp_path / "half.onnx", clips.half()).float()
        assert (got - model(clips).logits).abs().max() < 3e-2
    small = tmp_path / "half.onnx"
    assert export(tmp_path / "model", tmp_path / "full.onnx") == 0
    assert small.stat().st_size < 0.75 * (tmp_path / "full.onnx").stat().st_size


def test_wrong_scores_are_not_written(tmp_path, monkeypatch, capsys):
    from lvt_ff.inference import export as module

    write_folder(tmp_path / "model")
    original = module._torch_runner
    monkeypatch.setattr(module, "_torch_runner", lambda path: lambda x: original(path)(x) + 1)
    assert export(tmp_path / "model", tmp_path / "model.pt2", "--format", "torch") == 1
    assert "nothing is written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_requests_that_cannot_be_met_are_one_line(tmp_path, monkeypatch, capsys):
    from lvt_ff.inference import export as module

    write_folder(tmp_path / "model")
    assert export(tmp_path / "absent", tmp_path / "a.onnx") == 2
    assert export(tmp_path / "model", tmp_path / "none/a.onnx") == 2
    assert "There is no folder" in capsys.readouterr().err
    (tmp_path / "there.onnx").write_text("mine")
    assert export(tmp_path / "model", tmp_path / "there.onnx") == 2
    assert "exists already" in capsys.readouterr().err
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert export(tmp_path / "model", tmp_path / "a.onnx") == 2
    assert "pip install onnx onnxruntime onnxscript" in capsys.readouterr().err
