"""How the tokens of a clip form the sequences within which they attend to each other."""

from torch import Tensor

__all__ = ["ATTN_PATTERNS", "JointSequences", "SpaceSequences", "TimeSequences"]


class SpaceSequences:
    """One sequence per frame: S = B·T, L = N."""

    name = "space"

    @staticmethod
    def grid(num_frames: int, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns that kernels take a sequence's tokens for."""
        return grid

    @staticmethod
    def layout(num_frames: int, grid: tuple[int, int]) -> tuple[int, int, int]:
        """Frames, rows and columns of a sequence's tokens."""
        return 1, *grid

    @staticmethod
    def fold(x: Tensor) -> Tensor:
        """(B, T, N, D) to (S, L, D)."""
        return x.flatten(0, 1)

    @staticmethod
    def unfold(x: Tensor, num_frames: int, num_tokens: int) -> Tensor:
        """(S, L, D) to (B, T, N, D)."""
        return x.unflatten(0, (-1, num_frames))


class TimeSequences:
    """One sequence per place in the frame: S = B·N, L = T."""

    name = "time"

    @staticmethod
    def grid(num_frames: int, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns that kernels take a sequence's tokens for."""
        return 1, num_frames

    @staticmethod
    def layout(num_frames: int, grid: tuple[int, int]) -> tuple[int, int, int]:
        """Frames, rows and columns of a sequence's tokens."""
        return num_frames, 1, 1

    @staticmethod
    def fold(x: Tensor) -> Tensor:
        """(B, T, N, D) to (S, L, D)."""
        return x.transpose(1, 2).flatten(0, 1)

    @staticmethod
    def unfold(x: Tensor, num_frames: int, num_tokens: int) -> Tensor:
        """(S, L, D) to (B, T, N, D)."""
        return x.unflatten(0, (-1, num_tokens)).transpose(1, 2)


class JointSequences:
    """One sequence per clip: S = B, L = T·N."""

    name = "joint"

    @staticmethod
    def grid(num_frames: int, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns that kernels take a sequence's tokens for: frames below each other.

        Kernels with convolutions or positions see one tall picture.
        """
        return num_frames * grid[0], grid[1]

    @staticmethod
    def layout(num_frames: int, grid: tuple[int, int]) -> tuple[int, int, int]:
        """Frames, rows and columns of a sequence's tokens."""
        return num_frames, *grid

    @staticmethod
    def fold(x: Tensor) -> Tensor:
        """(B, T, N, D) to (S, L, D)."""
        return x.flatten(1, 2)

    @staticmethod
    def unfold(x: Tensor, num_frames: int, num_tokens: int) -> Tensor:
        """(S, L, D) to (B, T, N, D)."""
        return x.unflatten(1, (num_frames, num_tokens))


# Which attentions a block has: (sequences, with spatial shift, with temporal shift) by attribute
# name.
ATTN_PATTERNS: dict[str, dict[str, tuple[type, bool, bool]]] = {
    "factorized": {
        "temporal_attn": (TimeSequences, True, False),
        "attn": (SpaceSequences, False, True),
    },
    "joint": {"attn": (JointSequences, True, True)},
    "windowed": {"attn": (SpaceSequences, False, True)},
}
