"""transformers' contract: outputs, losses, Trainer, PEFT, export, pipeline."""

import importlib
import inspect
import sys

import numpy as np
import pytest
import torch
from conftest import checkpointing, random_frames
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModel, Trainer, TrainingArguments, pipeline

import lvt_ff
from lvt_ff import LVTFFConfig, LVTFFForVideoClassification, LVTFFModel, LVTFFVideoProcessor
from lvt_ff.data.synthetic.writer import write_video


def test_config_fields_are_the_core_keywords():
    core = inspect.signature(lvt_ff.LinearVideoTransformer).parameters
    fields = set(LVTFFConfig.__annotations__) - {"model_type", "attribute_map", "pretrained_cfg"}
    assert fields == set(core) - {"num_classes", "device", "dtype"}
    config = LVTFFConfig()
    for name in fields:
        assert getattr(config, name) == core[name].default, name


def test_config_of_a_variant_and_its_aliases():
    config = LVTFFConfig.from_variant("lvt_ff_s", num_labels=9, drop_rate=0.1)
    assert (config.num_frames, config.num_labels, config.drop_rate) == (8, 9, 0.1)
    assert config.hidden_size == config.embed_dim == 512
    assert config.num_hidden_layers == 12 and config.image_size == 224
    config.hidden_size = 64
    assert config.embed_dim == 64
    with pytest.raises(ValueError, match="Unknown variant 'lvt_ff_xl'.*lvt_ff_s"):
        LVTFFConfig.from_variant("lvt_ff_xl")


@pytest.mark.parametrize("name", lvt_ff.VARIANTS)
def test_architecture_is_recovered_from_sizes(name):
    assert LVTFFConfig.from_variant(name).architecture == name
    changed = LVTFFConfig.from_variant(name, num_frames=5)
    sizes = ("embed_dim", "depth", "num_heads", "patch_stride")
    found = LVTFFConfig.from_variant(changed.architecture)
    assert [getattr(found, key) for key in sizes] == [getattr(changed, key) for key in sizes]


def test_config_refuses_wrong_types():
    with pytest.raises(Exception, match="num_frames"):
        LVTFFConfig(num_frames="many")


def test_outputs_of_both_models(hf_model, clip):
    with torch.no_grad():
        output = hf_model(clip, output_hidden_states=True)
        as_tuple = hf_model(clip, return_dict=False)
    assert output.logits.shape == (2, 3)
    assert len(output.hidden_states) == 4
    assert {h.shape for h in output.hidden_states} == {(2, 100, 64)}
    torch.testing.assert_close(hf_model.model.embed(clip).flatten(1, 2), output.hidden_states[0])
    torch.testing.assert_close(as_tuple[0], output.logits)
    base = LVTFFModel(hf_model.config).eval()
    base.load_state_dict(hf_model.state_dict(), strict=False)
    with torch.no_grad():
        features = base(clip, output_hidden_states=True)
    assert features.last_hidden_state.shape == (2, 100, 64)
    torch.testing.assert_close(features.hidden_states[-1], output.hidden_states[-1])


def test_losses_of_single_and_multi_label(hf_model, clip):
    labels = torch.tensor([2, 0])
    output = hf_model(clip, labels=labels)
    expected = torch.nn.functional.cross_entropy(output.logits, labels)
    torch.testing.assert_close(output.loss, expected)
    hf_model.config.problem_type = "multi_label_classification"
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    output = hf_model(clip, labels=labels)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(output.logits, labels)
    torch.testing.assert_close(output.loss, expected)


def test_dtype_and_device_map(hf_model, clip, tmp_path):
    hf_model.save_pretrained(tmp_path)
    half = LVTFFForVideoClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    with torch.no_grad():
        logits = half.eval()(clip).logits  # float32 clips are taken too
        torch.testing.assert_close(logits.float(), hf_model(clip).logits, atol=0.1, rtol=0.1)
    placed = LVTFFForVideoClassification.from_pretrained(tmp_path, device_map="cpu")
    torch.testing.assert_close(placed.eval()(clip).logits, hf_model(clip).logits)


def test_gradient_checkpointing_reaches_the_blocks(hf_model, clip):
    checkpointing(hf_model, "enable")()
    assert hf_model.model.grad_checkpointing and hf_model.is_gradient_checkpointing
    hf_model.train()(clip, labels=torch.tensor([0, 1])).loss.backward()
    assert hf_model.model.blocks[0].attn.qkv.weight.grad.abs().max() > 0
    checkpointing(hf_model, "disable")()
    assert not hf_model.model.grad_checkpointing


def test_registration_twice_is_harmless():
    importlib.reload(sys.modules["lvt_ff.hf"])
    config = LVTFFConfig.from_variant("test_lvt_ff")
    assert type(AutoModel.from_config(config)) is LVTFFModel
    assert type(AutoConfig.for_model("lvt_ff")) is LVTFFConfig


