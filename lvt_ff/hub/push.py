"""Model folders on the Hub: push one as a single commit."""

import json
import re
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from lvt_ff.hf.modeling_lvt_ff import check_folder
from lvt_ff.hub.local_paths import local_paths, without_paths
from lvt_ff.hub.model_card import CARD_REPOSITORY
from lvt_ff.hub.resolve import adapter_problem, model_files
from lvt_ff.hub.retry import with_retries
from lvt_ff.utils.command_line import command
from lvt_ff.utils.errors import Failure, usage
from lvt_ff.utils.json_files import read_object

__all__ = ["check_login", "push", "pushed_files"]

_CARD, _RECORDS = "README.md", ("results.json", "conversion.json")


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
    """Push a model folder to the Hub as one commit; no commit if nothing changed.

    Args:
        folder: Model folder, as fine-tuning, converting or save_pretrained writes it.
        repository: ORG/NAME; created if missing.
        private: Make a new repository private.
        revision: Branch to push to, created if missing; main if not given.
        tag: Tag for the pushed commit.
        message: Commit message.
        dry_run: List what would be sent, without sending anything.
    """
    with usage():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
            raise ValueError(f"Give the repository as ORG/NAME, got {repository!r}.")
        files = pushed_files(Path(folder))
    if isinstance(files.get(_CARD), bytes):
        files[_CARD] = files[_CARD].replace(CARD_REPOSITORY.encode(), repository.encode())
    sizes = {
        name: len(content) if isinstance(content, bytes) else content.stat().st_size
        for name, content in files.items()
    }
    if dry_run:
        for name, size in sizes.items():
            print(f"{size:>14,}  {name}")
        total = sum(sizes.values())
        print(f"{total:>14,}  bytes in {len(files)} files would go to {repository}")
        return None
    api = HfApi()

    def attempt() -> tuple[str, bool]:
        api.create_repo(repository, private=private, exist_ok=True)
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        before = api.model_info(repository, revision=revision)
        there = model_files([file.rfilename for file in before.siblings or []])
        # Not upload_folder: it picks files by patterns from a folder, follows links there, and
        # sends cards and records as they are. Here these files go, in these words, and what is
        # stale goes away, in one commit: weights and config become visible together or not at all.
        sha = api.create_commit(
            repository,
            [CommitOperationAdd(name, content) for name, content in files.items()]
            + [CommitOperationDelete(name) for name in sorted(set(there) - set(files))],
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


def pushed_files(folder: Path) -> dict[str, Path | bytes]:
    """What of a model folder belongs on the Hub, after a look at it: by name, in order.

    That is what writers of model folders write. Cards and records go without the paths of this
    machine, whoever wrote them.

    Returns:
        A file's place, or its content where it is another one than the file's.

    Raises:
        ValueError: no whole model, or a file that lies somewhere else.
    """
    if problem := adapter_problem(folder):
        raise ValueError(problem)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is not a model folder: it has no config.json.")
    files: dict[str, Path | bytes] = {}
    for name in sorted(model_files([file.name for file in folder.iterdir()])):
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"{file} is a link to {file.resolve()}, outside the folder: replace it with a "
                "copy, or delete it."
            )
        if not file.is_file():
            raise ValueError(f"{file} must be a file: put one in its place, or delete it.")
        files[name] = file
    check_folder(folder)
    records = {name: read_object(files[name]) for name in _RECORDS if name in files}
    paths = local_paths(records)
    for name, record in records.items():
        if local_paths(record):
            text = json.dumps(without_paths(record, paths), indent=2) + "\n"
            files[name] = text.encode()
    if _CARD in files:
        try:
            card = files[_CARD].read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{files[_CARD]} is not text in UTF-8: {error}") from error
        files[_CARD] = without_paths(card, paths).encode()
    return files


def _tag(api: HfApi, repository: str, tag: str, sha: str) -> None:
    tags = {found.name: found.target_commit for found in api.list_repo_refs(repository).tags}
    if tag not in tags:
        api.create_tag(repository, tag=tag, revision=sha)
    elif tags[tag] != sha:
        raise Failure(
            f"{repository} already has a tag {tag} at commit {tags[tag]}: choose another."
        )
