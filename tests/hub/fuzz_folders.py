"""Mutants of model folders through every loader: `python tests/hub/fuzz_folders.py 1000 --seed 1`.

A mutant is taken by all loaders with equal scores, or refused in words. Each is loaded by a process
of its own, with limits on time and memory. What other libraries raise before our code is asked is
counted apart ("foreign").
"""

import argparse
import contextlib
import copy
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import timm  # noqa: E402
import torch  # noqa: E402
from huggingface_hub.errors import StrictDataclassError  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import (  # noqa: E402
    AutoModel,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
    logging,
)

import lvt_ff  # noqa: E402
from lvt_ff.hub.model_folder import load_folder  # noqa: E402

PACKAGE = f"{Path(lvt_ff.__file__).parent}{os.sep}"

LIMIT_S = 30
MEMORY_BYTES = 2 << 30  # on top of what the libraries have
SIZE = dict(depth=2, num_frames=2, img_size=32, head_hidden=16, embed_dim=32, num_heads=2)
NAMES = {0: "push", 1: "pull", 2: "lift"}

# Anything that a damaged or hostile file may hold in the place of something else.
VALUES = [
    *(
        None,
        True,
        False,
        "",
        "x",
        "0",
        [],
        {},
        [1],
        [[]],
        {"a": 1},
        {"0": None},
        "../../etc/passwd",
    ),
    *(-1, 0, 1, 2, 7, 10**6, 10**9, 10**18, 10**40, -(10**9), 0.5, -0.5, 1e308, 1.5),
    *(
        [1, 2, 3],
        [0, 0],
        [10**6, 10**6],
        ["a", "b"],
        "relu",
        "softmax",
        "float64",
        "\ud800",
        "é" * 300,
    ),
    *(float("nan"), float("inf"), [float("nan")] * 3, {"__float__": "Infinity"}),
]


def deep(levels):
    return "[" * levels + "]" * levels


def sources(place):
    """Folders to begin with: of transformers, of timm, in shards, a backbone."""
    torch.manual_seed(0)
    config = lvt_ff.LVTFFConfig.from_variant("test_lvt_ff", id2label=NAMES, **SIZE)
    model = lvt_ff.LVTFFForVideoClassification(config).eval()
    size = dict(height=32, width=32)
    processor = lvt_ff.LVTFFVideoProcessor(num_frames=2, size=size, crop_size=size)
    model.save_pretrained(place / "transformers")
    model.save_pretrained(place / "shards", max_shard_size="30KB")
    for name in ("transformers", "shards"):
        processor.save_pretrained(place / name)
    by_timm = timm.create_model("test_lvt_ff", num_classes=3, **SIZE)
    timm.models.save_for_hf(by_timm, place / "timm", safe_serialization=True)
    return sorted(place.iterdir())


# Mutators: (generator, folder) to a description.


def places_in(value, path=()):
    """Every place in nested JSON data, as keys and indices."""
    yield path
    items = value.items() if isinstance(value, dict) else []
    for key, inner in enumerate(value) if isinstance(value, list) else items:
        yield from places_in(inner, (*path, key))


def put(data, path, value):
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value


