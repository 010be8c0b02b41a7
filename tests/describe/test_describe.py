"""`porting describe`: facts of tiny models of several architectures, each verified in C; and what cannot be verified says so."""
import json

import porting
import pytest
import torch
import transformers
from porting.cli import main
from porting.describe.facts import Fact, merged

SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}


def tokens(count=9):
    return {"input_ids": torch.randint(3, 96, (2, count), generator=torch.Generator().manual_seed(1))}


def captured(folder, model, dtype=torch.float32, **inputs):
    model = model.eval().to(dtype)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.rand_like(parameter) * 0.5)
            elif "embed" not in name:
                parameter.normal_(0, 0.3)
        with porting.ActivationCollector(model, folder, weights=True):
            model(**(inputs or tokens()))
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=2, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
                                      tie_word_embeddings=True)  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    model.spare = torch.nn.Linear(4, 4)
    return captured(tmp_path_factory.mktemp("llama") / "c", model)


def one(description, name):
    facts = description[name]
    assert len(facts) == 1, description.to_text()
    return facts[0]


def test_llama(llama):
    found = porting.describe(llama)
    expected = {
        "embedding": "96 rows of 32", "embedding scale": "as looked up", "tied weights": "yes: multiplies by model.embed_tokens.weight", "norm": "RMSNorm",
        "norm eps": "1e-05", "norm weight": "weight", "norm cast": "none: f32 throughout", "attention heads": "4 query heads on 2 key and value heads",
        "head size": "8", "attention scale": "0.353553", "attention mask": "causal", "sliding window": "none within 9 positions",
        "rope kind": "half (pairs i, i + size/2)", "rope size": "8 of 8 numbers of a head", "rope base": "500000", "activation": "SiLU", "bias": "no",
    }  # fmt: skip
    for name, value in expected.items():
        fact = one(found, name)
        assert (fact.value, fact.verified) == (value, True), f"{name}: {fact}"
        assert fact.evidence.startswith("bit-equal over ")
    assert one(found, "norm").calls == 5 and "model.layers.*.input_layernorm" in one(found, "norm").where
    unused = one(found, "never used parameters")
    assert unused.verified and {"spare.weight", "spare.bias"} <= set(unused.value.split(", ")) and "embed" not in unused.value
    assert one(found, "never called modules").value == "spare"
    assert "verified: bit-equal over 5 calls" in found.to_text() and "<table>" in found._repr_html_()


