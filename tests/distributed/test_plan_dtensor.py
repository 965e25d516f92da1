"""The bytes of plans against the collectives of PyTorch, in one of eight processes, whose collectives are not carried out."""

import pytest

import matsign
from matsign.planning import plan_function


@pytest.mark.slow
def test_rows_of_one_matrix():
    """msign of a DTensor of rows: one all-reduce for each Gram matrix, beside sums of a few numbers."""
    torch = pytest.importorskip("torch")
    from torch import distributed
    from torch.distributed.tensor import DTensor, Shard, init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Reductions(TorchDispatchMode):
        """The bytes of all all-reduces."""

        def __torch_dispatch__(self, f, types, args=(), kwargs=None):
            if "allreduce" in str(f) or "all_reduce" in str(f):
                sizes.extend(x.numel() * x.element_size() for x in tree_leaves(args) if isinstance(x, torch.Tensor))
            assert "allgather" not in str(f)
            return f(*args, **(kwargs or {}))

    distributed.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
    try:
        m = DTensor.from_local(torch.randn(128, 32), init_device_mesh("cpu", (8,)), [Shard(0)], run_check=False)
        for options in ({"steps": 4}, {"schedule": "polar_express", "tol": 1e-3}):
            sizes = []
            with Reductions():
                matsign.msign(m, errors="nan", **options)
            (planned,) = plan_function(matsign.msign, (1024, 32), mesh=8, **options).collectives
            assert [size for size in sizes if size > 64] == [planned.size] * planned.times
            assert planned.kind == "all-reduce"
            assert sum(size for size in sizes if size <= 64) <= 64
    finally:
        distributed.destroy_process_group()
