"""A page on which people try models with their own clips."""

import errno
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lvt_ff.app.hf_space import sample_files, write_space
from lvt_ff.app.result_page import answer, check_video
from lvt_ff.data import VideoReadError
from lvt_ff.data.synthetic.demo import TIME_CLASSES
from lvt_ff.data.synthetic.writer import write_dataset
from lvt_ff.data.video_list import VIDEO_SUFFIXES
from lvt_ff.inference.classifier import Classifier
from lvt_ff.utils.command_line import command
from lvt_ff.utils.environment import install_hint
from lvt_ff.utils.errors import usage
from lvt_ff.utils.option_types import Port, PositiveFloat
from lvt_ff.utils.output import check_output_folder

__all__ = ["app", "serve"]

_LOCAL = ("127.0.0.1", "localhost", "::1")
_KEPT_S = 60  # answers
_FORGOTTEN_S = 600  # after which the files of broken-off uploads go


class Visits:
    """Answers for uploaded files, each of which is deleted when its answer is there.

    Args:
        models: classifiers by name.
        uploads: the folder that uploads come to.
        samples: files by name, which stay.
        max_mb, max_seconds: of an upload.
    """

    def __init__(
        self,
        models: dict[str, Classifier],
        uploads: Path,
        samples: dict[str, Path],
        max_mb: float,
        max_seconds: float,
    ):
        self.models, self.uploads, self.samples = models, uploads.resolve(), samples
        self.limits = (max_mb, max_seconds)
        # Two visitors with the same file share one path: the second finds it gone.
        self.answers: dict[Path, tuple[float, list]] = {}

    def upload(self, file: dict) -> list:
        """The outputs for an upload, as the page describes it."""
        path = Path(file["path"]).resolve()
        if not path.is_relative_to(self.uploads):
            raise PermissionError("Only uploaded files are read.")
        try:
            if path not in self.answers or path.is_file():
                self.answers[path] = (time.time(), self.outputs_for(path))
            return self.answers[path][1]
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # another upload has just come to the same folder
                path.parent.rmdir()

    def sweep(self) -> None:
        """Delete what no answer deletes: uploads that were broken off; forget old answers."""
        for path, (when, _) in list(self.answers.items()):
            if time.time() - when > _KEPT_S:
                self.answers.pop(path, None)
        for file in self.uploads.rglob("*"):
            with suppress(FileNotFoundError):
                if file.is_file() and time.time() - file.stat().st_mtime > _FORGOTTEN_S:
                    file.unlink()

    def sample(self, name: str) -> list:
        """The outputs for a sample."""
        return self.outputs_for(self.samples[name])

    def outputs_for(self, path: Path) -> list:
        """The line above, then classes and page of every model."""
        try:
            length = check_video(path, *self.limits)
            answers = [answer(classify, path, length) for classify in self.models.values()]
        except ValueError as error:
            return self.outputs(f"⚠️ {error}", None)
        except VideoReadError as error:
            print(error, file=sys.stderr)  # with the server's folders
            return self.outputs(f"⚠️ {path.name} is empty, damaged, or not a video.", None)
        return self.outputs(f"**{path.name}**", answers)

    def outputs(self, line: str, answers: list | None) -> list:
        rows = [(found.classes, found.page) for found in answers or []]
        return [line, *(part for row in rows or [(None, "")] * len(self.models) for part in row)]


def build_page(visits: Visits) -> Any:
    """The page, a `gradio.Blocks`."""
    import gradio

    with gradio.Blocks(title="lvt_ff", analytics_enabled=False, fill_width=True) as page:
        gradio.Markdown("# Linear-time video transformers\nDrop a clip, or pick a sample.")
        with gradio.Row():
            kinds = " ".join(sorted(VIDEO_SUFFIXES))
            max_mb, max_seconds = visits.limits
            file = gradio.File(
                label=f"A clip of up to {max_mb:g} MB and {max_seconds:g} s ({kinds})",
                elem_id="clip",
            )
            sample = gradio.Radio(list(visits.samples), label="Samples", elem_id="samples")
        line = gradio.Markdown(elem_id="line")
        outputs = [line]
        with gradio.Row():
            for name in visits.models:
                with gradio.Column():
                    gradio.Markdown(f"### {name}")
                    classes = gradio.Label(num_top_classes=5, label="Best classes")
                    outputs += [classes, gradio.HTML()]
        # One at a time: explaining hooks into the model.
        one = dict(concurrency_limit=1, concurrency_id="model")
        # With its own preprocessing gradio makes another file and fails where this one is gone.
        answered = file.upload(
            visits.upload, file, outputs, api_name="upload", preprocess=False, **one
        )
        answered.then(lambda: None, None, file, api_name=False)
        sample.input(visits.sample, sample, outputs, api_name="sample", **one)
    return page


