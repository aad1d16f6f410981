"""The paper's comparisons as a command: rows, made-up motion, resuming, figures told apart."""

import json
import shutil

import numpy as np
import pytest
from conftest import launch

from lvt_ff import LinearVideoTransformer
from lvt_ff.ablation import tables
from lvt_ff.ablation.ablate import ablate
from lvt_ff.ablation.recipe import SCALES, checked_recipe, run_name
from lvt_ff.ablation.report import markdown
from lvt_ff.ablation.tables import TABLES, table_of
from lvt_ff.cli import main
from lvt_ff.data.synthetic.motion import MOTION_CLASSES, MOTION_SIZE, draw_motion
from lvt_ff.data.synthetic.writer import write_dataset
from lvt_ff.kernels import KERNELS
from lvt_ff.utils.errors import UsageError
from lvt_ff.utils.output import only_run

TINY = dict(
    model_args=dict(depth=1, num_frames=2, embed_dim=32, num_heads=2),
    epochs=1,
    batch_size=8,
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """32 training and 16 test videos of all classes."""
    folder = tmp_path_factory.mktemp("motion")
    for seed, (name, count) in enumerate((("train", 32), ("test", 16))):
        options = dict(class_names=MOTION_CLASSES, draw=draw_motion)
        write_dataset(folder / name, count, seed, num_workers=1, **options)
    return folder


def places(frames, channel):
    """Centre (T, 2) of the disc (channel 0) or the square (channel 2)."""
    excess = frames[..., channel].astype(float) - frames.max(
        -1, where=np.arange(3) != channel, initial=0
    )
    weight = (excess - 60).clip(0)
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]]
    total = weight.sum((1, 2)).clip(1)
    return np.stack([(weight * x).sum((1, 2)) / total, (weight * y).sum((1, 2)) / total], -1)


@pytest.mark.parametrize("label", [0, 4, 12])
def test_the_second_class_of_a_pair_is_the_first_backwards(label):
    # Of the same seed: objects reverse their paths, ground and camera stay.
    forth, back = (draw_motion(label + i, np.random.default_rng(5)) for i in range(2))
    assert forth.shape == (16, MOTION_SIZE, MOTION_SIZE, 3) and forth.dtype == np.uint8
    gaps = [places(frames, 0) - places(frames, 2) for frames in (forth, back)]
    assert abs(gaps[0] - gaps[1][::-1]).max() < 1.5
    assert abs(gaps[0] - gaps[1]).max() > 3


@pytest.mark.parametrize("label, sign", [(0, -1), (1, 1)])
def test_the_gap_closes_in_the_first_class_and_opens_in_the_second(label, sign):
    changes = []
    for seed in range(12):
        frames = draw_motion(label, np.random.default_rng(seed))
        gap = np.linalg.norm(places(frames, 0) - places(frames, 2), axis=1)
        changes.append(gap[-1] - gap[0])
    assert np.median(changes) * sign > 5


def test_the_camera_drifts_and_clips_differ():
    clips = [draw_motion(10, np.random.default_rng(seed)).astype(float) for seed in range(20)]
    assert abs(clips[0] - clips[1]).mean() > 10
    corners = np.stack([clip[:, :8, :8].mean((1, 2)) for clip in clips])  # ground, most often
    assert np.median(np.ptp(corners, axis=1)) > 6.5  # noise alone gives about 4.3


@pytest.mark.parametrize("number", TABLES)
def test_rows_build_models_and_differ(number):
    rows = table_of(number).rows
    assert len({run_name(row.options) for row in rows}) == len(rows)
    sizes = dict(embed_dim=64, depth=1, num_heads=4, num_frames=4, img_size=64, device="meta")
    for row in rows:
        LinearVideoTransformer(**sizes, **row.options)


def test_table_1_has_every_kernel():
    named = {row.options.get("attn_kernel", "relu") for row in table_of(1).rows}
    assert named == set(KERNELS)