def mutate_values(rng, file, top=None):
    """Other values, missing and additional keys, in one to three places of a JSON file."""
    data = json.loads(file.read_text())
    said = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = [path for path in places_in(data) if path and (top is None or path[0] in top)]
        if not places:
            break
        path = rng.choice(
            [path for path in places if len(path) == 1 or rng.random() < 0.3] or places
        )
        kind = rng.choice(["value"] * 8 + ["delete", "add", "copy"])
        if kind == "value":
            value = copy.deepcopy(rng.choice(VALUES))
            put(data, path, value)
            said.append(f"{'.'.join(map(str, path))} = {str(value)[:30]!r}")
        elif kind == "copy":
            other = rng.choice(places)
            value = data
            for key in other:
                value = value[key]
            put(data, path, copy.deepcopy(value))
            said.append(f"{'.'.join(map(str, path))} = {'.'.join(map(str, other))}")
            break  # data may hold itself now
        else:
            parent = data
            for key in path[:-1]:
                parent = parent[key]
            if isinstance(parent, list):
                parent.append(copy.deepcopy(rng.choice(VALUES)))
                said.append(f"{'.'.join(map(str, path))} longer")
            elif kind == "delete":
                del parent[path[-1]]
                said.append(f"without {'.'.join(map(str, path))}")
            else:
                name = rng.choice(EXTRA)
                parent[name] = copy.deepcopy(rng.choice(VALUES))
                said.append(
                    f"{'.'.join(map(str, (*path[:-1], name)))} = {str(parent[name])[:30]!r}"
                )
    file.write_text(json.dumps(data))
    return f"{file.name}: {', '.join(said)}"


EXTRA = [
    *(
        "num_labels",
        "hidden_size",
        "image_size",
        "core_kwargs",
        "class_names",
        "to_dict",
        "validate",
    ),
    *(
        "label2id",
        "torch_dtype",
        "transformers_weights",
        "quantization_config",
        "state_dict",
        "file",
    ),
    *(
        "custom_load",
        "label_offset",
        "hf_hub_filename",
        "url",
        "device",
        "dtype",
        "unknown",
        "depth",
    ),
    *(
        "per_layer_config",
        "configuration_files",
        "attn_implementation",
        "_name_or_path",
        "pruned_heads",
    ),
    *("tie_word_embeddings", "fusion_config", "features_only", "out_indices", "pretrained_strict"),
]


def mutate_text(rng, file):
    """A file that is no JSON object, or no text."""
    text = file.read_text()
    cut = rng.randrange(len(text))
    kind, content = rng.choice(
        [
            ("empty", b""),
            ("cut", text[:cut].encode()),
            ("list", b"[]"),
            ("number", b"3"),
            ("null", b"null"),
            ("text", b'"x"'),
            ("no text", b"\xff\xfe" + text.encode()),
            ("a byte", text[:cut].encode() + b"\xe9" + text[cut:].encode()),
            ("utf-16", text.encode("utf-16")),
            ("BOM", b"\xef\xbb\xbf" + text.encode()),
            ("deep", deep(100_000).encode()),
            ("deep inside", text.replace("{", '{"deep": ' + deep(100_000) + ",", 1).encode()),
            ("digits", text.replace("2", "2" * 5000, 1).encode()),
            ("twice", text.encode() * 2),
            ("zeros", bytes(200)),
        ]
    )
    file.write_bytes(content)
    return f"{file.name}: {kind}"


def mutate_config(rng, folder):
    return mutate_values(rng, folder / "config.json")


def mutate_labels(rng, folder):
    file = folder / "config.json"
    data = json.loads(file.read_text())
    keys = [key for key in ("id2label", "label2id", "label_names", "num_classes") if key in data]
    if rng.random() < 0.5:
        return mutate_values(rng, file, top=keys)
    labels = rng.choice(
        [
            *({"1": "a", "2": "b", "3": "c"}, {"0": "a", "2": "b", "3": "c"}, {"0": "a", "1": "a"}),
            *({"0": "a", "1": "b", "x": "c"}, ["a", "b", "c"], {"0": None, "1": "b", "2": "c"}),
            *({"0": ["a"], "1": "b", "2": "c"}, {"0": 1, "1": 2, "2": 3}, {}, [], None, "abc"),
            *({"push": 0, "pull": 1, "lift": 2}, {"0": "", "1": "b", "2": "c"}, ["a", "b", "a"]),
            *({"00": "a", "1": "b", "2": "c"}, {"-1": "a", "0": "b", "1": "c"}, {"0": "a"}),
            *({"0": "a", "1": "b", "2": "c", "3": "d"}, {str(10**9): "a"}, [None] * 3, [["a"]] * 3),
        ]
    )
    key = rng.choice(keys)
    data[key] = labels
    file.write_text(json.dumps(data))
    return f"config.json: {key} = {labels!r}"


