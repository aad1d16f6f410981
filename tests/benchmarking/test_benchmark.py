"""The benchmark: names, floors, turns, ratios, memory, and what the command writes."""

import inspect
import json
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lvt_ff import LinearVideoTransformer
from lvt_ff.benchmarking import benchmark as module
from lvt_ff.benchmarking import measure
from lvt_ff.benchmarking.benchmark import TABLE8, Group, count_costs, run_groups, sized_groups
from lvt_ff.benchmarking.floor import floor_macs, floor_step, linear_calls
from lvt_ff.benchmarking.measure import Settings, add_ratios, count_cost, take_turns
from lvt_ff.benchmarking.parts import part_of, time_shares
from lvt_ff.benchmarking.report import crossings, curve_lines, group_lines
from lvt_ff.benchmarking.subjects import NUM_CLASSES, PEERS, find_subject, find_subjects
from lvt_ff.cli import main
from lvt_ff.profiling import count_macs, peak_bytes

CPU = torch.device("cpu")
FORWARD = Settings("forward", torch.float32, CPU, repeats=2)


def on_meta(name, *size):
    subject = find_subject(name, *size)
    with torch.device("meta"):
        return subject, subject.build().eval()


def run(groups, settings=FORWARD):
    stored = []
    return run_groups(groups, count_costs(groups), settings, lambda rows: stored.append(len(rows)))