def test_uint8_clips_are_refused_as_in_the_core(hf_model):
    with pytest.raises(ValueError, match="uint8.*processor"):
        hf_model(torch.zeros(1, 4, 3, 64, 64, dtype=torch.uint8))


def test_from_pretrained_leaves_the_callers_configuration_alone(hf_model, tmp_path):
    hf_model.save_pretrained(tmp_path)
    config = LVTFFConfig.from_pretrained(tmp_path, num_frames=6)
    model = LVTFFForVideoClassification.from_pretrained(tmp_path, config=config)
    assert config.num_frames == model.config.num_frames == model.model.num_frames == 6
    (tmp_path / "config.json").unlink()
    config.num_frames = 4
    bare = LVTFFForVideoClassification.from_pretrained(tmp_path, config=config)
    torch.testing.assert_close(bare.state_dict(), hf_model.state_dict())


def test_head_changed_on_the_core_is_saved_with_its_size(hf_model, clip, tmp_path):
    hf_model.model.reset_classifier(5)
    hf_model.save_pretrained(tmp_path)
    loaded = LVTFFForVideoClassification.from_pretrained(tmp_path).eval()
    assert loaded.config.num_labels == 5
    torch.testing.assert_close(loaded(clip).logits, hf_model(clip).logits)


def test_offloaded_model_gives_the_same_logits(hf_model, clip):
    from accelerate import cpu_offload

    expected = hf_model(clip).logits
    offloaded = cpu_offload(hf_model, execution_device=torch.device("cpu"))
    torch.testing.assert_close(offloaded(clip).logits, expected)


