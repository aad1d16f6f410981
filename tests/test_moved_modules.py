"""Former names of modules and of what is in them."""

import subprocess
import sys


def test_former_scripts_still_run():
    command = [sys.executable, "-W", "ignore", "-m", "lvt_ff.predict", "--help"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Print the best classes" in result.stdout
