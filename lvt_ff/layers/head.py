"""From normed tokens to class scores.

Source: arXiv 2210.08164, Sec. 5.1, and the authors' code.
"""

from torch import Tensor, nn

from lvt_ff.utils.validation import check_choice

__all__ = ["POOLS", "VideoHead"]


def _mean(tokens: Tensor) -> Tensor:
    return tokens.mean(dim=2).mean(dim=1)


def _max(tokens: Tensor) -> Tensor:
    return tokens.amax(dim=(1, 2))


def _all(tokens: Tensor) -> Tensor:
    return tokens


POOLS = {"avg": _mean, "max": _max, "": _all}


class VideoHead(nn.Module):
    """Dropout, pooling over tokens and frames, LayerNorm, hidden layer, GELU, Dropout, classifier.

    Args:
        embed_dim: channels of a token.
        hidden: features of the hidden layer; 0 leaves it out.
        num_classes: scores; 0 leaves the classifier out.
        global_pool: name in `POOLS`; "" scores every token.
        drop_rate: of both dropouts.
    """

    def __init__(
        self, embed_dim: int, hidden: int, num_classes: int, global_pool: str, drop_rate: float
    ):
        super().__init__()
        self.token_drop = nn.Dropout(drop_rate)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-5)
        self.pre_logits = nn.Linear(embed_dim, hidden) if hidden else nn.Identity()
        self.act = nn.GELU() if hidden else nn.Identity()
        self.drop = nn.Dropout(drop_rate)
        self.embed_dim = embed_dim
        self.num_features = hidden or embed_dim
        self.reset(num_classes, global_pool)

    def reset(self, num_classes: int, global_pool: str | None = None) -> None:
        """New classifier for `num_classes`; a pooling other than None replaces the present one."""
        if global_pool is not None:
            check_choice("global_pool", global_pool, POOLS)
            self.global_pool = global_pool
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.fc.train(self.training)

    def remove(self) -> None:
        """Leave tokens as they are from now on."""
        self.norm, self.pre_logits, self.act, self.fc = (nn.Identity() for _ in range(4))
        self.num_features = self.embed_dim
        self.global_pool = ""

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, T, N, D) to (B, K), or to the features before the classifier."""
        x = self.norm(POOLS[self.global_pool](self.token_drop(x)))
        x = self.drop(self.act(self.pre_logits(x)))
        return x if pre_logits else self.fc(x)
