"""Progress bars on a real terminal: what is left on it when a command has ended."""

import contextlib
import json
import os
import re
import subprocess
import sys

import pytest
from conftest import random_frames

from lvt_ff.data.synthetic.writer import write_video

pty = pytest.importorskip("pty")
BAR = re.compile(r"\d%\||[█▏▎▍▌▋▊▉]|step/s|video/s|s/step|s/video")


def on_terminal(*command, columns=70):
    """The lines on a terminal behind a command, every state that it had, and the exit status."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while block := os.read(ours, 65536):
            written += block
    os.close(ours)
    return screen(written.decode(), columns), written.decode(), process.wait()


def screen(text, columns):
    """What a terminal shows after a text with carriage returns and the codes that tqdm uses."""
    rows, y, x = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\s\S]", text):
        if token == "\r":
            x = 0
        elif token == "\x1b[A":
            y = max(y - 1, 0)
        elif token == "\n" or (len(token) == 1 and x == columns):
            y, x = y + 1, 0
            rows += [""] * (y + 1 - len(rows))
        if len(token) == 1 and token.isprintable():
            rows[y] = rows[y][:x].ljust(x) + token + rows[y][x + 1 :]
            x += 1
    return [row.rstrip() for row in rows]


SCRIPT = """
import sys
from lvt_ff.utils.progress import print_line, progress_bar
with progress_bar(4, "step") as bar:
    for step in range(4):
        bar.update()
        bar.set_postfix_str("a text that is much longer than the terminal is wide" * 2)
        with progress_bar(3, "video", desc="evaluating") as inner:
            for _ in range(3):
                inner.update()
        print_line(f"epoch {step}")
        if step == 2 and sys.argv[1] == "fail":
            sys.exit("failed: for a reason")
print("done")
"""


@pytest.mark.parametrize("end", ["well", "fail"])
def test_only_the_lines_stay(end):
    lines, text, _ = on_terminal(sys.executable, "-c", SCRIPT, end)
    assert BAR.search(text)
    last = "done" if end == "well" else "failed: for a reason"
    epochs = [f"epoch {step}" for step in range(4 if end == "well" else 3)]
    assert [line for line in lines if line] == [*epochs, last]


def test_no_bar_where_there_is_no_terminal():
    result = subprocess.run([sys.executable, "-c", SCRIPT, "well"], capture_output=True, text=True)
    assert result.stderr == "" and result.stdout.split("\n")[-2] == "done"


def test_fine_tuning_leaves_no_bar_on_the_terminal(tmp_path):
    for number in range(6):
        file = tmp_path / "videos" / "ab"[number % 2] / f"{number}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_video(file, random_frames(4, 32, 48, seed=number))
    fields = json.dumps(dict(depth=1, num_frames=2, img_size=32, head_hidden=16))
    data = str(tmp_path / "videos")
    command = [sys.executable, "-m", "lvt_ff", "finetune", "--model", "test_lvt_ff", "--cpu"]
    command += ["--train_data", data, "--eval_data", data, "--output_dir", str(tmp_path / "run")]
    command += ["--model_args", fields, "--epochs", "2", "--batch_size", "2", "--num_workers", "0"]
    lines, text, status = on_terminal(*command, columns=200)
    assert status == 0 and BAR.search(text)
    starts = ["start: ", "recipe: scratch", "6 training videos", "the recipe's learning rate"]
    starts += ["epoch 1/2: ", "epoch 2/2: ", "wrote the model"]
    table = re.compile(r"training +evaluation|.* \d+ +\d+  [ab]$|(training|evaluation): smallest")
    lines = [line for line in lines if line and not table.match(line)]
    assert len(lines) == len(starts), lines
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True)), lines
