"""Names of models: a folder, or ORG/NAME[@REVISION] of a repository on the Hub.

A command resolves a name once and passes the folder on: a branch may move between two requests.
"""

import hashlib
import os
import re
import sys
from pathlib import Path

from huggingface_hub import constants, snapshot_download

from lvt_ff.hf.files import REMOTE_FILE
from lvt_ff.hub.retry import reading

__all__ = [
    "VERIFICATION",
    "adapter_problem",
    "has_digest",
    "is_repository",
    "local_folder",
    "model_files",
    "origin",
    "split_revision",
]

VERIFICATION = "verification.safetensors"
# What a repository holds, as writers of model folders name it; checkpoints, optimizer state, logs
# and whatever else lies there stay at home.
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "video_preprocessor_config.json",
    REMOTE_FILE,
    "README.md",
    "results.json",
    "conversion.json",
    VERIFICATION,
    "curve.png",
    "confusion.png",
)
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
ADAPTER = "adapter_config.json"  # read to say what is wrong, not pushed
_REPOSITORY = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
# The Hub's cache: models--ORG--NAME/snapshots/COMMIT, whose files are links to blobs/HASH.
_SNAPSHOT = re.compile(r"models--(.+?)--(.+)/snapshots/([0-9a-f]{40})")


def is_repository(name: str) -> bool:
    """Whether a name looks like ORG/NAME or ORG/NAME@REVISION and no such folder is here."""
    return bool(_REPOSITORY.fullmatch(name)) and not Path(name).exists()


def split_revision(name: str) -> tuple[str, str | None]:
    """ORG/NAME, and the revision behind an @ or None."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def model_files(names: list[str]) -> list[str]:
    """Those of a folder's or a repository's files that belong to a model."""
    return [name for name in names if name in MODEL_FILES or _SHARD.fullmatch(name)]


def origin(folder: str | Path) -> str:
    """What people call a resolved folder: ORG/NAME@COMMIT where it is one of the Hub's cache."""
    found = _SNAPSHOT.search(Path(folder).as_posix())
    return f"{found[1]}/{found[2]}@{found[3]}" if found else str(folder)


def adapter_problem(folder: Path) -> str | None:
    """What to do with a folder that holds an adapter, alone or beside a model; None without one."""
    if not os.path.lexists(folder / ADAPTER):
        return None
    return (
        f"{origin(folder)} holds an adapter of PEFT ({ADAPTER}), which is not a model by itself: "
        "load it with peft, then write the whole with merge_and_unload().save_pretrained(FOLDER)"
    )


def local_folder(name: str | Path) -> Path:
    """The folder itself, or that of a repository in the Hub's cache, downloaded where needed.

    What arrives with another hash than the Hub says is deleted. Where the Hub cannot be reached,
    what the cache has of the revision is taken.

    Args:
        name: path, ORG/NAME or ORG/NAME@REVISION.

    Raises:
        ValueError: no such repository or revision, or one that this machine may not read.
        OSError: the Hub cannot be reached, or a download is damaged.
    """
    name = str(name)
    if not is_repository(name):
        return Path(name)
    repository, revision = split_revision(name)
    blobs = Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}", "blobs")
    there = set(blobs.resolve().iterdir()) if blobs.is_dir() else set()
    shards = "model-" + "?" * 5 + "-of-" + "?" * 5 + ".safetensors"
    options = dict(revision=revision, allow_patterns=[*MODEL_FILES, shards, ADAPTER])
    try:
        folder = Path(
            reading(lambda: snapshot_download(repository, **options), repository, revision)
        )
    except OSError as error:
        try:
            folder = Path(snapshot_download(repository, local_files_only=True, **options))
        except OSError:
            raise error from None
        print(f"{error}; taking {origin(folder)} from the cache", file=sys.stderr, flush=True)
    files = [file for file in folder.iterdir() if file.is_symlink()]
    if any(file.resolve() not in there for file in files):  # else they were looked at before
        _check_blobs(folder, files)
    return folder


def _check_blobs(folder: Path, files: list[Path]) -> None:
    damaged = [file for file in files if not has_digest(file, file.resolve().name)]
    for file in damaged:
        file.resolve().unlink()
        file.unlink()
    if damaged:
        raise OSError(
            f"{', '.join(file.name for file in damaged)} of {origin(folder)} arrived damaged "
            "(another hash than the Hub says), and is deleted: try again."
        )


def has_digest(file: Path, digest: str) -> bool:
    """Whether a file has the hash by which the Hub names it; True for names that are none.

    Args:
        file: to be read.
        digest: SHA-256 of large files, or git's SHA-1 of small ones, in hexadecimal.
    """
    if re.fullmatch("[0-9a-f]{64}", digest):
        found = hashlib.sha256()
    elif re.fullmatch("[0-9a-f]{40}", digest):
        found = hashlib.sha1(b"blob %d\0" % file.stat().st_size)
    else:
        return True
    with open(file, "rb") as handle:
        while block := handle.read(1 << 20):
            found.update(block)
    return found.hexdigest() == digest
