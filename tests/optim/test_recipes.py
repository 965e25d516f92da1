"""The programs of docs/howto/training_frameworks.md run, learn, and continue from their checkpoints with the same bits."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

for package in ("torch", "lightning", "transformers", "accelerate"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install --group recipes", allow_module_level=True)
pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs/howto/training_frameworks.md"
CHECKS = {
    "Lightning": """
straight, last = train(epochs=4)
assert last == loss < 1.0, (last, loss)
same = zip(straight.parameters(), network.parameters(), strict=True)
assert all(torch.equal(p, q) for p, q in same)
""",
    "Hugging Face Trainer": """
assert losses[-1] < losses[0] - 0.3, losses
resumed, _ = train("run/checkpoint-10")
same = zip(model.parameters(), resumed.parameters(), strict=True)
assert all(torch.equal(p, q) for p, q in same)
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM
small = {"vocab_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
def options(model):
    groups = param_groups(model)
    Muon(groups)
    return {name: g | {"params": 0} for g in groups for name, _ in g["params"]}
found = options(GPT2LMHeadModel(GPT2Config(n_embd=16, n_positions=8, **small)))
turned = {"params": 0, "algorithm": "muon", "outputs_last": True}
assert found["transformer.h.0.attn.c_attn.weight"] == turned | {"split": 3}, found
assert found["transformer.h.0.mlp.c_fc.weight"] == turned
assert found["transformer.wte.weight"]["algorithm"] == "adamw"
small |= {"hidden_size": 16, "intermediate_size": 40, "num_key_value_heads": 2, "num_local_experts": 4}
found = options(MixtralForCausalLM(MixtralConfig(**small)))
experts = {"params": 0, "algorithm": "muon", "batch_axes": 1}
assert found["model.layers.0.mlp.experts.gate_up_proj"] == experts | {"split": 2}, found
assert found["model.layers.0.mlp.experts.down_proj"] == experts
assert found["lm_head.weight"]["algorithm"] == found["model.norm.weight"]["algorithm"] == "adamw"
""",
    "accelerate": """
assert losses[-1] < 0.2 * losses[0], losses
assert optimizer.param_groups[0]["lr"] is rate and rate.item() < 0.02
kept = [p.detach().clone() for p in model.parameters()]
accelerator.load_state("state")
assert [epoch(), epoch()] == losses[2:]
assert all(torch.equal(p, q) for p, q in zip(kept, model.parameters(), strict=True))
""",
}


def programs():
    sections = re.split(r"^## (.*)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    pairs = zip(sections[::2], sections[1::2], strict=True)
    return {title: re.search(r"```python\n(.*?)```", text, re.DOTALL)[1] for title, text in pairs}


def test_the_recipes(tmp_path):
    """In one process, as most of the time goes into imports, and without network."""
    assert programs().keys() == CHECKS.keys()
    assert PAGE.read_text(encoding="utf-8").count("```python") == len(CHECKS)  # no block that does not run
    files = [tmp_path / f"recipe_{title.replace(' ', '_')}.py" for title in CHECKS]
    for file, (title, check) in zip(files, CHECKS.items(), strict=True):
        file.write_text(programs()[title] + check, encoding="utf-8")
    code = "import runpy, sys; [runpy.run_path(name) for name in sys.argv[1:]]"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, files)],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
