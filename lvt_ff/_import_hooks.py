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

# Former module: where its names are now, and the command that it ran as a script.
MOVED: dict[str, tuple[tuple[str, ...], str | None]] = {
    "lvt_ff.ablate": (("ablation.ablate", "ablation.recipe"), "ablate"),
    "lvt_ff.ablation_recipe": (("ablation.recipe",), None),
    "lvt_ff.ablation_report": (("ablation.report",), None),
    "lvt_ff.ablation_tables": (("ablation.tables",), None),
    "lvt_ff.answer": (("app.result_page",), None),
    "lvt_ff.attribution": (("explain.relevance",), None),
    "lvt_ff.benchmark": (("profiling",), None),
    "lvt_ff.cards": (("hub.model_card", "utils.environment"), None),
    "lvt_ff.checks": (("utils.validation",), None),
    "lvt_ff.console": (("utils.command_line", "utils.option_parser", "utils.errors"), None),
    "lvt_ff.convert.authors": (("weights.authors",), None),
    "lvt_ff.convert.pieces": (("weights.layouts",), None),
    "lvt_ff.convert.report": (("weights.report",), None),
    "lvt_ff.convert.vit": (("weights.vit",), None),
    "lvt_ff.convert_checkpoint": (("convert.convert",), "convert"),
    "lvt_ff.data.motion": (("data.synthetic",), None),
    "lvt_ff.evaluate": (("training.evaluate",), "evaluate"),
    "lvt_ff.export": (("inference.export",), "export"),
    "lvt_ff.files": (("utils.atomic_io",), None),
    "lvt_ff.finetune": (("training.finetune",), "finetune"),
    "lvt_ff.folders": (("hub.model_folder",), None),
    "lvt_ff.hub_requests": (("hub.retry",), None),
    "lvt_ff.metrics": (("training.metrics",), None),
    "lvt_ff.kernels.local": (("kernels.conv",), None),
    "lvt_ff.ops.linear_attention": (("ops.linear",), None),
    "lvt_ff.overlays": (("explain.figures",), None),
    "lvt_ff.plots": (("utils.plots",), None),
    "lvt_ff.predict": (("inference.predict", "inference.classifier"), "predict"),
    "lvt_ff.recording": (("explain.attention_recorder",), None),
    "lvt_ff.sources": (("convert.load_source",), None),
    "lvt_ff.space": (("app.hf_space",), None),
    "lvt_ff.variant_cards": (("hub.variant_cards",), None),
    "lvt_ff.views": (("explain.views",), None),
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
                importlib.import_module(self.waiting.pop())

        spec.loader.exec_module = execute_and_register
        return spec


class _MovedModules(MetaPathFinder, InspectLoader):
    """Former module names still import, with a warning that names the new ones."""

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:
        # `python -m` takes the origin for the name of the script.
        return importlib.util.spec_from_loader(name, self, origin=name) if name in MOVED else None

    def get_source(self, fullname: str) -> str:
        places, command = MOVED[fullname]
        lines = [f"from lvt_ff.{place} import *" for place in places]
        if command:
            lines += [
                'if __name__ == "__main__":',
                "    import sys",
                "    from lvt_ff.cli import main",
                f"    raise SystemExit(main(['{command}', *sys.argv[1:]]))",
            ]
        return "\n".join(lines)

    def exec_module(self, module) -> None:
        places, _ = MOVED[module.__name__]
        now = " and ".join(f"lvt_ff.{place}" for place in places)
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
