"""benchmark-data: what it measures, of files and of shards."""

import json

import numpy as np
import pytest
from conftest import random_frames

from lvt_ff.benchmarking.bare_decoders import BARE_DECODERS
from lvt_ff.benchmarking.loading import readable_videos
from lvt_ff.cli import main
from lvt_ff.data import VideoReadError, load_video_list, read_clip
from lvt_ff.data.prepare_data import prepare_data
from lvt_ff.data.synthetic import write_video
from lvt_ff.utils.errors import Failure

pytestmark = pytest.mark.usefixtures("inline")


@pytest.fixture
def videos(tmp_path):
    for index in range(6):
        file = tmp_path / "videos" / "ab"[index % 2] / f"{index}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_video(file, random_frames(10, 48, 64, seed=index))
    (tmp_path / "videos/a/broken.mp4").write_bytes(b"no video")
    return tmp_path / "videos"


def can_read(decoder, path):
    try:
        read_clip(path, [0], decoder=decoder)
    except VideoReadError:
        return False
    return True


@pytest.mark.parametrize("kind", ["files", "shards"])
def test_figures_are_of_all_readable_videos_and_fit_together(videos, tmp_path, kind, capsys):
    data = videos
    if kind == "shards":
        data = tmp_path / "shards"
        prepare_data(str(videos), data)
    file = tmp_path / "figures.json"
    args = ["--num_workers=1", "--repeats=2", "--num_frames=4", "--img_size=32", "--batch_size=4"]
    assert main(["benchmark-data", str(data), *args, f"--output={file}"]) == 0
    found = json.loads(file.read_text())
    assert found["num_videos"] == 6 and found["environment"]["torch"]
    for name in ("decoder", "reader", "loader"):
        row = found[name]
        assert len(row["clips_s_rounds"]) == 2 and min(row["clips_s_rounds"]) > 0
        low, high = row["ratio_range"]
        assert low <= row["ratio"] <= high
        ratios = np.divide(row["clips_s_rounds"], found["decoder"]["clips_s_rounds"])
        assert row["ratio"] == pytest.approx(np.median(ratios))
    assert found["decoder"]["ratio"] == 1
    assert sum(found["shares"].values()) == pytest.approx(1)
    told = capsys.readouterr().out
    assert "training's loader" in told and "6 videos, clips of 4 frames" in told


def test_videos_are_taken_evenly_and_only_those_that_can_be_read(videos):
    listed = load_video_list(videos)
    some, facts = readable_videos(listed, 3, 1, {})
    assert list(some.paths) == [listed.paths[0], listed.paths[6]]  # the third is broken
    assert [total for total, _ in facts] == [10, 10]
    there = [name for name in BARE_DECODERS if can_read(name, some.paths[0])]
    assert [decoder for _, decoder in facts] == 2 * there[:1]
    assert readable_videos(listed, 3, 1, dict(decoder="pyav"))[1] == 2 * [(10, "pyav")]
    broken = listed.take(np.array([3]))
    with pytest.raises(Failure, match="None of 1 videos"):
        readable_videos(broken, 5, 1, {})


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_bare_decoders_give_the_frames_that_our_reader_gives(videos, decoder):
    pytest.importorskip({"pyav": "av"}.get(decoder, decoder))
    file = str(next(videos.glob("b/*.mp4")))
    frames = BARE_DECODERS[decoder](file, [0, 3, 9])
    assert np.array_equal(frames, read_clip(file, [0, 3, 9], decoder=decoder))


def test_parts_of_videos_are_refused_in_words(videos, capsys):
    rows = [f"{name}.mp4,{name[0]},0,0.2" for name in ("a/0", "b/1")]
    (videos / "parts.csv").write_text("\n".join(["path,label,start,end", *rows]))
    assert main(["benchmark-data", str(videos / "parts.csv")]) == 2
    assert "prepare-data --short_side" in capsys.readouterr().err
