"""One process of two that train a small network with its parameters sharded between them.

Called with its rank and the file the two meet at; prints the losses of torch's own layers, trained
whole, and of ours, sharded by each version of FSDP.
"""

import json
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from inpaint_ops import layers


class Net(nn.Module):
    def __init__(self, conv, norm):
        super().__init__()
        self.first = conv(3, 8, 3, padding=1)
        self.norm = norm(8, affine=True)
        self.second = conv(8, 2, 3, padding=1)

    def forward(self, x):
        return self.second(self.norm(self.first(x)).relu())


def sharded(net, version):
    cpu = torch.device("cpu")
    for name in ("first", "norm", "second"):
        if version == 1:
            setattr(net, name, FullyShardedDataParallel(getattr(net, name), device_id=cpu))
        else:
            fully_shard(getattr(net, name))
    return FullyShardedDataParallel(net, device_id=cpu) if version == 1 else fully_shard(net)


def trained(net):
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    x = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(3):
        optimiser.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def main(rank, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(4)
    plain = Net(nn.Conv2d, nn.InstanceNorm2d)
    nets = [Net(layers.FusedConv2d, layers.InstanceNorm2d) for _ in range(2)]
    for net in nets:
        net.load_state_dict(plain.state_dict())
    losses = [trained(plain)]
    losses += [trained(sharded(net, version)) for version, net in enumerate(nets, 1)]
    print(json.dumps(losses))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
