"""The interface of an attention kernel: two steps, because feature fixation acts between them."""

from collections.abc import Callable
from dataclasses import dataclass

from timm.layers import use_fused_attn
from torch import Tensor, nn

from lvt_ff.ops import AttentionSpec, attention, linear_attention, linear_weights
from lvt_ff.utils.validation import check_at_least

__all__ = ["STEPS", "Kernel", "KernelShape", "LengthTable", "LinearKernel"]

# Methods that make a kernel compute what it does.
STEPS = frozenset({"forward", "feature_map", "add_position", "aggregate"})


@dataclass(frozen=True)
class KernelShape:
    """What a kernel is built for.

    Args:
        num_heads: A.
        head_dim: channels of one head, E.
        grid: rows and columns of a sequence's tokens, row by row; (1, T) over time.
    """

    num_heads: int
    head_dim: int
    grid: tuple[int, int]

    @property
    def dim(self) -> int:
        """Channels of all heads, D."""
        return self.num_heads * self.head_dim

    @property
    def length(self) -> int:
        """Tokens of a sequence, L."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class LengthTable:
    """A parameter with a row for every token, which another clip size resamples.

    Args:
        axis: of the tokens.
        is_sum: rows are weights of a sum over the tokens, which stays as large with more of them.
    """

    axis: int
    is_sum: bool = False


class Kernel(nn.Module):
    """Maps queries and keys to features, then aggregates values with them.

    A subclass says about itself, in class attributes:
        source: where it is from, for people.
        fused: name in `lvt_ff.ops.FEATURE_MAPS` of its feature map, where fused operators compute
            the whole attention; None where they do not. A subclass that has one of the `STEPS` of
            its own and does not say is not fused. `use_fused` of an instance switches it off.
        uses_input: `aggregate` looks at the attention's input, which is else left out.
        no_weight_decay: names of its parameters that are no matrices, for optimizers.
        length_tables: its parameters that are tied to the number of tokens, by name.
        image_start: values of its own parameters, by name, with which what it has beside the
            attention adds nothing: a model starts so from an image model's weights.

    Options of a kernel are further arguments of its constructor, by name and with defaults.

    Args:
        shape: what it is built for.
    """

    source: str = ""
    fused: str | None = None
    uses_input: bool = False
    no_weight_decay: tuple[str, ...] = ()
    length_tables: dict[str, LengthTable] = {}
    image_start: dict[str, float] = {}
    # What fused operators are told beside the feature map.
    offset: float = 0.0
    eps: float = 0.0
    clamp: bool = False
    number: int = 0  # among the model's attentions: each draws random features of its own

    def __init_subclass__(cls):
        super().__init_subclass__()
        for base in cls.__mro__:
            if "fused" in vars(base):
                break
            if STEPS & vars(base).keys():  # fused operators do what the class behind it does
                cls.fused = None
                break

    def __init__(self, shape: KernelShape):
        super().__init__()
        self.shape = shape
        self.use_fused = bool(use_fused_attn())

    @property
    def feature_dim(self) -> int:
        """Channels of a feature, F; as many as a head has unless a kernel says otherwise."""
        return self.shape.head_dim

    def init_weights(self) -> None:
        """First values of the kernel's own parameters; its layers have theirs."""

    def set_grid(self, grid: tuple[int, int]) -> None:
        """Serve sequences of another grid from now on; parameters are resampled by the model."""
        self.shape = KernelShape(self.shape.num_heads, self.shape.head_dim, grid)

    def start_step(self, step: int) -> None:
        """Called before every step of fine-tuning with the number of steps done."""

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        fix: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]],
        x: Tensor | None = None,
    ) -> Tensor:
        """An attention between its projections.

        All use of the kernel's own parameters is within this call, where the hooks of accelerate
        and FSDP provide them.

        Args:
            q: queries (S, A, L, E).
            k: keys (S, A, L, E).
            v: values (S, A, L, E).
            fix: what acts on features and values between the two steps.
            x: the attention's input (S, L, D), for kernels that look at it.

        Returns:
            (S, A, L, E).
        """
        return self.aggregate(*fix(*self.feature_map(q, k), v), x)

    def feature_map(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """(S, A, L, E) queries and keys to (S, A, L, F) features, in float32 where it matters."""
        return q, k

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        """Features (S, A, L, F), values (S, A, L, E), input (S, L, D) or None to (S, A, L, E)."""
        raise NotImplementedError

    def fused_attention(
        self, qkv: Tensor, weight: Tensor | None, bias: Tensor | None, spec: AttentionSpec
    ) -> Tensor:
        """An attention between its projections, shifts and fixation included, by fused operators.

        Args:
            qkv: packed queries, keys and values (B, T, N, 3D).
            weight, bias: of the gate, or None.
            spec: the rest of the attention; `feature_map` is the kernel's `fused`.

        Returns:
            (B, T, N, D).
        """
        raise NotImplementedError(f"{type(self).__name__} has no fused path.")

    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        """Some rows of the matrix that `aggregate` applies to the values without forming it.

        Args:
            q: features (S, A, L, F) as `aggregate` takes them.
            k: likewise.
            rows: numbers (R,) of the queries asked for.

        Returns:
            (S, A, R, L) in float32 (or float64). Convolutions beside the attention are left out.

        Raises:
            NotImplementedError: the kernel has no such matrix.
        """
        raise NotImplementedError(f"{type(self).__name__} has no attention weights to show.")


class LinearKernel(Kernel):
    """`q (kᵀ v)` over `q Σ k`: a feature map is all that a subclass adds.

    Args:
        shape: what it is built for.
        eps: added to the denominator, a sum over the tokens.
        clamp: the denominator is at least `eps` instead.
    """

    def __init__(self, shape: KernelShape, *, eps: float = 1e-6, clamp: bool = False):
        super().__init__(shape)
        check_at_least(0, eps=eps)
        self.eps, self.clamp = eps, clamp

    def add_position(self, x: Tensor) -> Tensor:
        """Features (S, A, L, F) with each token's position in them, where a kernel knows it."""
        return x

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        return linear_attention(self.add_position(q), self.add_position(k), v, self.eps, self.clamp)

    def fused_attention(
        self, qkv: Tensor, weight: Tensor | None, bias: Tensor | None, spec: AttentionSpec
    ) -> Tensor:
        return attention(qkv, weight, bias, spec)

    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        q, k = self.add_position(q)[..., rows, :], self.add_position(k)
        return linear_weights(q, k, self.eps, self.clamp)
