"""Train a small model under FSDP2 with Muon, and save a checkpoint: torchrun --nproc-per-node 2 fsdp_training.py"""

import tempfile

import torch
from torch import distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from matsign.optim import Muon, param_groups


def new_model():
    torch.manual_seed(0)  # the same weights on every process
    layers = (nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32), nn.Tanh()) for _ in range(3))
    return nn.Sequential(nn.Linear(16, 32), *layers, nn.Linear(32, 8))


def train(model, optimiser, steps=20):
    """The loss of each step, over all data. A process computes with its share of the data."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    data = torch.Generator().manual_seed(1)
    x, teacher = torch.randn(64, 16, generator=data), torch.randn(16, 8, generator=data)
    x, y = x[rank::world], torch.sin(x @ teacher)[rank::world]
    losses = []
    for _ in range(steps):
        loss = (model(x) - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total = loss.detach()
        distributed.all_reduce(total, distributed.ReduceOp.SUM)
        losses.append(total.item() / world)
    return losses


def main(device, folder):
    model = new_model().to(device)
    mesh = init_device_mesh(device, (distributed.get_world_size(),))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimiser = Muon(param_groups(model, muon={"lr": 0.02}, adamw={"lr": 3e-3}))  # after fully_shard
    losses = train(model, optimiser)
    state = {"model": get_model_state_dict(model), "optimiser": get_optimizer_state_dict(model, optimiser)}
    checkpoint.save(state, checkpoint_id=folder)  # each process writes its shards
    return losses


if __name__ == "__main__":
    distributed.init_process_group("gloo")  # on GPUs "nccl", and "cuda" below
    losses = main("cpu", tempfile.gettempdir() + "/fsdp_checkpoint")
    if distributed.get_rank() == 0:
        print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    distributed.destroy_process_group()
