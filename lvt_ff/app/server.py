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
from lvt_ff.app.result_page import MAX_FRAME_PIXELS, ResultPage, check_video, make_result_page
from lvt_ff.data import FrameSizeError, VideoReadError
from lvt_ff.data.synthetic.demo import TIME_CLASSES
from lvt_ff.data.synthetic.writer import write_dataset
from lvt_ff.inference.classifier import Classifier
from lvt_ff.utils.command_line import command
from lvt_ff.utils.environment import install_hint
from lvt_ff.utils.errors import Failure, usage
from lvt_ff.utils.option_types import Port, PositiveFloat
from lvt_ff.utils.output import check_output_folder
from lvt_ff.utils.validation import check_rgb

__all__ = ["app", "serve"]

_LOCAL = ("127.0.0.1", "localhost", "::1")
_RESULTS_KEPT_S = 60
_ABANDONED_S = 600  # age of an upload that no visitor waits for any more
_SWEEP_S = 5  # between two looks for such uploads
# gradio keeps each session's last results, pictures and all, for as many as it is allowed. None of
# ours needs its session again: the page's only state is in the browser.
_MAX_SESSIONS = 20


class UploadHandler:
    """Makes results for uploaded files, and deletes each file when its results are there.

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
        self.recent_results: dict[Path, tuple[float, list]] = {}

    def handle_upload(self, file: dict) -> list:
        """The page's outputs for an upload, as gradio describes it."""
        path = Path(file["path"]).resolve()
        if not path.is_relative_to(self.uploads):
            raise PermissionError("Only uploaded files are read.")
        try:
            recent = self.recent_results.get(path)
            if recent is None or path.is_file():
                outputs = self.outputs_of(path)
                recent = self.recent_results[path] = (time.time(), outputs)
            return recent[1]
        finally:
            path.unlink(missing_ok=True)
            self._remove_if_empty(path.parent)

    def handle_sample(self, name: str) -> list:
        """The page's outputs for a sample."""
        return self.outputs_of(self.samples[name])

    def sweep(self) -> None:
        """Delete uploads that nobody waits for any more, and forget old results."""
        now = time.time()
        for path, (when, _) in list(self.recent_results.items()):
            if now - when > _RESULTS_KEPT_S:
                self.recent_results.pop(path, None)
        # Files and folders vanish meanwhile: handled uploads are deleted too. os.walk passes over
        # what it cannot list any more, which Path.rglob does not.
        for folder, _, names in os.walk(self.uploads, topdown=False):
            for name in names:
                if _is_older(Path(folder, name), now - _ABANDONED_S):
                    with suppress(OSError):
                        Path(folder, name).unlink()
                        self._remove_if_empty(Path(folder))
            if _is_older(Path(folder), now - _ABANDONED_S):
                self._remove_if_empty(Path(folder))

    def _remove_if_empty(self, folder: Path) -> None:
        if folder != self.uploads:
            with suppress(OSError):  # not empty: another upload has just come to it
                folder.rmdir()

    def outputs_of(self, path: Path) -> list:
        """The line above, then label and HTML of every model."""
        try:
            length_s = check_video(path, *self.limits)
            pages = [make_result_page(model, path, length_s) for model in self.models.values()]
        except FrameSizeError as error:
            return self._outputs(f"⚠️ {error.__cause__ or error}")  # without the server's folders
        except ValueError as error:
            return self._outputs(f"⚠️ {error}")
        except VideoReadError as error:
            print(error, file=sys.stderr)  # with the server's folders
            return self._outputs(f"⚠️ {path.name} is empty, damaged, or not a video.")
        except Failure as error:
            return self._outputs(f"⚠️ {error}")
        return self._outputs(f"**{path.name}**", pages)

    def _outputs(self, line: str, pages: Sequence[ResultPage] = ()) -> list:
        parts = [(page.best_classes, page.html) for page in pages]
        parts = parts or [(None, "")] * len(self.models)
        return [line, *(part for pair in parts for part in pair)]


def _is_older(path: Path, time_s: float) -> bool:
    try:
        return path.stat().st_mtime < time_s
    except OSError:  # it has gone meanwhile
        return False


def build_page(handler: UploadHandler) -> Any:
    """The page, a `gradio.Blocks`."""
    import gradio

    with gradio.Blocks(title="lvt_ff", analytics_enabled=False, fill_width=True) as page:
        gradio.Markdown("# Linear-time video transformers\nDrop a clip, or pick a sample.")
        with gradio.Row():
            max_mb, max_seconds = handler.limits
            file = gradio.File(
                label=f"A clip of up to {max_mb:g} MB and {max_seconds:g} s (mp4, mov, webm, …)",
                elem_id="clip",
            )
            sample = gradio.Radio(list(handler.samples), label="Samples", elem_id="samples")
        line = gradio.Markdown(elem_id="line")
        outputs = [line]
        with gradio.Row():
            for name, model in handler.models.items():
                title = "Values" if model.score_function == "none" else "Best classes"
                with gradio.Column():
                    gradio.Markdown(f"### {name}")
                    classes = gradio.Label(num_top_classes=5, label=title)
                    outputs += [classes, gradio.HTML()]
        # One at a time: explaining hooks into the model.
        one = dict(concurrency_limit=1, concurrency_id="model")
        # With its own preprocessing gradio makes another file and fails where this one is gone.
        handled = file.upload(
            handler.handle_upload, file, outputs, api_name="upload", preprocess=False, **one
        )
        handled.then(lambda: None, None, file, api_name=False)
        sample.input(handler.handle_sample, sample, outputs, api_name="sample", **one)
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
    loaded = {
        short: Classifier(name, device, max_pixels=MAX_FRAME_PIXELS)
        for short, name in zip(names, models, strict=True)
    }
    for classify in loaded.values():
        check_rgb(classify.model.config.in_chans)
    with tempfile.TemporaryDirectory(prefix="lvt_ff_app_", ignore_cleanup_errors=True) as folder:
        uploads, made = Path(folder, "uploads"), Path(folder, "samples")
        uploads.mkdir()
        # gradio reads these once, when it is imported.
        os.environ.update(GRADIO_TEMP_DIR=str(uploads), GRADIO_ANALYTICS_ENABLED="False")
        if samples is None:
            write_dataset(made, len(TIME_CLASSES), seed=0, num_workers=1)
        clips = sample_files(samples or made)
        handler = UploadHandler(loaded, uploads, clips, max_mb, max_seconds)
        page = build_page(handler)
        page.launch(
            server_name=host,
            server_port=port,
            max_file_size=int(max_mb * 1e6),
            footer_links=["api"],
            ssr_mode=False,
            share=False,
            state_session_capacity=_MAX_SESSIONS,
            # Else gradio refuses uploads whose names start with a dot, and leaves them there.
            allowed_paths=[str(uploads)],
            quiet=True,
            prevent_thread_lock=True,
        )
        print(f"open {page.local_url} (Ctrl+C ends it)", flush=True)
        if host not in _LOCAL:
            print(f"anyone who reaches this machine on port {port} can use the page", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # else the uploads would stay
        try:
            while page.is_running:
                time.sleep(_SWEEP_S)
                handler.sweep()
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
    how classes change over time. Uploaded clips are deleted when their results are there.

    Args:
        model: Model folder, or ORG/NAME[@REVISION] on the Hub; separate several with commas to
            compare them side by side.
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