def mutate_processor(rng, folder):
    file = folder / "video_preprocessor_config.json"
    if not file.is_file():
        return mutate_config(rng, folder)
    return mutate_text(rng, file) if rng.random() < 0.15 else mutate_values(rng, file)


def mutate_config_text(rng, folder):
    return mutate_text(rng, folder / "config.json")


def weights_file(rng, folder):
    return rng.choice(sorted(folder.glob("*.safetensors")))


def mutate_bytes(rng, folder):
    """A weight file that is none, or damaged."""
    file = weights_file(rng, folder)
    data = bytearray(file.read_bytes())
    kind = rng.choice(
        ["cut", "empty", "header", "length", "longer", "text", "pickle", "gone", "folder"]
    )
    if kind == "cut":
        del data[rng.randrange(len(data)) :]
    elif kind == "empty":
        data.clear()
    elif kind == "header":
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(8, 500)] = rng.randrange(256)
    elif kind == "length":
        data[rng.randrange(8)] = rng.randrange(1, 256)
    elif kind == "longer":
        data += bytes(rng.randrange(1, 100))
    elif kind == "text":
        data[:] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    elif kind == "pickle":
        torch.save({"a": torch.zeros(2)}, file)
        data[:] = file.read_bytes()
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind != "gone":
        file.write_bytes(data)
    return f"{file.name}: {kind}"


def mutate_tensors(rng, folder):
    """Whole files whose tensors are not the model's."""
    file = weights_file(rng, folder)
    weights = {name: tensor.clone() for name, tensor in load_file(file).items()}
    name = rng.choice(sorted(weights))
    tensor = weights[name]
    kind = rng.choice(
        [
            *("missing", "extra", "gates", "prefix", "all prefixed", "some prefixed", "both"),
            *("integer", "double", "half", "nan", "inf", "shape", "flat", "transposed", "empty"),
            *(
                "scalar",
                "renamed",
                "swapped",
                "bool",
                "complex",
                "longer embedding",
                "short embedding",
            ),
        ]
    )
    if kind == "missing":
        del weights[name]
    elif kind == "extra":
        weights[rng.choice(["x", "head.extra", "blocks.99.norm1.weight", "model", "blocks.0"])] = (
            tensor.clone()
        )
    elif kind == "gates":
        weights["blocks.0.attn.fixation.more.weight"] = torch.zeros(3)
    elif kind in ("prefix", "all prefixed"):
        prefix = "model." if kind == "prefix" else rng.choice(["module.", "model.model.", "base."])
        weights = {prefix + key: value for key, value in weights.items()}
    elif kind == "some prefixed":
        weights["model." + name] = weights.pop(name)
    elif kind == "both":
        weights["model." + name] = tensor + 1
    elif kind in ("integer", "double", "half", "bool", "complex"):
        kinds = dict(integer=torch.int64, double=torch.float64, half=torch.float16)
        weights[name] = tensor.to(
            kinds.get(kind, torch.bool if kind == "bool" else torch.complex64)
        )
    elif kind in ("nan", "inf"):
        tensor.view(-1)[rng.randrange(tensor.numel())] = float(kind)
    elif kind == "shape":
        weights[name] = torch.zeros(*tensor.shape[:-1], tensor.shape[-1] + 1)
    elif kind == "flat":
        weights[name] = tensor.flatten()
    elif kind == "transposed":
        weights[name] = tensor.transpose(0, -1).contiguous()
    elif kind == "empty":
        weights[name] = torch.zeros(0)
    elif kind == "scalar":
        weights[name] = torch.tensor(1.0)
    elif kind == "renamed":
        weights[name.replace("weight", "gamma").replace("embed", "embeds")] = weights.pop(name)
    elif kind == "swapped":
        other = rng.choice(sorted(weights))
        weights[name], weights[other] = weights[other], weights[name]
    elif "embedding" in kind:
        name = rng.choice([key for key in ("pos_embed", "temp_embed") if key in weights] or [name])
        length = rng.choice([0, 1, 3, 5]) if kind == "short embedding" else rng.choice([16, 9999])
        weights[name] = torch.zeros(1, length, *weights[name].shape[2:])
    save_file(weights, file, metadata={"format": rng.choice(["pt", "pt", "pt", "tf", "x"])})
    return f"{file.name}: {kind} {name}"


