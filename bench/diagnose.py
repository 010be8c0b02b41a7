"""How often the diagnosis is right: faults seeded into real models by changing the torch modules, captured, compared and explained.

    OMP_WAIT_POLICY=PASSIVE python bench/diagnose.py [--models minilm smollm2 tiny-llama ...] [--verbose]

A fault is made with torch code that knows nothing of the generators. Each is run through the whole product: the faulty model is captured, compared
with the reference's capture, and the cause of the first divergence is what counts. `right`: the seeded cause's id is named at the right module
(alone or among causes that cannot be told apart). `wrong`: another id is named. `unknown`: none is. Clean ports (other attention, float64, other
threads) must be blamed for nothing.
"""
import argparse
import copy
import os
import statistics
import tempfile
import time
import types
from collections import Counter

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import transformers

import porting
from porting import demo

FAULTS = []


def fault(cause, *families):
    """Registers a function that breaks a model and returns the name of the broken module (None: does not apply)."""

    def register(function):
        FAULTS.append((cause, families, function))
        return function

    return register


def find(model, suffix, index=1):
    """The index-th module whose name ends with one of the suffixes (or the last one)."""
    names = [n for n, _ in model.named_modules() if n.endswith(suffix)]
    return (names[min(index, len(names) - 1)], model.get_submodule(names[min(index, len(names) - 1)])) if names else (None, None)


def norms(model):
    return find(model, ("LayerNorm", "layernorm", "layer_norm", "input_layernorm", "ln_1", "SelfAttention.layer_norm"))


def set_parameter(module, name, value):
    setattr(module, name, torch.nn.Parameter(value.contiguous(), requires_grad=False))


@fault("eps")
def eps_large(model):
    name, module = norms(model)
    if module is None:
        return None
    attribute = "eps" if hasattr(module, "eps") else "variance_epsilon"
    if not hasattr(module, attribute):
        return None
    setattr(module, attribute, 1e-3)
    return name


@fault("weight-ignored")
def norm_weight_ignored(model):
    name, module = norms(model)
    if module is None:
        return None
    set_parameter(module, "weight", torch.ones_like(module.weight))
    return name


@fault("bias-missing")
def norm_bias_missing(model):
    name, module = norms(model)
    if getattr(module, "bias", None) is None:
        return None
    set_parameter(module, "bias", torch.zeros_like(module.bias))
    return name


@fault("mean-not-subtracted")
def rms_for_layer_norm(model):
    name, module = norms(model)
    if not isinstance(module, torch.nn.LayerNorm):
        return None
    module.forward = types.MethodType(
        lambda self, x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight + self.bias, module
    )
    return name


PROJECTIONS = ("query", "q_proj", "c_attn", ".q")


@fault("weight-transposed")
def transposed(model):
    name, module = find(model, PROJECTIONS)
    if module is None or module.weight.shape[0] != module.weight.shape[1]:
        return None
    set_parameter(module, "weight", module.weight.t())
    return name


@fault("bias-missing")
def linear_bias_missing(model):
    name, module = find(model, PROJECTIONS)
    if getattr(module, "bias", None) is None:
        return None
    set_parameter(module, "bias", torch.zeros_like(module.bias))
    return name


@fault("bias-doubled")
def linear_bias_doubled(model):
    name, module = find(model, PROJECTIONS)
    if getattr(module, "bias", None) is None:
        return None
    set_parameter(module, "bias", 2 * module.bias)
    return name


def rounded_weight(dtype):
    def apply(model):
        name, module = find(model, PROJECTIONS)
        if module is None:
            return None
        set_parameter(module, "weight", module.weight.to(dtype).float())
        return name

    return apply


fault("operand-precision")(rounded_weight(torch.bfloat16))
fault("operand-precision")(rounded_weight(torch.float16))


@fault("operand-precision")
def both_operands_bf16(model):
    name, module = find(model, PROJECTIONS)
    if not isinstance(module, torch.nn.Linear):
        return None
    module.forward = types.MethodType(
        lambda self, x: torch.nn.functional.linear(x.bfloat16().float(), self.weight.bfloat16().float(), self.bias), module
    )
    return name


