"""The reference data: outputs of the published code of each method, beside their MANIFEST.md."""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file

GOLDEN = Path(__file__).parent / "golden"


def attention_tensors(name):
    """The tensors of `golden/attention/NAME.safetensors`."""
    return load_file(GOLDEN / f"attention/{name}.safetensors")


def load_model_run(name):
    """Configuration and tensors of a run of the authors' model, `golden/model/NAME.safetensors`."""
    with safe_open(GOLDEN / f"model/{name}.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        return config, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
