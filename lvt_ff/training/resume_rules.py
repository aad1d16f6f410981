"""Which settings of a run may change when it is resumed, and which may not."""

from collections.abc import Callable

__all__ = ["changed_settings", "noted_changes", "other_model", "told_settings"]

# Options that do not change what a run computes. What a model and its data are is compared by
# what they hold (`derived`), so that folders may be moved and spelled otherwise.
_FREE = {
    *("model", "pretrained", "model_args", "num_frames", "img_size", "recipe"),
    *("drop_rate", "drop_path_rate", "train_data", "eval_data", "data_format", "video_root"),
    *("eval_data_format", "eval_video_root", "missing", "class_file", "output_dir"),
    *("max_bad_fraction", "num_workers", "cpu", "find_batch_size"),
    *("accumulation", "total_batch_size", "save_steps", "save_minutes", "keep_best"),
    *("tracker", "push_to_hub", "hub_private"),
}
# Those that change what follows, as they say themselves, but nothing that was done so far.
_NOTED = {
    *("epochs", "warmup_epochs", "eval_videos", "eval_epochs", "test_clips", "test_crops"),
    *("early_stopping", "decoder", "max_pixels", "on_damage", "grad_checkpointing", "compile"),
    *("shard", "lora_keep_adapter"),
}
_MODEL = ("lora_rank", "lora_targets")  # beside the architecture


def told_settings(results: dict) -> dict:
    """All that a run's results.json tells of how it was made; older files have it in one part."""
    return results["settings"] | results.get("derived", {})


def changed_settings(before: dict, now: dict) -> str:
    """The settings that another run had otherwise and must not have, in words; empty if none."""
    return _told(before, now, lambda name: name not in _FREE | _NOTED)


def other_model(before: dict, now: dict) -> str:
    """What makes the model another one, whose weights are not those of a checkpoint, in words."""
    return _told(before, now, lambda name: name.startswith("architecture.") or name in _MODEL)


def noted_changes(before: dict, now: dict) -> str:
    """The settings that a resumed run may change, and did, but that count for what follows."""
    return _told(before, now, _NOTED.__contains__)


def _told(before: dict, now: dict, asked: Callable[[str], bool]) -> str:
    before, now = _flat(before), _flat(now)
    changed = [key for key in now if asked(key) and before.get(key) != now[key]]
    return ", ".join(f"{key} was {before.get(key)!r}, is {now[key]!r}" for key in changed)


def _flat(settings: dict) -> dict:
    """Settings with those of the architecture among them, under names of their own."""
    parts = settings.get("architecture") or {}
    rest = {key: value for key, value in settings.items() if key != "architecture"}
    return rest | {f"architecture.{key}": value for key, value in parts.items()}
