"""A folder with a Transformers checkpoint, as a model and inputs to capture it with. Nothing is fetched from anywhere."""
from __future__ import annotations

import os
from typing import Any

from .._core import PortingError, UnsupportedError

TOKENS = 24


def is_checkpoint(path: Any) -> bool:
    """True for a folder with a config.json that is no capture."""
    return isinstance(path, (str, os.PathLike)) and os.path.isfile(os.path.join(path, "config.json")) and not os.path.exists(os.path.join(path, "MANIFEST.json"))


def load(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Any]]:
    """(the model in eval mode with its weights as stored, keyword arguments for one call).

    The inputs are tokens or an image made of a counter: what is verified is what the model computes, not what it says.
    Raises UnsupportedError without transformers, and PortingError where no input can be made: capture such a model yourself.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UnsupportedError(f"{os.fspath(path)} is a checkpoint of Transformers, which is not installed: {error}") from None
    config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
    names = getattr(config, "architectures", None) or []
    kind = getattr(transformers, names[0], None) if names else None
    model = (kind or transformers.AutoModel).from_pretrained(path, local_files_only=True).eval()
    main = getattr(model, "main_input_name", "input_ids")
    if main == "input_ids":
        vocabulary = config.get_text_config().vocab_size
        ids = (torch.arange(TOKENS) * 7919 + 11).remainder(vocabulary)[None]
        return model, {"input_ids": ids, **({"decoder_input_ids": ids.flip(1)} if config.is_encoder_decoder else {})}
    size, channels = getattr(config, "image_size", 224), getattr(config, "num_channels", 3)
    if main == "pixel_values" and isinstance(size, int) and isinstance(channels, int):
        image = torch.arange(channels * size * size).remainder(251).sub(125).div(125).reshape(1, channels, size, size)
        return model, {"pixel_values": image}
    raise PortingError(f"{os.fspath(path)}: no input is known for a model whose main input is {main}; capture it and describe the capture")
