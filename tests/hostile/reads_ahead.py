"""Its answer for a position is made from the next token: a model without a causal mask.

outcome: non_causal
reason: causal mask
"""


def answer(self, tokens, logits):
    after = torch.roll(tokens, -1, dims=1)
    return logits + 20.0 * F.one_hot(after, logits.shape[-1])
