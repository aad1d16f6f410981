"""The loop of a fine-tuning run: steps, evaluations, checkpoints, resuming."""

import math
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim import Optimizer

from lvt_ff.kernels import Kernel
from lvt_ff.training.batches import MicroBatches, seed_micro_batch
from lvt_ff.training.checkpoint import (
    checkpoints,
    optimizer_tensors,
    parameter_names,
    read_state,
    read_tensors,
    save_checkpoint,
    set_aside,
    undamaged,
    update_state,
    with_tensors,
)
from lvt_ff.training.divergence import (
    Diverged,
    first_bad_gradient,
    first_bad_layer,
    told_divergence,
)
from lvt_ff.training.ema import WeightAverage
from lvt_ff.training.history import History, StepLog
from lvt_ff.training.kept_weights import KeptWeights
from lvt_ff.training.losses import hits
from lvt_ff.training.mixing import BatchTransform
from lvt_ff.training.optim import learning_rate, set_learning_rate
from lvt_ff.training.resume_rules import changed_settings, noted_changes, other_model
from lvt_ff.training.scoring import NotFinite
from lvt_ff.training.sharding import (
    empty_copy,
    full_tensors,
    gathered_weights,
    optimizer_like,
)
from lvt_ff.training.signals import STOP_SIGNALS, StopRequest, stop_requests
from lvt_ff.utils.errors import Failure, Stopped, UsageError
from lvt_ff.utils.progress import Reporter, print_line
from lvt_ff.utils.short_text import counted

__all__ = ["LoopOptions", "TrainingLoop"]

_VERSION = 2  # of what a checkpoint holds
_LISTED = 20  # unreadable files that each evaluation keeps, of what may be thousands
_MAX_SKIPPED = 50  # steps in a row that fp16's scaler leaves out: it halves its scale each time
_TRACKED = ("loss", "top1", "lr", "grad_norm")


@dataclass(frozen=True)
class LoopOptions:
    """How a loop goes.

    Args:
        peak_lr, warmup_steps: see `learning_rate`.
        clip_grad: largest gradient norm; 0 does not clip.
        max_bad_files: more unreadable videos than this end the run.
        eval_epochs: epochs from one evaluation to the next.
        save_steps, save_minutes: how often to save besides, or None.
        keep_best: number of best weights to keep.
        early_stopping: evaluations without a better one that end the run, or None.
        metric: of an evaluation, the higher the better.
        allow_changes: go on with settings that compute something else.
    """

    peak_lr: float
    warmup_steps: int
    clip_grad: float
    max_bad_files: float
    eval_epochs: int = 1
    save_steps: int | None = None
    save_minutes: float | None = None
    keep_best: int = 1
    early_stopping: int | None = None
    metric: str = "top1"
    allow_changes: bool = False


