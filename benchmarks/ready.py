"""Says what a machine has, and in a line what it lacks for `gpu.sh`; status 1 without a GPU."""

import importlib.util
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

_SHOWN = ("torch", "triton", "timm", "transformers", "torchvision", "numpy", "jsonargparse")
_ABSENT = "not installed"
# Module: what cannot be run without it.
_NEEDED = dict(
    triton="the kernels",
    pytest="the tests",
    jsonargparse="lvt-ff benchmark",
    docstring_parser="lvt-ff benchmark",
    yaml="lvt-ff benchmark",
    matplotlib="lvt-ff benchmark",
    tqdm="lvt-ff benchmark",
    torchvision="lvt-ff benchmark",
    transformers="lvt-ff benchmark",
)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return _ABSENT


def _requirements() -> list[Requirement]:
    """What pyproject.toml says that the package needs."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^dependencies = \[\n(.*?)^\]", text, flags=re.M | re.S)[1]
    return [Requirement(line) for line in re.findall(r'^ +"(.+?)",', listed, flags=re.M)]


def _older(need: Requirement) -> str | None:
    """A package that is there in a version that does not suffice, and which would."""
    found = _version(need.name)
    if found == _ABSENT or need.specifier.contains(found, prereleases=True):
        return None
    return f"{need.name} {found} ({need.specifier})"


def main() -> int:
    """Print versions and what is missing; returns the exit status."""
    try:
        import timm
        import torch

        import lvt_ff

        timm.create_model("test_lvt_ff")
    except (ImportError, AttributeError, TypeError) as error:  # missing, or too old
        shown = ", ".join(f"{name} {_version(name)}" for name in _SHOWN)
        print(f"`import lvt_ff` does not work here: {error} ({shown})")
        return 1
    print(f"python {sys.version.split()[0]}", *(f"{name} {_version(name)}" for name in _SHOWN))
    print(f"lvt_ff {lvt_ff.__version__} of {Path(lvt_ff.__file__).parents[1]}")
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        without = dict.fromkeys(_NEEDED[name] for name in missing)
        print(f"missing: {', '.join(missing)}; so not run: {', '.join(without)}")
    older = [told for need in _requirements() if (told := _older(need)) is not None]
    if older:
        print(f"not what pyproject.toml asks for: {', '.join(older)}")
    if not torch.cuda.is_available():
        print("torch finds no GPU here")
        return 1
    print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