def test_rows_are_trained_once_and_resumed_and_added_to(videos, tmp_path, capsys):
    options = dict(data=videos, recipe=TINY, num_workers=0, cpu=True)
    first = ablate(tmp_path / "out", tables="5", seeds=1, **options)
    rows = first["tables"][5]["rows"]
    assert [len(row["top1"]) for row in rows] == [1, 1, 1]
    runs = sorted(path.name for path in (tmp_path / "out/runs").iterdir())
    assert runs == ["attn_kernel=elu1", "attn_kernel=sigmoid", "default"]
    weights = tmp_path / "out/runs/default/seed_0/model.safetensors"
    before = weights.stat().st_mtime_ns
    # A run that broke off: its folder has no results.
    (tmp_path / "out/runs/attn_kernel=elu1/seed_0/results.json").unlink()
    second = ablate(tmp_path / "out", tables="5,6", seeds=2, **options)
    assert weights.stat().st_mtime_ns == before
    assert [len(row["top1"]) for row in second["tables"][6]["rows"]] == [2, 2, 2]
    fewer = ablate(tmp_path / "out", tables="5", seeds=1, **options)
    assert fewer["tables"][5] == second["tables"][5]  # what is there already counts
    again = {row["name"]: row["top1"][0] for row in second["tables"][5]["rows"]}
    assert again == {row["name"]: row["top1"][0] for row in rows}
    stored = json.loads((tmp_path / "out/results.json").read_text())
    assert stored["settings"]["recipe"]["epochs"] == 1
    assert stored["tables"]["5"]["rows"][0]["paper_top1"] == 60.42
    text = (tmp_path / "out/tables.md").read_text()
    assert text == markdown(stored) and "paper (SSv2, full size)" in text
    assert (tmp_path / "out/tables.png").stat().st_size > 10_000
    capsys.readouterr()
    other = dict(TINY, epochs=2)
    arguments = ["--tables", "5", "--seeds", "1", "--data", str(videos), "--cpu"]
    arguments += ["--output", str(tmp_path / "out"), "--recipe", json.dumps(other)]
    assert main(["ablate", *arguments]) == 2
    assert "epochs was 1, is 2. Give another --output" in capsys.readouterr().err


