"""Pull a model folder from the Hub: it appears under its name only when it is whole."""

import fnmatch
import re
import shutil
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from lvt_ff.hub.resolve import VERIFICATION, has_digest, model_files, split_revision
from lvt_ff.hub.retry import with_retries
from lvt_ff.utils.command_line import command
from lvt_ff.utils.errors import Failure, usage
from lvt_ff.utils.output import check_output_folder

__all__ = ["pull"]

_PICKLES = ("*.bin", "*.pth", "*.pt", "*.pkl", "*.ckpt")


@command()
def pull(repository: str, folder: Path | None = None) -> Path:
    """Pull a model folder from the Hub; it gets its name once the download is complete.

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
    sha, listed = with_retries(lambda: _listed(name, revision), name, revision)
    files = model_files(list(listed))
    with usage():
        _check_pulled(repository, files, list(listed))
    needed = sum(listed[file][0] or 0 for file in files)
    parent = folder.absolute().parent
    free = shutil.disk_usage(parent).free
    if free < needed + 10_000_000:
        raise Failure(f"{repository} needs {needed:,} bytes, {parent} has {free:,} free.")
    partial = folder.with_name(f".{folder.name}.partial")  # kept: a second try goes on with it
    if partial.is_symlink():
        raise Failure(f"{partial} is a link: delete it, files would be written where it leads.")
    with_retries(
        lambda: snapshot_download(name, revision=sha, local_dir=partial, allow_patterns=files),
        name,
        revision,
    )
    for file in files:
        _verify(partial, file, *listed[file])
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    partial.rename(folder)
    size = sum((folder / file).stat().st_size for file in files)
    print(f"pulled {len(files)} files, {size:,} bytes, at {sha} to {folder}")
    return folder


def _listed(name: str, revision: str | None) -> tuple[str, dict[str, tuple[int | None, str]]]:
    """The commit of a revision; size (None where the Hub does not say) and hash of its files."""
    info = HfApi().model_info(name, revision=revision, files_metadata=True)
    if not info.sha or info.siblings is None:
        raise ValueError(f"a commit and its files were expected, got {info.sha}, {info.siblings}")
    return info.sha, {
        file.rfilename: (file.size, (file.lfs.sha256 if file.lfs else file.blob_id) or "")
        for file in info.siblings
    }


def _check_pulled(repository: str, files: list[str], all_files: list[str]) -> None:
    if "config.json" not in files:
        raise ValueError(f"{repository} holds no config.json: it is not a model's repository.")
    if not any(name.endswith(".safetensors") and name != VERIFICATION for name in files):
        pickles = [name for name in all_files if any(fnmatch.fnmatch(name, p) for p in _PICKLES)]
        raise ValueError(
            f"{repository} holds no safetensors weights"
            + (
                f", only {pickles[0]}: `lvt-ff convert` reads such files safely."
                if pickles
                else "."
            )
        )


def _verify(folder: Path, name: str, size: int | None, digest: str) -> None:
    file = folder / name
    right_size = size is None or file.stat().st_size == size
    if not right_size or not has_digest(file, digest):
        shutil.rmtree(folder)
        raise Failure(f"{name} arrived damaged (wrong size or hash): pull again.")
