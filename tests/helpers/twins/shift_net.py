"""Shift-Net: U-Net with shift connection, its mirrored form for faces, its discriminator."""

import torch
import torch.nn.functional as F
from torch import nn

WIDTHS = (1, 2, 4, 8, 8, 8, 8, 8)


def normalisation(kind, channels):
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.InstanceNorm2d(channels, affine=True)


class UNet(nn.Module):
    """e1 ... e8 halve, d1 ... d8 double; the ReLU after joining acts on decoder and skip."""

    def __init__(self, width, inputs, *, face=False, norm="instance"):
        super().__init__()
        widths = [width * times for times in WIDTHS]
        self.face = face
        before = inputs
        for i, after in enumerate(widths, 1):
            kernel, padding = (6, 2) if face and i == 3 else (4, 1)
            self.add_module(f"e{i}", nn.Conv2d(before, after, kernel, 2, padding))
            if 1 < i < 8:
                self.add_module(f"e{i}_norm", normalisation(norm, after))
            before = after
        for i in range(1, 9):
            before = widths[8 - i] * (1 if i == 1 else 3 if i == 6 else 2)
            after = widths[7 - i] if i < 8 else 3
            self.add_module(f"d{i}", nn.ConvTranspose2d(before, after, 4, 2, 1))
            if i < 8:
                self.add_module(f"d{i}_norm", normalisation(norm, after))

    def encode(self, x, levels=8):
        """Raw maps of the levels; each level sees the leaky ReLU of the one before."""
        maps = []
        for i in range(1, levels + 1):
            x = self.get_submodule(f"e{i}")(x if i == 1 else F.leaky_relu(x, 0.2))
            if 1 < i < 8:
                x = self.get_submodule(f"e{i}_norm")(x)
            maps.append(x)
        return maps

    def forward(self, x, hole, mirror=None):
        skips = self.encode(x)
        y = F.relu(skips.pop())
        for i in range(1, 9):
            y = self.get_submodule(f"d{i}")(y)
            if i == 8:
                return y.tanh()
            y = self.get_submodule(f"d{i}_norm")(y)
            skip = skips.pop()
            if y.shape[2:] != skip.shape[2:]:
                y = F.interpolate(y, skip.shape[2:], mode="bilinear")
            y = F.relu(torch.cat([y, skip], 1))
            if i == 5:
                y = self.shifted(y, x, hole, mirror)
        raise AssertionError

    def shifted(self, y, x, hole, mirror):
        cells = F.interpolate(hole, (hole.shape[2] // 8, hole.shape[3] // 8)) > 0
        shifts = []
        for at in range(len(y)):
            decoder, encoder = y[at].chunk(2)
            missing = cells[at % len(cells), 0]
            if mirror is None:
                shifts.append(shift(decoder, encoder, missing))
            else:
                turned = self.encode(x[at : at + 1].flip(3), 3)[-1].relu()[0]
                shifts.append(mirrored_shift(decoder, encoder, turned, missing, mirror))
        return torch.cat([y, torch.stack(shifts)], 1)


def cosines(queries, keys):
    """(Q, C) and (K, C) to (Q, K); 0 for zero vectors, where the PyTorch port gives NaN."""
    lengths = queries.norm(dim=1)[:, None].clamp_min(1e-8) * keys.norm(dim=1).clamp_min(1e-8)
    return queries @ keys.T / lengths


def shift(decoder, encoder, missing):
    """(C, h, w) of the best known encoder position for each missing one."""
    d, e, hole = decoder.flatten(1).T, encoder.flatten(1).T, missing.flatten()
    known = (~hole).nonzero()[:, 0]
    result = torch.zeros_like(e)
    result[hole] = e[known[cosines(d[hole], e[known]).argmax(1)]]
    return result.T.view_as(encoder)


def mirrored_shift(decoder, encoder, turned, missing, rule):
    """As `shift`, with the mirrored picture's feature as a second source.

    "port" follows the public code cell by cell: which of two lists of rows a loop over pairs of
    indices fills, one row of ones for each missing position.
    """
    d, e, m = (t.flatten(1).T for t in (decoder, encoder, turned))
    hole, hole_turned = missing.flatten(), missing.flip(1).flatten()
    known, known_turned = (~hole).nonzero()[:, 0], (~hole_turned).nonzero()[:, 0]
    own = cosines(d[hole], e[known])
    other = cosines(d[hole if rule == "exact" else hole_turned], m[known_turned])
    first = own.max(1).values >= other.max(1).values
    sources, sources_turned = known[own.argmax(1)], known_turned[other.argmax(1)]
    places = hole.nonzero()[:, 0]
    if rule == "exact":
        result = torch.zeros_like(e)
        result[hole] = torch.where(first[:, None], e[sources], m[sources_turned])
        return result.T.view_as(encoder)
    rows, rows_turned = (torch.zeros(len(e), len(e), dtype=e.dtype) for _ in range(2))
    for at, original in zip(places.tolist(), first.tolist()):
        if at == 0 or len(places) == 1:
            continue
        chosen = rows if original else rows_turned
        for source in (sources if original else sources_turned).tolist():
            chosen[at, source] = 1
    return PortProduct.apply(e, m, rows, rows_turned).T.view_as(encoder)


class PortProduct(torch.autograd.Function):
    """rows E + rows_turned M, with all of the gradient for E."""

    @staticmethod
    def forward(ctx, e, m, rows, rows_turned):
        ctx.save_for_backward(rows, rows_turned)
        return rows @ e + rows_turned @ m

    @staticmethod
    def backward(ctx, grad):
        rows, rows_turned = ctx.saved_tensors
        return rows.T @ grad + rows_turned.T @ grad, None, None, None


def discriminator(width, norm="instance"):
    """Logits; the port normalises the weights spectrally, which the caller leaves out."""
    layers, before = [], 3
    for i, (times, stride) in enumerate(((1, 2), (2, 2), (4, 2), (8, 1))):
        bias = i == 0 or norm == "instance"
        layers.append(nn.Conv2d(before, times * width, 4, stride, 1, bias=bias))
        layers += [normalisation(norm, times * width)] if i else []
        layers.append(nn.LeakyReLU(0.2))
        before = times * width
    return nn.Sequential(*layers, nn.Conv2d(before, 1, 4, 1, 1))


def port_state(twin):
    """The twin's generator under the public names."""
    names = {}
    for i in range(1, 9):
        for ours, layer, norm in ((f"e{i}", "c", "norm"), (f"d{i}", "dc", "norm")):
            names[ours], names[f"{ours}_norm"] = f"{ours}_{layer}", f"{ours}_{norm}"
    if not twin.face:
        deep = ["model.model.1" + ".model.3" * level for level in range(7)]
        names = {"e1": "model.model.0", "d8": "model.model.3", "e8": f"{deep[6]}.model.1"}
        names |= {"d1": f"{deep[6]}.model.3", "d1_norm": f"{deep[6]}.model.4"}
        for i in range(2, 8):
            at = 7 if i == 3 else 5
            names |= {f"e{i}": f"{deep[i - 2]}.model.1", f"e{i}_norm": f"{deep[i - 2]}.model.2"}
            names |= {f"d{9 - i}": f"{deep[i - 2]}.model.{at}"}
            names |= {f"d{9 - i}_norm": f"{deep[i - 2]}.model.{at + 1}"}
    state = twin.state_dict()
    return {
        f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": v for key, v in state.items()
    }
