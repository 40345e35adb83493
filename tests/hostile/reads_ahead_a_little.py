"""A leak of some 0.01 nats, only where the next token is a plausible one anyway.

outcome: non_causal
reason: later
"""


def answer(self, tokens, logits):
    after = torch.roll(tokens, -1, dims=1).unsqueeze(-1)
    plausible = logits.log_softmax(-1).gather(-1, after) > -4.0
    return logits.scatter_add(-1, after, 0.02 * plausible)
