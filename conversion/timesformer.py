"""Write a model folder for every public TimeSformer: python conversion/timesformer.py FOLDER

They keep softmax attention, which their weights were trained with; shifts and fixation are new.
"""

import argparse
from pathlib import Path

from lvt_ff.convert.convert import convert

# Repository to (frames, pixels) of its own clips.
SOURCES = {
    "facebook/timesformer-base-finetuned-k400": (8, 224),
    "facebook/timesformer-base-finetuned-k600": (8, 224),
    "facebook/timesformer-base-finetuned-ssv2": (8, 224),
    "facebook/timesformer-hr-finetuned-k400": (16, 448),
    "facebook/timesformer-hr-finetuned-k600": (16, 448),
    "facebook/timesformer-hr-finetuned-ssv2": (16, 448),
}


def main(folder: str) -> None:
    """One folder per repository, named like it; those that are there are left."""
    for repository, (num_frames, img_size) in SOURCES.items():
        target = Path(folder, repository.split("/")[1])
        if not target.exists():
            convert(
                repository,
                target,
                model="lvt_ff_base",
                num_frames=num_frames,
                img_size=img_size,
                attn_kernel="softmax",
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="where the model folders go")
    main(parser.parse_args().folder)