def test_settings_of_a_comparison_are_options_again(videos, tmp_path):
    options = dict(tables="6", seeds=1, data=videos, recipe=TINY, num_workers=0, cpu=True)
    first = ablate(tmp_path / "out", **options)
    results = ["--config", str(tmp_path / "out/results.json")]
    before = (tmp_path / "out/results.json").stat().st_mtime_ns
    weights = (tmp_path / "out/runs/default/seed_0/model.safetensors").stat().st_mtime_ns
    assert main(["ablate", *results]) == 0  # nothing is left to train
    assert (tmp_path / "out/results.json").stat().st_mtime_ns > before
    assert (tmp_path / "out/runs/default/seed_0/model.safetensors").stat().st_mtime_ns == weights
    assert main(["ablate", *results, "--output", str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again/results.json").read_text())
    rows = [row["top1"] for row in first["tables"][6]["rows"]]
    assert [row["top1"] for row in again["tables"]["6"]["rows"]] == rows


def test_results_of_a_version_with_one_kind_of_settings_are_read(videos, tmp_path):
    options = dict(tables="6", seeds=1, data=videos, recipe=TINY, num_workers=0, cpu=True)
    first = ablate(tmp_path, **options)
    for file in tmp_path.glob("runs/*/*/results.json"):
        stored = json.loads(file.read_text())
        stored["settings"] |= stored.pop("derived")
        file.write_text(json.dumps(stored))
    weights = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert ablate(tmp_path, **options)["tables"] == first["tables"]
    damaged = tmp_path / "runs/default/seed_0/results.json"
    kept = damaged.read_text()
    damaged.write_text(kept[:100])
    with pytest.raises(UsageError, match="results.json is damaged .*: delete it and go on"):
        ablate(tmp_path, **options)
    damaged.write_text(kept)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert after == weights
    old = dict(first, settings=first["settings"] | first["derived"])
    del old["derived"]
    for name in ("output", "tables", "seeds", "data", "num_workers", "cpu"):
        del old["settings"][name]
    assert "given videos" in markdown(dict(old, settings=dict(old["settings"], scale=None)))
    assert "made-up motion" in markdown(old)


def test_a_second_comparison_in_one_folder_is_refused(videos, tmp_path, capsys):
    with only_run(tmp_path, "--output"):
        arguments = ["--data", str(videos), "--output", str(tmp_path), "--cpu"]
        assert main(["ablate", *arguments]) == 2
    error = capsys.readouterr().err
    assert f"Another run is writing to {tmp_path}: process " in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_row_of_several_tables_is_trained_once(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "KERNELS", {"relu": KERNELS["relu"]})
    options = dict(seeds=1, data=videos, recipe=TINY, num_workers=0, cpu=True)
    ablate(tmp_path, tables="3", **options)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    summary = ablate(tmp_path, tables="1", **options)
    rows = summary["tables"][1]["rows"]
    assert [row["name"] for row in rows] == ["relu", "relu + NA + FF"]
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert after == before


def test_a_report_again_is_of_all_that_is_there_and_of_what_trained_it(videos, tmp_path):
    options = dict(tables="6", data=videos, num_workers=0, cpu=True)
    first = ablate(tmp_path, seeds=1, recipe=dict(TINY, sampling="dense"), **options)
    file = tmp_path / "runs/default/seed_0/results.json"
    stored = json.loads(file.read_text())
    stored["environment"]["device"] = "another machine"
    file.write_text(json.dumps(stored))
    again = ablate(tmp_path, seeds=1, recipe=dict(TINY, sampling="dense"), **options)
    assert again["tables"] == first["tables"]
    devices = [made["device"] for made in again["environments"]]
    assert len(devices) == 2 and "another machine" in devices
    assert all(device in (tmp_path / "tables.md").read_text() for device in devices)
    derived = again["derived"]
    assert derived["defaults"]["ema_decay"] == 0.0 and derived["num_processes"] == 1
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(UsageError, match="epochs was 1, is 2"):  # before anything is trained
        ablate(tmp_path, seeds=2, recipe=dict(TINY, sampling="dense", epochs=2), **options)
    assert not list(tmp_path.glob("runs/*/seed_1"))
    assert (tmp_path / "results.json").read_bytes() == before


def test_a_test_set_may_lack_a_class(videos, tmp_path):
    shutil.copytree(videos, tmp_path / "videos")
    shutil.rmtree(tmp_path / "videos/test" / MOTION_CLASSES[3])
    options = dict(tables="6", seeds=1, recipe=TINY, num_workers=0, cpu=True)
    summary = ablate(tmp_path / "out", data=tmp_path / "videos", **options)
    assert summary["derived"]["test_videos"].startswith("15 videos")


def test_a_model_of_the_recipe_has_its_own_sizes():
    small = checked_recipe("small", {}, [])
    assert small["model_args"]["depth"] == 1 and small["img_size"] == MOTION_SIZE
    other = checked_recipe("small", dict(model="lvt_ff_s", epochs=4), [dict(fixation="none")])
    assert other["model_args"] == {} and "img_size" not in other
    assert other["optimizer"] == small["optimizer"] and other["epochs"] == 4


def test_a_recipe_may_change_what_no_row_of_the_tables_tells():
    windowed = dict(model_args=dict(attn_pattern="windowed"))
    recipe = checked_recipe("small", windowed, [row.options for row in table_of(3).rows])
    assert recipe["model_args"] == {
        **SCALES["small"]["recipe"]["model_args"],
        **windowed["model_args"],
    }
    with pytest.raises(ValueError, match=r"may not have \['attn_pattern'\]: rows differ"):
        checked_recipe("small", windowed, [row.options for row in table_of(6).rows])


def test_videos_that_another_version_drew_are_not_used(tmp_path, capsys):
    (tmp_path / "data/small-0").mkdir(parents=True)
    assert main(["ablate", "--output", str(tmp_path), "--scale", "small"]) == 2
    assert "was drawn by another version of lvt_ff or numpy" in capsys.readouterr().err


def test_an_option_that_was_taken_out_is_noticed(videos, tmp_path):
    options = dict(tables="5", seeds=1, data=videos, num_workers=0, cpu=True)
    ablate(tmp_path, recipe=dict(TINY, label_smoothing=0.1), **options)
    with pytest.raises(UsageError, match="label_smoothing was 0.1, is 0.0"):
        ablate(tmp_path, recipe=TINY, **options)


def test_a_model_that_diverges_is_a_row_of_its_own(videos, tmp_path):
    wild = dict(TINY, optimizer="sgd", lr=1e30, clip_grad=None, warmup_epochs=0.0)
    options = dict(tables="5", seeds=1, data=videos, recipe=wild, num_workers=0, cpu=True)
    summary = ablate(tmp_path, **options)
    assert [row["top1"] for row in summary["tables"][5]["rows"]] == [[None]] * 3
    assert "| ReLU | diverged | 65.46 |" in (tmp_path / "tables.md").read_text()
    assert ablate(tmp_path, **options)["tables"] == summary["tables"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--tables", "2"], "There is no Table 2 to run: choose from [1, 3, 4, 5, 6, 9]"),
        (["--tables", "three"], "--tables must be numbers with commas between"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--recipe", '{"epoch": 3}'], "--recipe has no option 'epoch': choose from"),
        (["--recipe", '{"seed": 3}'], "--recipe has no option 'seed'"),
        (["--recipe", '{"optimizer": "sgdd"}'], "--recipe: "),
        (["--recipe", '{"epochs": null}'], "--recipe: epochs cannot be null"),
        (["--recipe", '{"epochs": 0}'], "--recipe: epochs must be at least 1, got 0"),
        (["--recipe", '{"model_args": {"depht": 1}}'], "unexpected keyword argument 'depht'"),
        (["--recipe", '{"model_args": {"num_heads": 5}}'], "--recipe: num_heads must divide"),
        (
            ["--recipe", '{"model_args": {"fixation": "none"}}'],
            "model_args may not have ['fixation']: rows differ in these",
        ),
        (["--recipe", '{"model_args": {"img_size": 64}}'], "give img_size beside model_args"),
        (["--recipe", '{"recipe": "auto"}'], "recipe must be one that is named"),
        (["--recipe", '{"model": "some/folder"}'], "model must be a variant, with or without"),
        (["--recipe", '{"model_args": {"kernel_options": {"rank": 3}}}'], "has no option 'rank"),
        (["--recipe", '{"model_args": "x"}'], "--recipe"),
        (["--data", "nowhere"], "nowhere has neither a folder train nor a file train.csv"),
    ],
)
def test_wrong_usage_is_told_in_a_line(arguments, message, capsys, tmp_path):
    assert main(["ablate", "--output", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scale", SCALES)
def test_rows_are_listed_without_training(scale, capsys, tmp_path):
    arguments = ["--tables", "3,4,5,6,9,1", "--dry_run", "--scale", scale]
    assert main(["ablate", "--output", str(tmp_path / "out"), *arguments]) == 0
    out = capsys.readouterr().out
    assert "attn_kernel=vig,fixation=none,spatial_shift=0,temporal_shift_div=0" in out
    models = {run_name(row.options) for number in TABLES for row in table_of(number).rows}
    assert f"{len(models)} models × 3 seeds = {3 * len(models)} runs at scale {scale}" in out
    assert len(models) < sum(len(table_of(number).rows) for number in TABLES)
    assert not (tmp_path / "out").exists()


def test_two_processes_share_every_run(videos, tmp_path):
    out = tmp_path / "out"
    options = dict(tables="6", seeds=1, data=str(videos), recipe=dict(TINY, batch_size=4))
    done = launch(2, "ablate", dict(options, output=str(out), num_workers=0, cpu=True))
    assert done.stdout.count("run 3/3") == 1  # one process speaks
    alone = ablate(
        tmp_path / "alone",
        tables="6",
        seeds=1,
        data=videos,
        recipe=dict(TINY, accumulation=2, batch_size=4),
        num_workers=0,
        cpu=True,
    )
    together = json.loads((out / "results.json").read_text())["tables"]["6"]["rows"]
    for row, other in zip(together, alone["tables"][6]["rows"], strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)
        assert row["top1"] == pytest.approx(other["top1"])
