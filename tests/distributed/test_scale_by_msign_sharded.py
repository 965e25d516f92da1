"""scale_by_msign on parameters that are sharded over eight emulated devices, in one process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax")

CHECKS = ("layouts", "parameters_decide", "work_is_shared", "nan_stays", "meshes_that_differ", "resumed", "training")


def printed():
    script = Path(__file__).with_name("sharded_parameters.py")
    devices = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    flags = {"XLA_FLAGS": devices, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.compiles
def test_on_eight_devices():
    """One test: for several, each worker of pytest could start a process."""
    text = printed()
    missing = [name for name in CHECKS if f"ok {name}\n" not in text]
    assert not missing, text