def serve(
    models: Sequence[str],
    host: str = "127.0.0.1",
    port: int = 7860,
    max_mb: float = 100,
    max_seconds: float = 300,
    samples: Path | None = None,
    device: str | None = None,
) -> None:
    """Load models and show the page until it is interrupted; see `app`.

    Raises:
        ValueError: a model or a folder of samples that is not there, or an address that the page
            cannot have.
    """
    _check_address(host, port)
    shorts = [Path(name).resolve().name for name in models]
    names = shorts if len(set(shorts)) == len(models) else models
    if len(set(names)) < len(models) or "" in models:
        raise ValueError(f"--model must name different models, got {', '.join(models)}.")
    loaded = {short: Classifier(name, device) for short, name in zip(names, models, strict=True)}
    with tempfile.TemporaryDirectory(prefix="lvt_ff_app_", ignore_cleanup_errors=True) as folder:
        uploads, made = Path(folder, "uploads"), Path(folder, "samples")
        uploads.mkdir()
        # gradio reads these once, when it is imported.
        os.environ.update(GRADIO_TEMP_DIR=str(uploads), GRADIO_ANALYTICS_ENABLED="False")
        if samples is None:
            write_dataset(made, len(TIME_CLASSES), seed=0, num_workers=1)
        visits = Visits(loaded, uploads, sample_files(samples or made), max_mb, max_seconds)
        page = build_page(visits)
        page.launch(
            server_name=host,
            server_port=port,
            max_file_size=int(max_mb * 1e6),
            footer_links=["api"],
            ssr_mode=False,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
        )
        print(f"open {page.local_url} (Ctrl+C ends it)", flush=True)
        if host not in _LOCAL:
            print(f"anyone who reaches this machine on port {port} can use the page", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # else the uploads would stay
        try:
            while page.is_running:
                time.sleep(1)
                visits.sweep()
        finally:
            page.close()


def _check_address(host: str, port: int) -> None:
    """Raise ValueError where nothing can listen; gradio would tell options of its own."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.create_server(address, family=family):
            pass
    except OSError as error:
        option = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        why = error.strerror.partition(" (while")[0]  # create_server adds the address
        raise ValueError(
            f"The page cannot be opened at {host}:{port} ({why}): give another {option}."
        ) from error


@command()
def app(
    model: str,
    host: str | None = None,
    port: Port | None = None,
    max_mb: PositiveFloat = 100,
    max_seconds: PositiveFloat = 300,
    samples: Path | None = None,
    export: Path | None = None,
    device: str | None = None,
) -> None:
    """Open a page on which people try models with their own clips.

    It shows the best classes, the frames used, what counts for the best class, and for long clips
    how classes change over time. Uploaded clips are deleted when they are answered.

    Args:
        model: Model folder, or ORG/NAME[@REVISION] on the Hub; several, separated by commas, stand
            side by side.
        host: Address to listen on; 127.0.0.1 if not given, 0.0.0.0 lets other machines in.
        port: Port to listen on; 7860 if not given.
        max_mb: Largest file that is taken, in 1e6 bytes.
        max_seconds: Longest clip that is taken.
        samples: Folder of clips to pick from; made-up ones if not given.
        export: Write a folder to push as a Space on the Hub instead of opening the page.
        device: Torch device; a GPU where there is one if not given.
    """
    with usage():
        if find_spec("gradio") is None:
            raise ValueError(f"The page needs one more package: {install_hint('app')}")
        models = [name.strip() for name in model.split(",")]
        limits = dict(max_mb=max_mb, max_seconds=max_seconds)
        here = dict(host=host, port=port, device=device)
        here = {name: value for name, value in here.items() if value is not None}
        if export is None:
            serve(models, **here, **limits, samples=samples)
        elif here:
            raise ValueError(f"--{next(iter(here))} is of no use with --export: leave it out.")
        else:
            check_output_folder(export, "--export")
            write_space(export, models, limits, samples)
            print(f"wrote {export}: push it with hf upload ORG/NAME {export} --repo-type space")
