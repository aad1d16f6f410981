"""The loop of a fine-tuning run: steps, evaluations, checkpoints, resuming."""

import math
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from lvt_ff.kernels import Kernel
from lvt_ff.training.batches import MicroBatches, seed_micro_batch
from lvt_ff.training.checkpoint import load_checkpoint, read_state, save_checkpoint
from lvt_ff.training.mixing import BatchTransform
from lvt_ff.training.optim import learning_rate, set_learning_rate
from lvt_ff.utils.atomic_io import atomic_folder
from lvt_ff.utils.errors import Failure, UsageError, one_line
from lvt_ff.utils.progress import print_line, progress_bar

__all__ = ["Diverged", "History", "TrainingLoop", "changed_settings", "told_settings"]

# Options that do not change what a run computes.
# The data is compared by its fingerprint, so that its folder may be moved.
_FREE_SETTINGS = {
    *("eval_data", "max_bad_fraction", "max_pixels", "num_workers", "on_damage", "output_dir"),
    *("save_steps", "tracker", "train_data"),
}


@dataclass
class History:
    """What a run has done so far, as checkpoints keep it."""

    steps: list[dict] = field(default_factory=list)
    epochs: list[dict] = field(default_factory=list)
    best: dict | None = None
    bad_files: dict[str, str] = field(default_factory=dict)
    damaged_files: dict[str, str] = field(default_factory=dict)  # used with what was left


class Diverged(Failure):
    """A loss that is not a number."""


def told_settings(results: dict) -> dict:
    """All that a run's results.json tells of how it was made; older files have it in one part."""
    return results["settings"] | results.get("derived", {})


def changed_settings(before: dict, now: dict) -> str:
    """The settings that another run had otherwise, in words; empty where it computes the same."""
    changed = [key for key in now if key not in _FREE_SETTINGS and before.get(key) != now[key]]
    return ", ".join(f"{key} was {before.get(key)!r}, is {now[key]!r}" for key in changed)


@contextmanager
def _undamaged(checkpoint: Path) -> Iterator[None]:
    """Within this block, a checkpoint that does not fit its own run is damaged."""
    try:
        yield
    except (ValueError, LookupError, RuntimeError, SafetensorError, OSError) as error:
        raise Failure(
            f"{checkpoint} is damaged ({one_line(error)[:200]}): delete it and start again."
        ) from error


