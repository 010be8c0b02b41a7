"""The conventions onnx and nnef, on the names that the exporters themselves wrote for this model (torch 2.13 with dynamo=False, torch_to_nnef 0.24)."""
import numpy as np
import porting
import pytest
import torch


class Attention(torch.nn.Module):
    def __init__(self, d=24):
        super().__init__()
        self.q_proj = torch.nn.Linear(d, d, bias=False)
        self.ls = torch.nn.ModuleList([torch.nn.Linear(d, d), torch.nn.Linear(d, d)])
        self.tanh, self.act, self.LayerNorm = torch.nn.Tanh(), torch.nn.GELU(), torch.nn.LayerNorm(d)
        self.mlp = torch.nn.Sequential(torch.nn.Linear(d, d), torch.nn.SiLU())

    def forward(self, x):
        return self.LayerNorm(self.act(self.tanh(self.q_proj(x))) + self.ls[0](x) + self.ls[1](x)) + self.mlp(x)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = Attention()

    def forward(self, x):
        return self.self_attn(x)


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens, self.layers = torch.nn.Embedding(9, 24), torch.nn.ModuleList([Layer(), Layer()])

    def forward(self, ids):
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x)
        return x


class Top(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model, self.lm_head = Inner(), torch.nn.Linear(24, 9)

    def forward(self, ids):
        return self.lm_head(self.model(ids))


#: module of layer k: (the exporter's names for what it returned, and for what came before that inside it)
ONNX = {
    "q_proj": ("/model/layers.{k}/self_attn/q_proj/MatMul_output_0", ()),
    "ls.0": ("/model/layers.{k}/self_attn/ls.0/Add_output_0", ("/model/layers.{k}/self_attn/ls.0/MatMul_output_0",)),
    "ls.1": ("/model/layers.{k}/self_attn/ls.1/Add_output_0", ("/model/layers.{k}/self_attn/ls.1/MatMul_output_0",)),
    "tanh": ("/model/layers.{k}/self_attn/tanh/Tanh_output_0", ()),
    "act": ("/model/layers.{k}/self_attn/act/Mul_1_output_0", tuple(f"/model/layers.{{k}}/self_attn/act/{op}_output_0" for op in ("Div", "Erf", "Add", "Mul"))),
    "LayerNorm": ("/model/layers.{k}/self_attn/LayerNorm/LayerNormalization_output_0", ("/model/layers.{k}/self_attn/Add_output_0", "/model/layers.{k}/self_attn/Add_1_output_0")),
    "mlp.0": ("/model/layers.{k}/self_attn/mlp/mlp.0/Add_output_0", ("/model/layers.{k}/self_attn/mlp/mlp.0/MatMul_output_0",)),
    "mlp.1": ("/model/layers.{k}/self_attn/mlp/mlp.1/Mul_output_0", ("/model/layers.{k}/self_attn/mlp/mlp.1/Sigmoid_output_0",)),
}
NNEF = {
    "q_proj": ("model___{k}__self_attn__q_proj__input_linear0", ("model___{k}__self_attn__q_proj__fp_tensor_clone0",)),
    "tanh": ("model___{k}__self_attn__tanh__input_tanh0", ()),
    "act": ("model___{k}__self_attn__act__gelu0", ()),
    "ls.0": ("model___{k}__self_attn___0__linear0", ()),
    "ls.1": ("model___{k}__self_attn___1__linear0", ("model___{k}__self_attn__add0",)),
    "LayerNorm": ("model___{k}__self_attn__layernorm__layer_norm0", ("model___{k}__self_attn__layernorm__fp_tensor_clone1",)),
    "mlp.1": ("model___{k}__self_attn__mlp___1__silu0", ()),
}


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    torch.manual_seed(0)
    with torch.no_grad():
        _, found = porting.ActivationCollector(Top().eval(), tmp_path_factory.mktemp("c") / "top.capture")(torch.arange(7)[None])
    yield found
    found.close()


@pytest.mark.parametrize("convention, table, embedding", [("onnx", ONNX, "/model/embed_tokens/Gather_output_0"), ("nnef", NNEF, "model__embed_tokens__embedding0")])
def test_names_that_an_exporter_wrote(capture, convention, table, embedding):
    """Every result is found, whatever the order of the names; what a module computed on the way is taken for no result."""
    port, inside = {embedding: np.array(capture["model.embed_tokens.out.0"])}, []
    for k in (0, 1):
        for module, (result, before) in table.items():
            expected = np.array(capture[f"model.layers.{k}.self_attn.{module}.out.0"])
            inside += [name.format(k=k) for name in before]
            port.update((name, np.full_like(expected, 7)) for name in inside if name not in port)  # before the result, and of its shape
            port[result.format(k=k)] = expected
    port["lm_head.weight"] = np.array(capture.parameters["lm_head.weight"])
    for order in (list(port), sorted(port), sorted(port, reverse=True)):
        report = porting.compare(capture, {name: port[name] for name in order}, names=convention, require_coverage=False)
        compared = [row for row in report.rows if row.status == "compared"]
        assert report.passed and report.num_exact == 1 + 2 * len(table) and len(compared) == 2 + 2 * len(table)
        assert sum(row.status == "extra" for row in report.rows) == len(inside)
    wrong = {**port, table["act"][0].format(k=1): port[table["act"][0].format(k=1)] * np.float32(1.01)}
    assert porting.compare(capture, wrong, names=convention, require_coverage=False).first_divergence.name == "model.layers.1.self_attn.act.out.0"
