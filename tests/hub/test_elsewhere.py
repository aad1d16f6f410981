"""Folders from elsewhere: what does not fit is refused by every loader; the rest loads in all."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import timm
import torch
from fuzz_folders import LOADERS, SIZE
from safetensors.torch import load_file, save_file
from transformers import AutoModelForVideoClassification, AutoVideoProcessor

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification, LVTFFModel, LVTFFVideoProcessor
from lvt_ff.cli import main
from lvt_ff.hub.model_folder import load_folder
from lvt_ff.schema import check_labels
from lvt_ff.weights import check_finite, check_weights

NAMES = {0: "push", 1: "pull", 2: "lift"}
CLIP = torch.randn(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LVTFFConfig.from_variant("test_lvt_ff", id2label=NAMES, **SIZE)
    return LVTFFForVideoClassification(config).eval()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    place = tmp_path_factory.mktemp("saved")
    size = dict(height=32, width=32)
    processor = LVTFFVideoProcessor(num_frames=2, size=size, crop_size=size)
    for name, options in (("whole", {}), ("shards", dict(max_shard_size="30KB"))):
        model.save_pretrained(place / name, **options)
        processor.save_pretrained(place / name)
    return place


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved / "whole", tmp_path / "whole")


@pytest.fixture
def shards(saved, tmp_path):
    return shutil.copytree(saved / "shards", tmp_path / "shards")


def edit(file, *removed, **changes):
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in values.items() if k not in removed}))


def edit_both(folder, **changes):
    """The same value for transformers and for timm."""
    file = folder / "config.json"
    edit(file, model_args=json.loads(file.read_text())["model_args"] | changes, **changes)


def logits(core):
    with torch.no_grad():
        return core.eval()(CLIP)


def refused(folder, *words, loaders=tuple(LOADERS)):
    """Every loader raises ValueError with these words."""
    for name in loaders:
        with pytest.raises(ValueError) as raised:
            LOADERS[name](folder)
        for word in words:
            assert word in str(raised.value), f"{name}: {raised.value}"


# config.json


@pytest.mark.parametrize(
    "changes, expected",
    [
        (dict(depth=10**6), "an integer between 1 and 1,024, got 1000000"),
        (dict(img_size=10**6), "an integer or a list of numbers of two, between 1 and 16,384"),
        (dict(img_size=[16_000, 16_000], patch_stride=1), "at most 16,777,216 tokens of a clip"),
        (dict(embed_dim=10**9), "between 1 and 65,536, got 1000000000"),
        (dict(num_frames="many"), "an integer between 1 and 4,096, got 'many'"),
        (dict(num_heads=0), "an integer between 1 and 4,096, got 0"),
        (dict(num_heads=5), "must divide"),
        (dict(mlp_ratio=None), "a number between 0.01 and 256, got None"),
        (dict(drop_rate=2), "a number between 0 and 1, got 2"),
        (dict(pos_embed="yes"), "true or false, got 'yes'"),
        (dict(attn_kernel="relux"), "one of 'relu', 'softmax'"),
        (dict(kernel_options=[1]), "an object or null"),
        (dict(kernel_options=dict(eps=10**40)), "of numbers up to 2^53"),
        (dict(img_size=4, patch_padding=0), "at least one patch of 16 pixels"),
    ],
)
def test_options_without_bounds_or_of_another_kind_are_refused(folder, changes, expected):
    edit_both(folder, **changes)
    refused(folder, str(folder / "config.json"), next(iter(changes)), expected)


def test_options_that_do_not_go_together_name_the_file(folder):
    edit_both(folder, block_order="space_first", attn_pattern="joint")
    refused(folder, str(folder), "block_order='space_first' needs attn_pattern='factorized'")
    edit_both(folder, block_order="time_first", attn_pattern="factorized", attn_kernel="linformer")
    edit_both(folder, kernel_options=dict(rank=2**50))
    refused(folder, str(folder))  # before memory is asked for


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", "expected JSON"),
        (b"[]", "expected a JSON object, got []"),
        (b"null", "expected a JSON object, got None"),
        (b'"text"', "expected a JSON object, got 'text'"),
        (b'{"depth": ', "is damaged"),
        (b'{"depth": NaN}', "expected numbers, got NaN"),
        (b"\xff\xfe{}", "expected text in UTF-8, got 0xff at byte 0"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"depth": ' + b"[" * 50 + b"]" * 50 + b"}", "nested more than 32 levels deep"),
        (b'{"depth": ' + b"9" * 5000 + b"}", "is damaged"),
    ],
)
def test_files_that_hold_no_configuration_are_refused(folder, content, expected):
    (folder / "config.json").write_bytes(content)
    expected = "is damaged" if expected == "expected JSON" else expected
    refused(folder, str(folder / "config.json"), expected, loaders=("own", "command"))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda file: os.symlink(file, file)])
@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "video_preprocessor_config.json"]
)
def test_pipes_folders_and_loops_in_the_place_of_files_do_not_hang(folder, name, make):
    (folder / name).unlink()
    make(folder / name)
    loaders = {"config.json": ["own"], "model.safetensors": ["own", "auto", "timm"]}.get(name, [])
    for load in [load_folder, *(LOADERS[loader] for loader in loaders)]:
        with pytest.raises((ValueError, OSError), match=name):
            load(folder)


@pytest.mark.parametrize(
    "changes, expected",
    [
        (dict(model_args=[]), "model_args must be an object or null, got []"),
        (dict(model_args=dict(pretrained_strict=False)), "unknown option 'pretrained_strict'"),
        (dict(pretrained_cfg=dict(classifier="norm")), "pretrained_cfg.classifier must be"),
        (dict(pretrained_cfg=dict(label_offset=1)), "pretrained_cfg.label_offset must be left out"),
        (dict(pretrained_cfg=dict(std=[0.5, 0, 0.5])), "pretrained_cfg.std must be a list of"),
        (dict(pretrained_cfg=dict(mean=[0.5])), ""),
        (dict(pretrained_cfg=dict(mean=[0.5, 0.5])), "a number for each of 3 channels"),
        (dict(pretrained_cfg=dict(hf_hub_filename="../x")), "hf_hub_filename must be left out"),
        (dict(transformers_weights="../x.safetensors"), "transformers_weights must be left out"),
        (dict(num_classes=5), "the number of classes must be the same"),
        (dict(num_classes=0), "num_classes must be the number of classes"),
        (dict(attn_kernel="softmax"), "attn_kernel is 'softmax', but 'relu' in model_args"),
        (dict(dtype="int8"), "dtype must be one of"),
        (dict(architectures="LVTFFModel"), "architectures must be a list of texts"),
    ],
)
def test_keys_for_either_library_are_checked_for_both(folder, changes, expected):
    edit(folder / "config.json", **changes)
    if expected:
        loaders = [name for name in LOADERS if not (name == "timm" and "model_args" in changes)]
        refused(folder, str(folder / "config.json"), expected, loaders=loaders)
    else:
        assert all(load(folder) for load in LOADERS.values())


def test_a_key_in_the_place_of_a_method_is_refused(folder):
    edit(folder / "config.json", core_kwargs=1)
    refused(
        folder, "core_kwargs is not a key of a configuration", loaders=("own", "auto", "command")
    )


def test_keys_that_nobody_knows_stay(folder):
    edit(folder / "config.json", my_note="kept")
    assert LVTFFConfig.from_pretrained(folder).my_note == "kept"
    assert all(load(folder) for load in LOADERS.values())


def test_files_of_transformers_alone_and_with_its_names_load(folder, model):
    keys = ("architecture", "model_args", "num_classes", "num_features", "label_names")
    edit(folder / "config.json", *keys, "depth", num_hidden_layers=2)
    for name in ("own", "auto", "command"):
        torch.testing.assert_close(logits(LOADERS[name](folder)), logits(model.model))
    edit(folder / "config.json", num_hidden_layers=10**6)
    refused(folder, "depth must be an integer", loaders=("own", "auto", "command"))


def test_configurations_in_code_have_the_same_bounds():
    for fields in (dict(depth=10**6), dict(img_size=10**6), dict(embed_dim=66, num_heads=4)):
        with pytest.raises(Exception, match=next(iter(fields))):
            LVTFFConfig(**fields)
    with pytest.raises(ValueError, match="num_classes must be .* 1,000,000, got 1000000000"):
        LVTFFConfig(num_labels=10**9)


# Labels


@pytest.mark.parametrize(
    "labels, expected",
    [
        (None, None),
        (["push", "pull", "lift"], None),
        ({"2": "lift", "0": "push", "1": "pull"}, None),
        ({"1": "push", "2": "pull", "3": "lift"}, None),
        ({"0": "push", "4": "pull", "9": "lift"}, None),
        ({"0": "a", "1": "b", "2": "c", "3": "d"}, "the number of classes must be the same"),
        ({"0": "a", "1": "a", "2": "c"}, "a name for each class, got 'a' for 0 and for 1"),
        ({"0": "a", "1": None, "2": "c"}, "printable names, got None for class 1"),
        ({"0": "a", "1": ["b"], "2": "c"}, "printable names, got ['b'] for class 1"),
        ({"0": "a", "1": " ", "2": "c"}, "printable names, got ' '"),
        ({"0": "a", "1": "b\x1b[2J", "2": "c"}, "printable names"),
        ({"0": "a", "1": "\ud800", "2": "c"}, "printable names"),
        ({"push": 0, "pull": 1, "lift": 2}, "non-negative integers as keys, got 'push'"),
        ({"00": "a", "1": "b", "2": "c"}, "got '00'"),
        ({"-1": "a", "0": "b", "1": "c"}, "got '-1'"),
        ("abc", "an object from numbers to names, got 'abc'"),
        (["push", "pull"], "the number of classes must be the same"),
    ],
)
def test_labels_are_one_name_for_each_class_or_refused(folder, labels, expected):
    edit(folder / "config.json", id2label=labels)
    if expected:
        refused(folder, str(folder / "config.json"), "id2label", expected)
        return
    if labels is None:  # timm's names tell as much
        assert LVTFFConfig.from_pretrained(folder).class_names == ("push", "pull", "lift")
    config = load_folder(folder)[0].config
    assert config.id2label == NAMES
    assert config.label2id == {"push": 0, "pull": 1, "lift": 2}


def test_names_to_numbers_are_derived(folder):
    edit(folder / "config.json", label2id={"push": 2, "a": None})
    config = LVTFFConfig.from_pretrained(folder)
    assert config.label2id == {"push": 0, "pull": 1, "lift": 2}
    edit(folder / "config.json", label2id=[0])
    refused(folder, "label2id must be an object from names to numbers, got [0]")


def test_labels_in_code_and_on_saving_are_checked(tmp_path):
    with pytest.raises(Exception, match="a name for each class"):
        LVTFFConfig(id2label={0: "a", 1: "a"})
    config = LVTFFConfig(id2label={0: "a", 1: "b"})
    config.id2label = {0: "a", 1: "a"}
    with pytest.raises(Exception, match="a name for each class"):
        config.save_pretrained(tmp_path)


def test_a_million_classes_are_no_problem_and_more_are_refused():
    names = [f"class {number}" for number in range(100_000)]
    assert check_labels(names, "config.json", "id2label")[99_999] == "class 99999"
    with pytest.raises(ValueError, match="at most 1,000,000 names, got 1,000,001"):
        check_labels([""] * 1_000_001, "config.json", "id2label")


# Round trips


@pytest.mark.parametrize(
    "fields",
    [
        dict(),
        dict(pretrained_cfg=None),
        dict(pretrained_cfg=dict(tag="fb_in22k_ft_in1k", license="mit")),
        dict(pretrained_cfg=dict(mean=(0.1, 0.2, 0.3), crop_pct=0.9)),
        dict(id2label={0: "a", 1: "b", 2: "c"}, img_size=(64, 96), kernel_options=dict(eps=0.1)),
    ],
)
@pytest.mark.parametrize("variant", ["test_lvt_ff", "lvt_ff_tiny"])
def test_a_configuration_comes_back_from_json_as_it_was(variant, fields, tmp_path):
    config = LVTFFConfig.from_variant(variant, **fields)
    config.to_json_file(tmp_path / "config.json")

    def told(config):
        told = config.to_dict()
        told.pop("transformers_version")
        return json.loads(json.dumps(told)) | dict(class_names=config.class_names)

    for again in (
        LVTFFConfig.from_json_file(tmp_path / "config.json"),
        LVTFFConfig.from_pretrained(tmp_path),
    ):
        assert told(again) == told(config)
        assert again.data_cfg()["mean"] == config.data_cfg()["mean"]
        again.to_json_file(tmp_path / "again.json")
        assert (tmp_path / "again.json").read_text() == (tmp_path / "config.json").read_text()


# Processors


@pytest.mark.parametrize(
    "changes, expected",
    [
        (dict(size=1), "size must be at least crop_size, which is cut from it, got 1 × 1 and"),
        (dict(size=dict(height=1, width=1)), "size must be at least crop_size"),
        (dict(size=dict(shortest_edge=0)), "or with shortest_edge, integers between 1 and"),
        (dict(size=dict(longest_edge=32)), "an object with height and width, or with"),
        (dict(crop_size=dict(shortest_edge=32)), "an object with height and width"),
        (dict(crop_size=dict(height=0, width=32)), "crop_size must be an integer or an object"),
        (dict(num_frames=10**9), "num_frames must be an integer between 1 and 4,096"),
        (dict(image_std=[0, 0, 0]), "image_std must be a number or a list of numbers between"),
        (dict(image_mean="x"), "image_mean must be a number or a list of numbers"),
        (
            dict(resample=7),
            "resample must be one of PIL's filters 0 (nearest), 2 (bilinear), 3 (bicubic), got 7",
        ),
        (dict(sampling="random"), "sampling must be one of 'uniform', 'dense', got 'random'"),
        (dict(sampling_stride=0), "sampling_stride must be an integer between 1"),
        (dict(do_resize="yes"), "do_resize must be true or false"),
        (dict(fetch_videos=1), "fetch_videos is not a key of a processor"),
    ],
)
def test_processors_that_make_no_clips_are_refused(folder, changes, expected):
    file = folder / "video_preprocessor_config.json"
    edit(file, **changes)
    for load in (LVTFFVideoProcessor.from_pretrained, AutoVideoProcessor.from_pretrained):
        with pytest.raises(ValueError) as raised:
            load(folder)
        assert str(file) in str(raised.value) and expected in str(raised.value)
    refused(folder, str(file), expected, loaders=("own", "auto", "command"))


def test_statistics_for_other_channels_are_refused(folder):
    edit(folder / "video_preprocessor_config.json", image_mean=[0.5, 0.5], image_std=[0.5, 0.5])
    with pytest.raises(ValueError, match="image_mean must have a number for each of 3 channels"):
        load_folder(folder)


def test_one_side_for_a_square_loads(folder):
    edit(folder / "video_preprocessor_config.json", size=40, crop_size=32)
    assert load_folder(folder)[1].size["height"] == 40
    with pytest.raises(ValueError, match="size must be at least crop_size"):
        LVTFFVideoProcessor(size=1)


# Weights


def mutate(folder, change):
    file = folder / "model.safetensors"
    weights = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def with_value(name, place, value):
    def change(weights):
        weights[name].view(-1)[place] = value

    return change


QKV = "blocks.1.attn.qkv.weight"
WRONG_WEIGHTS = {
    "missing": (lambda w: w.pop(QKV), ("lack 1 tensors of the model", QKV)),
    "two missing": (lambda w: (w.pop(QKV), w.pop("norm.bias")), ("lack 2 tensors", QKV)),
    "no head": (
        lambda w: (w.pop("head.fc.weight"), w.pop("head.fc.bias")),
        ("lack 2 tensors of the model", "head.fc.bias"),
    ),
    "surplus": (lambda w: w.update(x=torch.ones(1)), ("1 tensors without a place in it", "x")),
    "gates of a model with fixation": (
        lambda w: w.update({"blocks.0.attn.gate.weight": torch.ones(1)}),
        ("without a place in it", "blocks.0.attn.gate.weight"),
    ),
    "one more block": (
        lambda w: w.update({n.replace("blocks.1.", "blocks.2."): t + 1 for n, t in w.items()}),
        ("without a place in it", "blocks.2."),
    ),
    "shape": (
        lambda w: w.update({QKV: torch.zeros(96, 33)}),
        ("of another shape", QKV, "got (96, 33), expected (96, 32)"),
    ),
    "head of two": (
        lambda w: w.update({"head.fc.weight": torch.zeros(2, 16), "head.fc.bias": torch.zeros(2)}),
        ("of another shape", "head.fc.weight", "got (2, 16), expected (3, 16)"),
    ),
    "longer clip than config.json says": (
        lambda w: w.update(temp_embed=torch.zeros(1, 5, 1, 32)),
        ("temp_embed", "got (1, 5, 1, 32), expected (1, 2, 1, 32)"),
    ),
    "integers": (
        lambda w: w.update({QKV: torch.ones(96, 32, dtype=torch.int32)}),
        ("another kind of numbers", QKV, "got torch.int32, expected torch.float32"),
    ),
    "booleans": (lambda w: w.update({QKV: w[QKV] > 0}), ("another kind of numbers", QKV)),
    "complex": (lambda w: w.update({QKV: w[QKV] + 0j}), ("another kind of numbers", QKV)),
    "nan": (with_value(QKV, 7, float("nan")), (QKV, "NaN or infinity in 1 of 3,072 places")),
    "infinity": (with_value("norm.bias", 0, -float("inf")), ("norm.bias", "in 1 of 32 places")),
    "x and model.x": (
        lambda w: w.update({f"model.{QKV}": w[QKV] + 1}),
        ("mixes 1 names with a prefix", f"model.{QKV}"),
    ),
    "some with a prefix": (
        lambda w: w.update({f"model.{QKV}": w.pop(QKV)}),
        ("mixes 1 names with a prefix", f"model.{QKV}"),
    ),
    "another prefix": (
        lambda w: [w.update({f"base.{n}": w.pop(n)}) for n in list(w)],
        (),
    ),
}


@pytest.mark.parametrize("kind", WRONG_WEIGHTS)
def test_wrong_weights_are_refused_by_every_loader(folder, kind):
    change, words = WRONG_WEIGHTS[kind]
    mutate(folder, change)
    refused(folder, str(folder), *words)


@pytest.mark.parametrize("kind", ["missing", "surplus", "shape", "integers", "nan"])
def test_wrong_weights_in_shards_are_refused_by_every_loader(shards, kind):
    files = {file: load_file(file) for file in shards.glob("*.safetensors")}
    weights = {
        name: tensor.clone() for tensors in files.values() for name, tensor in tensors.items()
    }
    change, words = WRONG_WEIGHTS[kind]
    change(weights)
    place = {name: file for file, tensors in files.items() for name in tensors}
    first = next(iter(files))
    for file in files:
        inside = {n: t for n, t in weights.items() if place.get(n, first) == file}
        save_file(inside, file, metadata={"format": "pt"})
    index = shards / "model.safetensors.index.json"
    edit(index, weight_map={name: place.get(name, first).name for name in weights})
    refused(shards, str(shards), *words)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data + b"x",
        lambda data: b"version https://git-lfs.github.com/spec/v1\n",
        lambda data: b"\xff" * 8 + data[8:],
    ],
    ids=["cut", "empty", "longer", "pointer", "header"],
)
def test_damaged_weights_are_refused_by_every_loader(folder, change):
    file = folder / "model.safetensors"
    file.write_bytes(change(file.read_bytes()))
    refused(folder, str(file), "expected a whole safetensors file")


def test_weights_are_looked_at_before_memory_is_taken(folder):
    """A configuration of 20 billion parameters, whose weights are a few kilobytes."""
    edit_both(folder, embed_dim=16_384, num_heads=16)
    refused(folder, "of another shape", "expected (16384,)")


@pytest.mark.parametrize("prefix", ["", "model."])
def test_names_with_and_without_transformers_prefix_load_everywhere(folder, model, prefix):
    mutate(folder, lambda w: [w.update({prefix + n: w.pop(n)}) for n in list(w)])
    for name, load in LOADERS.items():
        core = load(folder)
        if name != "backbone":
            torch.testing.assert_close(logits(core), logits(model.model))
        else:
            torch.testing.assert_close(
                core.forward_features(CLIP), model.model.forward_features(CLIP)
            )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_load(folder, model, dtype):
    mutate(folder, lambda w: w.update({n: t.to(dtype) for n, t in w.items()}))
    for name in ("own", "auto", "timm", "command"):
        found = logits(LOADERS[name](folder).float())
        torch.testing.assert_close(found, logits(model.model), atol=0.1, rtol=0.1)


def test_models_of_one_channel_keep_their_variants_statistics(tmp_path):
    config = LVTFFConfig.from_variant("test_lvt_ff", in_chans=1, **SIZE)
    LVTFFForVideoClassification(config).save_pretrained(tmp_path)
    LVTFFVideoProcessor.from_config(config).save_pretrained(tmp_path)
    assert all(load(tmp_path) for name, load in LOADERS.items() if name != "command")
    assert load_folder(tmp_path)


def test_batch_norms_counters_are_integers(tmp_path):
    config = LVTFFConfig.from_variant("test_lvt_ff", local_concentration=True, **SIZE)
    LVTFFForVideoClassification(config).save_pretrained(tmp_path)
    assert all(load(tmp_path) for load in LOADERS.values())
    counter = "blocks.0.local.bn.num_batches_tracked"
    mutate(tmp_path, lambda w: w.update({counter: torch.tensor(1.5)}))
    refused(tmp_path, counter, "another kind of numbers")


def test_another_classifier_only_where_it_is_asked_for(folder, model):
    features = model.model.forward_features(CLIP)
    with pytest.raises(ValueError, match="a classifier of 3 classes, expected 5: pass ignore_mism"):
        LVTFFForVideoClassification.from_pretrained(folder, num_labels=5)
    asked = dict(num_labels=5, ignore_mismatched_sizes=True)
    for cls in (LVTFFForVideoClassification, AutoModelForVideoClassification):
        loaded = cls.from_pretrained(folder, **asked).eval()
        assert loaded.config.num_labels == 5
        torch.testing.assert_close(loaded.model.forward_features(CLIP), features)
    by_timm = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5).eval()
    torch.testing.assert_close(by_timm.forward_features(CLIP), features)
    assert logits(by_timm).shape == (2, 5)
    new = load_folder(folder, new_head=True, num_labels=5)[0].eval()
    torch.testing.assert_close(new.model.forward_features(CLIP), features)
    # What is not the classifier still has to be there.
    mutate(folder, lambda w: w.pop("norm.bias"))
    for load in (
        lambda: LVTFFForVideoClassification.from_pretrained(folder, **asked),
        lambda: LVTFFModel.from_pretrained(folder, ignore_mismatched_sizes=True),
        lambda: timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5),
        lambda: timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True),
        lambda: load_folder(folder, new_head=True, num_labels=5),
    ):
        with pytest.raises(ValueError, match="lack 1 tensors of the model, such as norm.bias"):
            load()


def test_folders_without_a_classifier(folder, model, tmp_path):
    LVTFFModel.from_pretrained(folder).save_pretrained(tmp_path / "base")
    headless = timm.create_model(f"local-dir:{tmp_path / 'base'}", pretrained=True)
    timm.models.save_for_hf(headless, tmp_path / "timm", safe_serialization=True)
    for place in (tmp_path / "base", tmp_path / "timm"):
        loaded = LVTFFForVideoClassification.from_pretrained(place, num_labels=4).eval()
        assert loaded(CLIP).logits.shape == (2, 4)
        torch.testing.assert_close(
            LOADERS["backbone"](place).eval().forward_features(CLIP),
            model.model.forward_features(CLIP),
        )
        with pytest.raises(ValueError, match="it was saved without a classifier"):
            load_folder(place)
        assert load_folder(place, new_head=True, num_labels=4)[0].config.num_labels == 4


def test_other_options_than_the_weights_were_trained_with_are_refused(folder):
    for options in (dict(fixation="none"), dict(depth=1), dict(embed_dim=64)):
        with pytest.raises(ValueError, match="the weights"):
            LVTFFForVideoClassification.from_pretrained(folder, **options)
        with pytest.raises(ValueError, match="the weights"):
            timm.create_model(f"local-dir:{folder}", pretrained=True, **options)
    with pytest.raises(ValueError, match="the weights"):  # transformers makes and reports new parts
        timm.create_model(f"local-dir:{folder}", pretrained=True, attn_kernel="linformer")


def test_old_files_of_tensors_are_checked_too(folder, model):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    for name in ("own", "timm", "command"):
        torch.testing.assert_close(logits(LOADERS[name](folder)), logits(model.model))
    torch.save(weights | {QKV: torch.ones(96, 32, dtype=torch.int32)}, folder / "pytorch_model.bin")
    refused(folder, str(folder), QKV, "another kind of numbers")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    refused(folder, str(folder / "pytorch_model.bin"), "is refused")


def test_the_check_alone():
    expected = dict(a=torch.zeros(2, device="meta"), b=torch.zeros(1, dtype=torch.int64))
    check_weights(dict(a=torch.ones(2), b=torch.zeros(1, dtype=torch.int64)), expected, "x")
    check_weights(dict(a=torch.ones(3)), expected, "x", free=("a", "b"))
    with pytest.raises(ValueError, match="^x: the weights lack 1 tensors of the model, such as b"):
        check_weights(dict(a=torch.ones(2, dtype=torch.float16)), expected, "x")
    check_finite(dict(a=torch.zeros(0), b=torch.tensor([1, 2]), c=torch.zeros(2).bfloat16()), "x")


# Shards


def test_shards_load_in_every_loader(shards, model):
    assert len(list(shards.glob("*.safetensors"))) > 3
    for name in ("own", "auto", "timm", "command"):
        torch.testing.assert_close(logits(LOADERS[name](shards)), logits(model.model))
    options = dict(num_frames=3, num_classes=7)
    longer = timm.create_model(f"local-dir:{shards}", pretrained=True, **options)
    assert longer(torch.zeros(1, 3, 3, 32, 32)).shape == (1, 7)
    features = timm.create_model(
        f"local-dir:{shards}", pretrained=True, features_only=True, out_indices=(0,)
    )
    assert torch.equal(features.model.blocks[0].norm1.weight, model.model.blocks[0].norm1.weight)
    by_timm = LOADERS["timm"](shards)
    assert by_timm.pretrained_cfg["source"] == "local-dir"
    assert "state_dict" not in by_timm.pretrained_cfg


def test_shards_on_the_hub_load_in_timm(hub, shards, model):
    hub.publish("someone/shards", shards)
    by_timm = timm.create_model("hf-hub:someone/shards", pretrained=True)
    torch.testing.assert_close(logits(by_timm), logits(model.model))
    assert by_timm.pretrained_cfg["source"] == "hf-hub"
    assert by_timm.pretrained_cfg["hf_hub_id"] == "someone/shards"
    (shards / "config.json").unlink()
    edit(shards / "model.safetensors.index.json", weight_map={})


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "absent.safetensors", "config.json", 7, ""]
)
def test_an_index_leads_to_files_beside_it_alone(shards, name):
    shutil.copy(next(shards.glob("*.safetensors")), shards.parent / "outside.safetensors")
    index = shards / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    places["norm.bias"] = name
    edit(index, weight_map=places)
    refused(shards, str(index), "must name safetensors files beside it", repr(name))


def test_an_index_that_its_files_do_not_bear_out_is_refused(shards):
    index = shards / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    edit(index, weight_map=places | {"more": places["norm.bias"]})
    refused(shards, str(index), "lists more in")
    edit(index, weight_map={k: v for k, v in places.items() if k != "norm.bias"})
    refused(shards, str(index), "does not list norm.bias in")
    edit(index, weight_map=places, metadata=True)
    refused(shards, str(index), "metadata must be an object, got True")


# Commands


def one_line(capsys):
    error = capsys.readouterr().err.strip()
    assert "Traceback" not in error and len(error.splitlines()) == 1
    return error


@pytest.mark.parametrize("command", ["predict", "evaluate", "explain", "export", "convert"])
def test_commands_refuse_in_one_line(folder, command, tmp_path, capsys):
    edit_both(folder, depth=10**6)
    data = ["--data", tmp_path, "--cpu", "--output_dir", tmp_path / "out"]
    args = dict(
        predict=["x.mp4", "--model", folder],
        evaluate=["--model", folder, *data],
        explain=["x.mp4", "--model", folder, "--output", tmp_path / "x.png"],
        export=["--model", folder, "--output", tmp_path / "x.pt2", "--format", "torch"],
        convert=[folder, tmp_path / "x.safetensors", "--to", "authors"],
    )[command]
    assert main([command, *map(str, args)]) == 2
    assert "depth must be an integer between 1 and 1,024, got 1000000" in one_line(capsys)


@pytest.mark.parametrize("with_base", [False, True])
def test_adapters_of_peft_are_refused_with_the_way_out(folder, model, with_base, tmp_path, capsys):
    adapter = folder if with_base else tmp_path / "adapter"
    adapter.mkdir(exist_ok=True)
    (adapter / "adapter_config.json").write_text(
        json.dumps(dict(peft_type="LORA", base_model_name_or_path=str(folder)))
    )
    save_file({"base_model.a": torch.ones(1)}, adapter / "adapter_model.safetensors")
    (tmp_path / "videos/a").mkdir(parents=True)
    (tmp_path / "videos/a/x.mp4").touch()
    (tmp_path / "videos/b").mkdir(parents=True)
    (tmp_path / "videos/b/x.mp4").touch()
    data = ["--train_data", str(tmp_path / "videos"), "--output_dir", str(tmp_path / "run")]
    for command in (
        ["predict", "x.mp4", "--model", str(adapter)],
        ["finetune", "--model", str(adapter), *data, "--cpu"],
        ["push", str(adapter), "someone/adapter", "--dry_run"],
    ):
        assert main(command) == 2
        error = one_line(capsys)
        assert "adapter" in error and "merge_and_unload" in error, error
    if not with_base:
        assert main(["convert", str(adapter), str(tmp_path / "new")]) == 2
        assert "merge_and_unload" in one_line(capsys)


def test_a_damaged_adapter_beside_a_model_is_told(folder):
    for content in ("7", "[]", "{", '{"peft_type": 3}'):
        (folder / "adapter_config.json").write_text(content)
        refused(folder, "adapter_config.json", loaders=("own", "command"))


def test_loading_a_folder_imports_nothing_that_pushes_one(folder):
    code = (
        "import sys; from lvt_ff.hub.model_folder import load_folder; "
        "from lvt_ff.inference.classifier import Classifier; load_folder(sys.argv[1]); "
        "print([name for name in sys.modules if name.startswith('lvt_ff.hub.pu')])"
    )
    run = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr
