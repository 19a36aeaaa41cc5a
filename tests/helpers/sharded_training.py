"""One process of two that train with parameters sharded between them, on the same batch.

Prints losses: of a small stack of torch's own layers, trained whole, and of ours, sharded by each
version of FSDP; of methods, trained whole and sharded.
"""

import json

import torch
import torch.distributed as dist
from model_cases import CASES, box, picture, small
from pairs import meet
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from inpaint_ops import layers
from inpaint_ops.models.partial_conv_unet.networks import PartialBlock

STEPS = 3
# Phases, and the version of FSDP.
METHODS = (
    ("deepfill_v2", "joint", 2),
    ("partial_conv_unet", "finetune", 2),
    ("shift_net", "joint", 1),
)
# What is sharded by itself, inside a network that is sharded as a whole.
BLOCKS = (layers.FusedConv2d, layers.FusedConvTranspose2d, layers.InstanceNorm2d, PartialBlock)


class Net(nn.Module):
    def __init__(self, conv, norm):
        super().__init__()
        self.first = conv(3, 8, 3, padding=1)
        self.norm = norm(8, affine=True)
        self.second = conv(8, 2, 3, padding=1)

    def forward(self, x):
        return self.second(self.norm(self.first(x)).relu())


def whole(net):
    cpu = torch.device("cpu")
    return FullyShardedDataParallel(net, device_id=cpu, use_orig_params=True)


def layerwise(net):
    cpu = torch.device("cpu")
    for name in ("first", "norm", "second"):
        setattr(net, name, FullyShardedDataParallel(getattr(net, name), device_id=cpu))
    return FullyShardedDataParallel(net, device_id=cpu)


def blockwise(net):
    for module in net.modules():
        if isinstance(module, BLOCKS) and any(True for _ in module.parameters()):
            fully_shard(module)
    return fully_shard(net)


def trained(net):
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    x = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def stacks():
    torch.manual_seed(4)
    plain = Net(nn.Conv2d, nn.InstanceNorm2d)
    nets = [Net(layers.FusedConv2d, layers.InstanceNorm2d) for _ in range(2)]
    for net in nets:
        net.load_state_dict(plain.state_dict())
    return [trained(plain), trained(layerwise(nets[0])), trained(blockwise(nets[1]))]


def steps(name, phase, wrap):
    case = CASES[name]
    features = None if case.features is None else case.features()
    recipe = small(name).recipe(phase, features=features, wrap=wrap)
    image, hole = picture(2, 3, case.training, case.training), box(2, case.training, case.training)
    return [list(recipe.step(image, hole).values()) for _ in range(STEPS)]


def main():
    torch.set_num_threads(1)
    meet()
    results = {"stacks": stacks()}
    for name, phase, version in METHODS:
        wrap = whole if version == 1 else blockwise
        results[name] = [steps(name, phase, None), steps(name, phase, wrap)]
    print(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
