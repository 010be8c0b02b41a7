"""Faults of bench/diagnose.py in attention and rotary embeddings: one attention or rotary function of one layer exchanged.

Importing this file adds them to `diagnose_faults.FAULTS`.
"""
import contextlib

import torch
from diagnose_faults import BF16, F16, FAULTS, Fault, Patching, Site


def attend(q, k, v, mask, causal, scale, change, sinks=None):
    """Attention in plain torch, with one change. mask: additive, bool or None. sinks: a logit per head that takes part in the softmax and is dropped."""
    c = {"scale": 1.0, "axis": -1, "cap": 0.0, "half": None, "order": "repeat", "softmax": torch.softmax, "mask": lambda m: m, "logits": lambda x: x, "p": lambda p: p, **change}
    heads, groups = q.shape[1], k.shape[1]
    if heads != groups:
        n = heads // groups
        k, v = (x.repeat_interleave(n, 1) if c["order"] == "repeat" else x.repeat(1, n, 1, 1) for x in (k, v))
    t, s = q.shape[-2], k.shape[-2]
    if causal:
        mask = torch.zeros(t, s).masked_fill(~torch.ones(t, s, dtype=torch.bool).tril(s - t), -torch.inf)
    elif mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    x = q.float() @ k.float().transpose(-1, -2) * (scale if scale is not None else q.shape[-1] ** -0.5) * c["scale"]
    x = c["logits"](x)
    if mask is not None:
        mask = c["mask"](mask.float()[..., -t:, :s])
    if mask is not None:
        x = x + mask
    if sinks is not None:
        x = torch.cat([x, sinks.float().view(1, -1, 1, 1).expand(*x.shape[:-1], 1)], -1)
    p = c["p"](c["softmax"](x, c["axis"])).to(v.dtype)[..., :s]
    return c.get("out", lambda y: y)(p @ v)


def hidden(m):
    return m < -1e4


