"""One fine-tuning run as it is, and what it cost: python benchmarks/finetune.py FILE OPTION…

The options are those of `lvt-ff finetune`; each step's times come from the run's own log. FILE gets
clips per second, the share of time waiting for data, and the GPU's peak memory. Any launcher may
start it.
"""

import json
import statistics
import sys
from pathlib import Path

import torch

from lvt_ff.cli import main
from lvt_ff.utils.environment import environment

_WARM_UP = 5  # steps that are not counted: kernels are compiled, readers start


def costs(output_dir: Path) -> dict:
    """What a finished run's steps took, from its own records."""
    results = json.loads((output_dir / "results.json").read_text(encoding="utf-8"))
    lines = (output_dir / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line) for line in lines][_WARM_UP:]
    if not steps:
        raise SystemExit(f"The run has no steps beyond the first {_WARM_UP}: use more videos.")
    clips, seconds = results["derived"]["global_batch"], sum(step["time_s"] for step in steps)
    return dict(
        num_steps=len(steps),
        clips_per_s=clips * len(steps) / seconds,
        median_step_s=statistics.median(step["time_s"] for step in steps),
        waiting=sum(step["wait_s"] for step in steps) / seconds,
        settings=results["settings"],
        environment=environment(),
    )


def run() -> int:
    file, *options = sys.argv[1:]
    status = main(["finetune", *options])
    if status:
        return status
    output_dir = Path(options[options.index("--output_dir") + 1])
    found = costs(output_dir)
    if torch.cuda.is_available():
        found["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    if torch.distributed.is_initialized() and torch.distributed.get_rank():
        return 0
    Path(file).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    memory = found.get("peak_memory_gib")
    told = f", peak memory {memory:.1f} GiB" if memory else ""
    print(
        f"{found['num_steps']} steps: {found['clips_per_s']:.1f} clips/s, "
        f"waiting for data {100 * found['waiting']:.0f} %{told}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run())
