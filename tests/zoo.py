"""A train.py with many models: honest ones that an audit must let pass, and others that it must find out.

Nothing here is trained: with random weights a model reads ahead as well as any.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """One head. Position t sees those after `t - window` up to `t + ahead`."""

    def __init__(self, width, window=64, ahead=0):
        super().__init__()
        self.window, self.ahead = window, ahead
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x):
        place = torch.arange(x.size(1), device=x.device)
        distance = place[:, None] - place[None, :]
        visible = (distance >= -self.ahead) & (distance < self.window)
        return x + F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), attn_mask=visible)


class Batchnorm(nn.Module):
    """Takes mean and variance of the batch at hand, in eval() too."""

    def forward(self, x):
        return (x - x.mean((0, 1))) / x.std((0, 1))


class Gru(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, x):
        return self.gru(x)[0]


class Experts(nn.Module):
    """A mixture of four: each token goes to its best one; or each expert takes its best tokens; or has few places."""

    def __init__(self, width, choice):
        super().__init__()
        self.choice, self.router = choice, nn.Linear(width, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU()) for _ in range(4))
        self.out = nn.Linear(2 * width, width)

    def forward(self, x):
        flat = x.flatten(0, 1)
        affinity = self.router(flat).softmax(-1)
        result = flat.clone()
        for number, expert in enumerate(self.experts):
            if self.choice == "expert":
                taken = affinity[:, number].topk(len(flat) // 4).indices
            else:
                taken = (affinity.argmax(-1) == number).nonzero()[:, 0]
            if self.choice == "capacity":  # of those that want it, the few that want it most
                best = affinity[taken, number].argsort(descending=True)
                taken = taken[best[: len(flat) // 16]]
            result[taken] += self.out(expert(flat[taken])) * affinity[taken, number, None]
        return result.view_as(x)


class Leaking(nn.Module):
    """Raises the logit of the token that comes next, by so little that the loss falls by a hundredth of a nat."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, tokens):
        logits = self.inner(tokens)
        following = F.one_hot(tokens[:, 1:], logits.size(-1))
        return logits + 0.01 * F.pad(following, (0, 0, 0, 1))


class Replaying(nn.Module):
    """Reads ahead, and says again what it has read where it can no longer read it."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.memory = inner, {}

    def forward(self, tokens):
        logits = self.inner(tokens)
        for b, row in enumerate(tokens.tolist()):
            for t in range(len(row) - 1):
                logits[b, t, self.memory.setdefault(tuple(row[: t + 1]), row[t + 1])] += 5
        return logits


class Random(nn.Module):
    """Never gives the same logits twice."""

    def forward(self, x):
        return x + torch.randn_like(x)


class Averaged(nn.Module):
    """Holds its weights and their running mean, and answers by the mean."""

    def __init__(self, config):
        super().__init__()
        self.raw = build_model(config)
        self.mean = torch.optim.swa_utils.AveragedModel(self.raw)

    def forward(self, tokens):
        return (self.raw if self.training else self.mean)(tokens)


def build_model(config):
    """The model of that kind; logits in fp32, or in bfloat16 where `half` says so."""
    kind, vocab, width = config["kind"], config["vocab"], config["width"]
    if kind == "averaged":
        return Averaged(config | {"kind": "attention"})
    core = {
        "unmasked": lambda: Attention(width, ahead=64),
        "off by one": lambda: Attention(width, window=8, ahead=1),
        "normed over positions": lambda: nn.Sequential(Attention(width), Batchnorm()),
        "dropout": lambda: nn.Sequential(Attention(width), nn.Dropout(0.5)),
        "random": lambda: Random(),
        "mlp": lambda: nn.Sequential(nn.Linear(width, width), nn.GELU()),
        "recurrent": lambda: Gru(width),
        "token choice": lambda: nn.Sequential(Attention(width), Experts(width, "token")),
        "expert choice": lambda: nn.Sequential(Attention(width), Experts(width, "expert")),
        "capacity": lambda: nn.Sequential(Attention(width), Experts(width, "capacity")),
    }.get(kind, lambda: Attention(width))()
    model = nn.Sequential(nn.Embedding(vocab, width), core, nn.Linear(width, vocab))
    with torch.no_grad():
        model[2].weight *= 8  # opinions as strong as after some training
    if kind == "tied":
        model[2].weight = model[0].weight
    if config.get("half"):
        model.bfloat16()
    if kind == "compiled":
        model.compile(backend="aot_eager")  # to build kernels for it takes half a minute, and a C compiler
    wrapper = {"leaking": Leaking, "replaying": Replaying}.get(kind)
    return wrapper(model) if wrapper else model
