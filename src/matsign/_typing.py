"""Type aliases for arrays of any library, which type checkers treat as Any."""

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
Arrays: TypeAlias = tuple[Any, ...]  # entries may be None
NDArray: TypeAlias = np.ndarray[Any, Any]
