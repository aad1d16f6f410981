"""Model folders on the Hub: push one as a single commit, pull one whole, use one by name.

Source: huggingface_hub's `create_commit` (weights and config become visible together or not at all)
and its cache.
"""

import fnmatch
import hashlib
import re
import shutil
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
    snapshot_download,
)
from huggingface_hub.errors import (
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open

from lvt_ff.cards import CARD_REPOSITORY, model_card
from lvt_ff.console import Failure, usage
from lvt_ff.hf import LVTFFConfig
from lvt_ff.hf.configuration_lvt_ff import REMOTE_FILE
from lvt_ff.hub_requests import explained, with_retries
from lvt_ff.model import LinearVideoTransformer

__all__ = [
    "check_login",
    "is_repository",
    "local_folder",
    "model_card",
    "pull",
    "push",
    "pushed_files",
]

# What a repository holds; checkpoints, optimizer state and logs stay at home.
_FILES = (
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
_PICKLES = ("*.bin", "*.pth", "*.pt", "*.pkl", "*.ckpt")


def is_repository(name: str) -> bool:
    """Whether a name looks like ORG/NAME or ORG/NAME@REVISION and no such folder is here."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name)) and not Path(name).exists()


def _split(name: str) -> tuple[str, str | None]:
    repository, _, revision = name.partition("@")
    return repository, revision or None


def _chosen(names: list[str], patterns: tuple[str, ...] = _FILES) -> list[str]:
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
    repository, revision = _split(name)
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(_FILES)))
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise ValueError(explained(error, repository, revision)) from error


def push(
    folder: Path,
    repository: str,
    private: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    message: str = "Upload a model of lvt_ff",
    dry_run: bool = False,
) -> str | None:
    """Push a model folder to the Hub as one commit; a folder that is there already makes none.

    Weights that transformers wrote in shards (beyond 50 GB) load in transformers, not in timm.

    Args:
        folder: Model folder, as fine-tuning, converting or save_pretrained writes it.
        repository: ORG/NAME; made where it is not there.
        private: Make a new repository private.
        revision: Branch to push to, made where it is not there; main if not given.
        tag: Name for the pushed state.
        message: Of the commit.
        dry_run: List what would go, without sending anything.
    """
    with usage():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
            raise ValueError(f"Give the repository as ORG/NAME, got {repository!r}.")
        files = pushed_files(Path(folder))
    total = sum(file.stat().st_size for file in files)
    if dry_run:
        for file in files:
            print(f"{file.stat().st_size:>14,}  {file.name}")
        print(f"{total:>14,}  bytes in {len(files)} files would go to {repository}")
        return None
    api = HfApi()

    def attempt() -> tuple[str, bool]:
        api.create_repo(repository, private=private, exist_ok=True)
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        before = api.model_info(repository, revision=revision)
        there = _chosen([file.rfilename for file in before.siblings or []])
        gone = sorted(set(there) - {file.name for file in files})
        sha = api.create_commit(
            repository,
            [CommitOperationAdd(file.name, _content(file, repository)) for file in files]
            + [CommitOperationDelete(name) for name in gone],
            commit_message=message,
            revision=revision,
        ).oid
        if tag:
            _tag(api, repository, tag, sha)
        return sha, sha != before.sha

    sha, changed = with_retries(attempt, repository, revision)
    done = f"pushed {len(files)} files" if changed else "nothing changed: no commit"
    print(f"{done}; {api.endpoint}/{repository} is at {sha}")
    return sha


def pull(repository: str, folder: Path | None = None) -> Path:
    """Pull a model folder from the Hub; it appears under its name only when it is whole.

    Args:
        repository: ORG/NAME, or ORG/NAME@REVISION with a branch, a tag or a commit.
        folder: New folder; NAME in the current one if not given.
    """
    with usage():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", repository):
            raise ValueError(f"Give the repository as ORG/NAME[@REVISION], got {repository!r}.")
        name, revision = _split(repository)
        folder = Path(folder or name.split("/")[1])
        if folder.exists():
            raise ValueError(f"{folder} exists already: give another folder.")
    info = with_retries(
        lambda: HfApi().model_info(name, revision=revision, files_metadata=True), name, revision
    )
    files = _chosen([file.rfilename for file in info.siblings])
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


def check_login(repository: str) -> None:
    """Raise `Failure` where nobody is logged in to the Hub: before a long run, not after it."""
    with_retries(lambda: HfApi().whoami(), repository, None)


def pushed_files(folder: Path) -> list[Path]:
    """The files of a model folder that belong on the Hub, after a look at the weights."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is not a model folder: it has no config.json.")
    try:
        config = LVTFFConfig.from_pretrained(folder)
    except (OSError, TypeError) as error:
        raise ValueError(f"config.json of {folder} is not a model's of lvt_ff: {error}") from error
    _check_weights(folder, config)
    return sorted(folder / name for name in _chosen([file.name for file in folder.iterdir()]))


def _content(file: Path, repository: str) -> Path | bytes:
    if file.name != "README.md":
        return file
    return file.read_text(encoding="utf-8").replace(CARD_REPOSITORY, repository).encode()


def _check_weights(folder: Path, config: LVTFFConfig) -> None:
    """The headers of the weight files must have every tensor of the model in its shape."""
    num_classes = 0 if config.architectures == ["LVTFFModel"] else config.num_labels
    model = LinearVideoTransformer(num_classes=num_classes, **config.core_kwargs(), device="meta")
    found: dict[str, tuple[int, ...]] = {}
    for file in folder.glob("model*.safetensors"):
        try:
            with safe_open(file, "pt") as weights:
                names = weights.keys()
                found |= {name: tuple(weights.get_slice(name).get_shape()) for name in names}
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged: {error}") from error
    wrong = [n for n, t in model.state_dict().items() if found.get(n) != tuple(t.shape)]
    if wrong:
        raise ValueError(
            f"{folder} is not whole: {len(wrong)} tensors such as {wrong[0]} are missing from its "
            "safetensors files, or have another shape than its config.json says."
        )


def _tag(api: HfApi, repository: str, tag: str, sha: str) -> None:
    tags = {found.name: found.target_commit for found in api.list_repo_refs(repository).tags}
    if tag not in tags:
        api.create_tag(repository, tag=tag, revision=sha)
    elif tags[tag] != sha:
        raise Failure(
            f"{repository} has a tag {tag} of another state ({tags[tag]}): choose another."
        )


def _check_pulled(repository: str, files: list[str], all_files: list[str]) -> None:
    if "config.json" not in files:
        raise ValueError(f"{repository} holds no config.json: it is not a model's repository.")
    if not _chosen(files, ("*.safetensors",)):
        pickles = _chosen(all_files, _PICKLES)
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
