"""The command line: every command run for real, and every mistake answered in one line."""

import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from conftest import random_frames

import lvt_ff
from lvt_ff._import_hooks import MOVED
from lvt_ff.cli import COMMANDS, GROUPS, main
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.training.finetune import finetune

TINY = dict(depth=1, num_frames=2, img_size=32, head_hidden=16)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for number in range(6):
        label = root / ("left", "right")[number % 2]
        label.mkdir(exist_ok=True)
        write_video(label / f"{number}.mp4", random_frames(5, 32, 48, seed=number))
    return root


@pytest.fixture(scope="module")
def trained(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    code = main(finetune_args(videos, folder, "--eval_data", str(videos)))
    assert code == 0
    return folder


def finetune_args(videos, folder, *more, model="test_lvt_ff", fields=TINY):
    args = ["finetune", "--model", model, "--train_data", str(videos), "--output_dir", str(folder)]
    args += ["--model_args", json.dumps(fields), "--epochs", "1", "--batch_size", "2"]
    return [*args, "--num_workers", "0", "--cpu", *more]


def one_line(capsys):
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    errors = [line for line in lines if line.startswith("lvt-ff")]
    assert len(errors) == 1, captured.err
    assert "Traceback" not in captured.err
    return errors[0]


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for title, commands in GROUPS.items():
        lines = out.split(f"\n{title}:\n")[1].split("\n\n")[0].splitlines()
        assert [line.split()[0] for line in lines] == list(commands)
    assert sum(map(len, GROUPS.values())) == len(COMMANDS)
    assert main(["--version"]) == 0
    assert lvt_ff.__version__ in capsys.readouterr().out
    assert main([]) == 2


@pytest.mark.parametrize("argument", ["--help", "--version", "fintune", "--verison"])
def test_what_needs_no_model_loads_no_library(argument):
    code = f"""
import sys
from lvt_ff.cli import main
main([{argument!r}])
print(sorted({{"torch", "transformers", "timm", "accelerate", "matplotlib"}} & {{*sys.modules}}))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


@pytest.mark.parametrize(
    "words", [["lvt_ff", "kernels"], ["lvt_ff.cli", "kernels"], ["lvt_ff.evaluate"]], ids=str
)
def test_modules_run_as_scripts(words):
    command = [sys.executable, "-m", *words, "--no_such_option"]
    result = subprocess.run(command, capture_output=True, text=True)
    line = f"lvt-ff {words[-1].removeprefix('lvt_ff.')}: error: unknown option --no_such_option"
    assert result.returncode == 2 and line in result.stderr


@pytest.mark.parametrize("name", MOVED)
def test_former_modules_have_what_python_needs_to_run_them(name):
    assert importlib.util.find_spec(name).origin == name


@pytest.mark.parametrize(
    "word, message",
    [
        ("finetun", "unknown command 'finetun': did you mean 'finetune'? Known: demo, models"),
        ("--verison", "unknown option '--verison': did you mean '--version'?"),
        ("xyz", "unknown command 'xyz': choose from demo, models"),
    ],
)
def test_a_misspelt_command_is_answered_with_what_is_known(word, message, capsys):
    assert main([word]) == 2
    assert message in one_line(capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_explains_every_flag(command, capsys):
    with pytest.raises(SystemExit) as error:
        main([command, "--help"])
    assert error.value.code == 0
    out = capsys.readouterr().out
    flags = re.findall(r"^  (--\w+)", out, flags=re.M)
    assert {"--config", "--print_config"} <= set(flags)
    for flag in flags:
        text = re.split(rf"^  {flag}\b", out, flags=re.M)[1].split("\n  -")[0].split("\n\n")[0]
        placeholder, explanation = re.split(r" {2,}|\n +", text, maxsplit=1)
        explanation = explanation.split(" (integer")[0].split(" (number")[0].split(" (required")[0]
        assert len(explanation.split()) >= 2, f"{command} {flag} is not explained: {text}"
        assert len(placeholder.split()) <= 1
    # Types and numbers as people write them.
    assert not re.search(r"<class|Path\b|Optional|Literal|\d\.\d{5}|\[ITEM|==", out)


def test_models_lists_names_and_cost(capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    for name in lvt_ff.VARIANTS:
        assert name in out
    assert "52.71 M" in out and "251.09" in out


def test_models_lists_the_weights_to_start_from(capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    for name in timm.list_pretrained("*lvt_ff*"):
        assert f"{name} " in out and timm.get_pretrained_cfg(name).hf_hub_id in out


@pytest.mark.parametrize("command", ["convert", "predict"])
def test_help_explains_what_has_no_flag(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    names = dict(convert=("src", "dst"), predict=("videos",))[command]
    for name in names:
        assert re.search(rf"^  {name} +[A-Z]\w+", text, flags=re.M), text


@pytest.mark.parametrize(
    "flags, start", [([], "pretrained"), (["--pretrained", "false"], "random")]
)
def test_finetune_starts_from_an_image_model_unless_told_otherwise(
    hub, videos, tmp_path, caplog, flags, start
):
    from image_models import timm_model

    source = timm_model("vit_tiny_patch16_224.augreg_in21k")
    timm.models.save_for_hf(source, tmp_path / "published", safe_serialization=True)
    hub.publish("timm/vit_tiny_patch16_224.augreg_in21k", tmp_path / "published")
    name = "lvt_ff_tiny" if flags else "lvt_ff_tiny.augreg_in21k"
    size = dict(num_frames=2, img_size=32)
    more = ("--freeze", "12", *flags)
    args = finetune_args(videos, tmp_path / "run", *more, model=name, fields=size)
    assert main(args) == 0
    folder = tmp_path / "run"
    card, results = (
        (folder / "README.md").read_text(),
        json.loads((folder / "results.json").read_text()),
    )
    model = lvt_ff.LVTFFForVideoClassification.from_pretrained(folder)
    kept = torch.equal(model.model.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
    if start == "pretrained":
        assert kept and "weights of timm/vit_tiny_patch16_224.augreg_in21k" in results["start"]
        assert "148 copied, 1 resampled, 3 dropped" in caplog.text
        assert "148 copied, 1 resampled, 3 dropped" in card
        assert model.config.pretrained_cfg["tag"] == "augreg_in21k"
    else:
        assert not kept and results["start"] == "random weights of lvt_ff_tiny"
        assert results["conversion"] == [] and hub.requests == []


@pytest.mark.parametrize(
    "model, flags, message",
    [
        ("lvt_ff_tiny.openai", [], "lvt_ff_tiny has no weights 'openai'; its tags: augreg_in21k"),
        ("lvt_ff_tiny.augreg_in21k", ["--pretrained", "false"], "give lvt_ff_tiny with"),
        ("test_lvt_ff", ["--pretrained", "true"], "test_lvt_ff has no pretrained weights"),
        ("{trained}", ["--pretrained", "false"], "--pretrained false takes a variant"),
        ("lvt_ff_tiny", [], "weights of lvt_ff_tiny.augreg_in21k cannot be fetched"),
    ],
)
def test_starts_that_cannot_be_had_are_one_line(
    hub, trained, videos, tmp_path, capsys, model, flags, message
):
    args = finetune_args(videos, tmp_path / "run", *flags, model=model.format(trained=trained))
    assert main(args) in (1, 2)
    assert message in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_finetune_evaluate_predict(trained, videos, capsys, tmp_path):
    code = main(
        ["evaluate", "--model", str(trained), "--data", str(videos), "--clips", "2"]
        + ["--crops", "3", "--num_workers", "0", "--output_dir", str(tmp_path), "--cpu"]
    )
    out = capsys.readouterr().out
    assert code == 0
    assert "[2 clips × 3 crops, 2 frames of 32×32, uniform sampling]" in out
    assert "6 of 6 listed videos evaluated" in out
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    result = json.loads((tmp_path / "evaluation.json").read_text())
    clip = str(next(videos.glob("left/*.mp4")))
    assert main(["predict", clip, clip, "--model", str(trained), "--json", "--top_k", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2 and lines[0]["predictions"][0]["label"] in ("left", "right")
    assert len(lines[0]["predictions"]) == 1
    assert 0 <= result["top1"] <= 1 and result["classes"][0]["num_videos"] == 3


def test_predict_equals_the_pipeline(trained, videos, capsys):
    from transformers import pipeline

    clip = str(next(videos.glob("left/*.mp4")))
    assert main(["predict", clip, "--model", str(trained), "--json"]) == 0
    ours = json.loads(capsys.readouterr().out)["predictions"]
    theirs = pipeline("video-classification", model=str(trained), device="cpu")(clip)
    assert [row["label"] for row in ours] == [row["label"] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a["score"] == pytest.approx(b["score"], abs=1e-6)


@pytest.mark.parametrize("views", [["--clips", "2"], ["--crops", "3"]])
def test_views_of_a_prediction_change_its_scores(views, trained, videos, capsys):
    clip = str(next(videos.glob("left/*.mp4")))
    lines = []
    for more in ([], views):
        assert main(["predict", clip, "--model", str(trained), "--json", *more]) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] != lines[1]


def test_recipe_file_and_flags_give_the_same_run(trained, videos, tmp_path):
    recipe = dict(
        model="test_lvt_ff",
        model_args=TINY,
        train_data=str(videos),
        eval_data=str(videos),
        epochs=1,
        batch_size=2,
        num_workers=0,
        cpu=True,
    )
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    config = str(tmp_path / "recipe.yaml")
    assert main(["finetune", "--config", config, "--output_dir", str(tmp_path / "run")]) == 0
    a, b = ((folder / "steps.jsonl").read_text() for folder in (trained, tmp_path / "run"))
    losses = [[json.loads(line)["loss"] for line in text.splitlines()] for text in (a, b)]
    assert losses[0] == losses[1]


def test_settings_of_a_run_are_a_recipe_again(trained, tmp_path):
    recipe = ["finetune", "--config", str(trained / "results.json")]
    assert main([*recipe, "--output_dir", str(tmp_path / "run")]) == 0
    a, b = ((folder / "steps.jsonl").read_text() for folder in (trained, tmp_path / "run"))
    losses = [[json.loads(line)["loss"] for line in text.splitlines()] for text in (a, b)]
    assert losses[0] == losses[1]
    again = ["--output_dir", str(tmp_path / "run"), "--resume"]  # everything is done already
    before = (tmp_path / "run/model.safetensors").read_bytes()
    assert main([*recipe, *again]) == 0
    assert (tmp_path / "run/model.safetensors").read_bytes() == before


def test_every_setting_of_a_run_is_an_option(trained):
    stored = json.loads((trained / "results.json").read_text())
    options = set(inspect.signature(finetune).parameters)
    assert set(stored["settings"]) == options - {"resume", "allow_changes"}
    derived = {"train_videos", "eval_videos", "global_batch", "architecture"}
    assert set(stored["derived"]) == derived


def test_accelerate_launch_runs_the_same_command(videos, tmp_path):
    args = ["-m", "lvt_ff", *finetune_args(videos, tmp_path / "run")]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu"]
    env = dict(os.environ, OMP_NUM_THREADS="1")
    result = subprocess.run([*command, *args], capture_output=True, text=True, env=env)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run/config.json").is_file()


def test_loading_libraries_can_be_interrupted(capsys, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("lvt_ff.cli.importlib.import_module", interrupted)
    assert main(["models"]) == 130
    assert one_line(capsys) == "lvt-ff models: interrupted"


def test_a_reader_that_goes_away_is_no_failure():
    command = [sys.executable, "-m", "lvt_ff", "models"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()  # as `lvt-ff models | head` does
    assert process.stderr.read() == b"" and process.wait() == 1


@pytest.mark.parametrize(
    "args, message",
    [
        (["finetun"], "unknown command 'finetun'"),
        (["models", "--fast"], "fast"),
        (["predict", "x.mp4"], "model"),
        (["evaluate", "--model", "a", "--data", "b", "--clips", "many"], "clips"),
        (["finetune", "--model", "a"], "train_data"),
    ],
)
def test_wrong_flags_are_one_line_and_status_2(args, message, capsys):
    try:
        code = main(args)
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert message in one_line(capsys)


@pytest.mark.parametrize(
    "prepare, changes, message",
    [
        ("none", ["--model", "lvt_ff_defualt"], "did you mean 'lvt_ff_default'"),
        ("none", ["--model_args", '{"attn_kernel": "relu6"}'], "attn_kernel must be one of"),
        ("none", ["--model_args", '{"depht": 2}'], "depht"),
        ("none", ["--train_data", "{tmp}/absent"], "absent does not exist"),
        ("none", ["--train_data", "{tmp}/list.csv"], "list.csv does not exist"),
        ("empty", ["--train_data", "{tmp}/empty"], "No video found in"),
        ("one", ["--train_data", "{tmp}/one"], "one class only ('left')"),
        ("column", ["--train_data", "{tmp}/wrong.csv"], "needs the columns path,label"),
        ("gone", ["--train_data", "{tmp}/gone.csv"], "files that do not exist"),
        ("more", ["--eval_data", "{tmp}/more"], "classes that the model does not: ['up']"),
        ("none", ["--epochs", "0"], "--epochs must be at least 1"),
        ("none", ["--num_frames", "0"], "--num_frames must be at least 1"),
        ("none", ["--seed", "-1"], "--seed must be between 0"),
        ("none", ["--num_workers", "-1"], "--num_workers must be at least 0"),
        ("none", ["--momentum", "0"], "--momentum must be above 0 and below 1, got 0"),
        ("none", ["--label_smoothing", "2"], "--label_smoothing must be at least 0 and below 1"),
        ("none", ["--scale_jitter", "[0.5,0.5]"], "--scale_jitter must be at least 1"),
        ("none", ["--scale_jitter", "2,1"], "--scale_jitter takes the smaller factor first"),
        (
            "none",
            ["--model_args", '{"in_chans": 1}'],
            "clips of 1 channels, and video files are RGB",
        ),
        ("none", ["--model_args", '{"global_pool": ""}'], "gives no class scores"),
        ("none", ["--layer_decay", "0"], "--layer_decay must be above 0 and at most 1"),
        ("none", ["--freeze", "-1"], "--freeze must be between 0 and 1"),
        ("none", ["--mixed_precision", "fp16"], "fp16 needs a GPU"),
        ("none", ["--model_args", '{"depth": "many"}'], "depth"),
        (
            "none",
            ["--model_args", '{"num_heads": 0}'],
            "num_heads must be an integer between 1 and",
        ),
        ("none", ["--train_data", "{videos}/left/0.mp4"], "neither a folder of class folders nor"),
        ("none", ["--freeze", "7"], "--freeze must be between 0 and 1 (all blocks), got 7"),
        ("file", ["--output_dir", "{tmp}/file"], "is a file"),
    ],
)
def test_wrong_training_requests_are_one_line_and_leave_nothing(
    prepare, changes, message, videos, tmp_path, capsys
):
    if prepare == "empty":
        (tmp_path / "empty").mkdir()
    elif prepare == "one":
        (tmp_path / "one").mkdir()
        (tmp_path / "one/left").symlink_to(videos / "left")
    elif prepare == "column":
        (tmp_path / "wrong.csv").write_text("file,class\na.mp4,b\n")
    elif prepare == "gone":
        (tmp_path / "gone.csv").write_text("path,label\na.mp4,b\nc.mp4,d\n")
    elif prepare == "more":
        (tmp_path / "more").mkdir()
        (tmp_path / "more/up").symlink_to(videos / "left")
        (tmp_path / "more/left").symlink_to(videos / "left")
    elif prepare == "file":
        (tmp_path / "file").write_text("")
    changes = [t.replace("{tmp}", str(tmp_path)).replace("{videos}", str(videos)) for t in changes]
    before = sorted(tmp_path.rglob("*"))
    assert main(finetune_args(videos, tmp_path / "run", *changes)) == 2
    assert message in one_line(capsys)
    assert sorted(tmp_path.rglob("*")) == before


def test_evaluation_data_of_other_classes_is_refused(trained, videos, tmp_path, capsys):
    for name in ("left", "up"):
        (tmp_path / name).symlink_to(videos / "left")
    assert main(["evaluate", "--model", str(trained), "--data", str(tmp_path), "--cpu"]) == 2
    assert "classes that the model does not: ['up']" in one_line(capsys)


@pytest.mark.parametrize("command", ["evaluate", "predict"])
@pytest.mark.parametrize(
    "model, message",
    [
        ("lvt_ff_s", "is a variant, not trained on videos"),
        ("{tmp}/absent", "absent is not a folder"),
        ("{tmp}", "has no config.json"),
    ],
)
def test_models_that_are_no_folders_are_refused(command, model, message, videos, tmp_path, capsys):
    model = model.replace("{tmp}", str(tmp_path))
    data = ["--data", str(videos)] if command == "evaluate" else ["x.mp4"]
    assert main([command, *data, "--model", model]) == 2
    assert message in one_line(capsys)


def test_folder_without_its_weights_is_refused(trained, videos, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_text((trained / "config.json").read_text())
    clip = str(next(videos.glob("left/*.mp4")))
    assert main(["predict", clip, "--model", str(tmp_path)]) == 2
    assert "cannot be loaded" in one_line(capsys)
    tensors = load_file(trained / "model.safetensors")
    del tensors["blocks.0.attn.qkv.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert main(["predict", clip, "--model", str(tmp_path)]) == 2
    assert "lack 1 tensors of the model, such as blocks.0.attn.qkv.weight" in one_line(capsys)


def test_models_of_other_clips_than_videos_are_refused(videos, tmp_path, capsys):
    config = lvt_ff.LVTFFConfig.from_variant("test_lvt_ff", in_chans=1, id2label={0: "a", 1: "b"})
    lvt_ff.LVTFFForVideoClassification(config).save_pretrained(tmp_path)
    clip = str(next(videos.glob("left/*.mp4")))
    for args in (["predict", clip], ["evaluate", "--data", str(videos), "--cpu"]):
        assert main([*args, "--model", str(tmp_path)]) == 2
        assert "clips of 1 channels, and video files are RGB" in one_line(capsys)


def test_damaged_foreign_and_headless_folders_are_refused(trained, videos, tmp_path, capsys):
    import timm

    clip = str(next(videos.glob("left/*.mp4")))
    for name in ("damaged", "headless"):
        shutil.copytree(trained, tmp_path / name)
    weights = tmp_path / "damaged/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    base = lvt_ff.LVTFFModel.from_pretrained(trained)
    base.save_pretrained(tmp_path / "headless")
    foreign = timm.create_model("test_convnext", num_classes=2)
    timm.models.save_for_hf(foreign, tmp_path / "foreign", safe_serialization=True)
    expected = {
        "damaged": "cannot be loaded as an lvt_ff model",
        "headless": "it was saved without a classifier",
        "foreign": "holds timm's 'test_convnext'",
    }
    for name, message in expected.items():
        assert main(["predict", clip, "--model", str(tmp_path / name)]) == 2, name
        assert message in one_line(capsys)
    for name in ("damaged", "foreign"):
        args = finetune_args(videos, tmp_path / "run", model=str(tmp_path / name))
        assert main([*args, "--model_args", "{}"]) == 2
        assert expected[name] in one_line(capsys)
    for device in ("warp9", "meta"):
        assert main(["predict", clip, "--model", str(trained), "--device", device]) == 2
        assert f"Device '{device}' cannot be used" in one_line(capsys)


def test_evaluation_without_a_readable_video_fails(trained, tmp_path, capsys):
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bad.mp4").write_bytes(b"bad")
    args = ["evaluate", "--model", str(trained), "--data", str(tmp_path), "--num_workers", "0"]
    assert main([*args, "--output_dir", str(tmp_path / "out"), "--cpu"]) == 1
    assert "None of the 2 videos could be read" in one_line(capsys)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["evaluation.json"]


def test_missing_tracker_is_refused(videos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator.init_trackers", lambda *a, **k: None)
    assert main(finetune_args(videos, tmp_path / "run", "--tracker", "tensorboard")) == 2
    assert "not installed: pip install tensorboard" in one_line(capsys)


def test_precision_of_the_launcher_is_taken(videos, tmp_path, monkeypatch):
    import accelerate

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    seen = []
    init = accelerate.Accelerator.__init__

    def noting(self, *args, **kwargs):
        init(self, *args, **kwargs)
        seen.append(self.mixed_precision)

    monkeypatch.setattr(accelerate.Accelerator, "__init__", noting)
    assert main(finetune_args(videos, tmp_path / "run")) == 0
    assert seen == ["bf16"]


FULL_DISK = """
import json, resource, signal, sys
from lvt_ff.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # beyond the limit: an error, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(main(json.loads(sys.argv[1])))
"""


def test_really_full_disk_is_one_line_and_leaves_nothing_half_written(videos, tmp_path):
    command = [sys.executable, "-c", FULL_DISK, json.dumps(finetune_args(videos, tmp_path / "run"))]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("lvt-ff")]
    assert len(errors) == 1 and "failed: " in errors[0] and "Traceback" not in result.stderr
    left = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    lines = {path.name: path.read_text().splitlines() for path in left}
    assert set(lines) == {"steps.jsonl", "bad_files.csv"}  # what was done, as far as it went
    assert all(json.loads(line)["loss"] for line in lines["steps.jsonl"])


def test_unreadable_clips_are_named_the_rest_is_classified(trained, videos, tmp_path, capsys):
    (tmp_path / "bad.mp4").write_text("bad")
    clip = str(next(videos.glob("left/*.mp4")))
    args = ["predict", str(tmp_path / "bad.mp4"), clip, str(tmp_path / "none.mp4")]
    assert main([*args, "--model", str(trained)]) == 1
    captured = capsys.readouterr()
    assert "Cannot read video" in captured.out and clip in captured.out
    assert "none.mp4" in captured.out and "2 of 3 videos could not be read" in captured.err


def test_forced_decoder_that_fails_is_an_error(trained, videos, capsys, without_decord):
    clip = str(next(videos.glob("left/*.mp4")))
    assert main(["predict", clip, "--model", str(trained)]) == 0
    capsys.readouterr()
    assert main(["predict", clip, "--model", str(trained), "--decoder", "decord"]) == 1
    assert "Tried decord: not installed" in capsys.readouterr().out


def test_output_that_cannot_be_written_is_one_line(videos, capsys):
    assert main(finetune_args(videos, "/proc/nowhere/run")) == 2
    assert "cannot be written to" in (line := one_line(capsys)) and "--output_dir" in line


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "--data", "{videos}", "--model", "{trained}", "--output_dir", "{place}"],
        ["explain", "{clip}", "--model", "{trained}", "--output", "{place}/a.png"],
        ["export", "--model", "{trained}", "--format", "torch", "--output", "{place}/a.pt2"],
        ["convert", "{trained}", "{place}/a.safetensors", "--to", "authors"],
        ["convert", "someone/vit", "{place}/new"],
        ["pull", "someone/model", "{place}/new"],
        ["ablate", "--scale", "small", "--output", "{place}/new"],
        ["demo", "--output", "{place}/new"],
        ["app", "--model", "{trained}", "--export", "{place}/new"],
        ["finetune", "--model", "a", "--train_data", "{videos}", "--output_dir", "{place}/new"],
    ],
    ids=lambda command: command[0],
)
def test_where_nothing_can_be_written_no_work_is_done(
    command, trained, videos, capsys, monkeypatch
):
    def work(*args, **kwargs):
        raise AssertionError("work before the check")

    for name in ("forward", "save_pretrained"):
        monkeypatch.setattr(lvt_ff.LVTFFForVideoClassification, name, work)
    clip = next(videos.glob("left/*.mp4"))
    names = dict(videos=videos, trained=trained, clip=clip, place="/proc/self")
    assert main([word.format(**names) for word in command]) == 2
    line = one_line(capsys)
    assert "/proc/" in line and "cannot be written to" in line
    words = ("--output_dir", "--output", "--export", "another folder", "another name")
    assert any(word in line for word in words)


def test_a_read_only_model_folder_is_not_evaluated_into(trained, videos, capsys, monkeypatch):
    def refused(folder, flag):
        raise ValueError(f"{folder} cannot be written to: give another {flag}.")

    monkeypatch.setattr("lvt_ff.training.evaluate.check_output_folder", refused)
    assert main(["evaluate", "--model", str(trained), "--data", str(videos), "--cpu"]) == 2
    captured = capsys.readouterr()
    assert f"{trained} cannot be written to: give another --output_dir" in captured.err
    assert "top-1" not in captured.out


def test_full_disk_while_saving_leaves_no_half_written_folder(
    videos, tmp_path, monkeypatch, capsys
):
    from lvt_ff.training import checkpoint

    def full(tensors, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "save_file", full)
    assert main(finetune_args(videos, tmp_path / "run")) == 1
    assert "No space left on device" in one_line(capsys)
    assert not (tmp_path / "run/config.json").exists()
    names = [path.name for path in (tmp_path / "run/checkpoints").iterdir()]
    assert not [name for name in names if "step" in name or name.startswith(".")]


def test_full_disk_while_writing_the_result_leaves_no_half_model(
    videos, tmp_path, monkeypatch, capsys
):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lvt_ff.LVTFFVideoProcessor, "save_pretrained", full)
    assert main(finetune_args(videos, tmp_path / "run")) == 1
    assert "No space left on device" in one_line(capsys)
    assert not (tmp_path / "run/config.json").exists()
    assert not (tmp_path / "run/model.safetensors").exists()


# Every clip of the reference folder, through the command, as its README says.
FINE = (
    *("kinetics_arm_wrestling.mp4", "kinetics_b.mp4", "short_clip.mp4", "ucf_like.avi"),
    *("flipping_a_pancake.mkv", "nasa_with_audio.mp4", "h265.mp4", "h264_10bit.mp4", "av1.mkv"),
    *("rotated_0.mov", "rotated_90.mov", "rotated_180.mov", "unordered.mov"),
)


def test_reference_clips_are_classified_or_named(real_videos, trained, capsys):
    clips = [str(real_videos / name) for name in (*FINE, "corrupted.mp4")]
    args = ["predict", *clips, "--model", str(trained), "--json", "--clips", "2"]
    assert main(args) == 0
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert len(lines) == len(clips)
    for line in lines:
        assert sum(row["score"] for row in line["predictions"]) == pytest.approx(1)
    (warning,) = captured.err.splitlines()
    assert warning.startswith("lvt-ff predict: warning: Video ")
    assert "corrupted.mp4' is damaged: 2 of 50 frames are lost" in warning
    assert main([*args, "--on_damage", "raise"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "corrupted.mp4" in lines[-1]["error"] and "on_damage" in lines[-1]["error"]


def test_short_clip_gives_sixteen_dense_frames(tmp_path):
    from lvt_ff.data import read_clip, sample_indices

    write_video(tmp_path / "short.mp4", random_frames(32, 256, 340))
    frames = read_clip(
        tmp_path / "short.mp4",
        lambda total: sample_indices(total, 16, sampling="dense", stride=16),
    )
    assert frames.shape == (16, 256, 340, 3)


def test_small_demo_goes_the_whole_way(tmp_path, capsys):
    args = ["demo", "--output", str(tmp_path / "demo"), "--train_videos", "32"]
    assert main([*args, "--test_videos", "16", "--epochs", "1"]) == 0
    summary = json.loads((tmp_path / "demo/demo.json").read_text())
    assert summary["chance"] == 0.125 and 0 <= summary["top1"] <= 1
    assert set(summary["deletion_areas"]) == {"relevant", "random"}
    for picture in ("demo.png", "explain.png"):
        assert (tmp_path / "demo" / picture).stat().st_size > 10_000
    assert len(list((tmp_path / "demo/data/train").glob("*/*.mp4"))) == 32
    assert "wrote the model folder" in capsys.readouterr().out
    assert main(args) == 2
    assert "is not empty" in one_line(capsys)
    assert torch.get_default_dtype() == torch.float32


def test_views_of_the_demo_differ(tmp_path):
    from lvt_ff.data import read_views
    from lvt_ff.data.synthetic.demo import draw_clip
    from lvt_ff.demo import RECIPE
    from lvt_ff.hub.model_folder import build_model

    write_video(tmp_path / "a.mp4", draw_clip(0, np.random.default_rng(0)))
    options = dict(RECIPE["model_args"], img_size=RECIPE["img_size"])
    _, processor, _ = build_model(RECIPE["model"], ["a", "b"], **options)
    options = dict(processor.clip_options(), num_clips=2)
    views = read_views(tmp_path / "a.mp4", processor.eval_transform(), options, 3)
    assert views.shape == (6, 8, 3, 48, 48)
    assert len({view.sum().item() for view in views}) == 6
