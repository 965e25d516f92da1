"""matsign.optim.param_groups: the algorithms for the parameters of small models, the table and the error messages."""

import pickle

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from matsign.optim import Muon, param_groups  # noqa: E402


class Block(nn.Module):
    """Grouped-query attention (4 heads of queries, 2 of keys and values), gated perceptron, norms with gains."""

    def __init__(self, width=16, heads=4, shared=2):
        super().__init__()
        head = width // heads
        self.before_attention, self.before_mlp = nn.RMSNorm(width), nn.LayerNorm(width)
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, shared * head, bias=False) for _ in range(2))
        self.gate, self.up, self.down = (
            nn.Linear(width, 40),
            nn.Linear(width, 40, bias=False),
            nn.Linear(40, width, bias=False),
        )
        self.scale = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x):
        q, k, v = (f(self.before_attention(x)).unflatten(-1, (-1, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.scale[:, 0, 0] * self.o(y.transpose(1, 2).flatten(2))
        y = self.before_mlp(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))


class Transformer(nn.Module):
    """Token and position embeddings (as many positions as the width), blocks, and a head that may be tied."""

    def __init__(self, tied, width=16, vocabulary=30):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(width, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, x):
        x = self.tokens(x) + self.positions.weight[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def where(groups):
    return {row.name: row.algorithm for row in groups.assignments}


def reasons(groups):
    return {row.name: row.reason for row in groups.assignments}


MATRICES = {f"blocks.{k}.{name}.weight" for k in (0, 1) for name in ("q", "k", "v", "o", "gate", "up", "down")}


@pytest.mark.parametrize("tied", [True, False])
def test_a_transformer(tied):
    model = Transformer(tied)
    groups = param_groups(model, muon={"lr": 0.02}, adamw={"lr": 1e-3, "weight_decay": 0.0})
    assert {name for name, algorithm in where(groups).items() if algorithm == "muon"} == MATRICES
    assert [(g["algorithm"], g["lr"]) for g in groups] == [("muon", 0.02), ("adamw", 1e-3)]
    given = [p for group in groups for _, p in group["params"]]
    assert len(given) == len({id(p) for p in given}) == len(list(model.parameters()))
    found = reasons(groups)
    assert found["tokens.weight"] == ("embedding, tied: head.weight" if tied else "embedding")
    assert found["blocks.1.scale"] == found["blocks.1.gate.bias"] == "vector"
    assert found["blocks.0.before_attention.weight"] == "norm"
    if not tied:
        assert found["head.weight"] == "head"


def test_it_trains():
    torch.manual_seed(0)
    model, x = Transformer(tied=True), torch.arange(48).reshape(4, 12) % 7
    optimiser = Muon(param_groups(model, muon={"lr": 0.02}, adamw={"lr": 1e-2}))
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_frozen_parameters_are_left_out():
    model = Transformer(tied=False)
    model.blocks[0].requires_grad_(False)
    groups = param_groups(model)
    given = {name for group in groups for name, _ in group["params"]}
    assert not any(name.startswith("blocks.0.") for name in given)
    assert where(groups)["blocks.0.q.weight"] == "frozen"
    assert "frozen: 12 parameters" in str(groups)


def test_convolutions():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8, affine=True),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 12, 3, groups=4),
        nn.Conv2d(12, 16, 1),
        nn.ConvTranspose1d(16, 4, 3),
        nn.Flatten(),
        nn.Linear(24, 5),
    )
    groups = param_groups(model)
    matrices = {name: g["split"] for g in groups if g["algorithm"] == "muon" for name, _ in g["params"] if "split" in g}
    assert {n for n, algorithm in where(groups).items() if algorithm == "muon"} == {f"{k}.weight" for k in (0, 3, 4, 5)}
    assert matrices == {"3.weight": 4}
    assert "single row" in reasons(groups)["2.weight"]
    assert reasons(groups)["7.weight"] == "head"
    Muon(groups)


def test_what_torch_keeps_in_one_parameter_is_split():
    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent, self.gated = nn.LSTM(6, 5, proj_size=3), nn.GRUCell(6, 5)
            self.attention = nn.MultiheadAttention(8, 2, add_bias_kv=True)

    groups = param_groups(Layers())
    split = {n: g.get("split", 1) for g in groups if g["algorithm"] == "muon" for n, _ in g["params"]}
    assert split == {
        "recurrent.weight_ih_l0": 4,
        "recurrent.weight_hh_l0": 4,
        "recurrent.weight_hr_l0": 1,
        "gated.weight_ih": 3,
        "gated.weight_hh": 3,
        "attention.in_proj_weight": 3,
        "attention.out_proj.weight": 1,
    }
    assert where(groups)["attention.bias_k"] == "adamw"
    Muon(groups)


