"""Write a model folder for every tag: python conversion/image_models.py FOLDER"""

import argparse
from pathlib import Path

from lvt_ff.convert.convert import convert
from lvt_ff.timm_models import SOURCES


def main(folder: str) -> None:
    """One folder per variant and tag, named like them; those that are there are left."""
    for variant, tags in SOURCES.items():
        for tag, architecture in tags.items():
            target = Path(folder, f"{variant}.{tag}")
            if not target.exists():
                convert(f"{architecture}.{tag}", target, model=variant)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="where the model folders go")
    main(parser.parse_args().folder)
