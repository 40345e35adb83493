"""Train one small language model for a fixed budget. This is the one file that a researcher edits.

Top to bottom: hyperparameters, model, optimizers, training. `prepare.py` owns data, clock and seed; the
harness scores the checkpoint in another process, through `build_model(config)` alone.

A hyperparameter is `NAME = literal` or `NAME = pick(gpu=literal, cpu=literal)`. The comment above says what it
is and, in brackets, the range that may be searched.
"""

import ctypes
import gc
import math
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

from prepare import CONTEXT, DEVICE, SEED, VOCAB_SIZE, batches, fake_batch, log, pick, save_checkpoint

# --- hyperparameters: model -------------------------------------------------------------------------------

# Number of transformer blocks. [gpu 4..24 int, cpu 1..6 int]
DEPTH = pick(gpu=9, cpu=1)
# Model width is DEPTH * ASPECT, rounded up to whole heads. [gpu 32..128 int, cpu 16..192 int]
ASPECT = pick(gpu=57, cpu=64)
# Channels of one attention head. [gpu 64 | 128 | 256, cpu 16 | 32 | 64]
HEAD_DIM = pick(gpu=128, cpu=64)
# Hidden channels of the MLP, as a multiple of the width. [2..6 int]
MLP_RATIO = 4
# Attention windows of the blocks in turn: S short, L all; the last block is always L. [gpu SSSL | SSSSL | L]
WINDOWS = pick(gpu="SSSSL", cpu="L")
# Short window as a share of the context. [gpu 0.0625 | 0.125 | 0.25 | 0.5]
SHORT_WINDOW = 0.125
# Base of the rotary frequencies: larger sees farther apart. [1000.0..1000000.0 log]
ROPE_BASE = pick(gpu=200_000.0, cpu=10_000.0)
# Logits are squashed to +- this by tanh; 0 is off (it costs time). [0.0 | 15.0 | 30.0]
SOFTCAP = pick(gpu=15.0, cpu=0.0)
# Which blocks mix a second embedding of the token into their values. [none | alternate | all]
VALUE_EMBEDDINGS = "alternate"
# Initial strength of the path from the first embedding into every block. [0.0..0.3]
SKIP_INIT = pick(gpu=0.05, cpu=0.1)
# Scale of the uniform initial weights, in units of sqrt(3 / width). [0.3..2.0 log]
INIT_SCALE = pick(gpu=0.68, cpu=1.0)

# --- hyperparameters: training ----------------------------------------------------------------------------

# Tokens of one optimizer step. [gpu 65536 | 131072 | 262144 | 524288, cpu 1024 | 2048 | 4096 | 8192]
TOKENS_PER_STEP = pick(gpu=262_144, cpu=2_048)
# Rows are cut to this length for training; must divide CONTEXT. [gpu 1024 | 2048, cpu 64 | 128 | 256]
TRAIN_CONTEXT = pick(gpu=2_048, cpu=128)
# Learning rate of the matrices (Muon). [0.005..0.2 log]
MATRIX_LR = 0.04
# Learning rate of token and value embeddings (AdamW), at width 768; goes with 1/sqrt(width). [0.05..2.0 log]
EMBEDDING_LR = pick(gpu=0.9, cpu=0.6)
# Learning rate of the head (AdamW), at width 768; goes with 1/sqrt(width). [0.0005..0.05 log]
HEAD_LR = pick(gpu=0.005, cpu=0.004)
# Learning rate of the skip scalars (AdamW); the residual scalars get 1/100 of it. [0.05..2.0 log]
SCALAR_LR = 0.5
# Weight decay of the matrices at the start; it falls linearly to 0. [0.0..0.5]
WEIGHT_DECAY = 0.2
# Weight decay of the head. [0.0..0.1]
HEAD_DECAY = pick(gpu=0.01, cpu=0.0)
# Weight decay of the token embedding. [0.0..0.02]
EMBEDDING_DECAY = pick(gpu=0.001, cpu=0.0)
# Weight decay of the value embeddings. [0.0..0.02]
VALUE_DECAY = pick(gpu=0.003, cpu=0.0)
# AdamW's decay of the gradient's mean. [0.6..0.95]
ADAM_BETA1 = 0.8
# AdamW's decay of the gradient's square. [0.9..0.999]
ADAM_BETA2 = pick(gpu=0.95, cpu=0.99)
# Muon's momentum once warm; it starts at 0.85. [0.85..0.99]
MUON_MOMENTUM = 0.95
# Steps over which Muon's momentum warms up. [1..600 log int]
MOMENTUM_WARMUP = 200
# Last share of the budget, over which every learning rate falls linearly. [0.1..1.0]
COOLDOWN = pick(gpu=0.75, cpu=0.5)
# Share of the learning rate that is left at the end. [0.0..0.2]
LR_FLOOR = pick(gpu=0.05, cpu=0.0)
# Number type of activations and of most arithmetic; weights stay in fp32.
COMPUTE_TYPE = "bfloat16"
# Channels that a value gate looks at.
GATE_CHANNELS = 32

