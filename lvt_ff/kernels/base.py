"""The interface of an attention kernel: two steps, because feature fixation acts between them."""

from torch import Tensor, nn

__all__ = ["Kernel"]


class Kernel(nn.Module):
    """Maps queries and keys to features, then aggregates values with them.

    Args:
        head_dim: channels of one head, E.
    """

    def __init__(self, head_dim: int):
        super().__init__()
        self.head_dim = head_dim

    @property
    def feature_dim(self) -> int:
        """Channels of a feature, F; as many as a head has unless a kernel says otherwise."""
        return self.head_dim

    def feature_map(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """(S, A, L, E) queries and keys to (S, A, L, F) features."""
        raise NotImplementedError

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Features (S, A, L, F) and values (S, A, L, E) to outputs (S, A, L, E)."""
        raise NotImplementedError

    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        """Some rows of the matrix that `aggregate` applies to the values without forming it.

        Args:
            q, k: features (S, A, L, F) as `aggregate` takes them.
            rows: numbers (R,) of the queries asked for.

        Returns:
            (S, A, R, L) in float32 (or float64).

        Raises:
            NotImplementedError: the kernel has no such matrix.
        """
        raise NotImplementedError(f"{type(self).__name__} has no attention weights to show.")
