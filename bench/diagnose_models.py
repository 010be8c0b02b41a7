"""The models of bench/diagnose.py: two real ones, and tiny random ones of many architectures.

A tiny model has every parameter and statistic drawn at random, so that no fault hides behind a weight of 1 or a bias of 0. Builders return
`(model, inputs)`; `model(**inputs)` runs.
"""
import torch
import transformers
from porting import demo

VOCAB, HIDDEN, HEADS, LAYERS, INNER, TOKENS = 96, 64, 4, 3, 96, 11


def randomise(model, seed=0):
    """No parameter stays at ones or zeros, where faults hide."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in [*model.named_parameters(), *model.named_buffers()]:
            buffer = "running_" in name
            if not p.is_floating_point() or (not buffer and name in dict(model.named_buffers())):
                continue
            r = torch.rand(p.shape, generator=generator)
            if "A_log" in name:
                p.copy_(r)
            elif p.dim() < 2 or p[0].numel() == 1:
                p.copy_(r + 0.5 if "weight" in name or "running_var" in name or "gamma" in name or name.endswith(".D") else (r - 0.5) * 0.6)
            else:
                p.copy_(torch.randn(p.shape, generator=generator) / p[0].numel() ** 0.5)
    return model.float().eval()


def ids(rows=2, tokens=TOKENS, seed=1):
    return torch.randint(4, VOCAB, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def pixels(size=32):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))


def built(architecture, options, head="AutoModel"):
    config = transformers.AutoConfig.for_model(architecture, **options)
    return randomise(getattr(transformers, head).from_config(config))


def text(architecture, padded=False, token_types=False, head="AutoModel", **options):
    """A model of token ids; the second row ends in padding if wanted."""

    def make():
        model = built(architecture, {"vocab_size": VOCAB, "pad_token_id": 0, **options}, head)
        inputs = {"input_ids": ids()}
        if padded:
            mask = torch.ones_like(inputs["input_ids"])
            mask[1, 8:] = 0
            inputs["input_ids"] = torch.where(mask.bool(), inputs["input_ids"], 0)
            inputs["attention_mask"] = mask
        if token_types:
            inputs["token_type_ids"] = (torch.arange(TOKENS) > 5).long().expand(2, TOKENS).contiguous() % model.config.type_vocab_size
        return model, inputs

    return make


def vision(architecture, size=32, head="AutoModel", **options):
    return lambda: (built(architecture, options, head), {"pixel_values": pixels(size)})


def encoder_decoder(architecture, **options):
    def make():
        mask = torch.ones(2, TOKENS, dtype=torch.long)
        mask[1, 8:] = 0
        model = built(architecture, {"vocab_size": VOCAB, "pad_token_id": 0, "decoder_start_token_id": 0, **options})
        return model, {"input_ids": ids(), "attention_mask": mask, "decoder_input_ids": ids(2, 7, 3)}

    return make


def speech():
    options = dict(vocab_size=VOCAB, d_model=HIDDEN, encoder_layers=2, decoder_layers=2, encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, encoder_ffn_dim=INNER,
                   decoder_ffn_dim=INNER, num_mel_bins=8, max_source_positions=12, max_target_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                   decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None)  # fmt: skip
    features = torch.randn(2, 8, 24, generator=torch.Generator().manual_seed(2))
    return built("whisper", options), {"input_features": features, "decoder_input_ids": ids(2, 7, 3)}


def half(make):
    """The same model in bfloat16."""

    def halved():
        model, inputs = make()
        return model.bfloat16(), {k: x.bfloat16() if x.is_floating_point() else x for k, x in inputs.items()}

    return halved


def eager(make):
    """The same model with attention written out."""

    def written():
        model, inputs = make()
        model.set_attn_implementation("eager")
        return model, inputs

    return written


def real_minilm():
    pipe = demo.minilm_pipeline()
    inputs = dict(pipe.tokenizer(demo.SENTENCES, padding=True, return_tensors="pt"))
    inputs["token_type_ids"] = (torch.arange(inputs["input_ids"].shape[1]) > 5).long().expand_as(inputs["input_ids"]).contiguous()
    return pipe.model, inputs


def real_smollm2():
    pipe = demo.smollm2_pipeline()
    return pipe.model, dict(pipe.tokenizer(demo.PROMPT, return_tensors="pt"))


class ConvBlock(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.convolution = torch.nn.Conv2d(16, 16, 3, **options)
        self.normalization = torch.nn.BatchNorm2d(16)
        self.activation = torch.nn.ReLU()

    def forward(self, x):
        return self.activation(self.normalization(self.convolution(x)))


class ConvNet(torch.nn.Module):
    """Convolutions with a bias and a batch norm behind them, one of them grouped, one dilated; a group norm last."""

    def __init__(self):
        super().__init__()
        self.config = transformers.PretrainedConfig()
        self.stem = torch.nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.blocks = torch.nn.ModuleList([ConvBlock(padding=1), ConvBlock(padding=1), ConvBlock(padding=1, groups=4), ConvBlock(padding=2, dilation=2)])
        self.group_norm = torch.nn.GroupNorm(4, 16)

    def forward(self, pixel_values):
        x = self.stem(pixel_values)
        for block in self.blocks:
            x = block(x)
        return torch.nn.functional.max_pool2d(self.group_norm(x), 2)


class Imaging(torch.nn.Module):
    """What images are put through besides convolutions: padded pools, interpolation, a transposed convolution, a pixel shuffle."""

    def __init__(self):
        super().__init__()
        self.config = transformers.PretrainedConfig()
        self.stem = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.pool = torch.nn.AvgPool2d(3, 2, 1)
        self.greatest = torch.nn.MaxPool2d(3, 2, 1)
        self.up = torch.nn.Upsample(scale_factor=2, mode="bilinear")
        self.transposed = torch.nn.ConvTranspose2d(16, 16, 3, 2, 1)
        self.shuffle = torch.nn.PixelShuffle(2)

    def forward(self, pixel_values):
        x = self.pool(self.stem(pixel_values))
        return self.shuffle(self.transposed(self.up(self.greatest(x))))


SMALL = dict(hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=INNER)
GROUPED = dict(num_key_value_heads=2, **SMALL)
GPT2 = dict(n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS)
BART = dict(d_model=HIDDEN, encoder_layers=2, decoder_layers=2, encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, encoder_ffn_dim=INNER, decoder_ffn_dim=INNER)
VIT = dict(image_size=32, patch_size=8, **SMALL)

MODELS = {
    "minilm": real_minilm,
    "smollm2": real_smollm2,
    "bert": text("bert", True, True, **SMALL),
    "bert-eager": eager(text("bert", True, True, **SMALL)),
    "roberta": text("roberta", True, True, type_vocab_size=2, **SMALL),
    "distilbert": text("distilbert", True, dim=HIDDEN, n_layers=LAYERS, n_heads=HEADS, hidden_dim=INNER),
    "electra": text("electra", True, True, embedding_size=32, **SMALL),
    "mpnet": text("mpnet", True, **SMALL),
    "deberta-v2": text("deberta-v2", True, relative_attention=True, position_buckets=4, pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm", share_att_key=True, **SMALL),
    "modernbert": text("modernbert", True, local_attention=6, global_attn_every_n_layers=2, **SMALL),
    "gpt2": text("gpt2", **GPT2),
    "gpt2-eager": eager(text("gpt2", True, **GPT2)),
    "gpt-neox": text("gpt_neox", rotary_pct=0.5, **SMALL),
    "gptj": text("gptj", n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS, rotary_dim=8),
    "opt": text("opt", True, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, ffn_dim=INNER, word_embed_proj_dim=HIDDEN),
    "bloom": text("bloom", True, hidden_size=HIDDEN, n_layer=LAYERS, n_head=HEADS),
    "llama": text("llama", **GROUPED),
    "llama-eager": eager(text("llama", True, **GROUPED)),
    "llama-bf16": half(text("llama", **GROUPED)),
    "llama3-rope": text("llama", rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}, max_position_embeddings=128, **GROUPED),
    "llama-head": text("llama", head="AutoModelForCausalLM", tie_word_embeddings=False, **GROUPED),
    "gemma-bf16": half(text("gemma", head_dim=16, **GROUPED)),
    "mistral": text("mistral", sliding_window=4, **GROUPED),
    "qwen2": text("qwen2", **GROUPED),
    "qwen3": text("qwen3", head_dim=16, **GROUPED),
    "phi": text("phi", partial_rotary_factor=0.5, **SMALL),
    "phi3": text("phi3", **GROUPED),
    "gemma": text("gemma", head_dim=16, **GROUPED),
    "gemma2-eager": eager(text("gemma2", head_dim=16, sliding_window=4, query_pre_attn_scalar=32, **GROUPED)),
    "gemma3": text("gemma3_text", head_dim=16, sliding_window=4, **GROUPED),
    "olmo2": text("olmo2", **GROUPED),
    "cohere": text("cohere", **GROUPED),
    "stablelm": text("stablelm", partial_rotary_factor=0.5, **GROUPED),
    "falcon": text("falcon", hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, alibi=False, multi_query=True),
    "mixtral": text("mixtral", num_local_experts=4, num_experts_per_tok=2, **GROUPED),
    "qwen2-moe": text("qwen2_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=48, decoder_sparse_step=1, **GROUPED),
    "gpt-oss": text("gpt_oss", num_local_experts=4, num_experts_per_tok=2, head_dim=16, sliding_window=4, **GROUPED),
    "mamba": text("mamba", hidden_size=HIDDEN, num_hidden_layers=LAYERS, state_size=8, conv_kernel=4, expand=2, time_step_rank=8),
    "t5": encoder_decoder("t5", d_model=HIDDEN, d_kv=16, d_ff=INNER, num_layers=2, num_decoder_layers=2, num_heads=HEADS, feed_forward_proj="gated-gelu"),
    "bart": encoder_decoder("bart", max_position_embeddings=64, **BART),
    "whisper": speech,
    "vit": vision("vit", **VIT),
    "vit-eager": eager(vision("vit", **VIT)),
    "clip-vision": vision("clip_vision_model", **VIT),
    "swin": vision("swin", image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4),
    "convnext": vision("convnext", num_stages=2, hidden_sizes=[16, 32], depths=[2, 2]),
    "resnet": vision("resnet", embedding_size=16, hidden_sizes=[16, 32], depths=[2, 2], layer_type="basic"),
    "convolutions": lambda: (randomise(ConvNet()), {"pixel_values": pixels(32)}),
    "imaging": lambda: (randomise(Imaging()), {"pixel_values": pixels(32)}),
    "mobilenet": vision("mobilenet_v1", depth_multiplier=0.25, min_depth=8),
    "segformer": vision("segformer", num_encoder_blocks=2, depths=[2, 2], sr_ratios=[2, 1], hidden_sizes=[16, 32], num_attention_heads=[2, 4], patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2]),
}
