"""What transformers' common tests ask of every model, asked of ours."""

import inspect

import pytest
import torch
from conftest import checkpointing
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModel, AutoModelForVideoClassification

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification, LVTFFModel

HOLDERS = (LVTFFModel, LVTFFForVideoClassification)


def built(holder, seed=0, **fields):
    torch.manual_seed(seed)
    options = dict(num_labels=3, drop_rate=0.0)
    return holder(LVTFFConfig.from_variant("test_lvt_ff", **{**options, **fields})).eval()


def first(output):
    return output.to_tuple()[0]


@pytest.mark.parametrize("holder", HOLDERS)
def test_input_embeddings_are_the_patch_embedding(holder):
    model = built(holder)
    assert model.get_input_embeddings() is model.model.patch_embed
    other = built(holder, seed=1).model.patch_embed
    model.set_input_embeddings(other)
    assert model.model.patch_embed is other
    assert model.get_output_embeddings() is None


@pytest.mark.parametrize("holder", HOLDERS)
def test_first_argument_is_the_main_input(holder):
    assert list(inspect.signature(holder.forward).parameters)[1] == holder.main_input_name


@pytest.mark.parametrize("holder", HOLDERS)
def test_tuples_hold_what_dicts_hold(holder, clip):
    model = built(holder)
    for states in (False, True):
        whole = model(clip, output_hidden_states=states)
        parts = model(clip, output_hidden_states=states, return_dict=False)
        assert isinstance(parts, tuple) and len(parts) == len(whole.to_tuple())
        torch.testing.assert_close(parts, whole.to_tuple())
    model.config.return_dict = False
    assert isinstance(model(clip), tuple)


@pytest.mark.parametrize("holder", HOLDERS)
def test_hidden_states_are_asked_for_by_argument_or_configuration(holder, clip):
    model = built(holder)
    assert model(clip).hidden_states is None
    states = model(clip, output_hidden_states=True).hidden_states
    assert len(states) == model.config.num_hidden_layers + 1
    tokens = model.config.num_frames * model.model.grid[0] * model.model.grid[1]
    assert all(state.shape == (2, tokens, model.config.hidden_size) for state in states)
    model.config.output_hidden_states = True
    assert len(model(clip).hidden_states) == len(states)
    assert model(clip, output_hidden_states=False).hidden_states is None


@pytest.mark.parametrize("holder", HOLDERS)
def test_hidden_states_are_on_the_graph(holder, clip):
    output = built(holder)(clip, output_hidden_states=True)
    for state in output.hidden_states:
        state.retain_grad()
    first(output).flatten()[0].backward()
    for state in output.hidden_states:
        assert state.grad is not None and state.grad.abs().max() > 0


@pytest.mark.parametrize("holder", HOLDERS)
def test_clips_of_a_batch_do_not_meet(holder, clip):
    model = built(holder)
    whole = first(model(clip))
    for number in range(len(clip)):
        alone = first(model(clip[number : number + 1]))
        torch.testing.assert_close(alone[0], whole[number], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("holder", HOLDERS)
def test_unknown_keywords_are_refused_with_the_right_name(holder, clip):
    model = built(holder)
    with pytest.raises(TypeError, match="pixel_values.*pixel_values_videos"):
        model(pixel_values=clip)
    with pytest.raises(TypeError, match="'outputs_hidden_states'.*'output_hidden_states'"):
        model(clip, outputs_hidden_states=True)
    with pytest.raises(ValueError, match="pixel_values_videos"):
        model()


def test_misspelt_labels_are_refused(clip):
    with pytest.raises(TypeError, match="'lables': did you mean 'labels'"):
        built(LVTFFForVideoClassification)(clip, lables=torch.tensor([0, 1]))


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("name", ["output_attentions", "interpolate_pos_encoding"])
def test_what_means_nothing_here_says_so(holder, name, clip):
    model = built(holder)
    with pytest.raises(ValueError, match=f"{name} is not supported"):
        model(clip, **{name: True})
    assert first(model(clip, **{name: False})) is not None


@pytest.mark.parametrize("wanted", ["eager", "sdpa"])
def test_attention_implementations_agree(wanted, clip, tmp_path):
    model = built(LVTFFForVideoClassification, attn_kernel="softmax", depth=1)
    model.save_pretrained(tmp_path)
    assert "attn_implementation" not in (tmp_path / "config.json").read_text()
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path, attn_implementation=wanted)
    assert loaded.config._attn_implementation == wanted
    assert loaded.model.blocks[0].attn.kernel.use_fused == (wanted == "sdpa")
    torch.testing.assert_close(loaded.eval()(clip).logits, model(clip).logits)
    loaded.set_attn_implementation("eager")
    assert not loaded.model.blocks[0].attn.kernel.use_fused


