"""Versions and machine behind a figure."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

__all__ = ["environment"]

_PACKAGES = ("lvt-ff", "torch", "torchvision", "timm", "transformers", "accelerate", "decord", "av")


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
