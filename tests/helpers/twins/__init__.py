"""The methods' generators in plain torch.nn, written from descriptions of the public ports."""

import torch


def drawn(network, seed=0, gain=1.4):
    """The network with random weights and statistics under which signals keep their size."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            continue
        values = torch.randn(value.shape, generator=generator)
        if value.dim() > 1:
            values *= gain / value[0].numel() ** 0.5
        elif name.endswith("running_var"):
            values = values.abs() + 0.5
        elif name.endswith("weight"):
            values = 1 + 0.2 * values
        else:
            values *= 0.1
        value.copy_(values)
    return network
