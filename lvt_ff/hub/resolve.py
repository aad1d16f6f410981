"""Names of models: a folder, or ORG/NAME[@REVISION] of a repository on the Hub."""

import fnmatch
import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lvt_ff.hf.configuration_lvt_ff import REMOTE_FILE
from lvt_ff.hub.retry import explained

__all__ = ["is_repository", "local_folder", "model_files", "split_revision"]

# What a repository holds; checkpoints, optimizer state and logs stay at home.
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "video_preprocessor_config.json",
    REMOTE_FILE,
    "README.md",
    "results.json",
    "conversion.json",
    "*.png",
)


def is_repository(name: str) -> bool:
    """Whether a name looks like ORG/NAME or ORG/NAME@REVISION and no such folder is here."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name)) and not Path(name).exists()


def split_revision(name: str) -> tuple[str, str | None]:
    repository, _, revision = name.partition("@")
    return repository, revision or None


def model_files(names: list[str], patterns: tuple[str, ...] = MODEL_FILES) -> list[str]:
    return [name for name in names if any(fnmatch.fnmatch(name, p) for p in patterns)]


def local_folder(name: str) -> Path:
    """The folder itself, or that of a repository in the Hub's cache, downloaded where needed.

    Args:
        name: path, ORG/NAME or ORG/NAME@REVISION.

    Raises:
        ValueError: no such repository or revision, or one that this machine may not read.
        OSError: the Hub cannot be reached.
    """
    if not is_repository(name):
        return Path(name)
    repository, revision = split_revision(name)
    try:
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=list(MODEL_FILES))
        )
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise ValueError(explained(error, repository, revision)) from error
