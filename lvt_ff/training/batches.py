"""Which videos each process sees at each optimizer step."""

import math
from collections.abc import Iterator

import numpy as np
import torch

__all__ = ["MicroBatches", "seed_micro_batch"]


class MicroBatches:
    """Batch sampler over a whole run: (epoch, index) pairs for one process, step after step.

    The videos of step s are a slice of a permutation that is a function of (seed, epoch). The
    slice is cut into `accumulation * num_processes` micro-batches, of which process r takes
    numbers r, r + num_processes, …: two processes without accumulation see what one process sees
    with two. The last step of an epoch is filled up from the permutation's beginning.

    Args:
        num_videos: length of the dataset.
        batch_size: videos of a micro-batch.
        accumulation: micro-batches of a process in a step.
        num_processes, rank: of the run.
        epochs: passes over the dataset.
        seed: of the permutations.
        first_step: where a resumed run goes on.
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
        first_step: int = 0,
    ):
        self.num_videos = num_videos
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.num_processes = num_processes
        self.rank = rank
        self.seed = seed
        self.first_step = first_step
        self.global_batch = batch_size * accumulation * num_processes
        self.steps_per_epoch = math.ceil(num_videos / self.global_batch)
        self.num_steps = self.steps_per_epoch * epochs
        self._order: tuple[int, np.ndarray | None] = (-1, None)  # of the present epoch

    def step_indices(self, step: int) -> tuple[int, np.ndarray]:
        """The epoch of a step, and the numbers of all videos of its global batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.num_videos)
            self._order = (epoch, np.resize(order, self.steps_per_epoch * self.global_batch))
        return epoch, self._order[1][place * self.global_batch :][: self.global_batch]

    def __len__(self) -> int:
        return (self.num_steps - self.first_step) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first_step, self.num_steps):
            epoch, indices = self.step_indices(step)
            for micro_batch in indices.reshape(-1, self.batch_size)[
                self.rank :: self.num_processes
            ]:
                yield [(epoch, int(index)) for index in micro_batch]


def seed_micro_batch(seed: int, step: int, micro_batch: int) -> None:
    """Set torch's generators for the dropout of one micro-batch, whichever process computes it."""
    state = np.random.SeedSequence((seed, step, micro_batch)).generate_state(2)
    torch.manual_seed(int(state[0]) << 32 | int(state[1]))