def run_command(output, *args, models="test_lvt_ff,test_lvt_ff:softmax:plain"):
    words = ["benchmark", "--models", models, "--device", "cpu", "--output", str(output)]
    assert main([*words, "--repeats", "2", *args]) == 0
    return json.loads((output / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    output = tmp_path_factory.mktemp("benchmark") / "new"
    return output, run_command(output, "--batch_sizes", "1,2", "--profile")


# What is compared


def test_names_choose_variant_kernel_and_path(monkeypatch):
    paths = []
    monkeypatch.setattr(
        LinearVideoTransformer, "set_fused_attn", lambda self, enable: paths.append(enable)
    )
    model = find_subject("test_lvt_ff:softmax", 2, 32).build()
    assert type(model.blocks[0].attn.kernel).__name__ == "SoftmaxKernel"
    assert (model.num_frames, model.img_size) == (2, (32, 32))
    assert any("gate" in name for name, _ in model.named_parameters()) and paths == []
    plain = find_subject("test_lvt_ff:plain:eager").build()
    assert not any("gate" in name for name, _ in plain.named_parameters())
    assert paths == [False]
    assert (plain.num_frames, plain.img_size) == (4, (64, 64))


@pytest.mark.parametrize(
    "name, message",
    [
        ("test_lvt_f", "Unknown model 'test_lvt_f': did you mean 'test_lvt_ff'?"),
        ("test_lvt_ff:rel", "unknown kernel 'rel': did you mean 'relu'?"),
        ("test_lvt_ff:relu:quick", "behind the kernel stand plain and eager, each at most once"),
        ("test_lvt_ff:eager:eager", "each at most once, got 'eager'"),
        ("vivit:relu", "only our own models take a kernel"),
        ("test_lvt_ff, test_lvt_ff", "named twice"),
    ],
)
def test_names_that_are_none_are_explained(name, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        find_subjects(name)


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_takes_clips_of_its_own_size(name):
    subject, model = on_meta(name)
    assert model(subject.clips(2, "meta", torch.float32)).shape == (2, NUM_CLASSES)


@pytest.mark.parametrize("name", [name for name in PEERS if name != "mvit_v2_s"])
def test_sizes_can_be_set_where_a_model_has_them_free(name):
    subject, model = on_meta(name, 4, 64)
    assert model(subject.clips(2, "meta", torch.float32)).shape == (2, NUM_CLASSES)


@pytest.mark.parametrize("size", [(8, 224), (16, 112)])
def test_a_size_that_a_model_does_not_take_names_the_model(size):
    with pytest.raises(ValueError, match="^mvit_v2_s does not take .* 16 frames of 224 pixels"):
        count_cost(find_subject("mvit_v2_s", *size))


# The floor


@pytest.mark.parametrize("name", ["test_lvt_ff", "test_lvt_ff:softmax", "test_lvt_ff:plain:eager"])
def test_floor_of_ours_is_qkv_proj_and_mlp_whatever_the_attention(name):
    subject, model = on_meta(name)
    calls = linear_calls(model, subject.clips(1, "meta", torch.float32))
    assert {call.weight.split(".")[-2] for call in calls if "blocks" in call.weight} == {
        *("qkv", "proj", "fc1", "fc2")
    }
    tokens, width = 4 * math.prod(model.grid), 64
    blocks = 3 * tokens * (2 * (3 + 1) + 2 * 4) * width**2
    head = width * model.head_hidden_size + model.head_hidden_size * NUM_CLASSES
    assert floor_macs(model, calls) == blocks + head
    assert floor_macs(model, calls) < count_macs(model)


@pytest.mark.parametrize("name", ["test_lvt_ff", *PEERS])
def test_linear_layers_of_a_batch_have_as_many_times_the_rows(name):
    subject, model = on_meta(name)
    one, two = (linear_calls(model, subject.clips(b, "meta", torch.float32)) for b in (1, 2))
    assert two == [call._replace(shape=(2 * call.shape[0], *call.shape[1:])) for call in one]
    assert len(one) >= 20


def test_floor_computes_the_linear_layers_and_their_gradients(monkeypatch):
    subject = find_subject("test_lvt_ff", 2, 32)
    model = subject.build()
    calls = linear_calls(model, subject.clips(1, "cpu", torch.float32))
    ran, wanted = [], []
    linear, grad = nn.functional.linear, torch.autograd.grad

    def noting_linear(x, weight, bias):
        ran.append((tuple(x.shape), weight, bias))
        return linear(x, weight, bias)

    def noting_grad(y, tensors, grads):
        wanted.append(tensors)
        return grad(y, tensors, grads)

    monkeypatch.setattr(nn.functional, "linear", noting_linear)
    monkeypatch.setattr(torch.autograd, "grad", noting_grad)
    floor_step(model, calls, torch.float32, training=False)()
    assert [shape for shape, _, _ in ran] == [call.shape for call in calls]
    assert all(w is model.get_parameter(c.weight) for (_, w, _), c in zip(ran, calls, strict=True))
    assert wanted == []
    floor_step(model, calls, torch.float32, training=True)()
    assert [len(tensors) for tensors in wanted] == [3] * len(calls)  # input, weight, bias
    assert all(parameter.grad is None for parameter in model.parameters())


# Turns and ratios


def test_models_take_turns():
    order = []

    def step(name):
        order.append(name)
        return float(len(order))

    steps = {name: partial(step, name) for name in "abc"}
    samples = take_turns(steps, 2, lambda: order.append("|"))
    assert "".join(order) == "abc|abc|"
    assert samples == dict(a=[1, 5], b=[2, 6], c=[3, 7])


def row_of(name, ms, **more):
    return dict(name=name, num_frames=4, img_size=64, batch_size=1, ms=ms, **more)


def test_ratio_is_the_median_of_the_rounds():
    rows = [row_of("a", [1.0, 2.0, 30.0]), row_of("b", [2.0, 4.0, 10.0])]
    add_ratios(rows)
    assert rows[1]["ratio"] == 0.5 and "ratio" not in rows[0]


@pytest.mark.parametrize("other", [dict(num_frames=8), dict(img_size=32), dict(batch_size=2)])
def test_what_was_not_run_alike_has_no_ratio(other):
    rows = [row_of("a", [1.0]), row_of("b", [1.0]) | other]
    add_ratios(rows)
    assert rows[1]["ratio"] is None and "b ran on clips of" in rows[1]["no_ratio"]


def test_models_of_other_clips_are_measured_and_not_compared():
    subjects = [find_subject("test_lvt_ff"), find_subject("test_lvt_ff:softmax", 2, 32)]
    ((first, other),) = run([Group(subjects, 1)])
    assert other["clips_s"] > 0 and other["ratio"] is None
    told = group_lines([first, other])
    assert told[-1].startswith("no ratio: test_lvt_ff:softmax ran on clips of 2 × 32")


def test_a_batch_that_does_not_fit_is_a_row_and_the_run_goes_on(monkeypatch):
    make = measure._Case

    def too_large(subject, cost, settings, row):
        if subject.name == "test_lvt_ff" and row["batch_size"] == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make(subject, cost, settings, row)

    monkeypatch.setattr(measure, "_Case", too_large)
    subjects = find_subjects("test_lvt_ff,test_lvt_ff:softmax", 2, 32)
    before, after = run([Group(subjects, 1), Group(subjects, 2)])
    assert before[0]["clips_s"] > 0
    assert after[0]["failed"] == "out of memory" and "ms" not in after[0]
    assert after[1]["clips_s"] > 0 and after[1]["ratio"] is None
    assert "out of memory" in group_lines(after)[1]


def test_memory_that_runs_out_between_the_rounds_is_told_too(monkeypatch):
    time_ms, calls = measure._time_ms, []

    def short_of_memory(*args):
        calls.append(args)
        if len(calls) == 3:  # after two that count calls
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return time_ms(*args)

    monkeypatch.setattr(measure, "_time_ms", short_of_memory)
    ((row,),) = run([Group(find_subjects("test_lvt_ff", 2, 32), 1)])
    assert row["failed"] == "out of memory" and "ms" not in row


def test_other_errors_are_not_taken_for_want_of_memory(monkeypatch):
    monkeypatch.setattr(measure, "peak_bytes", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run([Group(find_subjects("test_lvt_ff", 2, 32), 1)])


# How it is run


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_steps_keep_gradients_and_two_moments(dtype):
    group = Group(find_subjects("test_lvt_ff", 2, 32), 2)
    ((forward,),) = run([group])
    ((train,),) = run([group], Settings("train", dtype, CPU, repeats=1))
    weights = 4 * sum(p.numel() for p in find_subject("test_lvt_ff", 2, 32).build().parameters())
    assert train["peak_bytes"] > forward["peak_bytes"] + 3 * weights


def test_weights_of_half_precision_take_half_the_memory():
    group = Group(find_subjects("test_lvt_ff", 2, 32), 1)
    ((full,),) = run([group])
    ((half,),) = run([group], Settings("forward", torch.bfloat16, CPU, repeats=1))
    assert 0.45 < half["peak_bytes"] / full["peak_bytes"] < 0.65


def test_a_training_step_changes_weights_and_leaves_no_gradient():
    subject = find_subject("test_lvt_ff", 2, 32)
    model = subject.build()
    clips = subject.clips(2, "cpu", torch.float32)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    step, optimizer = measure._model_step(model, clips, Settings("train", torch.float32, CPU))
    step()
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert len(measure._tensors_of(optimizer)) >= 2 * len(before)


@pytest.mark.parametrize(
    ("option", "given", "expected"),
    [
        ("mode", "train", "train"),
        ("dtype", "bfloat16", torch.bfloat16),
        ("compile", True, True),
        ("repeats", 3, 3),
        ("profile", True, True),
    ],
)
def test_options_become_settings(option, given, expected):
    defaults = {
        name: p.default for name, p in inspect.signature(module.benchmark).parameters.items()
    }
    options = SimpleNamespace(**{**defaults, "device": "cpu", option: given})
    assert getattr(module._settings(options), option) == expected != defaults[option]


@pytest.mark.parametrize("compiled", [False, True])
def test_compile_compiles_the_model_for_its_sizes(compiled, monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "compile", lambda model, **kw: seen.append(kw) or model)
    settings = Settings("forward", torch.float32, CPU, compile=compiled, repeats=1)
    run([Group(find_subjects("test_lvt_ff", 2, 32), 1)], settings)
    assert seen == ([dict(dynamic=False)] if compiled else [])


def test_peak_of_a_call_is_what_it_allocates_beside_what_was_there():
    there = torch.zeros(1000, 1000)
    assert 8e6 <= peak_bytes(lambda: (there + 1) * 2, CPU) < 9e6


# Parts


@pytest.mark.parametrize(
    "names, part",
    [
        (["aten::linear", "aten::addmm"], "matrix products"),
        (["aten::matmul", "aten::clone", "aten::copy_"], "matrix products"),
        (["lvt_ff::attention", "aten::bmm"], "attention"),
        (["lvt_ff::attention_backward", "aten::mul"], "attention"),
        (["aten::scaled_dot_product_attention", "aten::bmm"], "attention"),
        (["lvt_ff::dwconv_gelu", "aten::gelu"], "convolutions"),
        (["aten::conv3d", "aten::copy_"], "convolutions"),
        (["lvt_ff::add_norm_backward", "aten::add"], "norms"),
        (["autograd::engine", "MmBackward0", "aten::mm"], "matrix products"),
        (["aten::to", "aten::_to_copy", "aten::copy_"], "copies and layout"),
        (["aten::topk"], "elementwise"),
        (["Optimizer.step#AdamW.step", "aten::_foreach_mul_"], "optimizer"),
        (["Torch-Compiled Region: 0/0", "## Call CompiledFxGraph"], "compiled"),
        (["Torch-Compiled Region: 0/0", "aten::addmm"], "matrix products"),
        (["autograd::engine"], "other"),
    ],
)
def test_operators_count_as_the_part_that_called_them(names, part):
    assert part_of(names) == part


def test_shares_add_up_and_products_have_theirs():
    x = torch.randn(300, 300)
    shares = time_shares(lambda: (x @ x).relu(), CPU)
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) == {"matrix products", "elementwise"}


# Curves


def test_crossings_of_made_up_curves():
    assert crossings([(100, 0.5), (400, 2.0)]) == pytest.approx([200])
    assert crossings([(100, 2.0), (400, 0.5), (1600, 2.0)]) == pytest.approx([200, 800])
    assert crossings([(100, 0.5), (400, 0.9)]) == []


def made_up(tokens, ratio, other_bytes=100, **more):
    first = dict(name="linear", tokens=tokens, peak_bytes=100)
    return [first, dict(name="softmax", ratio=ratio, peak_bytes=other_bytes) | more]


def test_a_curve_tells_where_we_lose_too():
    groups = [made_up(100, 2.0, 50), made_up(400, 0.5, 80), made_up(800, None, failed="…")]
    lines, found = curve_lines(groups)
    assert lines[0].startswith("linear against softmax: slower at first, faster from about 200")
    assert lines[1].endswith("more memory at all of 2 sizes, 100 to 400 tokens")
    assert found == [dict(name="softmax", speed=[pytest.approx(200)], memory=[])]


# The command


def test_results_tell_what_made_them(results):
    output, stored = results
    assert stored["command"].startswith("lvt-ff benchmark --models=test_lvt_ff,")
    assert "--batch_sizes=1,2" in stored["command"] and "--profile=true" in stored["command"]
    assert stored["settings"]["dtype"] == "float32" and stored["date"]
    environment = stored["environment"]
    assert torch.__version__.startswith(environment["torch"])
    assert environment["num_threads"] == torch.get_num_threads()
    assert "processor" in environment
    assert [[row["batch_size"] for row in rows] for rows in stored["groups"]] == [[1, 1], [2, 2]]
    for row in sum(stored["groups"], []):
        assert len(row["ms"]) == len(row["floor_ms"]) == 2
        low, high = row["clips_s_range"]
        assert low <= row["clips_s"] <= high
        assert row["gmacs"] > row["floor_gmacs"] > 0
        assert row["tokens"] == 4 * 25
        assert sum(row["parts"].values()) == pytest.approx(1)
    assert stored["groups"][1][0]["peak_bytes"] > stored["groups"][0][0]["peak_bytes"]
    assert (output / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in output.iterdir()} == {"results.json", "benchmark.png"}


def test_stored_settings_are_a_recipe_again(results, tmp_path):
    output, stored = results
    args = ["--config", str(output / "results.json"), "--output", str(tmp_path), "--repeats", "1"]
    assert main(["benchmark", *args]) == 0
    again = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    same = stored["settings"] | dict(output=str(tmp_path), repeats=1)
    assert again["settings"] == same


def test_sizes_of_all_models_are_set_by_options(tmp_path, capsys):
    models = "test_lvt_ff,swin3d_t"
    stored = run_command(tmp_path, "--frames", "2", "--img_size", "32", models=models)
    first, peer = stored["groups"][0]
    assert (peer["num_frames"], peer["img_size"], peer["tokens"]) == (2, 32, None)
    assert peer["ratio"] > 0 and "parts" not in peer
    assert "× floor" in capsys.readouterr().out


def test_table_8_has_a_line_for_every_size(tmp_path, capsys, monkeypatch):
    assert len(TABLE8) == 13 and (96, 448) in TABLE8 and (256, 448) in TABLE8
    monkeypatch.setattr(module, "TABLE8", ((2, 32), (4, 32)))
    kernels = "test_lvt_ff,test_lvt_ff:softmax:plain,test_lvt_ff:orthoformer:plain"
    stored = run_command(tmp_path, "--table8", models=kernels)
    sizes = [(rows[0]["num_frames"], rows[0]["img_size"]) for rows in stored["groups"]]
    assert sizes == [(2, 32), (4, 32)]
    table = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    assert table[0].split() == ["clip", *kernels.split(",")]
    assert [line.split()[0] for line in table[1:3]] == ["2×32", "4×32"]
    assert (tmp_path / "benchmark.png").is_file()


@pytest.mark.parametrize(
    "flags, sizes",
    [([], [(4, 32), (4, 64)]), (["--img_size", "32"], [(2, 32), (3, 32)])],
    ids=["pixels", "frames"],
)
def test_a_curve_grows_in_pixels_or_frames(flags, sizes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "CURVE", dict(img_size=(32, 64), frames=(2, 3)))
    stored = run_command(tmp_path, "--curve", *flags)
    found = [(rows[0]["num_frames"], rows[0]["img_size"]) for rows in stored["groups"]]
    assert found == sizes
    assert [other["name"] for other in stored["crossings"]] == ["test_lvt_ff:softmax:plain"]
    assert "test_lvt_ff against test_lvt_ff:softmax:plain: " in capsys.readouterr().out
    assert (tmp_path / "benchmark.png").is_file()


def test_the_models_of_table_8_are_the_papers_by_default():
    options = dict(models=None, frames=None, img_size=None, batch_sizes="1")
    options |= dict(table8=True, curve=False)
    names = [s.name for s in module._groups(SimpleNamespace(**options))[0][0]]
    ours = "lvt_ff_default"
    assert names == [ours, f"{ours}:softmax:plain", f"{ours}:orthoformer:plain"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--graph"], "--graph needs a GPU"),
        (["--models", "test_lvt_f"], "Unknown model 'test_lvt_f'"),
        (["--models", "mvit_v2_s", "--frames", "8"], "mvit_v2_s does not take 8 frames"),
        (["--models", "test_lvt_ff:linformer:plain:x"], "got 'x'"),
        (["--batch_sizes", "1,0"], "--batch_sizes must be numbers from 1"),
        (["--batch_sizes", "many"], "--batch_sizes must be numbers from 1"),
        (["--mode", "train", "--dtype", "float16"], "float16 needs a GPU"),
        (["--table8", "--curve"], "leave one out"),
        (["--table8", "--frames", "4"], "leave out --frames and --img_size"),
        (["--curve", "--batch_sizes", "1,2"], "--curve takes one of --batch_sizes"),
        (["--curve", "--frames", "4", "--img_size", "64"], "leave out --frames or --img_size"),
        (["--curve", "--models", "vivit"], "put one of them before vivit"),
        (["--repeats", "0"], "--repeats must be at least 1, got 0"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(flags, message, tmp_path, capsys):
    output = tmp_path / "new"
    assert main(["benchmark", "--device", "cpu", "--output", str(output), *flags]) == 2
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("lvt-ff")]
    assert message in line and "Traceback" not in captured.err and captured.out == ""
    assert not output.exists()


def test_a_gpu_that_is_not_there_is_a_mistake(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    output = ["--output", str(tmp_path / "new"), "--models", "test_lvt_ff"]
    assert main(["benchmark", "--device", "cuda", *output]) == 2
    assert "torch finds no GPU" in capsys.readouterr().err


def test_graphs_are_for_forward_passes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    options = dict(device="cuda", graph=True, mode="train", dtype="float32")
    with pytest.raises(ValueError, match="--graph is for --mode forward"):
        module._settings(SimpleNamespace(**options))


def test_groups_of_sizes_have_the_same_models():
    groups = sized_groups("test_lvt_ff,vivit", [(2, 32), (4, 64)], 3)
    assert [[s.name for s in g.subjects] for g in groups] == [["test_lvt_ff", "vivit"]] * 2
    assert [g.subjects[1].clip_size for g in groups] == [(2, 32), (4, 64)]
    assert {g.batch_size for g in groups} == {3}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("flags", [[], ["--graph"], ["--mode", "train", "--dtype", "bfloat16"]])
def test_a_gpu_is_measured_in_every_way(flags, tmp_path):
    words = ["benchmark", "--models", "test_lvt_ff,test_lvt_ff:softmax", "--profile", "--device"]
    assert main([*words, "cuda", "--repeats", "2", "--output", str(tmp_path), *flags]) == 0
    stored = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    for row in stored["groups"][0]:
        assert row["clips_s"] > 0 and row["peak_bytes"] > 0
        assert sum(row["parts"].values()) == pytest.approx(1)
