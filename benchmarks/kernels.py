"""Checks the Triton kernels against float64 and times them against their least traffic.

Run it in a checkout with `PYTHONPATH=. python benchmarks/kernels.py`; on a processor with
`TRITON_INTERPRET=1` and `--interpret`, without times. Exit status 1 where a check fails.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch
from kernel_cases import DEFAULT, NAMES, TINY, Case, check, is_close, make_case
from kernel_times import copy_tb_s, tb_s, time_ms

from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.environment import environment

__all__ = ["main", "parser"]

_DTYPES = ("bfloat16", "float16", "float32")


def parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--dtype", choices=_DTYPES, help="default: bfloat16; interpreted: float32")
    made.add_argument("--batch_size", type=int, help="clips; default: 16; interpreted: 1")
    made.add_argument("--only", default="", help=f"cases whose name has this; of {list(NAMES)}")
    made.add_argument("--repeats", type=int, default=20, help="timings of each pass")
    made.add_argument("--interpret", action="store_true", help="tiny sizes in the interpreter")
    made.add_argument("--sweep", action="store_true", help="also try other launch settings")
    made.add_argument("--output", type=Path, help="JSON file to write")
    return made


def main(args: Sequence[str] | None = None) -> int:
    """Print a line for each case and direction; returns the exit status."""
    options = parser().parse_args(args)
    problem = _problem(options)
    if problem is not None:
        print(f"kernels.py: error: {problem}", file=sys.stderr)
        return 2
    device = "cpu" if options.interpret else "cuda"
    dtype = getattr(torch, options.dtype or ("float32" if options.interpret else "bfloat16"))
    sizes = dict(TINY if options.interpret else DEFAULT)
    sizes["batch_size"] = options.batch_size or sizes["batch_size"]
    found = dict(
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        settings=json.loads(json.dumps(vars(options), default=str)),
        environment=environment(cpu=options.interpret),
        sizes=sizes,
        dtype=str(dtype).removeprefix("torch."),
        rows=[],
    )
    print(f"{found['environment']['device']}, {found['dtype']}, {sizes}")
    print(_TITLES)
    for name in NAMES:
        if options.only in name:
            found["rows"] += _measured(make_case(name, sizes, device, dtype), options)
            _store(options.output, found)  # what there is, if the run is ended
            torch.cuda.empty_cache()
    wrong = [row for row in found["rows"] if row["failed"]]
    for row in wrong:
        print(f"failed: {row['name']}, {row['direction']}: {', '.join(row['failed'])}")
    return 1 if wrong else 0


def _problem(options: argparse.Namespace) -> str | None:
    """What the options ask for that cannot be done."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if options.interpret and not interpreted:
        return "--interpret needs TRITON_INTERPRET=1 in the environment."
    if interpreted and not options.interpret:
        return "TRITON_INTERPRET=1 is set: give --interpret, or unset it."
    if options.interpret and options.sweep:
        return "--sweep times kernels: leave out --interpret."
    if not options.interpret and not torch.cuda.is_available():
        return "torch finds no GPU here: set TRITON_INTERPRET=1 and give --interpret."
    if not any(options.only in name for name in NAMES):
        return f"--only {options.only!r} is in none of {list(NAMES)}."
    return None


def _measured(case: Case, options: argparse.Namespace) -> list[dict]:
    """Rows of a case's two passes."""
    dtype = case.inputs[0].dtype
    checked, rows = check(case), []
    copied = None if options.interpret else copy_tb_s(options.repeats)
    for direction, run in case.passes.items():
        row = dict(
            name=case.name,
            direction=direction,
            errors={name: checked.errors[name] for name in run.names},
            equal_bits=checked.equal_bits[direction],
            least_bytes=run.num_values * dtype.itemsize,
        )
        row["failed"] = [
            f"error of {name} {fused:.1e}, its modules' {plain:.1e}"
            for name, (fused, plain) in row["errors"].items()
            if not is_close(fused, plain, dtype)
        ]
        row["failed"] += [] if row["equal_bits"] else ["two runs differ, or memory is not written"]
        if copied is not None:
            row["ms"] = time_ms(run, options.repeats)
            row["tb_s"], row["copy_tb_s"] = tb_s(row["least_bytes"], row["ms"]), copied
        print(_line(row), flush=True)
        if options.sweep:
            row["sweep"] = _swept(case, direction, options.repeats)
        rows.append(row)
    return rows


def _swept(case: Case, direction: str, repeats: int) -> list[dict]:
    from kernel_sweep import sweep  # triton may not be installed

    found = sweep(case, direction, repeats)
    best = {}
    for row in found:
        best.setdefault(row["kernel"], row)
    for kernel, row in best.items():
        told = row.get("failed")
        if "ms" in row:
            told = f"{row['ms']:.4f} ms with {row['setting']}, differs by {row['difference']:.0e}"
        print(f"  best of {kernel}: {told}")
    return found


_TITLES = (
    f"{'operator':<20}{'pass':<10}{'error':>9}{'modules':>9} {'of':<10}{'bits':<8}"
    f"{'least MB':>9}{'ms':>9}{'TB/s':>7}{'of copy':>9}"
)


def _line(row: dict) -> str:
    """A row as text; its error is the one that is worst against the modules'."""
    worst, (fused, plain) = max(
        row["errors"].items(), key=lambda item: item[1][0] / max(item[1][1], 1e-30)
    )
    bits = "equal" if row["equal_bits"] else "DIFFER"
    line = f"{row['name']:<20}{row['direction']:<10}{fused:>9.1e}{plain:>9.1e} {worst:<10}{bits:<8}"
    line += f"{row['least_bytes'] / 1e6:>9.4g}"
    if "ms" not in row:
        return line
    return f"{line}{row['ms']:>9.4f}{row['tb_s']:>7.2f}{row['tb_s'] / row['copy_tb_s']:>9.0%}"


def _store(output: Path | None, found: dict) -> None:
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
