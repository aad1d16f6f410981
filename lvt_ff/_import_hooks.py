"""What importing the package sets up: registration in timm and transformers, and moved modules.

Neither library is imported for it, so that `lvt-ff --help` answers at once: models are registered
when the library that they are for is imported, or right away where it is there already.
"""

import importlib
import importlib.util
import sys
import threading
import warnings
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec

__all__ = ["MOVED", "install"]

# Library: what registers our classes in it.
_REGISTRIES = {
    "timm": "lvt_ff.timm_models",
    "transformers": "lvt_ff.hf",
    "transformers.pipelines": "lvt_ff.hf.pipeline_lvt_ff",
}

# Former module, or script of a package: where its names are now; the first of them is what runs
# with `python -m`.
MOVED: dict[str, tuple[str, ...]] = {
    "lvt_ff.ablate": ("ablation.ablate", "ablation.recipe"),
    "lvt_ff.ablation_recipe": ("ablation.recipe",),
    "lvt_ff.ablation_report": ("ablation.report",),
    "lvt_ff.ablation_tables": ("ablation.tables",),
    "lvt_ff.app.__main__": ("app.server",),
    "lvt_ff.answer": ("app.result_page",),
    "lvt_ff.attribution": ("explain.relevance",),
    "lvt_ff.benchmark": ("profiling",),
    "lvt_ff.cards": ("hub.model_card", "utils.environment"),
    "lvt_ff.checks": ("utils.validation",),
    "lvt_ff.console": ("utils.command_line", "utils.option_parser", "utils.errors"),
    "lvt_ff.convert.authors": ("weights.authors",),
    "lvt_ff.convert.pieces": ("weights.layouts",),
    "lvt_ff.convert.report": ("weights.report",),
    "lvt_ff.convert.vit": ("weights.vit",),
    "lvt_ff.convert_checkpoint": ("convert.convert",),
    "lvt_ff.data.motion": ("data.synthetic",),
    "lvt_ff.data.reader": ("video.reader", "video.decoders"),
    "lvt_ff.evaluate": ("training.evaluate",),
    "lvt_ff.explain.__main__": ("explain.explain",),
    "lvt_ff.export": ("inference.export",),
    "lvt_ff.files": ("utils.atomic_io",),
    "lvt_ff.finetune": ("training.finetune",),
    "lvt_ff.folders": ("hub.model_folder",),
    "lvt_ff.hub_requests": ("hub.retry",),
    "lvt_ff.metrics": ("training.metrics",),
    "lvt_ff.kernels.local": ("kernels.conv",),
    "lvt_ff.ops.linear_attention": ("ops.linear",),
    "lvt_ff.overlays": ("explain.figures",),
    "lvt_ff.plots": ("utils.plots",),
    "lvt_ff.predict": ("inference.predict", "inference.classifier"),
    "lvt_ff.recording": ("explain.attention_recorder",),
    "lvt_ff.sources": ("convert.load_source",),
    "lvt_ff.space": ("app.hf_space",),
    "lvt_ff.variant_cards": ("hub.variant_cards",),
    "lvt_ff.views": ("explain.views",),
}


class _RegisterModels(MetaPathFinder, threading.local):
    """Registers our models once timm or transformers is imported.

    Where one of our own modules imports the library, registration waits until the outermost of
    them is there: it imports others of them.
    """

    def __init__(self):
        self.depth = 0  # of our modules that are being imported
        self.waiting: list[str] = []

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:
        is_ours = name.startswith("lvt_ff.")
        if not is_ours and name not in _REGISTRIES:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module) -> None:
            self.depth += is_ours
            try:
                execute(module)
            finally:
                self.depth -= is_ours
            if not is_ours:
                self.waiting.append(_REGISTRIES[name])
            while self.waiting and not self.depth:
                registry = self.waiting.pop()
                try:
                    importlib.import_module(registry)
                except BaseException:
                    self.waiting.append(registry)  # for the next import
                    raise

        spec.loader.exec_module = execute_and_register
        return spec


class _MovedModules(MetaPathFinder, InspectLoader):
    """Former module names still import, with a warning that names the new ones."""

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:
        # `python -m` takes the origin for the name of the script.
        return importlib.util.spec_from_loader(name, self, origin=name) if name in MOVED else None

    def get_source(self, fullname: str) -> str:
        first, *_ = MOVED[fullname]
        lines = [
            'if __name__ == "__main__":',
            "    import runpy",
            f"    runpy.run_module('lvt_ff.{first}', run_name='__main__', alter_sys=True)",
            "else:",
            *(f"    from lvt_ff.{place} import *" for place in MOVED[fullname]),
        ]
        return "\n".join(lines)

    def exec_module(self, module) -> None:
        now = " and ".join(f"lvt_ff.{place}" for place in MOVED[module.__name__])
        warnings.warn(f"{module.__name__} is now {now}", FutureWarning, stacklevel=2)
        super().exec_module(module)


def install() -> None:
    """Register in the libraries that are imported, and be ready for the others."""
    # Those of an earlier import of this package, if its modules were removed since.
    kept = [finder for finder in sys.meta_path if type(finder).__module__ != __name__]
    sys.meta_path[:] = [_RegisterModels(), *kept, _MovedModules()]
    for library, module in _REGISTRIES.items():
        if library in sys.modules:
            importlib.import_module(module)
