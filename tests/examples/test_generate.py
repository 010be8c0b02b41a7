"""examples/generate.py on the real model: a left-padded batch of three prompts, bit for bit."""
import os
import subprocess
import sys

EXAMPLE = os.path.join(os.path.dirname(__file__), "..", "..", "examples", "generate.py")


def test_the_example_generates_the_same_text():
    prompts = [word for text in ("Q: What is the largest animal?\nA:", "The capital of France is", "One, two,") for word in ("--prompt", text)]
    done = subprocess.run([sys.executable, EXAMPLE, "--tokens", "6", *prompts], capture_output=True, text=True, check=False,
                          env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    assert "logits bit-equal in 6 steps of 3 sequences" in done.stdout and "tokens/s: C " in done.stdout and "Paris" in done.stdout
