"""What is installed: versions and machine behind a figure, and how to get what is missing."""

import os
import platform
from importlib.metadata import PackageNotFoundError, requires, version

import torch
from packaging.requirements import Requirement

__all__ = ["environment", "install_hint"]

_PACKAGES = (
    *("lvt-ff", "torch", "torchvision", "timm", "transformers", "accelerate"),
    *("torchcodec", "decord", "av"),
)


def environment(cpu: bool = False) -> dict[str, str]:
    """Versions and machine behind a figure, made on the CPU even where there is a GPU if `cpu`."""
    found = dict(python=platform.python_version(), machine=platform.machine())
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    cuda = torch.cuda.is_available() and not cpu
    found["device"] = torch.cuda.get_device_name() if cuda else f"{os.cpu_count()} CPU cores"
    return found


def install_hint(extra: str) -> str:
    """What to type to install what is missing of one of our extras, such as "app"."""
    try:
        lines = requires("lvt-ff") or []
    except PackageNotFoundError:  # the source folder, as it is
        return f'pip install ".[{extra}]"'
    wanted = [Requirement(line) for line in lines]
    wanted = [need for need in wanted if _is_of(need, extra)]
    missing = [need for need in wanted if not _is_installed(need)] or wanted
    # Double quotes, which every shell knows.
    words = [f'"{need.name}{need.specifier}"' if need.specifier else need.name for need in missing]
    return " ".join(["pip install", *words])


def _is_of(need: Requirement, extra: str) -> bool:
    return need.marker is not None and (
        need.marker.evaluate({"extra": extra}) and not need.marker.evaluate({"extra": ""})
    )


def _is_installed(need: Requirement) -> bool:
    try:
        return need.specifier.contains(version(need.name), prereleases=True)
    except PackageNotFoundError:
        return False
