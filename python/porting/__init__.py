"""Find the layer where a port of a PyTorch model goes wrong, and why."""
