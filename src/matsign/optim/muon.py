"""Muon for PyTorch (Keller Jordan 2024): momentum, orthogonalised by msign; AdamW for parameters that are not matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch  # noqa: TID251
from torch._compile import _disable_dynamo  # noqa: TID251

from matsign.optim.adamw import adamw_step, add_state, unfit_for_adamw
from matsign.optim.checkpoints import fill_rates, translate, uncast
from matsign.optim.cuda_graphs import check_capture
from matsign.optim.groups import (
    ADAMW,
    WAYS,
    Group,
    check,
    check_names,
    check_parameters,
    layout_of,
    momentum_dtype_of,
    normalise_group,
    parameter_name,
    unfit_sharded,
    unfit_tensor,
    way,
)
from matsign.optim.manifold_options import check_manifold
from matsign.optim.manifold_updates import check_weights
from matsign.optim.sharding import check_shards, is_sharded, local
from matsign.optim.signs import signs_of
from matsign.optim.updates import Updates, apply_on_manifold, apply_signs
from matsign.optim.warm_momenta import forget_starts

if TYPE_CHECKING:
    from torch.optim.optimizer import ParamsT  # noqa: TID251

Tensor = torch.Tensor
Loss = TypeVar("Loss")


class Muon(torch.optim.Optimizer):
    """Train matrices along the msign of their momentum, with PyTorch.

    It replaces ``torch.optim.Muon``: its arguments have the same names and order, and either class loads the state of
    the other. Groups of parameters that are not matrices take AdamW in the same optimiser.

    Parameters
    ----------
    params : iterable of torch.nn.Parameter, of (str, torch.nn.Parameter) or of dict
        Parameters, named parameters, or groups. A group may have every option below, and ``algorithm="adamw"`` (or
        ``use_muon=False``) for AdamW [2]_ on embeddings, norms and biases, with its own ``betas`` (0.9, 0.999), ``eps``
        1e-8 and, as in ``torch.optim.AdamW``, ``amsgrad``, ``foreach``, ``fused`` and ``capturable``. Groups of either
        kind may have ``maximize``.
    lr : float or torch.Tensor, default 1e-3
        The learning rate; a tensor of one number may be changed in place.
    weight_decay : float, default 0.1
        The decoupled weight decay λ.
    momentum : float, default 0.95
        The factor μ of the momentum.
    nesterov : bool, default True
        Whether the step goes along u as below, or along m.
    ns_coefficients : (float, float, float), optional
        Coefficients of Newton-Schulz steps. If this or ``ns_steps`` is given, exactly those steps are taken, as
        ``torch.optim.Muon`` takes them.
    eps : float, default 1e-7
        Has no effect: gradients are scaled exactly. It is here because ``torch.optim.Muon`` has it.
    ns_steps : int, optional
        The number of Newton-Schulz steps.
    adjust_lr_fn : {"original", "match_rms_adamw"}, optional
        The factor s of the step, for a matrix of n outputs and m inputs: √max(1, n/m) for "original", the default;
        0.2 √max(n, m) for "match_rms_adamw" [3]_.
    schedule : str or sequence of (float, float, float), optional
        Polynomial steps by name or by rows (a, b, c), as in `matsign.msign`.
    steps : int, optional
        The number of steps, of ``schedule`` or of generated ones. Default: 4 generated steps.
    tol : float, optional
        In place of a number of steps: singular values above a thousandth of the largest one end within ``tol`` of 1.
    precision : {"half", "full"}, optional
        "half" takes products in half precision where the device has units for it (on a GPU float16, after scaling); it
        cannot be combined with ``tol``. Default: "half" on an accelerator and for 16-bit parameters, else "full".
    split : int or tuple of int, default 1
        The number of equal blocks of the first axis that are matrices by themselves: the heads, or queries, keys and
        values in one parameter. Or the sizes of blocks that are not equal, as of grouped-query attention.
    split_inputs : int or tuple of int, default 1
        The same for the other axis: the heads, in the matrix that combines their outputs.
    batch_axes : int, default 0
        The number of leading axes that count matrices: 1 for experts of shape (e, n, m). Of the axes after them the
        first is n and the others together are m, so that a convolution (out, in, k, k) is the matrix (out, in k k).
    outputs_last : bool, default False
        Whether the inputs are first and the outputs last, as in the transposed weights of GPT-2: ``split`` is then of the
        last axis and ``split_inputs`` of the others.
    momentum_dtype : torch.dtype or str, optional
        The dtype in which momenta are kept between steps, as ``torch.bfloat16`` or "bfloat16" for half of the memory. A
        step is computed in the wider of it and the dtype of the gradient, and the momentum is rounded after that.
        Default: the dtype of the gradient. Groups under AdamW do not use it.
    capturable : bool, default False
        Whether no step reads a value of a device on the host, so that a CUDA graph may contain it. Then ``lr`` should
        be a tensor on the device of the parameters: a graph reads the tensor at every replay, but a number only when it
        is captured.
    manifold : {"stiefel", "spectral_sphere"}, optional
        "stiefel" keeps columns or rows of weights orthogonal and of one length, "spectral_sphere" their largest singular
        value. The steps are those of `matsign.stiefel_step` and `matsign.spectral_sphere_step`, to the relative duality
        gap ``tol``, by default 0.01. The first step moves weights to the manifold. ``weight_decay``, numbers of steps and
        ``precision`` have no effect then. Not for sharded parameters.
    radius : float, default 1.0
        The largest singular value of a weight on a manifold. A step changes it by at most ``lr`` times this.
    warm : bool, default False
        Whether matrices whose momentum moves slowly start from singular vectors of the step before, which the state
        holds, with errors of at most ``tol``, which it needs, in the root mean square over the singular values above a
        thousandth of the largest. It saves time in training with the whole data set, for float32 matrices from 128 × 128
        on a CPU that are at most 1.5 times as long as wide. Not for sharded parameters.
    algorithm : {"muon", "adamw"}, default "muon"
        The algorithm of groups that do not name one.

    Raises
    ------
    ValueError
        If an option is out of range or a key of a group nearly the name of one, a group under Muon has options of AdamW,
        or a parameter under Muon is not a matrix: it has one axis, or its size does not fit the blocks. A loaded state is
        checked before anything changes.
    TypeError
        If a parameter or a gradient under Muon is of another class than plain tensors and DTensors, or has placements or a
        dtype that are not supported, or if a gradient is not sharded as its parameter.
    RuntimeError
        If a gradient is sparse.

    See Also
    --------
    matsign.msign : The function that makes the steps.
    scale_by_msign : The same step for JAX.

    Notes
    -----
    For a weight w with gradient g and momentum m, a step is [1]_::

        m ← μ m + (1 - μ) g,    u = (1 - μ) g + μ m,    w ← (1 - lr λ) w - lr s msign(u).

    Parameters of equal shape, and of the transposed shape, go through one batched msign, and small ones of other
    lengths with them. A gradient of any size gives a full step, and a zero gradient none. A gradient with NaN or
    infinity makes its own parameter NaN and no other.

    ``torch.compile`` does not compile a step, but runs it as usual: most of its time is spent in a few products of
    stacks. Under data parallelism every process computes the same step.

    Parameters may be DTensors with the placements Shard and Replicate on any mesh: under FSDP2 and HSDP, tensor
    parallel, and both. A step equals that of one device up to rounding. Every matrix has one process that computes its
    msign, and its shards are sent there and the results back by two all-to-alls for each bucket of matrices; matrices
    that one process holds as a whole are not moved. States are sharded as their parameters. All processes must call
    ``step`` together, with the same options, and gradients for the same parameters; if they disagree, all of them get
    the same error before anything changes.

    References
    ----------
    .. [1] K. Jordan and others, "Muon: An optimizer for hidden layers in neural networks", 2024,
       https://kellerjordan.github.io/posts/muon/.
    .. [2] I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", International Conference on Learning
       Representations, 2019, arXiv:1711.05101.
    .. [3] J. Liu and others (Moonshot AI), "Muon is scalable for LLM training", 2025, arXiv:2502.16982.

    Examples
    --------
    >>> import torch
    >>> from matsign.optim import Muon
    >>> w = torch.nn.Parameter(torch.eye(4, 6))
    >>> optimiser = Muon([w], lr=0.5, weight_decay=0.0, tol=1e-3)
    >>> before = w.detach().clone()
    >>> (w**2 * torch.arange(1.0, 7.0)).sum().backward()
    >>> optimiser.step()
    >>> move = (before - w.detach()) / 0.5
    >>> bool(torch.linalg.norm(move @ move.mT - torch.eye(4)) < 4e-3)
    True
    """

    _sharded: Any = None  # steps of sharded parameters, once there are any

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] | None = None,
        eps: float = 1e-7,
        ns_steps: int | None = None,
        adjust_lr_fn: str | None = None,
        *,
        schedule: str | Sequence[Sequence[float]] | None = None,
        steps: int | None = None,
        tol: float | None = None,
        precision: str | None = None,
        split: int | tuple[int, ...] = 1,
        split_inputs: int | tuple[int, ...] = 1,
        batch_axes: int = 0,
        outputs_last: bool = False,
        momentum_dtype: torch.dtype | str | None = None,
        capturable: bool = False,
        manifold: str | None = None,
        radius: float = 1.0,
        warm: bool = False,
        algorithm: str = "muon",
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            **way(ns_coefficients, ns_steps, schedule, steps, tol),
            "precision": precision,
            "eps": eps,
            "adjust_lr_fn": adjust_lr_fn,
            "split": split,
            "split_inputs": split_inputs,
            "batch_axes": batch_axes,
            "outputs_last": outputs_last,
            "momentum_dtype": momentum_dtype,
            "capturable": capturable,
            "manifold": manifold,
            "radius": radius,
            "warm": warm,
            "algorithm": algorithm,
        }
        super().__init__(params, normalise_group(defaults))

    def add_param_group(self, param_group: Group) -> None:
        """Add a group of parameters.

        Parameters
        ----------
        param_group : dict
            The parameters under ``"params"``, and options of their own; all other options are those of the optimiser.

        Raises
        ------
        ValueError
            If an option, its name or the shape of a parameter does not fit; nothing has changed then.
        TypeError
            If a parameter is not a plain tensor.
        """
        check_names(param_group, f"Muon: group {len(self.param_groups)}")
        group = normalise_group(param_group)
        of_another = all(name in group for name in WAYS)  # a group of an optimiser has them all, with torch's defaults
        if not of_another and any(group.get(name) is not None for name in WAYS):
            group |= way(*(group.get(name) for name in WAYS))
        if group.get("algorithm", self.defaults["algorithm"]) == "adamw":
            group = {**ADAMW, **group}
        check({**self.defaults, **group})
        super().add_param_group(group)
        try:
            check_parameters(self.param_groups[-1], len(self.param_groups) - 1)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of an optimiser.

        Parameters
        ----------
        state_dict : dict
            The state of this class, of ``torch.optim.Muon``, of ``torch.optim.AdamW`` or of Keller Jordan's Muon. Options that
            it does not have stay as they are.
        """
        state, rates = translate(state_dict, self.param_groups), [group["lr"] for group in self.param_groups]
        super().load_state_dict(state)
        fill_rates(self.param_groups, rates)
        for p, tensors in uncast(state, self.param_groups).items():
            self.state[p].update(tensors)
        forget_starts(self.param_groups, self.state)

    # torch.compile does not compile a step: most of its time goes into a few products of stacks, which compilation does not make
    # faster, and each learning rate, momentum and set of gradients would compile it again.
    @_disable_dynamo
    @torch.no_grad()
    def step(self, closure: Callable[[], Loss] | None = None) -> Loss | None:  # type: ignore[override]
        """Take one step for the parameters that have a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and the gradients anew.

        Returns
        -------
        loss : torch.Tensor or None
            The result of ``closure``.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._sharded_step()
        updates = [self._updates(group) for group in self.param_groups if group["algorithm"] == "muon"]
        for update in updates:
            if update.group["manifold"]:
                apply_on_manifold(update)
        updates = [update for update in updates if not update.group["manifold"]]
        capturable = any(group.get("capturable") for group in self.param_groups)
        for update, signs in zip(updates, signs_of(updates, self.state, capturable), strict=True):
            apply_signs(update, signs)
        for group in self.param_groups:
            if group["algorithm"] == "adamw":
                adamw_step(group, self.state)
        return loss

    def _sharded_step(self) -> None:
        """Check all gradients, and update the sharded parameters."""
        entries, error = {}, None
        try:
            self._check_gradients()
        except (RuntimeError, TypeError, ValueError) as found:
            error = found
        if any(is_sharded(p) for group in self.param_groups for p in group["params"]):
            from matsign.optim.sharded_step import ShardedStep, entries_by_ranks

            self._sharded = self._sharded or ShardedStep()
            entries = entries_by_ranks(self.param_groups, self.state)
            error = self._sharded.agree(entries, error)
        if error is not None:
            raise error
        if self._sharded is not None:
            self._create_sharded_state()
            self._sharded.step(entries, self._momenta)

    def _create_sharded_state(self) -> None:
        """State for every sharded parameter that may have a gradient: a checkpoint needs the same state on every process."""
        for group in self.param_groups:
            for p in group["params"]:
                if is_sharded(p) and (p.requires_grad or p.grad is not None) and not self.state[p]:
                    if group["algorithm"] == "muon":
                        self._momentum(p, p, momentum_dtype_of(group))
                    else:
                        add_state(group, p, self.state[p])

    def _check_gradients(self) -> None:
        """An error for gradients that Muon cannot take, before anything has changed."""
        for index, group in enumerate(self.param_groups):
            if group["algorithm"] == "muon":
                check_manifold(group)
            for k, p in enumerate(group["params"]):
                if p.grad is None:
                    continue
                if p.grad.layout != torch.strided:
                    raise RuntimeError(
                        f"Muon does not support sparse gradients, which {parameter_name(group, index, k)} has; use "
                        "torch.optim.SparseAdam for it"
                    )
                if group["algorithm"] == "adamw":
                    unfit = unfit_for_adamw(group, p)
                    if unfit:
                        raise ValueError(f"{parameter_name(group, index, k)} {unfit}")
                elif reason := unfit_tensor(p) or unfit_tensor(p.grad):
                    raise TypeError(f"Muon: {parameter_name(group, index, k)} or its gradient {reason}")
                elif reason := unfit_sharded(group, p):
                    raise TypeError(f"Muon: {parameter_name(group, index, k)} {reason}")
                elif is_sharded(p) or is_sharded(p.grad):
                    check_shards(p, p.grad, layout_of(group), parameter_name(group, index, k))
                elif group["manifold"]:
                    check_weights(group["manifold"], layout_of(group), p, parameter_name(group, index, k))
        check_capture(self.param_groups, self.state)

    def _updates(self, group: Group) -> Updates:
        """The parameters of a group that are not sharded, and what they step along."""
        params = [p for p in group["params"] if p.grad is not None and not is_sharded(p)]
        return Updates(group, layout_of(group), params, self._momenta(group, params))

    def _momenta(self, group: Group, params: list[Tensor]) -> Sequence[Tensor]:
        """Update the momenta of parameters with their gradients; return those to step along, as far as this device has them."""
        gradients, mu = [local(p.grad) for p in params if p.grad is not None], group["momentum"]
        if not params:
            return []
        if group.get("maximize"):
            gradients = list(torch._foreach_neg(gradients))
        dtype = momentum_dtype_of(group)
        both = [self._momentum(p, gradient, dtype) for p, gradient in zip(params, gradients, strict=True)]
        momenta, gradients = map(list, zip(*both, strict=True))
        torch._foreach_lerp_(momenta, gradients, 1 - mu)
        along = torch._foreach_lerp(gradients, momenta, mu) if group["nesterov"] else momenta
        for p, momentum in zip(params, momenta, strict=True):
            self._keep(p, momentum, dtype)
        return along

    def _momentum(self, p: Tensor, gradient: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
        """The momentum of a parameter and its gradient, in the wider of their dtypes."""
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient, dtype=dtype, memory_format=torch.preserve_format)
        wide = torch.promote_types(state["momentum_buffer"].dtype, gradient.dtype)
        return local(state["momentum_buffer"]).to(wide), local(gradient).to(wide)

    def _keep(self, p: Tensor, momentum: Tensor, dtype: torch.dtype | None) -> None:
        """The momentum of a parameter in its state: in this dtype, or as it is; in the same memory where the dtype stays."""
        state, kept = self.state[p], momentum.dtype if dtype is None else dtype
        if state["momentum_buffer"].dtype != kept:
            state["momentum_buffer"] = state["momentum_buffer"].to(kept)
        buffer = local(state["momentum_buffer"])
        if buffer is not momentum:
            buffer.copy_(momentum)
