"""Products by Triton that compute one triangle: by its interpreter, or on a GPU where there is one."""

import os
import subprocess
import sys

import numpy as np
import pytest

from matsign import backends
from matsign.iterations import newton_schulz as steps
from matsign.iterations.minimax import NAMED

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from matsign.backends.triton_kernels import symmetric_product as product  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = [1, 31, 33, 64, 127, 129, 260]
# The interpreter, which is NumPy, computes bfloat16 products as integer products.
DTYPES = ["float32", "float16"] + ["bfloat16"] * (DEVICE == "cuda")
ROUNDING = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}


def random(*shape, dtype="float32"):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(getattr(torch, dtype)).to(DEVICE)


def check(result, a, b):
    truth = a.double() @ b.double().mT
    assert torch.equal(result, result.mT)
    # The error of a sum of k terms, relative to the sum of their moduli.
    bound = ROUNDING[str(a.dtype)[6:]] * (a.double().abs() @ b.double().abs().mT)
    assert ((result.double() - truth).abs() <= bound + torch.finfo(a.dtype).smallest_normal).all()


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from matsign.backends.triton_kernels import _triangle as kernel

blocks = {"TILE": 64, "DEPTH": 32}
sizes = dict.fromkeys(("n", "k", "tiles"), "i32") | dict.fromkeys(blocks, "constexpr") | {"shift": "fp32"}
for dtype in ("fp32", "fp16", "bf16"):
    arrays = dict.fromkeys(("a", "b", "out"), "*" + dtype)
    signature = dict.fromkeys(kernel.arg_names, "i64") | sizes | arrays
    compiled = triton.compile(ASTSource(kernel, signature, constexprs=blocks), target=GPUTarget("cuda", 90, 32))
    print(dtype, len(compiled.asm["cubin"]))
"""


@pytest.mark.slow
def test_the_kernel_compiles_for_a_gpu(tmp_path):
    """To machine code, without a GPU, in a process where Triton compiles: its interpreter accepts more."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["fp32", "fp16", "bf16"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 33, 100])
@pytest.mark.parametrize("n", SIZES)
def test_a_matrix_times_its_transpose(n, k, dtype):
    a = random(2, n, k, dtype=dtype)
    check(product(a, a), a, a)


@pytest.mark.parametrize("n", SIZES)
def test_polynomials_of_one_symmetric_matrix(n):
    r = random(1, n, n)
    r = (r + r.mT) / n**0.5
    p = r @ r - 2 * r
    check(product(r, p), r, p)
    # A GPU may round the last product and the sum with shift together.
    shifted, plain = (product(r, p, shift).diagonal(dim1=1, dim2=2) for shift in (0.5, 0.0))
    assert ((shifted - plain - 0.5).abs() <= 2 * torch.finfo(r.dtype).eps * (1 + plain.abs())).all()


def test_strides():
    """Strided arguments: transposed, every other row, every other column, one matrix for all members."""
    a = random(3, 90, 80)
    for x in (a.mT, a[:, ::2], a[:, :, 1::2], a[::2, 3:50, 5:], a[:1].expand(3, 90, 80)):
        check(product(x, x), x, x)
        check(product(x, x.contiguous()), x, x)


def test_no_member_and_no_term():
    assert product(random(0, 5, 4), random(0, 5, 4)).shape == (0, 5, 5)
    assert not product(random(2, 5, 0), random(2, 5, 0)).any()


def test_members_further_apart_than_32_bits_count():
    """A stack that spans more than 2³¹ numbers; the memory between its members is never touched."""
    far = 2**31 + 77
    try:
        room, result = (torch.empty(far + 33 * 33, dtype=torch.float16, device=DEVICE) for _ in range(2))
    except RuntimeError:
        pytest.skip("no room for 2³¹ numbers")
    a, out = (x.as_strided((2, 33, 33), (far, 33, 1)) for x in (room, result))
    a.copy_(random(2, 33, 33, dtype="float16"))
    check(product(a, a, out=out), a, a)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(40, 40), (100, 33)])
@pytest.mark.parametrize("name", ["muon", "polar_express"])
def test_msign_by_these_products(name, shape, monkeypatch):
    """The products that the steps of msign declare Hermitian are Hermitian."""
    backend = backends.load("torch")
    m = random(2, *shape)
    whole, _ = steps.orthogonal(backend, m, [(0.0, NAMED[name])], tol=0.1, bounded=True)
    calls = []

    def counted(a, b, shift=0.0):
        calls.append(a.shape)
        return product(a, b.mT, shift)

    monkeypatch.setattr(backend, "hermitian_product", counted)
    half, _ = steps.orthogonal(backend, m, [(0.0, NAMED[name])], tol=0.1, bounded=True)
    assert len(calls) > len(NAMED[name])
    np.testing.assert_allclose(half.cpu(), whole.cpu(), atol=1e-3)