class TrainingLoop:
    """Runs optimizer steps from the first or a resumed one to the last.

    Args:
        network: classifier with an output `logits`; not yet prepared.
        optimizer: of its parameters; not yet prepared.
        accelerator: devices and precision.
        batches: which videos make which step; its `first_step` is set by `resume`.
        folder: for checkpoints.
        settings: of the run, and what was derived from them; a resumed one must have the same.
        batch_transform: clips and labels as they were read to what the model is given.
        peak_lr, warmup_steps: see `learning_rate`.
        label_smoothing: of the cross entropy.
        clip_grad: largest gradient norm, or None.
        max_bad_files: more unreadable videos than this end the run.
        eval_epochs, save_steps: how often to evaluate, and to save besides.
        evaluate: gives `top1`, `top5`, … of the present weights, or None without evaluation data.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        accelerator: Accelerator,
        batches: MicroBatches,
        folder: Path,
        settings: dict,
        *,
        batch_transform: BatchTransform,
        peak_lr: float,
        warmup_steps: int,
        label_smoothing: float,
        clip_grad: float | None,
        max_bad_files: float,
        eval_epochs: int,
        save_steps: int | None,
        evaluate: Callable[[], dict] | None,
    ):
        self.network, self.optimizer = network, optimizer
        self.kernels = [part for part in network.modules() if isinstance(part, Kernel)]
        self.accelerator, self.batches = accelerator, batches
        self.folder = folder
        self.settings = settings
        self.batch_transform = batch_transform
        self.peak_lr, self.warmup_steps = peak_lr, warmup_steps
        self.criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.clip_grad = clip_grad
        self.max_bad_files = max_bad_files
        self.eval_epochs, self.save_steps = eval_epochs, save_steps
        self.evaluate = evaluate
        self.history = History()
        self._scaler_state = None

    def resume(self, checkpoint: Path) -> None:
        """Take over weights, optimizer state and history; raises UsageError if settings differ."""
        with _undamaged(checkpoint):
            state = read_state(checkpoint)
        told = changed_settings(state["settings"], self.settings)
        if told:
            raise UsageError(f"Cannot resume {checkpoint}: {told}. Use the same settings.")
        with _undamaged(checkpoint):
            load_checkpoint(checkpoint, self.network, self.optimizer)
        self.batches.first_step = state["step"]
        self.history = History(**state["history"])
        self._scaler_state = state["scaler"]

    def run(self, micro_batches: Iterator[dict]) -> History:
        """All remaining steps; `micro_batches` are this process's, in order."""
        accelerator, batches = self.accelerator, self.batches
        self.trained, self.optimizer = accelerator.prepare(self.network, self.optimizer)
        # prepare moves AdamW's counters to the GPU, where reading each of them waits.
        for state in self.optimizer.state.values():
            state.update({"step": state["step"].cpu()} if "step" in state else {})
        if self._scaler_state is not None and accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(self._scaler_state)
        self.trained.train()
        shown = accelerator.is_main_process
        done = batches.first_step
        with progress_bar(batches.num_steps, "step", initial=done, shown=shown) as bar:
            for step in range(done, batches.num_steps):
                row = self._step(step, micro_batches)
                self.history.steps.append(row)
                bar.update()
                bar.set_postfix_str(_speed(row, batches.global_batch))
                accelerator.log({key: row[key] for key in ("loss", "top1", "lr")}, step=step + 1)
                self._after_step(step + 1)
        return self.history

    def _step(self, step: int, micro_batches: Iterator[dict]) -> dict:
        accelerator, batches = self.accelerator, self.batches
        lr = learning_rate(step, batches.num_steps, self.peak_lr, self.warmup_steps)
        set_learning_rate(self.optimizer, lr)
        for kernel in self.kernels:
            kernel.start_step(step)
        start, waited, failures, damages = time.perf_counter(), 0.0, [], []
        totals = torch.zeros(2, device=accelerator.device)
        for number in range(batches.accumulation):
            asked = time.perf_counter()
            batch = next(micro_batches)
            waited += time.perf_counter() - asked
            failures += [failure for item in batch["failures"] for failure in item]
            damages += [damage for damage in batch["damage"] if damage]
            clips = batch["clip"].to(accelerator.device, non_blocking=True)
            labels = torch.tensor(batch["label"], device=accelerator.device)
            place = number * batches.num_processes + batches.rank
            clips, labels = self.batch_transform(clips, labels, step, place)
            seed_micro_batch(batches.seed, step, place)
            last = number + 1 == batches.accumulation
            with nullcontext() if last else accelerator.no_sync(self.trained):
                totals += self._backward(clips, labels)
        if self.clip_grad is not None:
            accelerator.clip_grad_norm_(self.trained.parameters(), self.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        totals = torch.cat([totals, totals.new_tensor([len(failures) + len(damages)])])
        loss, hits, bad = (accelerator.reduce(totals, "sum") / batches.num_processes).tolist()
        loss, top1 = loss / batches.accumulation, hits / batches.accumulation
        if math.isnan(loss):
            raise Diverged(f"The loss is not a number at step {step + 1}: lower --lr or use bf16.")
        if bad:
            self.history.bad_files.update(gather_object(failures))
            self.history.damaged_files.update(gather_object(damages))
            self._check_bad_files()
        order = zlib.crc32(batches.step_indices(step)[1].tobytes())
        seconds = time.perf_counter() - start
        return dict(loss=loss, top1=top1, lr=lr, order=order, time_s=seconds, wait_s=waited)

    def _backward(self, clips: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self.trained(pixel_values_videos=clips).logits.float()
        loss = self.criterion(logits, labels)
        self.accelerator.backward(loss / self.batches.accumulation)
        likeliest = labels if labels.ndim == 1 else labels.argmax(dim=1)  # of a mixed clip
        top1 = (logits.argmax(dim=1) == likeliest).float().mean()
        return torch.stack([loss.detach(), top1])

    def _check_bad_files(self) -> None:
        if len(self.history.bad_files) > self.max_bad_files:
            path, reason = next(reversed(self.history.bad_files.items()))
            raise Failure(
                f"{len(self.history.bad_files)} training videos could not be read, more than "
                f"--max_bad_fraction allows; the last: {path}: {reason}"
            )

    def _after_step(self, done: int) -> None:
        epoch, rest = divmod(done, self.batches.steps_per_epoch)
        last = done == self.batches.num_steps
        end = rest == 0 and (epoch % self.eval_epochs == 0 or last)
        if end:
            self._end_epoch(epoch, done)
        if end or (self.save_steps and done % self.save_steps == 0):
            if self.accelerator.is_main_process:
                self._save(done)
            self.accelerator.wait_for_everyone()

    def _end_epoch(self, epoch: int, done: int) -> None:
        before = self.history.epochs[-1]["step"] if self.history.epochs else 0
        steps = self.history.steps[before:]
        row = dict(epoch=epoch, step=done)
        for key in ("loss", "top1"):
            row[f"train_{key}"] = sum(step[key] for step in steps) / len(steps)
        if self.evaluate is not None:
            row |= {f"eval_{key}": value for key, value in self.evaluate().items()}
        self.history.epochs.append(row)
        best = self.history.best
        if self.evaluate is None or best is None or row["eval_top1"] > best["eval_top1"]:
            self.history.best = row
            if self.accelerator.is_main_process:
                with atomic_folder(self._best_folder()) as new:
                    save_file(self.network.state_dict(), new / "model.safetensors")
        total = self.batches.num_steps // self.batches.steps_per_epoch
        evaluated = f", evaluation top-1 {100 * row['eval_top1']:.1f} %" if self.evaluate else ""
        time_s = sum(step["time_s"] for step in steps)
        wait_s = sum(step["wait_s"] for step in steps)
        totals = dict(loss=row["train_loss"], top1=row["train_top1"], time_s=time_s, wait_s=wait_s)
        speed = _speed(totals, self.batches.global_batch * len(steps))
        if self.accelerator.is_main_process:
            print_line(f"epoch {epoch}/{total}: training {speed}{evaluated}")

    def _save(self, done: int) -> None:
        scaler = self.accelerator.scaler
        state = dict(
            settings=self.settings,
            history=asdict(self.history),
            scaler=scaler.state_dict() if scaler is not None else None,
        )
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        save_checkpoint(self.folder, done, self.network, optimizer, state)
        # Only now: the checkpoint before this one may speak of an older best.
        for old in self.folder.glob("best_*"):
            if old != self._best_folder():
                shutil.rmtree(old)

    def _best_folder(self) -> Path:
        return self.folder / f"best_{self.history.best['step'] if self.history.best else 0:08d}"

    def load_best(self) -> nn.Module:
        """The network, without what accelerate put around it, with its best weights."""
        network = self.accelerator.unwrap_model(self.trained, keep_fp32_wrapper=False)
        network.load_state_dict(load_file(self._best_folder() / "model.safetensors"))
        return network


def _speed(row: dict, num_clips: int) -> str:
    return (
        f"loss {row['loss']:.3f}, top-1 {100 * row['top1']:.0f} %, "
        f"{num_clips / row['time_s']:.1f} clips/s, "
        f"waiting for data {100 * row['wait_s'] / row['time_s']:.0f} %"
    )