@fault("result-precision")
def result_bf16(model):
    name, module = find(model, PROJECTIONS)
    if module is None:
        return None
    module.register_forward_hook(lambda m, a, out: out.bfloat16().float())
    return name


@fault("operand-precision")
def int8_rows(model):
    name, module = find(model, PROJECTIONS)
    if not isinstance(module, torch.nn.Linear):
        return None
    step = module.weight.abs().amax(1, keepdim=True) / 127
    set_parameter(module, "weight", torch.round(module.weight / step) * step)
    return name


@fault("wrong-layer")
def next_layer(model):
    names = [n for n, _ in model.named_modules() if n.endswith(PROJECTIONS)]
    if len(names) < 2 or "0" not in names[0]:
        return None
    a, b = model.get_submodule(names[0]), model.get_submodule(names[1])
    set_parameter(a, "weight", b.weight.clone())
    return names[0]


@fault("rows-permuted", "llama")
def rows_interleaved(model):
    name, module = find(model, ("q_proj",))
    if module is None:
        return None
    head = model.config.head_dim if getattr(model.config, "head_dim", None) else model.config.hidden_size // model.config.num_attention_heads
    w = module.weight
    set_parameter(module, "weight", w.view(-1, 2, head // 2, w.shape[1]).transpose(1, 2).reshape(w.shape))
    return name


def other_activation(make):
    def apply(model):
        for suffix in ("intermediate_act_fn", "act_fn", "act"):
            name, module = find(model, (suffix,))
            if module is not None:
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, make())
                return name
        return None

    return apply


class QuickGelu(torch.nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


fault("activation", "bert", "llama")(other_activation(QuickGelu))
fault("activation", "bert", "llama")(other_activation(torch.nn.ReLU))
fault("activation", "bert", "llama")(other_activation(lambda: torch.nn.GELU(approximate="tanh")))


@fault("weights-exchanged", "llama")
def gate_and_up(model):
    name, module = find(model, ("mlp",))
    if module is None or not hasattr(module, "gate_proj"):
        return None
    module.forward = types.MethodType(lambda self, x: self.down_proj(self.act_fn(self.up_proj(x)) * self.gate_proj(x)), module)
    return name


@fault("addend-missing", "llama")
def residual_dropped(model):
    name, layer = find(model, ("layers.1",))
    if layer is None:
        return None

    def forward(self, hidden_states, **kwargs):
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        return attended + self.mlp(self.post_attention_layernorm(attended))

    layer.forward = types.MethodType(forward, layer)
    return name


@fault("attention-scale", "llama")
def scale_missing(model):
    name, module = find(model, ("self_attn",))
    module.scaling = 1.0
    return name


@fault("attention-scale", "llama")
def scale_squared(model):
    name, module = find(model, ("self_attn",))
    module.scaling = module.scaling**2
    return name


def rotary_fault(cause, change):
    """A fault in the rotary embedding of one layer: its function is exchanged while the layer's attention runs."""

    @fault(cause, "llama")
    def apply(model):
        name, module = find(model, ("self_attn",))
        namespace = type(module).forward.__globals__
        if "apply_rotary_pos_emb" not in namespace:
            return None
        inner = module.forward

        def forward(*args, **kwargs):
            kept = namespace["apply_rotary_pos_emb"]
            namespace["apply_rotary_pos_emb"] = lambda q, k, cos, sin, *a, **kw: change(kept, q, k, cos, sin)
            try:
                return inner(*args, **kwargs)
            finally:
                namespace["apply_rotary_pos_emb"] = kept

        module.forward = forward
        return name

    return apply


def interleaved(x, cos, sin):
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    half = x.shape[-1] // 2
    c, s = cos[..., :half], sin[..., :half]
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack([even * c - odd * s, odd * c + even * s], -1).flatten(-2)


rotary_fault("rope-interleaved", lambda f, q, k, c, s: (interleaved(q, c, s), interleaved(k, c, s)))
rotary_fault("rope-sign", lambda f, q, k, c, s: f(q, k, c, -s))
rotary_fault("rope-absent", lambda f, q, k, c, s: (q, k))


def attention_fault(cause, change, *families):
    """A fault inside one layer's attention: torch's function is exchanged while the layer runs."""

    @fault(cause, *families)
    def apply(model):
        name, module = find(model, ("self_attn", "attention.self"))
        if module is None:
            return None
        inner = module.forward

        def forward(*args, **kwargs):
            kept = torch.nn.functional.scaled_dot_product_attention
            torch.nn.functional.scaled_dot_product_attention = lambda *a, **kw: change(kept, *a, **kw)
            try:
                return inner(*args, **kwargs)
            finally:
                torch.nn.functional.scaled_dot_product_attention = kept

        module.forward = forward
        return name

    return apply


attention_fault("mask-absent", lambda f, q, k, v, **kw: f(q, k, v, **{**kw, "is_causal": False}), "llama")
attention_fault("mask-absent", lambda f, q, k, v, **kw: f(q, k, v, **{**kw, "attn_mask": None}), "bert")
attention_fault("mask-weak", lambda f, q, k, v, **kw: f(q, k, v, **{**kw, "attn_mask": kw["attn_mask"].float()}), "bert")
attention_fault("gqa-order", lambda f, q, k, v, **kw: f(q, k.repeat(1, q.shape[1] // k.shape[1], 1, 1), v.repeat(1, q.shape[1] // v.shape[1], 1, 1), **{**kw, "enable_gqa": False}), "gqa")


@fault("embedding-offset")
def embedding_offset(model):
    name, module = find(model, ("position_embeddings", "wpe", "embed_tokens", "word_embeddings"), 0)
    if module is None:
        return None
    module.forward = types.MethodType(lambda self, i: torch.nn.functional.embedding((i + 1).clamp(max=self.num_embeddings - 1), self.weight), module)
    return name


@fault("embedding-ignored", "bert")
def token_types_ignored(model):
    name, module = find(model, ("token_type_embeddings",), 0)
    if module is None:
        return None
    module.forward = types.MethodType(lambda self, i: torch.nn.functional.embedding(i * 0, self.weight), module)
    return name


# ---------------------------------------------------------------- clean ports


def clean_eager(model):
    model.set_attn_implementation("eager")


def clean_double(model):
    """Every linear layer in float64, rounded once."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.forward = types.MethodType(
                lambda self, x: torch.nn.functional.linear(x.double(), self.weight.double(), None if self.bias is None else self.bias.double()).float(), module
            )


CLEAN = [clean_eager, clean_double]


# ---------------------------------------------------------------- models


def randomise(model, seed=0):
    """No parameter stays at ones or zeros, where faults hide."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.rand(p.shape, generator=generator)
            if p.dim() < 2:
                p.copy_(r + 0.5 if "weight" in name else (r - 0.5) * 0.6)
            else:
                p.copy_(torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5)
    return model.float().eval()


def tiny(architecture, **options):
    def make():
        config = transformers.AutoConfig.for_model(architecture, vocab_size=96, **options)
        model = randomise(transformers.AutoModel.from_config(config))
        ids = torch.randint(3, 96, (2, 11), generator=torch.Generator().manual_seed(1))
        mask = torch.ones_like(ids)
        mask[1, 8:] = 0
        types_ = (torch.arange(11) > 5).long().expand(2, 11) % config.type_vocab_size if architecture in ("bert", "roberta") else None
        return model, {"input_ids": ids, "attention_mask": mask, "token_type_ids": types_} if types_ is not None else {"input_ids": ids}

    return make


SMALL = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96)


def real_minilm():
    pipe = demo.minilm_pipeline()
    inputs = dict(pipe.tokenizer(demo.SENTENCES, padding=True, return_tensors="pt"))
    inputs["token_type_ids"] = (torch.arange(inputs["input_ids"].shape[1]) > 5).long().expand_as(inputs["input_ids"]).contiguous()
    return pipe.model, inputs


def real_smollm2():
    pipe = demo.smollm2_pipeline()
    return pipe.model, dict(pipe.tokenizer(demo.PROMPT, return_tensors="pt"))


MODELS = {
    "minilm": (real_minilm, {"bert"}),
    "tiny-bert": (tiny("bert", **SMALL), {"bert"}),
    "tiny-roberta": (tiny("roberta", type_vocab_size=2, **SMALL), {"bert"}),
    "tiny-gpt2": (tiny("gpt2", n_embd=64, n_layer=3, n_head=4), {"gpt2"}),
    "tiny-llama": (tiny("llama", num_key_value_heads=2, **SMALL), {"llama", "gqa"}),
    "tiny-qwen2": (tiny("qwen2", num_key_value_heads=2, **SMALL), {"llama", "gqa"}),
    "tiny-mistral": (tiny("mistral", num_key_value_heads=2, **SMALL), {"llama", "gqa"}),
    "tiny-qwen3": (tiny("qwen3", num_key_value_heads=2, head_dim=16, **SMALL), {"llama", "gqa"}),
    "tiny-phi3": (tiny("phi3", num_key_value_heads=2, pad_token_id=0, **SMALL), {"llama", "gqa"}),
    "tiny-gemma": (tiny("gemma", num_key_value_heads=2, head_dim=16, **SMALL), {"llama", "gqa"}),
    "tiny-olmo2": (tiny("olmo2", num_key_value_heads=2, **SMALL), {"llama", "gqa"}),
    "smollm2": (real_smollm2, {"llama", "gqa"}),
}


def capture(model, inputs, path):
    with torch.no_grad(), porting.ActivationCollector(model, path):
        model(**inputs)
    return path


def trial(reference, model, inputs, apply, folder):
    """(report, planted, seconds of compare and diagnosis); None if the fault does not apply."""
    broken = copy.deepcopy(model)
    planted = apply(broken)
    if planted is None and apply not in CLEAN:
        return None
    path = capture(broken, inputs, os.path.join(folder, "port.capture"))
    started = time.perf_counter()
    report = porting.compare(reference, path)
    return report, planted, time.perf_counter() - started


def judge(report, planted, cause):
    """right, wrong, unknown or missed, with what was said."""
    if report.passed or report.cause is None:
        return "missed", "the port passed" if report.passed else "no diagnosis"
    said = report.cause
    if said.module == planted and cause in [said.cause, *(r.cause for r in said.also)]:
        return "right", str(said)
    return ("unknown" if said.cause in ("unknown", "not-run", "rounding") else "wrong"), str(said)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    total, seconds, blamed, cleans = Counter(), [], 0, 0
    for name in args.models:
        make, families = MODELS[name]
        model, inputs = make()
        counts = Counter()
        with tempfile.TemporaryDirectory() as folder:
            reference = capture(model, inputs, os.path.join(folder, "ref.capture"))
            for cause, wanted, apply in FAULTS:
                if wanted and not families & set(wanted):
                    continue
                with tempfile.TemporaryDirectory(dir=folder) as work:
                    result = trial(reference, model, inputs, apply, work)
                    if result is None:
                        continue
                    report, planted, took = result
                    outcome, said = judge(report, planted, cause)
                counts[outcome] += 1
                seconds.append(took)
                if args.verbose or outcome != "right":
                    print(f"  {outcome}: {name}: {apply.__name__} ({cause} at {planted}): {said.splitlines()[0]}", flush=True)
            for apply in CLEAN:
                with tempfile.TemporaryDirectory(dir=folder) as work:
                    report, _, _ = trial(reference, model, inputs, apply, work)
                cleans += 1
                if not report.passed:
                    blamed += 1
                    print(f"  blamed: {name}: {apply.__name__}: {report.cause or report.first_divergence or report.summary}", flush=True)
        print(f"{name:<14} {dict(counts)}", flush=True)
        total += counts
    n = sum(total.values())
    print(f"\n{n} faults: {total['right']} named right ({total['right'] / n:.1%}), {total['wrong']} named wrongly, {total['unknown']} unknown, {total['missed']} missed;"
          f" {blamed} of {cleans} clean ports blamed; {statistics.median(seconds):.2f} s (median), {max(seconds):.2f} s (worst) per comparison and diagnosis")


if __name__ == "__main__":
    main()
