"""The bytes and the memory of plans against compiled programs on eight emulated devices, in one process."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, re
import jax
from jax.sharding import NamedSharding, PartitionSpec as P
import matsign
from matsign.optim import scale_by_msign
from matsign.planning import plan_function, plan_optimiser

SIZES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}
KINDS = {"collective-permute": "permute"}


def compiled(f, *args):
    program = jax.jit(f).lower(*args).compile()
    transfers = {}
    pattern = r"= (.*?) (all-to-all|all-gather|all-reduce|collective-permute|reduce-scatter)(?:-start)?\\("
    for shapes, kind in re.findall(pattern, program.as_text()):
        size = 0
        for dtype, sides in re.findall(r"([a-z]+[0-9]*)\\[([0-9,]*)\\]", shapes):
            entries = 1
            for side in filter(None, sides.split(",")):
                entries *= int(side)
            size += SIZES[dtype] * entries
        if size >= 1024:
            transfers.setdefault(KINDS.get(kind, kind), []).append(size)
    held = program.memory_analysis()
    return {
        "transfers": {kind: sorted(sizes) for kind, sizes in transfers.items()},
        "arguments": held.argument_size_in_bytes,
        "rest": held.output_size_in_bytes + held.temp_size_in_bytes,
    }


mesh = jax.make_mesh((4, 2), ("dp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


def array(shape, *spec):
    return jax.ShapeDtypeStruct(shape, "float32", sharding=NamedSharding(mesh, P(*spec)))


def msign(steps):
    return lambda m: matsign.msign(m, steps=steps, errors="nan")


both, axes, found = ("dp", "tp"), {"dp": 4, "tp": 2}, {}
found["batch"] = (
    plan_function(matsign.msign, (16, 64, 32), mesh=axes, steps=1).as_dict(),
    compiled(msign(1), array((16, 64, 32), both, None, None)),
)
shapes = {name: (128, 64) for name in "abcdefghij"} | {"k": (64, 64)}
how = scale_by_msign(steps=1)
tree = {name: array(shape, "dp", "tp") for name, shape in shapes.items()}
state = jax.tree.map(lambda x: array(x.shape, "dp", "tp"), jax.eval_shape(how.init, tree))
found["optimiser"] = (
    plan_optimiser(
        shapes, "scale_by_msign", mesh=axes, shard={"dp": "rows", "tp": "columns"}, dtype="float32", steps=1
    ).as_dict(),
    compiled(how.update, tree, state),
)
found["rows"] = (
    plan_function(matsign.msign, (1024, 32), mesh=axes, steps=2).as_dict(),
    compiled(msign(2), array((1024, 32), both, None)),
)
found["panels"] = (
    plan_function(matsign.msign, (128, 128), mesh=axes, steps=1).as_dict(),
    compiled(msign(1), array((128, 128), both, None)),
)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    """For each case the plan, and what the compiled program does."""
    pytest.importorskip("jax")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def of_plan(plan):
    """The collectives of a plan as those of a compiled program."""
    transfers = {}
    for c in plan["collectives"]:
        transfers.setdefault(c["kind"], []).extend([c["size"]] * int(c["times"]))
    return {kind: sorted(sizes) for kind, sizes in transfers.items()}


@pytest.mark.slow
@pytest.mark.compiles
def test_collectives_and_memory(found):
    ways = {"batch": "local batch", "optimiser": "stacks by one reshard each way"}
    ways |= {"rows": "Gram form, all-reduce", "panels": "products in panels"}
    for case, (plan, program) in found.items():
        assert plan["way"] == ways[case]
        if case == "panels":
            # A loop passes each block on seven times; the text of the program has it once for each product.
            (permute,) = plan["collectives"]
            assert permute["times"] == 7 * len(program["transfers"]["permute"])
            assert set(program["transfers"]["permute"]) == {permute["size"]}
        else:
            assert of_plan(plan) == program["transfers"], case
        assert 0.4 * plan["bytes_held"] < program["arguments"] + program["rest"] < 1.2 * plan["bytes_held"], case
