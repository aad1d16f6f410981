"""Some mutants of model folders; `LVT_FF_MUTANTS=1000` for more, or the script with its options."""

import os
import subprocess
import sys

import fuzz_folders

MUTANTS = os.environ.get("LVT_FF_MUTANTS", "40")


def test_every_mutant_is_refused_in_words_or_loads_alike_everywhere():
    command = [sys.executable, fuzz_folders.__file__, MUTANTS, "--seed", "11"]
    environment = dict(os.environ, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-3000:]
    assert f"{MUTANTS} mutants" in run.stdout and "unclean" not in run.stdout
