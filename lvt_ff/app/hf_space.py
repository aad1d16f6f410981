"""A folder that is a Space on the Hub: the page, the models, and what to install."""

import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

import lvt_ff
from lvt_ff.data.video_list import VIDEO_SUFFIXES
from lvt_ff.hub.model_folder import load_folder
from lvt_ff.hub.push import pushed_files
from lvt_ff.hub.resolve import is_repository
from lvt_ff.utils.atomic_io import atomic_folder

__all__ = ["sample_files", "write_space"]

_APP = '''"""The page of a Space; made by `lvt-ff app --export`."""

from pathlib import Path

from lvt_ff.app.server import serve

HERE = Path(__file__).parent

if __name__ == "__main__":
    {call}
'''


def write_space(
    folder: Path, models: Sequence[str], limits: dict[str, Any], samples: Path | None
) -> None:
    """Write a Space: this package's source, models that are folders, samples, requirements.

    Args:
        folder: to be made.
        models: folders, which are copied, and names on the Hub, which are downloaded there.
        limits: keywords of `lvt_ff.app.server.serve`.
        samples: folder of clips, copied.

    Raises:
        ValueError: the folder is there already, a model cannot be loaded, there is no sample, or
            the package's requirements are not known.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists already: give another name with --export.")
    requirements = _requirements()
    for name in models:
        load_folder(name)
    clips = {} if samples is None else sample_files(samples)
    with atomic_folder(folder) as new:
        source = Path(lvt_ff.__file__).parent
        shutil.copytree(source, new / "lvt_ff", ignore=shutil.ignore_patterns("__pycache__"))
        names = [_copied_model(name, new / "models") for name in models]
        keywords = [f"{name}={value!r}" for name, value in limits.items()]
        for name, file in clips.items():
            (new / "samples" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, new / "samples" / name)
        if clips:
            keywords.append('samples=HERE / "samples"')
        arguments = ", ".join([f"[{', '.join(names)}]", 'host="0.0.0.0"', *keywords])
        (new / "app.py").write_text(_APP.format(call=f"serve({arguments})"), encoding="utf-8")
        (new / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        (new / "README.md").write_text(_readme(models), encoding="utf-8")


def _copied_model(name: str, folder: Path) -> str:
    """A model's name in the Space's code; folders are copied into it."""
    if is_repository(name):
        return repr(name)
    place = folder / f"{len(list(folder.glob('*')))}" / Path(name).resolve().name
    place.mkdir(parents=True)
    for file, content in pushed_files(Path(name)).items():
        if isinstance(content, bytes):
            (place / file).write_bytes(content)
        else:
            shutil.copy(content, place / file)
    return f"str(HERE / {place.relative_to(folder.parent).as_posix()!r})"


def _requirements() -> list[str]:
    """What the package itself and its page need.

    Raises:
        ValueError: the package is not installed, and there is no pyproject.toml beside its source.
    """
    try:
        lines = metadata.requires("lvt-ff")
    except metadata.PackageNotFoundError:  # run from a checkout
        return _checkout_requirements(Path(lvt_ff.__file__).parents[1] / "pyproject.toml")
    needed = []
    for line in lines:
        wanted = Requirement(line)
        marker = str(wanted.marker or "")
        if "extra" not in marker:
            needed.append(line)
        elif wanted.marker.evaluate({"extra": "app"}):
            wanted.marker = None
            needed.append(str(wanted))
    return needed


def _checkout_requirements(pyproject: Path) -> list[str]:
    try:
        import tomllib  # from Python 3.11 on
    except ImportError:
        tomllib = None
    if tomllib is None or not pyproject.is_file():
        raise ValueError(
            "lvt_ff is not installed, so that what a Space must install is not known: run "
            "`pip install .` in its source folder first."
        )
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["app"]]


def _readme(models: Sequence[str]) -> str:
    described = dict(
        title="lvt_ff",
        sdk="gradio",
        sdk_version=metadata.version("gradio"),
        app_file="app.py",
        models=[name.partition("@")[0] for name in models if is_repository(name)],
    )
    described = {name: value for name, value in described.items() if value}
    return (
        f"---\n{yaml.safe_dump(described, sort_keys=False)}---\n\n"
        "Drop a clip and see what a linear-time video transformer makes of it.\n"
    )


def sample_files(folder: Path) -> dict[str, Path]:
    """The videos in a folder and those below it, by name.

    Raises:
        ValueError: there is none.
    """
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in VIDEO_SUFFIXES and not file.name.startswith(".")
    ]
    if not files:
        raise ValueError(f"{folder} has no videos: give a folder with some, or leave it out.")
    return {str(file.relative_to(folder)): file for file in files}
