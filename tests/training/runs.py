"""Small runs that the tests of training share."""

import json
import subprocess
import sys

from safetensors.torch import load_file

ARGS = dict(depth=1, num_frames=2, img_size=32, head_hidden=16)
FAST = dict(
    model="test_lvt_ff",
    model_args=ARGS,
    recipe="pretrained",
    batch_size=2,
    epochs=3,
    warmup_epochs=1.0,
    num_workers=0,
    lr=1e-3,
    cpu=True,
)
# Ends a run with a signal after a step, counted from 1.
SCRIPT = """
import json, os, signal, sys
from lvt_ff.training import loop
from lvt_ff.training.finetune import finetune
options, kill_after, number = json.loads(sys.argv[1])
step = loop.TrainingLoop._step
def counted(self, number_of_step, *args):
    row = step(self, number_of_step, *args)
    if number_of_step + 1 == kill_after:
        os.kill(os.getpid(), number)
    return row
loop.TrainingLoop._step = counted
finetune(**options)
"""


def weights(folder):
    return load_file(folder / "model.safetensors")


def rows(folder, *keys):
    lines = (folder / "steps.jsonl").read_text().splitlines()
    return [tuple(json.loads(line)[key] for key in keys) for line in lines]


def start(options, kill_after=None, number=9, script=SCRIPT):
    """A run in a process of its own, which a signal ends after a step."""
    command = [sys.executable, "-c", script, json.dumps([options, kill_after, number])]
    return subprocess.run(command, capture_output=True, text=True)
