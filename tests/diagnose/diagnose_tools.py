"""Small modules with every parameter drawn at random, and what a port of one may be."""
import torch

import porting


def drawn(module, seed=0, scale=0.5):
    """The module with no parameter or statistic at a special value, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in [*module.named_parameters(), *module.named_buffers()]:
        if not p.is_floating_point():
            continue
        r = torch.randn(p.shape, generator=generator)
        value = r.abs() + 0.5 if "running_var" in name or (p.dim() == 1 and "weight" in name) else r * (scale if p.dim() < 2 else p[0].numel() ** -0.5)
        p.data.copy_(value)
    return module.eval().requires_grad_(False)


def noise(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def why(module, port, *inputs):
    """The diagnosis of what `port`, a function or the output itself, returns in the place of the module."""
    with torch.no_grad():
        actual = port(*[x.clone() for x in inputs]) if callable(port) else port
    return porting.explain(module, actual, inputs=inputs)


def causes(diagnosis):
    return [diagnosis.cause, *(r.cause for r in diagnosis.also)]