def mutate_index(rng, folder):
    file = folder / "model.safetensors.index.json"
    if not file.is_file():
        return mutate_tensors(rng, folder)
    if rng.random() < 0.3:
        return mutate_text(rng, file)
    if rng.random() < 0.5:
        return mutate_values(rng, file)
    data = json.loads(file.read_text())
    name = rng.choice(sorted(data["weight_map"]))
    data["weight_map"][name] = value = rng.choice(
        ["../model.safetensors", "/etc/passwd", "absent.safetensors", "config.json", "", "a\0b"]
    )
    file.write_text(json.dumps(data))
    return f"{file.name}: {name} in {value!r}"


def mutate_files(rng, folder):
    """Files that are not there, or are something else."""
    file = rng.choice(sorted(folder.iterdir()))
    kind = rng.choice(["gone", "folder", "pipe", "loop", "adapter", "no reading"])
    if kind == "adapter":
        (folder / "adapter_config.json").write_text(json.dumps(rng.choice(VALUES)))
        return "adapter_config.json: additional"
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "loop":
        file.symlink_to(file)
    elif kind == "no reading":
        file.symlink_to("/proc/self/mem")
    return f"{file.name}: {kind}"


MUTATORS = {
    mutate_config: 8,
    mutate_labels: 3,
    mutate_processor: 3,
    mutate_config_text: 2,
    mutate_bytes: 2,
    mutate_tensors: 4,
    mutate_index: 2,
    mutate_files: 1,
}

# Loaders: a folder to what takes clips, and their number.


def by_auto(folder):
    model = AutoModelForVideoClassification.from_pretrained(folder)
    if (folder / "video_preprocessor_config.json").exists():
        AutoVideoProcessor.from_pretrained(folder)
    return model.model


def by_class(folder):
    model = lvt_ff.LVTFFForVideoClassification.from_pretrained(folder)
    if (folder / "video_preprocessor_config.json").exists():
        lvt_ff.LVTFFVideoProcessor.from_pretrained(folder)
    return model.model


def by_backbone(folder):
    return AutoModel.from_pretrained(folder).model


def by_timm(folder):
    return timm.create_model(f"local-dir:{folder}", pretrained=True)


def by_command(folder):
    model, processor = load_folder(folder)
    processor.eval_transform()(torch.zeros(3, 40, 40, 3, dtype=torch.uint8).numpy())
    assert len(model.config.class_names) == model.config.num_labels
    return model.model


LOADERS = dict(auto=by_auto, own=by_class, backbone=by_backbone, timm=by_timm, command=by_command)
CLEAN = (ValueError, TypeError, OSError, StrictDataclassError)


def outcome(load, folder):
    """What a loader did: ("taken", scores), or ("refused" or "unclean" or "foreign", message)."""
    try:
        core = load(folder).eval()
        shape = (1, core.num_frames, core.in_chans, *core.img_size)
        if max(shape) > 4096 or torch.Size(shape).numel() > 10**7:
            return "taken", None
        with torch.no_grad():
            clip = torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape)
            tokens = core.forward_features(clip)
            return "taken", [tokens.double().sum().item(), core.forward_head(tokens).double()]
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if frame.filename.startswith(PACKAGE)]
        text = f"{type(error).__name__}: {error}"
        named = any(part.name in text for part in [folder, *folder.iterdir()])
        bad = isinstance(error, UnicodeDecodeError) or not isinstance(error, CLEAN)
        if not bad and named:
            return "refused", text
        if not ours:
            return ("foreign refusal" if not bad else "foreign"), text
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
        return "unclean", f"{text} ({'unnamed, ' if not bad else ''}{place})"


