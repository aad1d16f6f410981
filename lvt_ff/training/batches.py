"""Which videos each process sees at each optimizer step."""

import math
from collections.abc import Iterator

import numpy as np
import torch

from lvt_ff.data.dataset import Key

__all__ = ["MicroBatches", "seed_micro_batch"]


class MicroBatches:
    """Batch sampler over a whole run: keys of clips for one process, step after step.

    The videos of step s are a slice of an order that is a function of (seed, epoch). The slice is
    cut into `accumulation * num_processes` micro-batches, of which process r takes numbers r,
    r + num_processes, …: two processes without accumulation see what one process sees with two.
    The last step of an epoch is filled up from the order's beginning.

    Args:
        num_videos: length of the dataset.
        batch_size: clips of a micro-batch.
        accumulation: micro-batches of a process in a step.
        num_processes, rank: of the run.
        epochs: passes over the dataset.
        seed: of the orders.
        num_repeats: clips of each video in an epoch; they follow one another, in one step.
        chances: of each video (n,), to be drawn with replacement; None takes each once.
        first_step: where a resumed run goes on.

    Keys are (epoch, index) of a video, or (epoch, index, repeat) with several clips of each.
    """

    def __init__(
        self,
        num_videos: int,
        *,
        batch_size: int,
        accumulation: int,
        num_processes: int,
        rank: int,
        epochs: int,
        seed: int,
        num_repeats: int = 1,
        chances: np.ndarray | None = None,
        first_step: int = 0,
    ):
        self.num_videos = num_videos
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.num_processes = num_processes
        self.rank = rank
        self.seed = seed
        self.num_repeats = num_repeats
        self.chances = chances
        self.first_step = first_step
        self.global_batch = batch_size * accumulation * num_processes
        self.steps_per_epoch = math.ceil(num_videos * num_repeats / self.global_batch)
        self.num_steps = self.steps_per_epoch * epochs
        self._order: tuple[int, np.ndarray | None] = (-1, None)  # of the present epoch

    def step_indices(self, step: int) -> tuple[int, np.ndarray]:
        """The epoch of a step, and the numbers of all videos of its global batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            order = np.repeat(self._epoch_order(epoch), self.num_repeats)
            self._order = (epoch, np.resize(order, self.steps_per_epoch * self.global_batch))
        return epoch, self._order[1][place * self.global_batch :][: self.global_batch]

    def _epoch_order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, epoch))
        if self.chances is None:
            return rng.permutation(self.num_videos)
        return rng.choice(self.num_videos, self.num_videos, p=self.chances)

    def step_keys(self, step: int) -> list[Key]:
        """Keys of all clips of a step's global batch, in its order."""
        epoch, indices = self.step_indices(step)
        if self.num_repeats == 1 and self.chances is None:
            return [(epoch, int(index)) for index in indices]
        # Of a video that comes again in an epoch, each clip is another one.
        seen, keys = self._seen_before(step), []
        for index in map(int, indices):
            keys.append((epoch, index, seen.get(index, 0)))
            seen[index] = seen.get(index, 0) + 1
        return keys

    def _seen_before(self, step: int) -> dict[int, int]:
        """How often each video of a step's batch was seen before it in the epoch."""
        _, indices = self.step_indices(step)
        place = step % self.steps_per_epoch * self.global_batch
        counts = np.bincount(self._order[1][:place], minlength=self.num_videos)
        return {int(index): int(counts[index]) for index in indices}

    def __len__(self) -> int:
        return (self.num_steps - self.first_step) * self.accumulation

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(self.first_step, self.num_steps):
            keys = self.step_keys(step)
            parts = [keys[i : i + self.batch_size] for i in range(0, len(keys), self.batch_size)]
            yield from parts[self.rank :: self.num_processes]


def seed_micro_batch(seed: int, step: int, micro_batch: int) -> None:
    """Set torch's generators for the dropout of one micro-batch, whichever process computes it."""
    state = np.random.SeedSequence((seed, step, micro_batch)).generate_state(2)
    torch.manual_seed(int(state[0]) << 32 | int(state[1]))
