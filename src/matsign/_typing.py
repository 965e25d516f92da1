"""Names for types of arrays: any of the libraries', so nothing that a type checker knows more of."""

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
Arrays: TypeAlias = tuple[Any, ...]  # some may be None
NDArray: TypeAlias = np.ndarray[Any, Any]