def test_sharded_folder_loads(hf_model, clip, tmp_path):
    hf_model.save_pretrained(tmp_path, max_shard_size="500KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    loaded = LVTFFForVideoClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(clip).logits, hf_model(clip).logits)


class Clips(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        pixels = torch.randn(4, 3, 64, 64, generator=generator) + index % 2
        return dict(pixel_values_videos=pixels, labels=index % 2)


def arguments(folder, **changes):
    return TrainingArguments(
        **{
            **dict(output_dir=str(folder), max_steps=6, per_device_train_batch_size=4),
            **dict(learning_rate=1e-3, report_to="none", save_steps=3, logging_steps=1),
            **dict(use_cpu=True, seed=1, disable_tqdm=True),
            **changes,
        }
    )


def trainer_model(seed=0):
    torch.manual_seed(seed)
    config = LVTFFConfig.from_variant("test_lvt_ff", num_labels=2, drop_rate=0.0)
    return LVTFFForVideoClassification(config)


def test_trainer_trains_saves_and_resumes(tmp_path):
    trainer = Trainer(trainer_model(), arguments(tmp_path), train_dataset=Clips())
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < 0.5 * losses[0]
    resumed = Trainer(trainer_model(seed=5), arguments(tmp_path), train_dataset=Clips())
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    torch.testing.assert_close(resumed.model.state_dict(), trainer.model.state_dict())
    loaded = LVTFFForVideoClassification.from_pretrained(tmp_path / "checkpoint-6")
    torch.testing.assert_close(loaded.state_dict(), trainer.model.state_dict())


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_trainer_accumulates_to_the_loss_of_one_batch(problem, tmp_path):
    losses = []
    for batch, accumulation in ((8, 1), (2, 4)):
        model = trainer_model()
        model.config.problem_type = f"{problem}_classification"
        data = [dict(Clips()[i]) for i in range(8)]
        if problem == "multi_label":
            data = [dict(row, labels=[1.0, float(row["labels"])]) for row in data]
        sizes = dict(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
        options = arguments(tmp_path, max_steps=1, save_steps=99, **sizes)
        trainer = Trainer(model, options, train_dataset=data)
        trainer.train()
        losses.append([row["loss"] for row in trainer.state.log_history if "loss" in row][0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_peft_lora_trains_saves_and_merges(checkpointing, clip, tmp_path):
    torch.manual_seed(0)
    peft_model = get_peft_model(
        trainer_model(), LoraConfig(target_modules=["qkv"], modules_to_save=["fc"], r=4)
    )
    if checkpointing:
        peft_model.base_model.model.model.set_grad_checkpointing()
    optimizer = torch.optim.AdamW([p for p in peft_model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(5):
        loss = peft_model(pixel_values_videos=clip, labels=torch.tensor([0, 1])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trained = peft_model.eval()(pixel_values_videos=clip).logits
    peft_model.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(trainer_model(), tmp_path / "adapter").eval()
    torch.testing.assert_close(loaded(pixel_values_videos=clip).logits, trained)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(merged(clip).logits, trained, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(trained, trainer_model().eval()(clip).logits)
    merged.save_pretrained(tmp_path / "merged")
    again = LVTFFForVideoClassification.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(again(clip).logits, trained, atol=1e-5, rtol=1e-5)


def tiny():
    torch.manual_seed(0)
    config = LVTFFConfig.from_variant("test_lvt_ff", num_labels=2, depth=1)
    return LVTFFForVideoClassification(config).eval()


def test_torch_compile_without_graph_breaks(clip):
    model = tiny()
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(clip).logits, model(clip).logits, atol=1e-5, rtol=1e-5)


def test_torch_export_with_dynamic_batch(clip):
    model = tiny()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        model.model, (clip,), dynamic_shapes={"x": {0: batch}}, strict=True
    )
    more = torch.cat([clip, clip, clip])
    torch.testing.assert_close(program.module()(more), model(more).logits, atol=1e-5, rtol=1e-5)


@pytest.fixture
def folder(hf_model, tmp_path):
    hf_model.save_pretrained(tmp_path)
    size = dict(height=64, width=64)
    LVTFFVideoProcessor(num_frames=4, size=size, crop_size=size).save_pretrained(tmp_path)
    write_video(tmp_path / "clip.mp4", random_frames(20, 80, 120))
    return tmp_path


def test_pipeline_classifies_an_mp4(folder, hf_model):
    classify = pipeline("video-classification", model=str(folder), device="cpu")
    result = classify(str(folder / "clip.mp4"), top_k=3)
    processor = LVTFFVideoProcessor.from_pretrained(folder)
    clips = processor(str(folder / "clip.mp4"), return_tensors="pt")["pixel_values_videos"]
    with torch.no_grad():
        scores = hf_model(clips).logits[0].softmax(-1)
    for row in result:
        assert row["score"] == pytest.approx(scores[hf_model.config.label2id[row["label"]]].item())
    assert [row["score"] for row in result] == sorted(row["score"] for row in result)[::-1]


def test_pipeline_of_a_damaged_file_names_it(folder):
    (folder / "broken.mp4").write_bytes(b"no video")
    classify = pipeline("video-classification", model=str(folder), device="cpu")
    with pytest.raises(lvt_ff.VideoReadError, match="broken.mp4.*pyav.*Invalid data"):
        classify(str(folder / "broken.mp4"))


def test_processor_takes_arrays_files_and_several(folder):
    processor = LVTFFVideoProcessor.from_pretrained(folder)
    frames = lvt_ff.read_clip(folder / "clip.mp4", range(20))
    from_file = processor(str(folder / "clip.mp4"), return_tensors="pt")["pixel_values_videos"]
    from_array = processor(frames, return_tensors="pt")["pixel_values_videos"]
    assert from_file.shape == (1, 4, 3, 64, 64)
    torch.testing.assert_close(from_array, from_file)
    path = str(folder / "clip.mp4")
    both = processor([path, path], return_tensors="pt")["pixel_values_videos"]
    torch.testing.assert_close(both, torch.cat([from_file, from_file]))
    already = processor(frames[[2, 7, 12, 16]], do_sample_frames=False, return_tensors="pt")
    torch.testing.assert_close(already["pixel_values_videos"], from_file)


def test_processor_options_change_the_result(folder):
    processor = LVTFFVideoProcessor.from_pretrained(folder)
    path = str(folder / "clip.mp4")
    usual = processor(path, return_tensors="pt")["pixel_values_videos"]
    assert processor(path, num_frames=6, return_tensors="pt")["pixel_values_videos"].shape[1] == 6
    changes = [
        dict(sampling="dense"),
        dict(sampling="dense", sampling_stride=1),
        dict(image_mean=[0.1, 0.2, 0.3]),
        dict(do_normalize=False),
        dict(do_rescale=False),
        dict(resample=3),
        dict(size=dict(height=80, width=80)),
    ]
    results = [processor(path, return_tensors="pt", **c)["pixel_values_videos"] for c in changes]
    for index, result in enumerate([usual, *results]):
        for other in results[index:]:
            assert result.shape != other.shape or not torch.allclose(result, other)
    with pytest.raises(ValueError, match="fps"):
        processor(path, fps=2, return_tensors="pt")
    with pytest.raises(TypeError, match="samplings"):
        processor(path, samplings="dense", return_tensors="pt")


def test_processor_refuses_nothing_between_saving_and_loading(folder):
    processor = LVTFFVideoProcessor.from_pretrained(folder, sampling="dense", sampling_stride=7)
    processor.save_pretrained(folder)
    again = LVTFFVideoProcessor.from_pretrained(folder)
    assert (again.sampling, again.sampling_stride, again.num_frames) == ("dense", 7, 4)
    assert np.allclose(again.image_mean, 0.5)
