"""The command `lvt-ff check-data`: what is wrong with a data set, before hours are spent on it."""

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lvt_ff.data.formats import DataFormat
from lvt_ff.data.left_right import left_right_pairs, unpaired
from lvt_ff.data.published import recognised_set
from lvt_ff.data.video_checks import (
    Finding,
    Looked,
    duplicates,
    look_at_all,
    overlaps,
    problems,
    same_names,
)
from lvt_ff.data.video_list import VideoList, class_numbers, labelled, read_listing
from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.command_line import command
from lvt_ff.utils.errors import Failure, usage
from lvt_ff.utils.option_types import PositiveInt
from lvt_ff.utils.output import check_output_file
from lvt_ff.utils.short_text import counted, listed, shortened
from lvt_ff.video import pool
from lvt_ff.video.clip_buffer import MAX_PIXELS

__all__ = ["check_data"]

_SHOWN = 3  # findings of a kind that are printed; all are in the file


@dataclass(frozen=True)
class _Checked:
    """A list of videos, and what was found before any was looked at.

    Args:
        role: "training" or "evaluation".
        num_listed: videos, with those that are missing.
        videos: those that are there and have known labels.
        findings: of the others.
    """

    role: str
    num_listed: int
    videos: VideoList
    findings: list[Finding]


@command(
    {
        "data": "what is checked",
        "num_frames": "what is needed",
        "output_file": "output",
        "num_workers": "hardware and speed",
    }
)
def check_data(
    data: str,
    eval_data: str | None = None,
    data_format: DataFormat = "auto",
    video_root: Path | None = None,
    eval_data_format: DataFormat | None = None,
    eval_video_root: Path | None = None,
    class_file: Path | None = None,
    task: Literal["auto", "single", "multi"] = "auto",
    num_frames: PositiveInt = 16,
    max_pixels: PositiveInt = MAX_PIXELS,
    output_file: Path | None = None,
    num_workers: PositiveInt | None = None,
) -> dict:
    """Find what is wrong with labelled videos before hours are spent on them.

    Bad are videos that are missing, empty, unreadable, damaged in part, shorter than a clip, listed
    twice or twice there by their content, with a label that is no class, or in both lists; and
    classes of the training list without a video. From each video, frames are decoded as for one
    clip. The exit status is 1 where anything is bad.

    Args:
        data: Training data, in any form that --train_data takes.
        eval_data: Data to evaluate on, which should have no video of the training data.
        data_format: Format of DATA; auto recognises it.
        video_root: Folder that listed videos lie in, if not that of the list.
        eval_data_format: Format of --eval_data; that of DATA if not given.
        eval_video_root: Folder of the videos of --eval_data; that of DATA if not given.
        class_file: File with the names of the classes in order.
        task: Labels of a video; auto takes several where the format has several.
        num_frames: Frames of a clip, which videos should have at least.
        max_pixels: Largest frame that is decoded, in pixels.
        output_file: CSV file for all that is bad.
        num_workers: Videos that are read at a time; as many as there are CPU cores if not given.
    """
    with usage():
        if output_file is not None:
            check_output_file(output_file, "--output_file")
        how = dict(class_file=class_file)
        lists = [
            _read(
                "training", data, task, None, data_format=data_format, video_root=video_root, **how
            )
        ]
        if eval_data is not None:
            how.update(
                data_format=eval_data_format or data_format,
                video_root=eval_video_root or video_root,
            )
            names = lists[0].videos.class_names
            lists.append(_read("evaluation", eval_data, task, names, **how))
    num_workers = num_workers or os.cpu_count() or 1
    pool.restart(num_workers)
    looked = look_at_all([one.videos for one in lists], num_frames, max_pixels, num_workers)
    findings = {
        one.role: _findings(one, seen, num_frames) for one, seen in zip(lists, looked, strict=True)
    }
    findings["training"] += _empty_classes(lists[0].videos)
    if len(lists) > 1:
        both = overlaps(lists[0].videos, looked[0], lists[1].videos, looked[1])
        findings["evaluation"] += both
    if output_file is not None:
        _write(output_file, findings)
    results = dict(
        lists={one.role: _counts(one, findings[one.role]) for one in lists},
        notes=_notes(lists),
    )
    _report(results, findings, output_file)
    num_bad = sum(map(len, findings.values()))
    if num_bad:
        raise Failure(f"{counted(num_bad, 'thing')} in this data {_is_are(num_bad)} bad.")
    return results


def _is_are(number: int) -> str:
    return "is" if number == 1 else "are"