class TrainingLoop:
    """Runs optimizer steps from the first or a resumed one to the last.

    Args:
        network: classifier with an output `logits`; not yet prepared.
        optimizer: of its parameters; not yet prepared.
        accelerator: devices and precision.
        batches: which videos make which step; its `first_step` is set by `resume`.
        folder: for checkpoints.
        log: of the steps.
        settings: of the run, and what was derived from them; see `resume_rules`.
        options: how it goes.
        batch_transform: clips and labels as they were read to inputs and targets.
        criterion: of logits and targets.
        ema_decay: of the averaged weights that are evaluated and kept; None keeps the present ones.
        evaluate: gives measures of the present weights, unless the function that it is given says
            that a signal came; None without evaluation data.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        accelerator: Accelerator,
        batches: MicroBatches,
        folder: Path,
        log: StepLog,
        settings: dict,
        options: LoopOptions,
        *,
        batch_transform: BatchTransform,
        criterion: nn.Module,
        ema_decay: float | None,
        evaluate: Callable[[Callable[[], int]], dict] | None,
    ):
        self.network, self.optimizer = network, optimizer
        self.kernels = [part for part in network.modules() if isinstance(part, Kernel)]
        self.accelerator, self.batches = accelerator, batches
        self.folder, self.kept_weights = folder, KeptWeights(folder)
        self.log, self.settings, self.options = log, settings, options
        self.batch_transform = batch_transform
        self.criterion, self.evaluate = criterion, evaluate
        self.finished = empty_copy(network)
        self.ema_decay, self.average = ema_decay, None
        self.history = History()
        self.skipped_in_a_row = 0
        self._request = StopRequest()
        self._resumed: tuple[Path, dict] | None = None
        self._saved_s = time.perf_counter()

    def resume(self, checkpoint: Path) -> None:
        """Take over weights and history; raises UsageError if settings differ that must not."""
        with undamaged(checkpoint):
            state = read_state(checkpoint)
            version, before, step = state.get("version"), state["settings"], state["step"]
        if version != _VERSION:
            raise UsageError(
                f"{checkpoint} was written by another version of lvt_ff: go on with that one, or "
                "start again in another --output_dir."
            )
        told, other = changed_settings(before, self.settings), other_model(before, self.settings)
        if other:
            raise UsageError(f"Cannot resume {checkpoint}: {other}. That is another model.")
        if told and not self.options.allow_changes:
            raise UsageError(
                f"Cannot resume {checkpoint}: {told}. Use the same settings, or --allow_changes to "
                "go on with others."
            )
        if step > self.batches.num_steps:
            raise UsageError(
                f"Cannot resume {checkpoint}: {step} steps are done, and --epochs asks for "
                f"{self.batches.num_steps}."
            )
        with undamaged(checkpoint):
            self.network.load_state_dict(read_tensors(checkpoint, "model"))
            self.history = History(**state["history"])
            state = dict(settings=before, scaler=state["scaler"])
        # Of a checkpoint before the last, some may be gone.
        kept = self.history.kept
        self.history.kept = [row for row in kept if self.kept_weights.has(row["step"])]
        if told := ", ".join(filter(None, (told, noted_changes(before, self.settings)))):
            self.history.notes.append(f"from step {step + 1} on: {told}")
            self.accelerator.print(f"changed {self.history.notes[-1]}")
        if before.get("eval_videos") != self.settings["eval_videos"]:
            self.history.kept = []  # figures of other videos say nothing beside those to come
        if not self.history.kept:  # these weights are evaluated again, and kept
            self.history.epochs = [row for row in self.history.epochs if row["step"] != step]
        self.batches.first_step = step
        self._resumed = checkpoint, state

    def run(self, micro_batches: Iterator[dict]) -> History:
        """All remaining steps; `micro_batches` are this process's, in order.

        Raises:
            Stopped: a signal came; a checkpoint was written.
            Diverged: loss, gradients or scores are not finite.
            Failure: too many videos cannot be read.
        """
        self._prepare()
        accelerator, batches, done = self.accelerator, self.batches, self.batches.first_step
        first = accelerator.is_main_process
        reporter = Reporter(batches.num_steps, "step", initial=done, shown=first)
        with stop_requests() as request, self._opened_log(done), reporter:
            self._request = request
            if self._is_end(done) and not self._is_evaluated(done):
                self._end_epoch(done)  # it was stopped in this evaluation
            for step in range(done, batches.num_steps):
                if self._is_exhausted():
                    break
                row, number, due = self._step(step, micro_batches)
                self.history.add(row)
                if first:
                    self.log.add(row)
                reporter.update(_speed(row, batches.global_batch))
                tracked = {key: row[key] for key in _TRACKED if row[key] is not None}
                accelerator.log(tracked, step=step + 1)
                self._after_step(step + 1, due, number)
        return self.history

    def _prepare(self) -> None:
        """Put network and optimizer where they run, with the state of a resumed run."""
        accelerator = self.accelerator
        self.trained, self.optimizer = accelerator.prepare(self.network, self.optimizer)
        self.criterion.to(accelerator.device)
        if self.ema_decay:
            self.average = WeightAverage(self.network, self.ema_decay)
        if self._resumed:
            checkpoint, state = self._resumed
            with undamaged(checkpoint):
                self._load(checkpoint, state["settings"])
                if accelerator.scaler is not None and state["scaler"] is not None:
                    accelerator.scaler.load_state_dict(state["scaler"])
        self.network.train()

    def _load(self, checkpoint: Path, before: dict) -> None:
        if before["optimizer"] == self.settings["optimizer"]:  # else it begins anew
            optimizer = self._own_optimizer()
            names = parameter_names(self.network, optimizer)
            tensors = optimizer_like(self.network, read_tensors(checkpoint, "optimizer"))
            optimizer.load_state_dict(with_tensors(optimizer.state_dict(), names, tensors))
        if self.average is not None and before["ema_decay"]:  # else it begins here
            self.average.load(read_tensors(checkpoint, "average"))

    def _own_optimizer(self) -> Optimizer:
        """The optimizer without what accelerate put around it."""
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def _opened_log(self, done: int):
        return self.log.opened(done) if self.accelerator.is_main_process else nullcontext()

    # A step

    def _step(self, step: int, micro_batches: Iterator[dict]) -> tuple[dict, int, bool]:
        """A row for the log, the number of a signal that came, and whether to save."""
        accelerator, batches = self.accelerator, self.batches
        lr = learning_rate(step, batches.num_steps, self.options.peak_lr, self.options.warmup_steps)
        set_learning_rate(self.optimizer, lr)
        for kernel in self.kernels:
            kernel.start_step(step)
        start, waited, seen = time.perf_counter(), 0.0, []
        totals = torch.zeros(2, device=accelerator.device)
        for number in range(batches.accumulation):
            asked = time.perf_counter()
            seen.append(next(micro_batches))
            waited += time.perf_counter() - asked
            last = number + 1 == batches.accumulation
            with nullcontext() if last else accelerator.no_sync(self.trained):
                totals += self._backward(step, number, seen[-1])
        norm = self._gradient_norm()
        loss, hit, facts = self._agree(totals, seen)
        self._check_finite(step, loss, norm, seen)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._count_skipped(step)
        if self.average is not None:
            self.average.update(step)
        self._note_bad_files(seen, facts["bad"])
        keys = batches.step_indices(step)[1]
        seconds = time.perf_counter() - start
        # Of a step that fp16's scaler leaves out the norm is no number, which JSON does not have.
        row = dict(loss=loss, top1=hit, lr=lr, grad_norm=norm if math.isfinite(norm) else None)
        row |= dict(order=zlib.crc32(keys.tobytes()), time_s=seconds, wait_s=waited)
        return row, facts["signal"], facts["due"]

    def _inputs(self, step: int, number: int, batch: dict) -> tuple[Tensor, Tensor]:
        clips = batch["clip"].to(self.accelerator.device, non_blocking=True)
        labels = torch.as_tensor(np.array(batch["label"]), device=self.accelerator.device)
        return self.batch_transform(clips, labels, step, self._place(number))

    def _backward(self, step: int, number: int, batch: dict) -> Tensor:
        clips, targets = self._inputs(step, number, batch)
        self._seed(step, number)
        logits = self.trained(pixel_values_videos=clips).logits.float()
        loss = self.criterion(logits, targets)
        self.accelerator.backward(loss / self.batches.accumulation)
        return torch.stack([loss.detach(), hits(logits.detach(), targets)])

    def _place(self, number: int) -> int:
        """Which of all micro-batches of a step one of this process is."""
        return number * self.batches.num_processes + self.batches.rank

    def _seed(self, step: int, number: int) -> None:
        seed_micro_batch(self.batches.seed, step, self._place(number))

    def _gradient_norm(self) -> float:
        largest = self.options.clip_grad or math.inf
        norm = self.accelerator.clip_grad_norm_(self.trained.parameters(), largest)
        return float(getattr(norm, "full_tensor", lambda: norm)())

    def _agree(self, totals: Tensor, seen: list[dict]) -> tuple[float, float, dict]:
        """Means over all processes, and what any of them has to tell the others."""
        bad = len(_failures(seen)) + len(_damages(seen))
        due = self.accelerator.is_main_process and self._is_due()
        came = [self._request.number == number for number in STOP_SIGNALS]
        told = totals.new_tensor([bad, due, *came])
        summed = self.accelerator.reduce(torch.cat([totals, told]), "sum").tolist()
        count = self.batches.num_processes * self.batches.accumulation
        number = next(
            (one for one, times in zip(STOP_SIGNALS, summed[4:], strict=True) if times), 0
        )
        facts = dict(bad=summed[2] > 0, due=summed[3] > 0, signal=number)
        return summed[0] / count, summed[1] / count, facts

    def _is_due(self) -> bool:
        minutes = self.options.save_minutes
        return minutes is not None and time.perf_counter() - self._saved_s >= 60 * minutes

    def _check_finite(self, step: int, loss: float, norm: float, seen: list[dict]) -> None:
        """Raise Diverged, on all processes alike, before the optimizer takes the gradients in."""
        skips = self.accelerator.scaler is not None  # it looks for such gradients itself
        if math.isfinite(loss) and (math.isfinite(norm) or skips):
            return
        reports = gather_object([self._bad_micro_batch(step, seen)])
        what = "The loss is" if not math.isfinite(loss) else "Gradients are"
        layer = next((layer for layer, _ in reports if layer), None)
        paths = [path for found, paths in reports for path in paths if found == layer]
        raise Diverged(told_divergence(step + 1, what, layer, paths))

    def _bad_micro_batch(self, step: int, seen: list[dict]) -> tuple[str | None, list[str]]:
        """Where this process's numbers stop being finite, and the clips with which they do.

        Every process computes all of its micro-batches again, as sharded ones wait for each other.
        """
        layers = []
        for number, batch in enumerate(seen):
            clips, _ = self._inputs(step, number, batch)

            def forward(number: int = number, clips: Tensor = clips) -> Tensor:
                self._seed(step, number)
                return self.network(pixel_values_videos=clips).logits

            layers.append(first_bad_layer(self.network, forward))
        for layer, batch in zip(layers, seen, strict=True):
            if layer:
                return layer, batch["path"]
        gradient = first_bad_gradient(self.network)
        told = f"the gradient of {gradient}" if gradient else None
        return told, [path for batch in seen for path in batch["path"]]

    def _count_skipped(self, step: int) -> None:
        if not self.accelerator.optimizer_step_was_skipped:
            self.skipped_in_a_row = 0
            return
        self.history.skipped_steps += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row > _MAX_SKIPPED:
            raise Diverged(
                f"Gradients were not finite in {self.skipped_in_a_row} steps in a row up to step "
                f"{step + 1}, however small the scale of fp16: use --mixed_precision bf16."
            )

    def _note_bad_files(self, seen: list[dict], any_bad: bool) -> None:
        if not any_bad:
            return
        self.history.bad_files.update(gather_object(_failures(seen)))
        self.history.damaged_files.update(gather_object(_damages(seen)))
        if len(self.history.bad_files) > self.options.max_bad_files:
            path, reason = next(reversed(self.history.bad_files.items()))
            raise Failure(
                f"{len(self.history.bad_files)} training videos could not be read, more than "
                f"--max_bad_fraction allows; bad_files.csv has all of them, the last: {path}: "
                f"{reason}"
            )

    # After a step

    def _after_step(self, done: int, due: bool, signal_number: int) -> None:
        steps, ends = self.options.save_steps, self._is_end(done)
        if ends or due or signal_number or (steps and done % steps == 0):
            self._save(done)
        if signal_number:
            raise Stopped(
                f"stopped after step {done} of {self.batches.num_steps}; its checkpoint is in "
                f"{self.folder}: go on with --resume",
                signal_number,
            )
        if ends:
            self._end_epoch(done)

    def _is_end(self, done: int) -> bool:
        """Whether an evaluation is due after so many steps."""
        epoch, rest = divmod(done, self.batches.steps_per_epoch)
        last = done == self.batches.num_steps
        return done > 0 and rest == 0 and (epoch % self.options.eval_epochs == 0 or last)

    def _is_evaluated(self, done: int) -> bool:
        return any(row["step"] == done for row in self.history.epochs)

    def _is_exhausted(self) -> bool:
        """Whether too many evaluations have brought nothing better."""
        patience, history = self.options.early_stopping, self.history
        if patience is None or self.evaluate is None or not history.best:
            return False
        since = [row for row in history.epochs if row["step"] > history.best["step"]]
        if len(since) >= patience:
            told = f"no better evaluation in {counted(len(since), 'evaluation')}: stopped early"
            self.accelerator.print(told)
            return True
        return False

    def _end_epoch(self, done: int) -> None:
        epoch, total = done // self.batches.steps_per_epoch, self._num_epochs()
        means = self.history.means() if self.history.sums else {}
        row = dict(epoch=epoch, step=done)
        row |= {f"train_{key}": means[key] for key in ("loss", "top1") if key in means}
        with self.average.applied() if self.average is not None else nullcontext():
            if self.evaluate is not None:
                row |= {f"eval_{key}": value for key, value in self._evaluated(done).items()}
            self.history.epochs.append(row)
            self._keep(row)
        numbers = {k: v for k, v in row.items() if k.startswith("eval_") and _is_number(v)}
        self.accelerator.log(numbers, step=done)
        self._save_state(done)
        if self.accelerator.is_main_process:
            self.kept_weights.keep_only(self._spoken_of())
            print_line(f"epoch {epoch}/{total}: {self._told(row, means)}")

    def _num_epochs(self) -> int:
        return self.batches.num_steps // self.batches.steps_per_epoch

    def _told(self, row: dict, means: dict) -> str:
        told = []
        if means:
            clips = self.batches.global_batch * means["num_steps"]
            told.append(f"training {_speed(means, clips)}")
        if bad := len(self.history.bad_files):
            told.append(f"{counted(bad, 'video')} could not be read")
        if self.evaluate is not None:
            told.append(f"evaluation {_scores(row, self.options.metric)}")
            if "eval_loss" in row:
                told.append(f"loss {row['eval_loss']:.3f}")
            if unread := row["eval_num_listed"] - row["eval_num_evaluated"]:
                told.append(f"{unread} of {row['eval_num_listed']} videos could not be read")
        return ", ".join(told)

    def _evaluated(self, done: int) -> dict:
        """Measures of the present weights; of files that could not be read, the first."""
        try:
            with gathered_weights(self.network, self.accelerator):
                measures = self.evaluate(lambda: self._request.number)
        except Stopped as error:
            raise Stopped(f"{error} when you go on with --resume", error.number) from error
        except NotFinite as error:  # on all processes alike
            if self.accelerator.is_main_process:
                set_aside(self.folder, done)
            self.accelerator.wait_for_everyone()
            raise Diverged(
                f"{error} The checkpoint of step {done} was set aside: go on from the one before "
                "it, if there is one, with `--resume --allow_changes` and a lower --lr."
            ) from error
        if measures.get(self.options.metric) is None:
            raise Failure(
                f"None of the {measures['num_listed']} evaluation videos could be read after step "
                f"{done}: {measures['failures'][0]['reason']} Its checkpoint is kept: go on with "
                "--resume when they can be."
            )
        return {k: v[:_LISTED] if isinstance(v, list) else v for k, v in measures.items()}

    def _spoken_of(self) -> set[int]:
        """Steps whose weights this run, or a checkpoint that it may go on from, speaks of."""
        kept = [*self.history.kept]
        for checkpoint in checkpoints(self.folder):
            kept += read_state(checkpoint)["history"]["kept"]
        return {row["step"] for row in kept}

    def _keep(self, row: dict) -> None:
        """Keep the present weights if they are among the best so far."""
        kept, number = self.history.kept, self.options.keep_best
        if self.evaluate is None:
            self.history.kept = [row]
        else:
            key = f"eval_{self.options.metric}"
            ranked = sorted([*kept, row], key=lambda one: (-one[key], one["step"]))
            self.history.kept = ranked[:number]
        if row in self.history.kept:
            weights = self._weights()
            if self.accelerator.is_main_process:
                self.kept_weights.save(row["step"], weights)

    def _weights(self) -> dict[str, Tensor]:
        return self._whole(self.network.state_dict())

    def _whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors to be written, for the process that writes; all processes must ask for them."""
        return full_tensors(tensors, keep=self.accelerator.is_main_process)

    def _state(self) -> dict:
        scaler = self.accelerator.scaler
        return dict(
            version=_VERSION,
            settings=self.settings,
            history=asdict(self.history),
            scaler=scaler.state_dict() if scaler is not None else None,
        )

    def _save(self, done: int) -> None:
        optimizer = self._own_optimizer()
        names = parameter_names(self.network, optimizer)
        optimizer = optimizer_tensors(optimizer.state_dict(), names)
        tensors = dict(model=self._weights(), optimizer=self._whole(optimizer))
        if self.average is not None:
            tensors["average"] = self._whole(self.average.average)
        if self.accelerator.is_main_process:
            save_checkpoint(self.folder, done, tensors, self._state())
        self._saved_s = time.perf_counter()
        self.accelerator.wait_for_everyone()

    def _save_state(self, done: int) -> None:
        """Put an evaluation into the checkpoint that was written before it."""
        if self.accelerator.is_main_process:
            update_state(self.folder, done, self._state())
        self.accelerator.wait_for_everyone()

    def load_best(self) -> nn.Module:
        """The network as it was given, with its best weights, on the CPU."""
        weights = self.kept_weights.load(self.history.best["step"])
        self.finished.load_state_dict(weights, assign=True)
        return self.finished


_TITLES = {"top1": "top-1", "mean_average_precision": "mean average precision"}
_BESIDE = {"mean_class_accuracy": "mean of classes", "majority_share": "largest class"}


def _scores(row: dict, metric: str) -> str:
    """A measure of an evaluation, and those that tell whether it means anything."""
    told = f"{_TITLES[metric]} {100 * row[f'eval_{metric}']:.1f} %"
    beside = [
        f"{title} {100 * row[f'eval_{name}']:.1f} %"
        for name, title in _BESIDE.items()
        if f"eval_{name}" in row
    ]
    return f"{told} ({', '.join(beside)})" if beside else told


def _failures(seen: list[dict]) -> list[tuple[str, str]]:
    return [failure for batch in seen for of_clip in batch["failures"] for failure in of_clip]


def _damages(seen: list[dict]) -> list[tuple[str, str]]:
    return [damage for batch in seen for damage in batch["damage"] if damage]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _speed(row: dict, num_clips: int) -> str:
    return (
        f"loss {row['loss']:.3f}, top-1 {100 * row['top1']:.0f} %, "
        f"{num_clips / row['time_s']:.1f} clips/s, "
        f"waiting for data {100 * row['wait_s'] / row['time_s']:.0f} %"
    )