def test_other_attention_implementations_are_refused(tmp_path):
    model = built(LVTFFForVideoClassification)
    model.save_pretrained(tmp_path)
    message = r"one of \['eager', 'sdpa'\].*got 'flash_attention_2'"
    with pytest.raises(ValueError, match=message):
        AutoModel.from_pretrained(tmp_path, attn_implementation="flash_attention_2")
    with pytest.raises(ValueError, match=message):
        model.set_attn_implementation("flash_attention_2")


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("offload", [False, True])
def test_activation_checkpointing_is_obeyed(use_reentrant, offload, clip):
    import torch.utils.checkpoint

    model = built(LVTFFForVideoClassification).train()
    labels = torch.tensor([0, 1])
    model(clip, labels=labels).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    assert not model.is_activation_checkpointing and not model.is_gradient_checkpointing
    checkpointing(model, "enable")(
        dict(use_reentrant=use_reentrant), every_n_layers=2, offload=offload
    )
    assert model.is_activation_checkpointing and model.is_gradient_checkpointing
    calls = []
    for number, block in enumerate(model.model.blocks):
        block.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
    model(clip.requires_grad_(), labels=labels).loss.backward()
    # Blocks 0 and 2 run again in the backward pass, last ones first.
    assert calls == [0, 1, 2, 2, 0]
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])
    checkpointing(model, "disable")()
    assert not model.is_activation_checkpointing


@pytest.mark.parametrize("holder", HOLDERS)
def test_hidden_states_with_checkpointing(holder, clip):
    model = built(holder).train()
    expected = model(clip, output_hidden_states=True).hidden_states
    checkpointing(model, "enable")()
    found = model(clip, output_hidden_states=True).hidden_states
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "problem, labels",
    [
        ("single_label_classification", torch.tensor([0, 2])),
        ("multi_label_classification", torch.tensor([[0.0, 1, 1], [1, 0, 0]])),
        ("regression", torch.randn(2, 3)),
    ],
)
def test_every_problem_type_trains(problem, labels, clip):
    model = built(LVTFFForVideoClassification, problem_type=problem).train()
    loss = model(clip, labels=labels).loss
    loss.backward()
    assert loss.isfinite() and model.model.head.fc.weight.grad.abs().max() > 0


@pytest.mark.parametrize("holder", HOLDERS)
def test_every_parameter_learns(holder, clip):
    model = built(holder).train()
    output = model(clip)
    target = output.logits if holder is LVTFFForVideoClassification else output.pooler_output
    target.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("holder", HOLDERS)
def test_weights_are_initialised_alike_wherever_they_are_built(holder, tmp_path):
    """With a missing tensor the loader fills in what the constructor would have."""
    with torch.device("meta"):
        model = holder(LVTFFConfig.from_variant("test_lvt_ff", num_labels=3))
    assert all(parameter.is_meta for parameter in model.parameters())
    built(holder).save_pretrained(tmp_path)
    with torch.device("cpu"):
        again = holder.from_pretrained(tmp_path)
    for name, tensor in built(holder).state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_half_precision_of_the_folder_is_kept(clip, tmp_path):
    model = built(LVTFFForVideoClassification).bfloat16()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path).eval()
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(loaded(clip).logits, model(clip).logits)
    single = AutoModelForVideoClassification.from_pretrained(tmp_path, dtype=torch.float32)
    assert single.dtype == torch.float32


@pytest.mark.parametrize("fullgraph", [True])
def test_both_models_compile_to_one_graph(fullgraph, clip):
    model = built(LVTFFModel, depth=1)
    compiled = torch.compile(model, fullgraph=fullgraph, backend="eager")
    torch.testing.assert_close(
        compiled(clip, output_hidden_states=True).last_hidden_state, model(clip).last_hidden_state
    )


def test_states_are_kept_only_where_they_are_asked_for(clip):
    model = LVTFFModel(LVTFFConfig.from_variant("test_lvt_ff")).eval()
    *_, states = model.model(clip, return_tokens=True)
    assert states == ()
    *_, states = model.model(clip, return_tokens=True, return_states=True)
    assert len(states) == 4


def test_configurations_refuse_what_models_would_ignore(clip):
    with pytest.raises(ValueError, match="Unknown configuration field 'attn_kernal'.*attn_kernel"):
        LVTFFConfig.from_variant("test_lvt_ff", attn_kernal="softmax")
    with pytest.raises(StrictDataclassError, match="problem_type"):
        LVTFFConfig.from_variant("test_lvt_ff", problem_type="regresion")
    config = LVTFFConfig.from_variant("test_lvt_ff", output_attentions=True, num_labels=2)
    with pytest.raises(ValueError, match="output_attentions is not supported"):
        LVTFFForVideoClassification(config)(clip)
