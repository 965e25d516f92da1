"""Muon where every process has whole parameters, and placements of DTensors that it refuses."""

import pytest

torch = pytest.importorskip("torch")

from torch import distributed, nn  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor  # noqa: E402

from matsign.optim import Muon  # noqa: E402
from processes import run  # noqa: E402

pytestmark = pytest.mark.slow


def share_gradients():
    """The parameters of both processes after three steps with DistributedDataParallel."""
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Linear(6, 8, bias=False))
    optimiser = Muon(model.parameters(), lr=0.1)
    for part in torch.randn(3, 8, 6):
        optimiser.zero_grad()
        model(part.chunk(2)[distributed.get_rank()]).pow(3).mean().backward()
        optimiser.step()
    found = [torch.empty(8, 6) for _ in range(2)]
    distributed.all_gather(found, model.module.weight.detach())
    assert torch.equal(*found)


def refuse_sums():
    """Sums over processes are refused before anything has changed; AdamW, which is elementwise, takes what torch takes."""
    mesh = init_device_mesh("cpu", (2,))

    def sums(*shape):
        return DTensor.from_local(torch.eye(*shape), mesh, [Partial()])

    def refused(act, parameter):
        with pytest.raises(TypeError, match=f"{parameter}.*DTensor"):
            act()

    refused(lambda: Muon([("fc.weight", nn.Parameter(sums(4, 6)))]), "'fc.weight'")
    refused(lambda: Muon([nn.Parameter(torch.eye(3)), nn.Parameter(sums(4, 6))]), "parameter 1 of group 0")
    plain = nn.Parameter(torch.eye(4, 6))
    optimiser = Muon([plain])
    optimiser.param_groups[0]["params"].append(late := nn.Parameter(sums(4, 6)))
    plain.grad, late.grad = torch.eye(4, 6), sums(4, 6)
    refused(optimiser.step, "parameter 1 of group 0")
    assert not optimiser.state
    assert torch.equal(plain, torch.eye(4, 6))
    spread, alone = (nn.Parameter(x) for x in (distribute_tensor(torch.eye(4, 6), mesh, [Shard(0)]), torch.eye(4, 6)))
    optimiser = Muon([{"params": [x], "algorithm": "adamw"} for x in (spread, alone)])
    spread.grad, alone.grad = distribute_tensor(torch.eye(4, 6), mesh, [Shard(0)]), torch.eye(4, 6)
    optimiser.step()
    assert torch.equal(spread.full_tensor(), alone)


def both():
    share_gradients()
    refuse_sums()


def test_gradients_that_processes_share_and_placements_that_are_refused():
    run(2, both)