# --- model ------------------------------------------------------------------------------------------------


def norm(x):
    """RMSNorm without weights."""
    return F.rms_norm(x, (x.size(-1),))


class Linear(nn.Linear):
    """Without bias; weights are kept in fp32 for the optimizer and used in the activations' type."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype))


def rotate(x, cos, sin):
    """Turn pairs of channels of x [B, T, H, D] by their position's angle; cos and sin are [T, 1, D/2]."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


def band(length, window, device):
    """True where query i may see key j: j in (i - window, i]. [T, T]"""
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < window)


class Attention(nn.Module):
    """Causal self-attention over the whole row or a window of it."""

    def __init__(self, config, has_value_embedding, window):
        super().__init__()
        width, self.head_dim = config["width"], config["head_dim"]
        self.heads, self.window = width // self.head_dim, window
        self.q, self.k, self.v = Linear(width, width), Linear(width, width), Linear(width, width)
        self.out = Linear(width, width)
        self.gate = Linear(min(config["gate_channels"], width), self.heads) if has_value_embedding else None
        self.windowed = None  # set by `use_flex_attention`

    def forward(self, x, value, cos, sin):
        B, T, C = x.shape
        q, k, v = (project(x).view(B, T, self.heads, self.head_dim) for project in (self.q, self.k, self.v))
        if self.gate is not None:
            # ResFormer's value residual, in the form of a second embedding; the gate starts at 1.
            gate = 2 * torch.sigmoid(self.gate(x[..., : self.gate.in_features]))
            v = v + gate.unsqueeze(-1) * value.view(B, T, self.heads, self.head_dim)
        # Normed queries and keys keep the attention logits bounded, whatever the learning rate.
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self.window >= T:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.training and self.windowed is not None:
            y = self.windowed(q, k, v)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=band(T, self.window, x.device))
        return self.out(y.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    """Squared ReLU (Primer): sparse, and better than GELU at this size."""

    def __init__(self, config):
        super().__init__()
        hidden = config["mlp_ratio"] * config["width"]
        self.up, self.down = Linear(config["width"], hidden), Linear(hidden, config["width"])

    def forward(self, x):
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    """Attention, then MLP, each added to the stream."""

    def __init__(self, config, has_value_embedding, window):
        super().__init__()
        self.attention, self.mlp = Attention(config, has_value_embedding, window), MLP(config)

    def forward(self, x, value, cos, sin):
        x = x + self.attention(norm(x), value, cos, sin)
        return x + self.mlp(norm(x))


class Model(nn.Module):
    """tokens int64 [B, T] -> logits [B, T, vocab], fp32 or in the compute type. T is at most config["context"]."""

    def __init__(self, config):
        super().__init__()
        self.config, depth, width = config, config["depth"], config["width"]
        self.compute_type = getattr(torch, config["compute_type"])
        which = config["value_embeddings"]
        has_value = [which == "all" or (which == "alternate" and (depth - 1 - i) % 2 == 0) for i in range(depth)]
        short = max(1, int(config["context"] * config["short_window"]))
        pattern = config["windows"]
        windows = [short if pattern[i % len(pattern)] == "S" else config["context"] for i in range(depth)]
        windows[-1] = config["context"]
        self.embedding = nn.Embedding(config["vocab"], width)
        self.values = nn.ModuleDict(
            {str(i): nn.Embedding(config["vocab"], width) for i in range(depth) if has_value[i]}
        )
        self.blocks = nn.ModuleList([Block(config, has_value[i], windows[i]) for i in range(depth)])
        self.head = Linear(width, config["vocab"])
        # Each block reads residual * x + skip * (first embedding): both strengths are learned.
        self.residual = nn.Parameter(torch.ones(depth))
        self.skip = nn.Parameter(torch.full((depth,), float(config["skip_init"])))
        self.init_weights()
        half = config["head_dim"] // 2
        frequency = config["rope_base"] ** (-torch.arange(half, dtype=torch.float32) / half)
        angle = torch.outer(torch.arange(config["context"], dtype=torch.float32), frequency)
        self.register_buffer("cos", angle.cos()[:, None, :].to(self.compute_type), persistent=False)
        self.register_buffer("sin", angle.sin()[:, None, :].to(self.compute_type), persistent=False)

    @torch.no_grad()
    def init_weights(self):
        bound = self.config["init_scale"] * math.sqrt(3 / self.config["width"])
        nn.init.normal_(self.embedding.weight)
        nn.init.normal_(self.head.weight, std=0.001)
        for table in self.values.values():
            nn.init.uniform_(table.weight, -bound, bound)
        for block in self.blocks:
            for layer in (block.attention.q, block.attention.k, block.attention.v, block.mlp.up):
                nn.init.uniform_(layer.weight, -bound, bound)
            # What a block adds starts at zero, so the signal passes a deep model unchanged.
            for layer in (block.attention.out, block.mlp.down, block.attention.gate):
                if layer is not None:
                    nn.init.zeros_(layer.weight)
        if self.compute_type == torch.bfloat16 and self.config["half_embeddings"]:
            for table in (self.embedding, *self.values.values()):
                table.to(torch.bfloat16)  # half the memory traffic of the largest tensors

    def forward(self, tokens):
        T = tokens.size(1)
        cos, sin = self.cos[:T], self.sin[:T]
        x = first = norm(self.embedding(tokens).to(self.compute_type))
        for i, block in enumerate(self.blocks):
            value = self.values[str(i)](tokens).to(self.compute_type) if str(i) in self.values else None
            x = self.residual[i].to(x.dtype) * x + self.skip[i].to(x.dtype) * first
            x = block(x, value, cos, sin)
        logits = self.head(norm(x))
        cap = self.config["softcap"]
        return cap * torch.tanh(logits.float() / cap) if cap > 0 else logits


def build_model(config):
    """The model that `config` describes, with fresh weights from torch's random state. Reads nothing else."""
    return Model(config)


def model_config():
    """The hyperparameters above as the flat dict that `build_model` needs."""
    return {
        "vocab": VOCAB_SIZE, "context": CONTEXT, "depth": DEPTH,
        "width": -(-DEPTH * ASPECT // HEAD_DIM) * HEAD_DIM, "head_dim": HEAD_DIM, "mlp_ratio": MLP_RATIO,
        "windows": WINDOWS, "short_window": SHORT_WINDOW, "rope_base": ROPE_BASE, "softcap": SOFTCAP,
        "value_embeddings": VALUE_EMBEDDINGS, "gate_channels": GATE_CHANNELS, "skip_init": SKIP_INIT,
        "init_scale": INIT_SCALE, "compute_type": COMPUTE_TYPE, "half_embeddings": DEVICE == "cuda",
    }  # fmt: skip


# --- optimizers -------------------------------------------------------------------------------------------

# Polar Express (Amsel et al. 2025): odd quintics a x + b x^3 + c x^5, each the best for the interval that the
# one before leaves, so that five of them send all singular values near 1. With a margin of 2 % for bf16.
POLAR_EXPRESS = (
    (8.15655, -22.48329, 15.87877),
    (4.04293, -2.80892, 0.50002),
    (3.89167, -2.77248, 0.50606),
    (3.28575, -2.36813, 0.46449),
    (2.34654, -1.70978, 0.42324),
)


def orthogonalise(g):
    """The nearest orthogonal matrix of each of g [N, rows, cols], rows <= cols, about: U V^T of its SVD."""
    x = g.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


def muon_update(weight, grad, momentum, second, lr, beta, decay):
    """One Muon step on a stack of matrices [N, rows, cols], in place.

    Nesterov momentum, orthogonalised (Jordan 2024); each neuron's update scaled by its own running size, the
    whole kept at its size (NorMuon, Li et al. 2025); decay only where it does not undo the update (cautious).
    """
    momentum.lerp_(grad, 1 - beta)
    update = grad.lerp(momentum, beta)
    tall = update.size(-2) > update.size(-1)
    update = orthogonalise(update.mT if tall else update)
    update = (update.mT if tall else update).float()
    size = update.square().mean(dim=-1 if grad.size(-2) >= grad.size(-1) else -2, keepdim=True)
    second.lerp_(size, 0.05)
    scale = second.clamp_min(1e-10).rsqrt()
    after = (size * scale.square()).mean(dim=(-2, -1), keepdim=True).clamp_min(1e-10)
    kept = size.mean(dim=(-2, -1), keepdim=True) / after
    update = update * (scale * kept.sqrt())
    weight.sub_(lr * update + lr * decay * weight * ((update * weight) >= 0))


class Muon:
    """Muon over matrices; those of one shape are stacked, so that one call steps them all."""

    def __init__(self, matrices, update):
        self.update, self.groups = update, []
        for shape in dict.fromkeys(p.shape for p in matrices):
            same = [p for p in matrices if p.shape == shape]
            rows, cols = shape
            momentum = same[0].new_zeros(len(same), rows, cols)
            second = same[0].new_zeros((len(same), rows, 1) if rows >= cols else (len(same), 1, cols))
            self.groups.append((same, momentum, second, math.sqrt(max(1, rows / cols))))

    @torch.no_grad()
    def step(self, lr, beta, decay):
        # Numbers that change go into a compiled update as tensors, else each would be compiled anew.
        number = float if self.update is muon_update else torch.tensor
        for same, momentum, second, stretch in self.groups:
            weight, grad = torch.stack(same), torch.stack([p.grad for p in same])
            self.update(weight, grad, momentum, second, number(lr * stretch), number(beta), number(decay))
            torch._foreach_copy_(same, list(weight.unbind()))


def make_optimizers(model, update=muon_update):
    """AdamW for what is looked up, for scalars and for the head; Muon for the matrices between."""
    by_width = (768 / model.config["width"]) ** 0.5

    def group(parameters, lr, decay=0.0, beta1=ADAM_BETA1):
        return dict(params=list(parameters), lr=lr, full_lr=lr, betas=(beta1, ADAM_BETA2), weight_decay=decay)

    groups = [
        group(model.embedding.parameters(), EMBEDDING_LR * by_width, EMBEDDING_DECAY),
        group(model.values.parameters(), EMBEDDING_LR * by_width, VALUE_DECAY),
        group(model.head.parameters(), HEAD_LR * by_width, HEAD_DECAY),
        group([model.residual], SCALAR_LR * 0.01),
        group([model.skip], SCALAR_LR, beta1=0.96),
    ]
    adamw = torch.optim.AdamW([g for g in groups if g["params"]], eps=1e-10, fused=True)
    return adamw, Muon(list(model.blocks.parameters()), update)


# --- training ---------------------------------------------------------------------------------------------


def lr_share(progress):
    """Of every learning rate: 1, then linearly down to LR_FLOOR over the last COOLDOWN of the budget."""
    left = min(1.0, (1 - progress) / COOLDOWN)
    return left + (1 - left) * LR_FLOOR


def mean_loss(model, tokens, targets):
    """In nats. Compiled as one with the model, the logits are never held in fp32."""
    return F.cross_entropy(model(tokens).flatten(0, 1).float(), targets.flatten())


def accumulate(objective, model, x, y, micro):
    """Add up the gradient of the mean loss, `micro` rows at a time. Returns that loss, still on the device."""
    total = torch.zeros((), device=DEVICE)
    for start in range(0, len(x), micro):
        tokens, targets = (part[start : start + micro].to(DEVICE, non_blocking=True) for part in (x, y))
        loss = objective(model, tokens, targets) * (micro / len(x))
        loss.backward()
        total += loss.detach()
    return total


def step_optimizers(model, adamw, muon, step, progress):
    """One step of both, by the schedules of learning rate, momentum and decay."""
    share = lr_share(progress)
    for group in adamw.param_groups:
        group["lr"] = group["full_lr"] * share
    adamw.step()
    beta = 0.85 + (MUON_MOMENTUM - 0.85) * min(1.0, step / MOMENTUM_WARMUP)
    muon.step(MATRIX_LR * share, beta, WEIGHT_DECAY * (1 - progress))
    model.zero_grad(set_to_none=True)


def cut(x, y):
    """Rows of CONTEXT as rows of TRAIN_CONTEXT."""
    return x.view(-1, TRAIN_CONTEXT), y.view(-1, TRAIN_CONTEXT)


def divisor(rows, most):
    """The largest divisor of `rows` that is not above `most`; at least 1."""
    return max(d for d in range(1, rows + 1) if rows % d == 0 and d <= max(1, most))


def first_micro(config):
    """Rows of a micro-batch that should fit: by free memory on a GPU, in 1 GiB on a CPU."""
    per_token = config["depth"] * config["width"] * (24 + 4 * config["mlp_ratio"]) + config["vocab"] * 10
    free = torch.cuda.mem_get_info()[0] if DEVICE == "cuda" else 2**30
    return divisor(TOKENS_PER_STEP // TRAIN_CONTEXT, free // (per_token * TRAIN_CONTEXT))


def use_flex_attention(model):
    """Give the blocks with a short window a kernel that skips what it masks; it must be compiled."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def kernel(window):
        def visible(_batch, _head, query, key):
            return (query >= key) & (query - key < window)

        mask = create_block_mask(visible, None, None, TRAIN_CONTEXT, TRAIN_CONTEXT, device=DEVICE)
        return lambda q, k, v: flex_attention(q, k, v, block_mask=mask)

    kernels = {}
    for attention in (block.attention for block in model.blocks):
        if attention.window < TRAIN_CONTEXT:
            if attention.window not in kernels:
                kernels[attention.window] = kernel(attention.window)
            attention.windowed = kernels[attention.window]


def rehearse(model, way, micro):
    """Compile, and take one whole step on random tokens: raises if this way does not work or memory is short."""
    objective, update = mean_loss, muon_update
    if way != "eager":
        torch._dynamo.reset()
        objective, update = torch.compile(mean_loss, dynamic=False), torch.compile(muon_update, dynamic=False)
    if way == "flex":
        use_flex_attention(model)
    x, y = cut(*fake_batch(TOKENS_PER_STEP // CONTEXT))
    accumulate(objective, model, x[: 2 * micro], y[: 2 * micro], micro)
    step_optimizers(model, *make_optimizers(model, update), 0, 0.0)
    torch.cuda.synchronize()
    return objective, update


def warm_up(model):
    """Off the clock: compile, and find how many rows fit. Leaves weights and random state as they were.

    Falls back to fewer rows if memory runs out; else to attention by mask, then to no compilation at all.
    Returns the objective, muon's update and the rows of a micro-batch.
    """
    micro, ways = first_micro(model.config), ["flex", "compiled", "eager"]
    if DEVICE != "cuda":
        return mean_loss, muon_update, micro
    weights = [p.detach().clone() for p in model.parameters()]
    random_states = torch.get_rng_state(), torch.cuda.get_rng_state()
    found = None
    while found is None:
        try:
            found = rehearse(model, ways[0], micro)
        except Exception as error:  # what compilers raise has no common base
            if "out of memory" in str(error).lower() and micro > 1:
                micro = divisor(TOKENS_PER_STEP // TRAIN_CONTEXT, micro // 2)
            elif len(ways) > 1:
                print(f"{ways.pop(0)} does not work here, trying {ways[0]}: {error}")
            else:
                raise
        if found is None:  # outside `except`: the error's frames hold tensors
            for block in model.blocks:
                block.attention.windowed = None
            model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
    with torch.no_grad():
        torch._foreach_copy_(list(model.parameters()), weights)
    torch.set_rng_state(random_states[0])
    torch.cuda.set_rng_state(random_states[1])
    torch.cuda.reset_peak_memory_stats()
    return *found, micro


# Dense bf16 operations a second, by what the device's name contains.
PEAK_FLOPS = {
    "B200": 2.25e15, "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "A100": 312e12,
    "L40S": 362e12, "L4": 121e12, "A10": 125e12, "RTX 5090": 209e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip


def device_numbers(model, tokens_per_second):
    """What to log of a GPU: peak memory and, where its peak is known, the share of it that is used (MFU, %)."""
    if DEVICE != "cuda":
        return {}
    numbers = {"peak_memory_mb": torch.cuda.max_memory_allocated() / 2**20}
    name = f" {torch.cuda.get_device_name()} ".replace("-", " ")
    peak = next((flops for part, flops in PEAK_FLOPS.items() if f" {part} " in name), None)
    if peak is not None:
        looked_up = sum(table.weight.numel() for table in (model.embedding, *model.values.values()))
        matrices = sum(p.numel() for p in model.parameters()) - looked_up
        seen = sum(min(block.attention.window, TRAIN_CONTEXT) for block in model.blocks)
        flops = 6 * matrices + 12 * model.config["width"] * seen  # of one token, forward and backward
        numbers["mfu"] = 100 * tokens_per_second * flops / peak
    return numbers


def train(model):
    """Steps until the budget is spent."""
    objective, update, micro = warm_up(model)
    adamw, muon = make_optimizers(model, update)
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection in mid-step can cost as much as a step
    began, logged, waiting = time.monotonic(), -1.0, []
    for step, (x, y, progress) in enumerate(batches(TOKENS_PER_STEP)):
        if DEVICE == "cuda":
            x, y = x.pin_memory(), y.pin_memory()
        waiting.append(accumulate(objective, model, *cut(x, y), micro))
        step_optimizers(model, adamw, muon, step, progress)
        # A GPU works on this step while the loss of the one before is read, so that it never waits for us.
        while len(waiting) > (DEVICE == "cuda"):
            loss = finite(waiting.pop(0), step)
        if step and progress - logged >= 0.01:
            logged, speed = progress, (step + 1) * TOKENS_PER_STEP / (time.monotonic() - began)
            log(step=step, loss=loss, progress=progress, tokens_per_second=speed, **device_numbers(model, speed))
    for loss in waiting:
        finite(loss, step)


def finite(loss, step):
    """The loss as a number. What is not finite will never be again."""
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"loss is not finite at step {step}")
    return value


def keep_freed_memory():
    """Have the C library keep large blocks that are freed: to fault them in anew took half of each step."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    mallopt(-4, 0)  # M_MMAP_MAX: no block is a mapping of its own
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nothing goes back


def main():
    """Build, train, save."""
    torch.manual_seed(SEED)
    torch.set_flush_denormal(True)  # tiny numbers cost a CPU a hundred times the time of others
    if DEVICE == "cpu":
        torch.set_num_threads(1)  # several trials run side by side, and one thread repeats bit by bit
        keep_freed_memory()
    torch.set_float32_matmul_precision("high")
    config = model_config()
    model = build_model(config).to(DEVICE)
    train(model)
    save_checkpoint(model, config)


if __name__ == "__main__":
    main()
