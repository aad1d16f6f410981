"""What a conversion did with every tensor, counted and in words."""

from collections import Counter
from dataclasses import asdict, dataclass, field

__all__ = ["ConversionReport"]

# In the order in which a line names them. "dropped" (of the source) and "fresh" (of the model) come
# last, as the reasons for them follow in brackets.
_KINDS = ("copied", "folded", "resampled", "dropped", "fresh")


@dataclass
class ConversionReport:
    """One entry per tensor of the source and of the model.

    Attributes:
        source: source name to "copied", "resampled", "folded" or "dropped".
        target: name in the model to "copied", "resampled", "folded" or "fresh".
        dropped: why, by source name.
        fresh: what the values are, by name in the model.
        notes: what was cut or resampled to the model's size.
    """

    source: dict[str, str] = field(default_factory=dict)
    target: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, name: str, reason: str) -> None:
        """Note a source tensor that has no place in the model."""
        self.source[name] = "dropped"
        self.dropped[name] = reason

    def leave(self, name: str, values: str) -> None:
        """Note a tensor of the model that has no source."""
        self.target[name] = "fresh"
        self.fresh[name] = values

    def use(self, keys: tuple[str, ...], name: str, kind: str) -> None:
        """Note source tensors that make a tensor of the model."""
        self.source.update(dict.fromkeys(keys, kind))
        self.target[name] = kind

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of tensors by what was done with them, for source and target."""
        return dict(
            source=dict(Counter(self.source.values())), target=dict(Counter(self.target.values()))
        )

    def lines(self) -> list[str]:
        """The report in three lines: source, model, what was fitted to its size."""
        source, target = self.counts().values()
        return [
            f"Source: {_described(source, self.dropped)}.",
            f"Model: {_described(target, self.fresh)}.",
            f"Fitted: {'; '.join(self.notes) or 'nothing'}.",
        ]

    def as_dict(self) -> dict:
        """Plain data, for JSON: the attributes and the counts."""
        return dict(asdict(self), counts=self.counts())


def _described(counts: dict[str, int], reasons: dict[str, str]) -> str:
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in _KINDS if kind in counts)
    counted = "; ".join(f"{number} {why}" for why, number in Counter(reasons.values()).items())
    return f"{sum(counts.values())} tensors: {kinds}" + (f" ({counted})" if counted else "")