def attention(name, causes, change, needs="any"):
    """Registers a change of the attention function, fused or written out. needs: "mask", "causal", "padding", "groups"."""

    def fits(site):
        if needs == "groups":
            return site.shapes[0][1] != site.shapes[1][1]
        return True

    def fused(f, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        if needs in ("mask", "causal", "padding") and attn_mask is None and not is_causal:
            return f(q, k, v, attn_mask=attn_mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa)
        return attend(q, k, v, attn_mask, is_causal, scale, change)

    FAULTS.append(Fault(f"attention_{name}", causes, lambda model, sites: [s for s in sites if s.function == "scaled_dot_product_attention" and fits(s)],
                        lambda model, site: Patching(model, site, fused)))  # fmt: skip

    @contextlib.contextmanager
    def plant_eager(model, site):
        module = model.get_submodule(site.module)
        names, inner = type(module).forward.__globals__, module.forward

        def function(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **rest):
            return attend(query, key, value, attention_mask, False, scaling, change, getattr(module, "sinks", None)).transpose(1, 2), None

        def forward(*args, **kwargs):
            kept, names["eager_attention_forward"] = names["eager_attention_forward"], function
            try:
                return inner(*args, **kwargs)
            finally:
                names["eager_attention_forward"] = kept

        module.forward = forward
        try:
            yield
        finally:
            del module.forward

    def eager_sites(model, sites):
        if getattr(model.config, "_attn_implementation", "") != "eager" or getattr(model.config, "attn_logit_softcapping", None):
            return []
        found = [n for n, m in model.named_modules() if "eager_attention_forward" in type(m).forward.__globals__ and "Attention" in type(m).__name__
                 and any(s.module == n and s.function == "softmax" for s in sites) or (type(m).__name__.endswith("SelfAttention") and "eager_attention_forward" in type(m).forward.__globals__)]  # fmt: skip
        grouped = getattr(model.config, "num_key_value_heads", None) not in (None, getattr(model.config, "num_attention_heads", None))
        return [Site(n, "", 0, ()) for n in found] if needs != "groups" or grouped else []

    FAULTS.append(Fault(f"eager_{name}", causes, eager_sites, plant_eager))


MASKED = ("mask-absent", "bias-missing")
attention("mask_absent", MASKED, {"mask": lambda m: None}, "mask")
attention("mask_weak", ("mask-weak",), {"mask": lambda m: torch.where(hidden(m), -10.0, m)}, "mask")
attention("mask_as_numbers", ("mask-weak",), {"mask": lambda m: torch.where(hidden(m), 0.0, 1.0)}, "mask")
attention("mask_inverted", ("mask-inverted",), {"mask": lambda m: torch.where(hidden(m), 0.0, -1e4)}, "mask")
attention("mask_next", ("mask-off-by-one",), {"mask": lambda m: torch.cat([m[..., 1:, :], m[..., -1:, :]], -2)}, "causal")
attention("mask_transposed", ("mask-transposed",), {"mask": lambda m: m.expand(*m.shape[:-2], max(m.shape[-2:]), m.shape[-1]).transpose(-1, -2)}, "mask")
attention("causal_too", ("mask-causal",), {"logits": lambda x: x.masked_fill(~torch.ones(x.shape[-2:], dtype=torch.bool).tril(), -torch.inf)})
attention("scale_absent", ("attention-scale", "scale"), {"scale": 16**0.5})
attention("scale_twice", ("attention-scale", "scale"), {"scale": 16**-0.5})
attention("scale_off", ("attention-scale", "scale"), {"scale": 0.8})
attention("over_queries", ("softmax-axis", "axis"), {"axis": -2})
attention("over_heads", ("softmax-axis", "axis"), {"axis": 1})
attention("tiled_groups", ("gqa-order",), {"order": "tile"}, "groups")
attention("capped", ("softcap",), {"logits": lambda x: 50 * torch.tanh(x / 50)})
attention("capped_oddly", ("softcap",), {"logits": lambda x: 7 * torch.tanh(x / 7)})
attention("p_bf16", ("softmax-precision", "operand-precision", "result-precision"), {"p": BF16})
attention("logits_bf16", ("softmax-precision", "operand-precision", "result-precision"), {"logits": BF16})
attention("logits_f16", ("softmax-precision", "operand-precision", "result-precision"), {"logits": F16})
attention("heads_unmerged", ("head-order", "axes-order"), {"out": lambda y: y.reshape(y.shape[0], y.shape[2], y.shape[1], -1).transpose(1, 2)})
attention("self_hidden", ("mask-off-by-one", "mask-diagonal"), {"logits": lambda x: x + torch.diag_embed(torch.full((x.shape[-1],), -1e4)) if x.shape[-1] == x.shape[-2] else x})
attention("window_three", ("window-added", "window-off-by-one"), {"logits": lambda x: x.masked_fill(torch.ones(x.shape[-2:], dtype=torch.bool).tril(-3), -1e30)})
attention("distance_bias", ("unknown",), {"logits": lambda x: x - 0.25 * (torch.arange(x.shape[-2])[:, None] - torch.arange(x.shape[-1])).abs()})

# ---------------------------------------------------------------- rotary embeddings


def rotary(name, causes, change):
    """Registers a change of transformers' apply_rotary_pos_emb(q, k, cos, sin) in one layer."""

    @contextlib.contextmanager
    def plant(model, site):
        module = model.get_submodule(site.module)
        names, inner = type(module).forward.__globals__, module.forward
        right = names["apply_rotary_pos_emb"]

        def forward(*args, **kwargs):
            names["apply_rotary_pos_emb"] = lambda q, k, cos, sin, *a, **kw: change(right, q, k, cos, sin)
            try:
                return inner(*args, **kwargs)
            finally:
                names["apply_rotary_pos_emb"] = right

        module.forward = forward
        try:
            yield
        finally:
            del module.forward

    def sites(model, listed):
        if getattr(model.config, "model_type", "") in ("gptj", "cohere", "modernbert"):
            return []
        return [Site(n, "", 0, ()) for n, m in model.named_modules()
                if "apply_rotary_pos_emb" in type(m).forward.__globals__ and "Attention" in type(m).__name__]

    FAULTS.append(Fault(f"rotary_{name}", causes, sites, plant))


def interleaved(x, cos, sin):
    size = cos.shape[-1]
    rest, x = x[..., size:], x[..., :size]
    c, s = cos.unsqueeze(1)[..., : size // 2], sin.unsqueeze(1)[..., : size // 2]
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.cat([torch.stack([even * c - odd * s, odd * c + even * s], -1).flatten(-2), rest], -1)


def later(c, s):
    """The tables of positions one further on."""
    gain = (c[:, :1] ** 2 + s[:, :1] ** 2).sqrt()  # of scaled tables
    one, other = c[:, 1:2] / gain, s[:, 1:2] / gain
    return c * one - s * other, s * one + c * other


def pairs_of(cos):
    """Number of rotated pairs: half the tables' width, or all of it where they hold each angle once."""
    n = cos.shape[-1] // 2
    return n if torch.equal(cos[..., :n], cos[..., n:]) else 2 * n


def with_base(right, q, k, cos, sin, base, at=0):
    n = pairs_of(cos)
    gain = (cos[0, 0, 0] ** 2 + sin[0, 0, 0] ** 2).sqrt()
    angles = (torch.arange(cos.shape[1])[:, None] + at) * base ** (-torch.arange(n) / n)
    angles = torch.cat([angles] * (cos.shape[-1] // n), -1)[None].to(cos)
    return right(q, k, (angles.cos() * gain).to(cos.dtype), (angles.sin() * gain).to(cos.dtype))


def halved(right, q, k, cos, sin):
    n = pairs_of(cos)
    mask = (torch.arange(cos.shape[-1]) % n) < n // 2
    return right(q, k, torch.where(mask, cos, 1.0), torch.where(mask, sin, 0.0))


rotary("interleaved", ("rope-interleaved",), lambda f, q, k, c, s: (interleaved(q, c, s), interleaved(k, c, s)))
rotary("sign", ("rope-sign",), lambda f, q, k, c, s: f(q, k, c, -s))
rotary("absent", ("rope-absent",), lambda f, q, k, c, s: (q, k))
rotary("absent_on_k", ("rope-absent",), lambda f, q, k, c, s: (f(q, k, c, s)[0], k))
rotary("twice", ("rope-twice", "rope-scaling"), lambda f, q, k, c, s: f(*f(q, k, c, s), c, s))
rotary("base", ("rope-base",), lambda f, q, k, c, s: with_base(f, q, k, c, s, 1e6))
rotary("odd_base", ("rope-base",), lambda f, q, k, c, s: with_base(f, q, k, c, s, 777.0))
rotary("offset_of_q", ("rope-offset",), lambda f, q, k, c, s: (f(q, k, *later(c, s))[0], f(q, k, c, s)[1]))
rotary("position_zero_for_q", ("rope-offset", "rope-absent"), lambda f, q, k, c, s: (f(q, k, c[:, :1].expand_as(c), s[:, :1].expand_as(s))[0], f(q, k, c, s)[1]))
rotary("sine_and_cosine", ("rope-sign",), lambda f, q, k, c, s: f(q, k, s, c))
rotary("half_width", ("rope-partial",), halved)
rotary("k_rotated_as_q_is_not", ("rope-absent",), lambda f, q, k, c, s: (q, f(q, k, c, s)[1]))
rotary("scaled_positions", ("rope-scaling",), lambda f, q, k, c, s: f(q, k, torch.cos(2 * torch.atan2(s.float(), c.float())).to(c.dtype), torch.sin(2 * torch.atan2(s.float(), c.float())).to(c.dtype)))
rotary("bf16_tables", ("operand-precision", "result-precision"), lambda f, q, k, c, s: f(q, k, BF16(c).to(c.dtype), BF16(s).to(s.dtype)))
