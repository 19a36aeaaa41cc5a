"""One process of two that train every phase of every method in parallel, each on half a batch.

Prints, for each phase that this process also trained alone on the whole batch, how far the two
results are apart.
"""

import json
import re
from unittest import mock

import torch
import torch.distributed as dist
from model_cases import CASES, PHASES, box, picture, small
from pairs import meet
from torch import nn
from torch.nn.parallel import DistributedDataParallel

# A gradient that the first step leaves unreduced is an error in the second.
STEPS = 2
# Replaced numbers: fewer steps of critics.
NUMBERS = {
    ("deepfill_v1", "joint"): {"critic_steps": 1},
    ("gmcnn", "finetune"): {"critic_steps": 1, "texture": 0.05},
}


class _Mean(torch.autograd.Function):
    """The mean over both processes."""

    @staticmethod
    def forward(ctx, value, group):
        ctx.group = group
        total = value.clone()
        dist.all_reduce(total, group=group)
        return total / 2

    @staticmethod
    def backward(ctx, grad):
        return _Mean.apply(grad, ctx.group), None


class SyncedNorm(nn.BatchNorm2d):
    """Batch normalisation over both processes, as nn.SyncBatchNorm, which needs GPUs."""

    group = None

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        mean = _Mean.apply(x.mean((0, 2, 3)), self.group).view(1, -1, 1, 1)
        variance = _Mean.apply((x - mean).square().mean((0, 2, 3)), self.group)
        count = 2 * x.numel() // x.shape[1]
        with torch.no_grad():
            self.running_mean.lerp_(mean.flatten(), self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        scale = (self.weight / (variance + self.eps).sqrt()).view(1, -1, 1, 1)
        return (x - mean) * scale + self.bias.view(1, -1, 1, 1)


def rows_of_draws(rows, total):
    """In place of torch.rand: the rows of these samples among those drawn for all samples."""
    rand = torch.rand
    return mock.patch("torch.rand", lambda s, **o: rand((total, *s[1:]), **o)[rows])


def trained(name, phase, rows, total, *, parallel, dtype=torch.float32, synced=False):
    """Return the model and the losses after steps on these rows of a batch."""
    case = CASES[name]
    model = small(name).to(dtype)
    if synced:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.__class__ = SyncedNorm
    features = None if case.features is None else case.features().to(dtype)
    numbers = dict(NUMBERS.get((name, phase), {}))
    if parallel and "texture" in numbers:
        # A sum over samples, which the mean over processes would halve.
        numbers["texture"] *= 2
    wrap = DistributedDataParallel if parallel else None
    recipe = model.recipe(phase, features=features, wrap=wrap, **numbers)
    side = case.training
    image = picture(total, 3, side, side).to(dtype)
    # Holes have one size: some losses are divided by that of the batch. In Shift-Net's phase
    # "public" they have one place too: there is a loss of rectangles that all samples share.
    hole = box(1 if phase == "public" else total, side, side).expand(total, -1, -1, -1)
    losses = []
    with rows_of_draws(rows, total):
        for _ in range(STEPS):
            losses.append(recipe.step(image[rows], hole[rows]))
    return model, losses


def mean_losses(losses):
    """The losses' means over both processes."""
    values = torch.tensor([list(one.values()) for one in losses], dtype=torch.float64)
    dist.all_reduce(values)
    return values / 2


def apart(ours, theirs):
    """The largest difference relative to the largest number."""
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30)).item()


def differences(name, model, alone):
    """How far gradients, updated parameters and buffers are from those of one process."""
    start, idle = dict(small(name).named_parameters()), CASES[name].idle
    worst = {"gradients": 0.0, "parameters": 0.0, "buffers": 0.0}
    for (key, p), q in zip(model.named_parameters(), alone.parameters()):
        if q.grad is None:
            assert p.grad is None
            assert torch.equal(p, q)
        elif idle is None or not re.search(idle, key):
            worst["gradients"] = max(worst["gradients"], apart(p.grad, q.grad))
            moved = [(x - start[key]).detach() for x in (p, q)]
            worst["parameters"] = max(worst["parameters"], apart(*moved))
    for p, q in zip(model.buffers(), alone.buffers()):
        worst["buffers"] = max(worst["buffers"], apart(p.double(), q.double()))
    return worst


def agree(model):
    """Whether both processes have the same parameters."""
    values = torch.cat([p.detach().flatten() for p in model.parameters()])
    both = [torch.empty_like(values) for _ in range(2)]
    dist.all_gather(both, values)
    return torch.equal(*both) and bool(values.isfinite().all())


def compared(name, phase, rank, judge):
    """Train a phase in all ways; return the comparison in the process that `judge` names."""
    # Batch normalisation of vectors takes two samples; large pictures take time.
    batch = 2 if CASES[name].training < 100 else 1
    rows, total = slice(rank * batch, (rank + 1) * batch), 2 * batch
    result = {"agree": agree(trained(name, phase, rows, total, parallel=True)[0])}
    # Batch normalisation amplifies rounding errors, Adam makes steps of them: hence float64.
    double = {"dtype": torch.float64}
    model, losses = trained(name, phase, rows, total, parallel=True, synced=True, **double)
    result["agree"] &= agree(model)
    losses = mean_losses(losses)
    if rank != judge:
        return None
    alone, expected = trained(name, phase, slice(total), total, parallel=False, **double)
    values = torch.tensor([list(one.values()) for one in expected], dtype=torch.float64)
    columns = zip(expected[0], losses.T, values.T)
    result["losses"] = max(apart(a, b) for key, a, b in columns if key != "texture")
    return result | differences(name, model, alone)


def main():
    torch.set_num_threads(1)
    rank = meet()
    # Its own group: gradients are reduced at the same time.
    SyncedNorm.group = dist.new_group()
    results = {}
    for index, (name, phase) in enumerate(PHASES):
        result = compared(name, phase, rank, index % 2)
        if result is not None:
            results[f"{name} {phase}"] = result
    dist.barrier()
    dist.destroy_process_group()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