def test_heads():
    named = Transformer(tied=False)
    named.get_output_embeddings = lambda: named.blocks[1].down
    assert reasons(param_groups(named))["blocks.1.down.weight"] == "head"
    body = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    assert {n for n, a in where(param_groups(body)).items() if a == "muon"} == {f"{k}.weight" for k in range(3)}
    first = nn.ModuleDict({"head": nn.Linear(8, 30), "body": nn.Linear(8, 8), "tokens": nn.Embedding(30, 8)})
    assert reasons(param_groups(first))["head.weight"] == "head"
    assert reasons(param_groups(first))["body.weight"] == "matrix"


def test_parametrised_layers():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 6, 3)), nn.Linear(6, 2))
    found = where(param_groups(model))
    assert found["0.parametrizations.weight.original0"] == "adamw"
    assert found["0.parametrizations.weight.original1"] == "muon"


class Conv1D(nn.Module):
    """Has the name and the layout of the linear layer of GPT-2, (inputs, outputs)."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.zeros(outputs))


class DeclaredExperts(nn.Module):
    """Experts that declare their layout, as those of transformers do."""

    def __init__(self, transposed, concatenated):
        super().__init__()
        self.is_transposed, self.is_concatenated = transposed, concatenated
        self.gate_up_proj = nn.Parameter(torch.randn(4, 6, 20) if transposed else torch.randn(4, 20, 6))
        self.gate_up_proj_bias = nn.Parameter(torch.zeros(4, 20))
        self.down_proj = nn.Parameter(torch.randn(4, 10, 6) if transposed else torch.randn(4, 6, 10))


def options(groups):
    return {n: {k: v for k, v in g.items() if k != "params"} for g in groups for n, _ in g["params"]}


def test_transposed_weights_of_gpt2():
    model = nn.ModuleDict(
        {"c_attn": Conv1D(24, 8), "cross": nn.ModuleDict({"c_attn": Conv1D(16, 8)}), "c_fc": Conv1D(32, 8)}
    )
    found = options(param_groups(model))
    turned = {"algorithm": "muon", "outputs_last": True}
    assert found["c_attn.weight"] == {**turned, "split": 3}
    assert found["cross.c_attn.weight"] == {**turned, "split": 2}
    assert found["c_fc.weight"] == turned
    assert found["c_attn.bias"] == {"algorithm": "adamw"}
    Muon(param_groups(model))


def test_experts_that_declare_their_layout():
    for transposed, concatenated in ((False, True), (True, True), (True, False)):
        model = DeclaredExperts(transposed, concatenated)
        found = options(param_groups(model))
        stack = {"algorithm": "muon", "batch_axes": 1, **({"outputs_last": True} if transposed else {})}
        assert found["gate_up_proj"] == {**stack, **({"split": 2} if concatenated else {})}
        assert found["down_proj"] == stack
        assert found["gate_up_proj_bias"] == {"algorithm": "adamw"}
        Muon(param_groups(model))


def test_tables_of_numbers_are_not_matrices():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("relative_position_bias_table", "rel_pos_h", "pos_embed", "query_tokens", "A_log", "composed"):
                setattr(self, name, nn.Parameter(torch.zeros(9, 4)))

    assert {n for n, a in where(param_groups(Attention())).items() if a == "muon"} == {"composed"}


def test_a_convolutional_network():
    """A block of ConvNeXt V2: layer scale, gains with trailing axes, response normalisation, a stem and a head."""

    class GlobalResponseNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = (nn.Parameter(torch.zeros(1, 1, 1, 32)) for _ in range(2))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv_dw, self.norm = nn.Conv2d(8, 8, 7, groups=8), nn.GroupNorm(1, 8)
            self.fc1, self.grn, self.fc2 = nn.Linear(8, 32), GlobalResponseNorm(), nn.Conv2d(32, 8, 1)
            self.gamma, self.gain = nn.Parameter(torch.ones(8, 1, 1)), nn.Parameter(torch.ones(8, 1, 1, 1))

    model = nn.ModuleDict(
        {"stem": nn.Conv2d(3, 8, 4), "blocks": nn.Sequential(Block(), Block()), "head": nn.Linear(8, 5)}
    )
    groups = param_groups(model)
    matrices = {f"blocks.{k}.{name}.weight" for k in (0, 1) for name in ("fc1", "fc2")} | {"stem.weight"}
    assert {n for n, a in where(groups).items() if a == "muon"} == matrices
    assert reasons(groups)["blocks.1.gamma"] == reasons(groups)["blocks.1.gain"] == "vector"
    Muon(groups)


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, 9, 6))
        self.up = nn.Parameter(torch.randn(4, 8, 6))


def test_exceptions():
    model = nn.ModuleDict({"experts": Experts(), "qkv": nn.Linear(6, 18), "last": nn.Linear(6, 6)})
    groups = param_groups(
        model,
        muon={"lr": 0.1},
        assign={"experts.u*": {"batch_axes": 1}, "qkv.weight": {"split": 3}, "*.weight": {"lr": 0.3}, "last.*": "muon"}
        | {"last.bias": "adamw"},
    )
    found = options(groups)
    assert found["experts.up"] == {"algorithm": "muon", "lr": 0.1, "batch_axes": 1}
    assert found["experts.position"] == {"algorithm": "adamw"}
    assert found["qkv.weight"] == {"algorithm": "muon", "lr": 0.3, "split": 3}
    assert found["last.weight"] == {"algorithm": "muon", "lr": 0.3}
    Muon(groups)


def test_a_fused_projection_of_grouped_queries():
    model = nn.Sequential(nn.Linear(16, 32, bias=False), nn.Linear(16, 3, bias=False))
    groups = param_groups(model, assign={"0.weight": {"split": (16, 8, 8)}})
    assert groups[0]["split"] == (16, 8, 8)
    Muon(groups)
    with pytest.raises(
        ValueError, match=r"32 outputs of parameter '0.weight' .* are not the sum 24 of split=\(16, 8\)"
    ):
        param_groups(model, assign={"0.weight": {"split": (16, 8)}})


def test_a_tied_parameter_goes_by_any_of_its_names():
    groups = param_groups(Transformer(tied=True), assign={"head.weight": {"lr": 0.5}})
    assert [g["lr"] for g in groups if g["params"][0][0] == "tokens.weight"] == [0.5]


def test_the_table():
    lines = str(param_groups(Transformer(tied=True), assign={"blocks.0.q.weight": {"split": 4}})).splitlines()
    assert lines[0] == "adamw  tokens.weight                     30×16   embedding, tied: head.weight"
    assert "muon   blocks.0.q.weight                 16×16   matrix                        split=4" in lines
    assert lines[-2].startswith("muon: 14 parameters, ")
    again = pickle.loads(pickle.dumps(param_groups(nn.Linear(3, 2))))
    assert str(again).startswith("adamw  weight  2×3  head\n")
    assert str(param_groups(nn.ReLU())) == ""


def test_errors_name_the_parameter():
    with pytest.raises(
        ValueError, match=r"parameter 'up' of shape \(4, 8, 6\) belongs to class Experts.*'up': ..batch_axes"
    ):
        param_groups(Experts())
    linear = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    with pytest.raises(ValueError, match=r"parameter '0.bias' of shape \(8,\) is not a matrix"):
        param_groups(linear, assign={"0.*": "muon"})
    with pytest.raises(ValueError, match=r"8 outputs of parameter '0.weight' of shape .* are not 3 equal blocks"):
        param_groups(linear, assign={"0.weight": {"split": 3}})
    with pytest.raises(ValueError, match=r"assign has 'head\*', which no parameter matches; names are '0.weight'"):
        param_groups(linear, assign={"head*": "adamw"})
    with pytest.raises(ValueError, match=r"parameter '0.weight' has no shape yet"):
        param_groups(nn.Sequential(nn.LazyLinear(4)))
    with pytest.raises(ValueError, match=r"assign\['0.weight'\] must be"):
        param_groups(linear, assign={"0.weight": "sgd"})
    with pytest.raises(ValueError, match="muon must be a dict of options"):
        param_groups(linear, muon={"params": []})
    with pytest.raises(ValueError, match="assign must be a dict"):
        param_groups(linear, assign=["0.weight"])
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        param_groups(list(linear.parameters()))
