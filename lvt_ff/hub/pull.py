"""Pull a model folder from the Hub: it appears under its name only when it is whole."""

import hashlib
import re
import shutil
from pathlib import Path

from huggingface_hub import HfApi, ModelInfo, snapshot_download

from lvt_ff.hub.resolve import model_files, split_revision
from lvt_ff.hub.retry import with_retries
from lvt_ff.utils.command_line import command
from lvt_ff.utils.errors import Failure, usage
from lvt_ff.utils.output import check_output_folder

__all__ = ["pull"]

_PICKLES = ("*.bin", "*.pth", "*.pt", "*.pkl", "*.ckpt")


@command()
def pull(repository: str, folder: Path | None = None) -> Path:
    """Pull a model folder from the Hub; it appears under its name only when it is whole.

    Args:
        repository: ORG/NAME, or ORG/NAME@REVISION with a branch, a tag or a commit.
        folder: New folder; NAME in the current one if not given.
    """
    with usage():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", repository):
            raise ValueError(f"Give the repository as ORG/NAME[@REVISION], got {repository!r}.")
        name, revision = split_revision(repository)
        folder = Path(folder or name.split("/")[1])
        if folder.exists():
            raise ValueError(f"{folder} exists already: give another folder.")
        check_output_folder(folder, "folder")
    info = with_retries(
        lambda: HfApi().model_info(name, revision=revision, files_metadata=True), name, revision
    )
    files = model_files([file.rfilename for file in info.siblings])
    with usage():
        _check_pulled(repository, files, [file.rfilename for file in info.siblings])
    needed = sum(file.size for file in info.siblings if file.rfilename in files)
    parent = folder.absolute().parent
    free = shutil.disk_usage(parent).free
    if free < needed + 10_000_000:
        raise Failure(f"{repository} needs {needed:,} bytes, {parent} has {free:,} free.")
    partial = folder.with_name(f".{folder.name}.partial")  # kept: a second try goes on with it
    with_retries(
        lambda: snapshot_download(name, revision=info.sha, local_dir=partial, allow_patterns=files),
        name,
        revision,
    )
    _verify(partial, info, files)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    partial.rename(folder)
    print(f"pulled {len(files)} files, {needed:,} bytes, at {info.sha} to {folder}")
    return folder


def _check_pulled(repository: str, files: list[str], all_files: list[str]) -> None:
    if "config.json" not in files:
        raise ValueError(f"{repository} holds no config.json: it is not a model's repository.")
    if not model_files(files, ("*.safetensors",)):
        pickles = model_files(all_files, _PICKLES)
        raise ValueError(
            f"{repository} holds no safetensors weights"
            + (
                f", only {pickles[0]}: `lvt-ff convert` reads such files safely."
                if pickles
                else "."
            )
        )


def _verify(folder: Path, info: ModelInfo, files: list[str]) -> None:
    for entry in info.siblings:
        if entry.rfilename not in files:
            continue
        file = folder / entry.rfilename
        if entry.lfs:
            expected, digest = entry.lfs.sha256, hashlib.sha256()
        else:
            expected, digest = entry.blob_id, hashlib.sha1(b"blob %d\0" % file.stat().st_size)
        with open(file, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
        if file.stat().st_size != entry.size or (expected and digest.hexdigest() != expected):
            shutil.rmtree(folder)
            raise Failure(f"{entry.rfilename} arrived damaged (wrong size or hash): pull again.")