def _read(
    role: str, source: str, task: str, class_names: tuple[str, ...] | None, **how
) -> _Checked:
    """Read a list, and part it into what can be looked at and what cannot."""
    request, listing = read_listing(source, **how)
    num_listed, findings = len(listing), []
    kept = np.ones(num_listed, bool)
    if listing.absent is not None:
        kept &= ~listing.absent
        for place in np.flatnonzero(listing.absent).tolist():
            reason = f"not on disk: {listing.place}"
            findings.append(Finding(listing.paths[place], "missing", reason))
    order, numbers = class_numbers(source, listing, class_names, request.classes)
    wrong = numbers[listing.labels] < 0
    for label, row in zip(listing.labels[wrong], listing.rows[wrong], strict=True):
        if kept[row]:
            name = shortened(listing.names[label], 80)
            reason = f"{name!r} is none of the {len(order)} classes"
            findings.append(Finding(listing.paths[int(row)], "unknown label", reason))
    kept[listing.rows[wrong]] = False
    if not kept.any():
        raise ValueError(
            f"None of the {num_listed} videos that {source} lists is there with a label that is a "
            f"class, such as {findings[0].path}: {findings[0].reason}."
        )
    listing = listing.take(np.flatnonzero(kept))
    return _Checked(role, num_listed, labelled(request, listing, order, task), findings)


def _findings(one: _Checked, looked: Sequence[Looked], num_frames: int) -> list[Finding]:
    found = problems(one.videos, looked, num_frames)
    return [*one.findings, *found, *duplicates(one.videos, looked)]


def _empty_classes(videos: VideoList) -> list[Finding]:
    empty = np.flatnonzero(videos.class_counts() == 0)
    names = [videos.class_names[number] for number in empty]
    return [Finding("", "class without videos", f"no video is of {name!r}") for name in names]


def _counts(one: _Checked, findings: Sequence[Finding]) -> dict:
    clips = one.videos.class_counts()
    return dict(
        num_listed=one.num_listed,
        num_checked=len(one.videos),
        num_classes=len(one.videos.class_names),
        clips_of_a_class=[int(clips.min()), int(clips.max())],
        bad=dict(Counter(finding.kind for finding in findings)),
    )


def _notes(lists: Sequence[_Checked]) -> list[str]:
    """What is not bad, but good to know."""
    names = lists[0].videos.class_names
    notes = [*_published(lists), *_sides(names)]
    if len(lists) > 1:
        both = same_names(lists[0].videos, lists[1].videos)
        if both:
            notes.append(
                f"{counted(len(both), 'name')} of files {_is_are(len(both))} in both lists, of "
                f"different files: {listed(both, 5)}. They may be of the same recordings."
            )
    return notes


def _published(lists: Sequence[_Checked]) -> list[str]:
    known = recognised_set(lists[0].videos.class_names)
    if known is None:
        return []
    told = f"{known.name} was published with " + ("" if known.exact else "about ")
    told += f"{known.train:,} videos for training and {known.validation:,} for validation; "
    here = [f"{one.num_listed:,} are listed for {one.role}" for one in lists]
    return [told + " and ".join(here) + "."]


def _sides(names: tuple[str, ...]) -> list[str]:
    """What a flip does to the classes."""
    notes, pairs = [], left_right_pairs(names)
    if pairs:
        some = [
            f"{names[one]!r} and {names[other]!r}" for one, other in pairs.items() if one < other
        ]
        notes.append(
            f"{counted(len(some), 'pair')} of classes differ by left and right: "
            f"{listed(some, 3, 160)}. A flipped video is of the other one: train with --hflip 0, "
            "or with --hflip_swap."
        )
    alone = unpaired(names)
    if alone:
        notes.append(
            f"{counted(len(alone), 'class names', 'classes name')} a side, and the other side is "
            f"no class: {listed(alone, 3, 80)}. Train with --hflip 0 where that matters."
        )
    return notes


def _write(file: Path, findings: dict[str, list[Finding]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("list", "path", "kind", "reason"))
    for role, found in findings.items():
        writer.writerows((role, one.path, one.kind, one.reason) for one in found)
    write_text(file, text.getvalue())


def _report(results: dict, findings: dict[str, list[Finding]], file: Path | None) -> None:
    for role, counts in results["lists"].items():
        fewest, most = counts["clips_of_a_class"]
        classes = counted(counts["num_classes"], "class", "classes")
        print(
            f"{role} list: {counts['num_listed']} videos listed, {counts['num_checked']} looked "
            f"at, {classes} of {fewest} to {most} videos"
        )
        for kind, number in counts["bad"].items():
            print(f"{number:>7} {kind}")
            some = [one for one in findings[role] if one.kind == kind][:_SHOWN]
            for one in some:
                print(f"          {shortened(one.path)}{one.path and ': '}{shortened(one.reason)}")
            if number > len(some):
                print(f"          and {number - len(some)} more")
    for note in results["notes"]:
        print(f"note: {note}")
    if file is not None:
        print(f"wrote {file}")
    elif any(findings.values()):
        print("--output_file writes all of these to a CSV file")