def judge(folder):
    """Outcomes of all loaders, and a disagreement of those that take the mutant."""
    results = {name: outcome(load, folder) for name, load in LOADERS.items()}
    taken = {n: found for n, (kind, found) in results.items() if kind == "taken" and found}
    for name, (features, scores) in taken.items():
        for other, (their_features, their_scores) in taken.items():
            same = abs(features - their_features) < 1e-3 + 1e-4 * abs(features)
            if "backbone" not in (name, other):
                same = same and scores.shape == their_scores.shape
                same = same and torch.allclose(scores, their_scores, atol=1e-4)
            if not same:
                return {name: ("unclean", f"differs from {other}")}
    return {
        name: (kind, None if kind == "taken" else found) for name, (kind, found) in results.items()
    }


def in_a_process(folder):
    """`judge` in a child with limits."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with open("/proc/self/statm") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        try:
            answer = json.dumps(judge(folder))
        except BaseException:
            answer = json.dumps({"judge": ("unclean", traceback.format_exc()[-800:])})
        with open(writer, "w") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(writer)
    answer, end = b"", time.time() + LIMIT_S
    with open(reader, "rb") as pipe:
        while (left := end - time.time()) > 0 and select.select([pipe], [], [], left)[0]:
            part = os.read(reader, 1 << 16)
            answer += part
            if not part:
                break
        else:
            os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGKILL:
        return {"all": ("unclean", f"hangs: no end after {LIMIT_S} s")}
    return json.loads(answer) if status == 0 else {"all": ("unclean", f"dies with {status}")}


def fuzz(count, seed, show=0, only=None, taken=False):
    """Counts of outcomes, and descriptions of what is unclean."""
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    counts, unclean, shown = Counter(), [], Counter()
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "sources").mkdir()
        begin = sources(Path(place) / "sources")
        for source in begin:  # as they are, all load
            for name, (kind, said) in in_a_process(source).items():
                assert kind == "taken", (source.name, name, said)
        kinds, weights = zip(*MUTATORS.items(), strict=True)
        for number in range(count):
            rng = random.Random(f"{seed} {number}")
            mutate = rng.choices(kinds, weights)[0]
            source = rng.choice(begin)
            if only not in (None, number):
                continue
            folder = Path(place) / f"mutant{number}"
            shutil.copytree(source, folder)
            said = f"{number} {source.name}/{mutate(rng, folder)}"
            for name, (kind, what) in in_a_process(folder).items():
                counts[f"{name}: {kind}"] += 1
                counts[kind] += 1
                if kind in ("unclean", "foreign"):
                    unclean.append((kind, f"{said} | {name}: {what}"))
                elif taken and kind == "taken":
                    print(f"{said} | {name}")
                elif show and shown[name] < show and kind != "taken":
                    shown[name] += 1
                    print(f"{said} | {name}: {what}")
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
    return counts, unclean


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=0, help="refusals to print, per loader")
    parser.add_argument("--taken", action="store_true", help="print what is taken")
    parser.add_argument("--only", type=int, help="the number of one mutant")
    options = parser.parse_args()
    start = time.time()
    counts, unclean = fuzz(**vars(options))
    for kind, line in unclean:
        print(kind, ascii(line[:600]))
    for name, number in sorted(counts.items()):
        print(f"{number:>6}  {name}")
    print(f"{options.count} mutants, seed {options.seed}, {time.time() - start:.0f} s")
    return any(kind == "unclean" for kind, _ in unclean)


if __name__ == "__main__":
    sys.exit(main())
