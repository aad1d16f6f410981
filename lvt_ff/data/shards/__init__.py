"""Videos in tar shards, as the WebDataset library reads them, with an index of where each lies."""

from lvt_ff.data.shards.index import INDEX_NAME, ShardIndex, read_index, write_index
from lvt_ff.data.shards.open import is_loose, is_shards, open_index
from lvt_ff.data.shards.store import ShardStore

__all__ = [
    "INDEX_NAME",
    "ShardIndex",
    "ShardStore",
    "is_loose",
    "is_shards",
    "open_index",
    "read_index",
    "write_index",
]
