"""The error that reports members without an answer."""

from __future__ import annotations

from typing import Any

from numpy.linalg import LinAlgError

from matsign.core.failures import MESSAGES, Failure


class SpectrumError(LinAlgError):
    """Report the members of a batch that have no answer.

    A `numpy.linalg.LinAlgError`, raised with ``errors="raise"``: an eigenvalue on the imaginary axis, an equation that
    is singular to working precision, no convergence, NaN or infinity in the input. The message has their batch indices,
    the reason, and a remedy.

    Attributes
    ----------
    members : list of tuple of int
        The batch indices without an answer; ``[()]`` for a single matrix.
    failures : list of int
        The number of the reason for each of them, in the same order; the message has it in words.
    value : array or tuple of arrays
        The results of the other members, and NaN for these; where an iteration did not converge, its best iterate, which
        may be wrong in every digit.

    See Also
    --------
    Certificate : What is known about the error of a result.

    Notes
    -----
    Under ``jax.jit`` no error can be raised, and the members without an answer are NaN. The error can be pickled, and
    so pass from a worker process to its parent.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import SpectrumError, mcsgn
    >>> rotation = np.array([[0.0, 1.0], [-1.0, 0.0]])
    >>> try:
    ...     mcsgn(np.stack([np.eye(2), rotation]))
    ... except SpectrumError as error:
    ...     members, S = error.members, error.value
    >>> members
    [(1,)]
    >>> bool(np.linalg.norm(S[0] - np.eye(2)) < 1e-15)
    True
    """

    _name: str
    _details: list[complex]

    def __init__(self, message: str, members: list[tuple[int, ...]], failures: list[Failure], value: Any) -> None:
        super().__init__(message)
        self.members = members
        self.failures = failures
        self.value = value

    @classmethod
    def of(
        cls, name: str, members: list[tuple[int, ...]], failures: list[Failure], details: list[complex], value: Any
    ) -> SpectrumError:
        """Return the error of the function `name`, with a message that `explain` makes."""
        error = cls(explain(name, members, failures, details), members, failures, value)
        error._name, error._details = name, details
        return error

    def with_members(self, members: list[tuple[int, ...]]) -> SpectrumError:
        """Return the error with other batch indices, those in a larger batch."""
        return self.of(self._name, members, self.failures, self._details, self.value)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the attributes: the default of an exception calls the class with the message alone."""
        return _unpickle, (type(self), self.args), self.__dict__


def _unpickle(cls: type[SpectrumError], args: tuple[Any, ...]) -> SpectrumError:
    return cls.__new__(cls, *args)


def explain(name: str, members: list[tuple[int, ...]], failures: list[Failure], details: list[complex]) -> str:
    """One line for each kind of failure: the members, the reason, the remedy.

    In a text ``{detail}`` is the detail, and ``{pair}`` its real and its imaginary part as two numbers.
    """
    lines = []
    for failure in sorted(set(failures)):
        matching = [(m, d) for m, f, d in zip(members, failures, details, strict=True) if f == failure]
        numbers = list(dict.fromkeys(_format_figure(d) for _, d in matching))
        pairs = list(dict.fromkeys(f"{d.real:.9g} and {d.imag:.9g}" for _, d in matching))
        text = MESSAGES[failure].format(detail=_list_figures(numbers, ", "), pair=_list_figures(pairs, "; "))
        where = [str(m[0] if len(m) == 1 else m) for m, _ in matching]
        listed = ", ".join(where[:8]) + (f" and {len(where) - 8} more" if len(where) > 8 else "")
        lines.append(f"{name}: {text}" if matching[0][0] == () else f"{name}: batch members {listed}: {text}")
    return "\n".join(lines)


def _list_figures(figures: list[str], separator: str) -> str:
    return separator.join(figures[:4]) + (f"{separator}…" if len(figures) > 4 else "")


def _format_figure(figure: complex) -> str:
    return f"{figure.real:.4g}" if abs(figure.imag) < 1e-12 * abs(figure.real) or not figure.imag else f"{figure:.4g}"
