"""What tests of more than one part need."""
import pytest


@pytest.fixture(scope="session")
def llama_capture(tmp_path_factory):
    """The path of the capture of a tiny random Llama that generates four tokens, so that every module has four calls."""
    import porting
    import torch
    import transformers

    torch.manual_seed(3)
    config = transformers.LlamaConfig(vocab_size=64, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
                                      num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)  # from 0.02, where SiLU and its neighbours are nearly one line
    path = tmp_path_factory.mktemp("capture") / "llama.capture"
    with porting.ActivationCollector(model, path), torch.no_grad():
        model.generate(torch.arange(7)[None], max_new_tokens=4, do_sample=False, pad_token_id=0)
    return str(path)
