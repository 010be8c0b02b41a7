"""Find one fault in a model of 30 layers: which module, and what is wrong with it.

    python examples/find_the_fault.py

A port of SmolLM2-135M applies the rotary embedding of layer 17 to the wrong pairs of numbers: an ordinary mistake in porting, that leaves every shape as it
is. Both models are captured, the captures are compared, and the report names the layer and the mistake. Takes a minute, half of it for loading.
"""
import os
import tempfile
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import porting
import torch
from porting import demo

LAYER = 17


def interleaved(x, cos, sin):
    """Rotates neighbours (0, 1), (2, 3), ..; the model pairs the two halves (0, 32), (1, 33), .."""
    half = x.shape[-1] // 2
    c, s = cos[:, None, :, :half], sin[:, None, :, :half]
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack([even * c - odd * s, odd * c + even * s], -1).flatten(-2)


def break_layer(model):
    """Puts the fault into one layer of the model."""
    attention = model.model.layers[LAYER].self_attn
    names = type(attention).forward.__globals__
    right, forward = names["apply_rotary_pos_emb"], attention.forward

    def wrong_forward(*args, **kwargs):
        names["apply_rotary_pos_emb"] = lambda q, k, cos, sin, *rest: (interleaved(q, cos, sin), interleaved(k, cos, sin))
        try:
            return forward(*args, **kwargs)
        finally:
            names["apply_rotary_pos_emb"] = right

    attention.forward = wrong_forward


def capture(model, inputs, path):
    with torch.no_grad(), porting.ActivationCollector(model, path):
        model(**inputs)
    return path


def main():
    pipe = demo.smollm2_pipeline()
    inputs = dict(pipe.tokenizer(demo.PROMPT, return_tensors="pt"))
    with tempfile.TemporaryDirectory() as folder:
        reference = capture(pipe.model, inputs, os.path.join(folder, "reference.capture"))
        break_layer(pipe.model)
        port = capture(pipe.model, inputs, os.path.join(folder, "port.capture"))
        started, worked = time.perf_counter(), time.process_time()
        report = porting.compare(reference, port, mode="both")
        took, worked = time.perf_counter() - started, time.process_time() - worked
    print(f"first divergence: {report.first_divergence.name}")
    print(f"last good:        {report.last_good.name}")
    print(f"cause:            {report.cause}")
    print(f"compared, located and named in {took:.1f} s ({worked:.1f} s of processor time)\n")
    print("error of the layers' outputs, relative to their size (the wrong one and those after it carry it on):")
    for row in report.rows:
        if row.module.startswith("model.layers.") and row.module.count(".") == 2:
            print(f"  {row.module:<16} {row.metrics['rel_l2'] if 'rel_l2' in row.metrics else row.metrics['max_abs']:.3g}")


if __name__ == "__main__":
    main()
