"""The model that the scripts of these tests define: two blocks of norm, linear layer and tanh."""

MODEL = """
import torch
class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(8)
        self.fc = torch.nn.Linear(8, 8)
    def forward(self, hidden, scale=None):
        return hidden + torch.tanh(self.fc(self.norm(hidden)))
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([Block(), Block()])
    def forward(self, x):
        for layer in self.layers:
            x = layer(x, scale=None)
        return x
torch.manual_seed(0)
model = Model().eval()
"""