def test_the_command_prints_text_and_json(llama, capsys):
    assert main(["describe", str(llama)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("LlamaForCausalLM: ") and "rope base" in text
    assert main(["describe", str(llama), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert any(fact["name"] == "norm eps" and fact["value"] == "1e-05" and fact["verified"] for fact in facts)
    assert main(["describe", "nowhere"]) == 2


def test_another_capture_has_other_facts(tmp_path):
    """The same questions get other answers from a model that differs in each of them."""
    config = transformers.Gemma2Config(**SIZES, num_key_value_heads=1, head_dim=8, sliding_window=4, query_pre_attn_scalar=16, attn_implementation="eager")
    torch.manual_seed(0)
    found = porting.describe(captured(tmp_path / "c", transformers.Gemma2ForCausalLM(config)))
    for name, value in {"norm weight": "1 + weight", "norm eps": "1e-06", "activation": "tanh GELU", "attention scale": "0.25", "logit softcap": "50",
                        "embedding scale": "times a factor", "attention heads": "4 query heads on 1 key and value heads", "rope base": "10000"}.items():
        assert {fact.value for fact in found[name]} == {value} and any(fact.verified for fact in found[name]), found.to_text()
    assert {fact.value for fact in found["sliding window"]} == {"4", "none within 9 positions"}


def test_interleaved_rope_biases_and_layer_norms(tmp_path):
    config = transformers.GPTJConfig(vocab_size=96, n_embd=32, n_layer=1, n_head=4, rotary_dim=4, n_positions=64)
    torch.manual_seed(0)
    found = porting.describe(captured(tmp_path / "c", transformers.GPTJForCausalLM(config)))
    assert one(found, "rope kind").value.startswith("interleaved") and one(found, "rope kind").verified
    assert one(found, "rope size").value == "4 of 8 numbers of a head"
    assert one(found, "norm").value == "LayerNorm" and one(found, "norm bias").value == "yes" and one(found, "norm eps").value == "1e-05"
    assert {fact.value for fact in found["bias"]} == {"yes", "no"} and one(found, "activation").value == "tanh GELU"
    assert one(found, "tied weights").value.startswith("no: lm_head.weight is not transformer.wte.weight")


def test_half_floats_tell_where_the_cast_is(tmp_path):
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=2)
    torch.manual_seed(0)
    found = porting.describe(captured(tmp_path / "c", transformers.LlamaForCausalLM(config), torch.bfloat16))
    assert {fact.value for fact in found["norm cast"]} == {"float32 inside, back to bf16 before the weight"}
    assert any(fact.verified for fact in found["norm cast"]), found.to_text()


def test_an_encoder(tmp_path):
    config = transformers.BertConfig(**SIZES, hidden_act="gelu")
    torch.manual_seed(0)
    model = transformers.BertModel(config, add_pooling_layer=False)
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    found = porting.describe(captured(tmp_path / "c", model, **tokens(), attention_mask=mask))
    assert one(found, "attention mask").value == "padding" and one(found, "attention mask").verified
    assert one(found, "activation").value == "erf GELU" and one(found, "attention heads").value == "4, each with its own keys and values"
    assert not found["rope kind"] and not found["tied weights"]


def test_what_the_inputs_do_not_show_is_not_verified(tmp_path):
    """An eps far below the values it is added to, a single query, bits that a changed capture no longer has."""
    norm = torch.nn.LayerNorm(16, eps=1e-12)
    with torch.no_grad(), porting.ActivationCollector(norm, tmp_path / "c"):
        norm(torch.randn(4, 16) * 1e4)
    fact = one(porting.describe(tmp_path / "c"), "norm eps")
    assert not fact.verified and "gives the same bits on these inputs" in fact.evidence
    with torch.no_grad(), porting.ActivationCollector(norm, tmp_path / "d"):
        norm(torch.randn(4, 16) * 1e-6)
    assert one(porting.describe(tmp_path / "d"), "norm eps").verified


def test_a_fact_that_the_bits_contradict_is_not_verified(tmp_path, monkeypatch):
    import porting.describe as package

    model = torch.nn.SiLU()
    with torch.no_grad(), porting.ActivationCollector(model, tmp_path / "c"):
        model(torch.randn(4, 16))
    assert one(porting.describe(tmp_path / "c"), "activation").verified
    monkeypatch.setattr(package_of(package), "bits_equal", lambda a, b: False)
    fact = one(porting.describe(tmp_path / "c"), "activation")
    assert not fact.verified and "0 of 1 calls are bit-equal" in fact.evidence


def package_of(function):
    """The package porting.describe, whose name the function has."""
    import sys

    return sys.modules["porting.describe"]


def test_models_are_captured_first():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU())
    with torch.no_grad():
        found = porting.describe(model, torch.randn(3, 8))
    assert one(found, "activation").value == "erf GELU" and one(found, "bias").value == "yes"


def test_checkpoints_are_loaded_and_captured(tmp_path, capsys):
    config = transformers.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=6)
    torch.manual_seed(0)
    transformers.MistralForCausalLM(config).save_pretrained(tmp_path / "m")
    assert main(["describe", str(tmp_path / "m"), "--json"]) == 0
    facts = {fact["name"]: fact for fact in json.loads(capsys.readouterr().out)["facts"]}
    assert facts["sliding window"]["value"] == "6" and facts["sliding window"]["verified"] and facts["attention mask"]["value"] == "causal"
    with pytest.raises(porting.PortingError, match="they are made"):
        porting.describe(tmp_path / "m", torch.ones(1, 3))
    transformers.HubertModel(transformers.HubertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,),
                             conv_stride=(5,), conv_kernel=(10,), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)).save_pretrained(tmp_path / "h")
    assert main(["describe", str(tmp_path / "h")]) == 2
    assert "whose main input is input_values; capture it" in capsys.readouterr().err


def test_a_capture_without_programs_is_refused(tmp_path):
    model = torch.nn.GELU()
    with torch.no_grad(), porting.ActivationCollector(model, tmp_path / "c", program=False):
        model(torch.randn(3, 8))
    with pytest.raises(porting.PortingError, match="program=False"):
        porting.describe(tmp_path / "c")
    with pytest.raises(porting.PortingError, match="has its own"):
        porting.describe(tmp_path / "c", torch.randn(3))


def test_facts_of_several_places_stand_in_one_line():
    facts = [Fact("norm", "RMSNorm", "a", True, "", 2, "x", 7, 3), Fact("norm", "RMSNorm", "b", True, "", 1, "y", 5, 3), Fact("norm", "RMSNorm", "c", False, "no")]
    both, alone = merged(facts)
    assert (both.where, both.calls, both.variant, both.evidence) == ("a, b", 3, "y", "bit-equal over 3 calls; nearest of 3 variants 'y' differs by 5 ulp")
    assert alone.where == "c"
