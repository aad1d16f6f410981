"""Single files of repositories on the Hub."""

from pathlib import Path

from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

__all__ = ["fetch"]


def fetch(
    repository: str, file: str, revision: str | None = None, cache_dir: str | Path | None = None
) -> Path | None:
    """A file of a repository, from the cache where it is there; None where it has no such file."""
    options = dict(revision=revision, cache_dir=cache_dir)
    try:
        return Path(hf_hub_download(repository, file, **options))
    except LocalEntryNotFoundError:  # the Hub cannot be asked
        if try_to_load_from_cache(repository, file, **options) is _CACHED_NO_EXIST:
            return None
        raise
    except EntryNotFoundError:
        return None
