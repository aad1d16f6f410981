"""Files of model folders as transformers looks for them, on disk or on the Hub."""

import os
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

__all__ = ["AUTO_MAP", "HUB_OPTIONS", "REMOTE_CODE", "REMOTE_FILE", "find_file"]

# Of from_pretrained: where files are looked for.
HUB_OPTIONS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
)

# Where lvt_ff is not imported, transformers follows these names to a file that says what to
# install; where it is, its own classes come first.
REMOTE_FILE = "lvt_ff_import.py"
REMOTE_CODE = '''"""This model needs the package lvt_ff: install it, then import lvt_ff first."""

from lvt_ff.hf import LVTFFConfig, LVTFFForVideoClassification, LVTFFModel  # noqa: F401
'''
AUTO_MAP = {
    "AutoConfig": "lvt_ff_import.LVTFFConfig",
    "AutoModel": "lvt_ff_import.LVTFFModel",
    "AutoModelForVideoClassification": "lvt_ff_import.LVTFFForVideoClassification",
}


def find_file(
    source: str | os.PathLike | None,
    name: str,
    options: dict[str, Any] | None = None,
    needed: bool = True,
) -> Path | None:
    """A file of a folder or a repository; None where it has none of that name.

    Args:
        source: what `from_pretrained` takes.
        name: of the file.
        options: keywords of `from_pretrained`; those of `HUB_OPTIONS` count.
        needed: raise OSError where the Hub cannot be asked for it.
    """
    if source is None:
        return None
    found = cached_file(
        source,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=needed,
        **{option: value for option, value in (options or {}).items() if option in HUB_OPTIONS},
    )
    return Path(found) if found else None
