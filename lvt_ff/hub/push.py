"""Model folders on the Hub: push one as a single commit, pull one whole, use one by name.

Source: huggingface_hub's `create_commit` (weights and config become visible together or not at all)
and its cache.
"""

import re
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
)
from safetensors import SafetensorError, safe_open

from lvt_ff.hf import LVTFFConfig
from lvt_ff.hub.model_card import CARD_REPOSITORY
from lvt_ff.hub.resolve import model_files
from lvt_ff.hub.retry import with_retries
from lvt_ff.model import LinearVideoTransformer
from lvt_ff.utils.command_line import command
from lvt_ff.utils.errors import Failure, usage

__all__ = [
    "check_login",
    "push",
    "pushed_files",
]


@command()
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
        there = model_files([file.rfilename for file in before.siblings or []])
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
    return sorted(folder / name for name in model_files([file.name for file in folder.iterdir()]))


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
