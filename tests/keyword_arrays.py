"""Functions that take some arrays by keyword, for tests that pass every array by its position."""

import functools
from dataclasses import replace


def by_position(f):
    """`f`, which takes its keyword arrays, such as e, behind the others; options by keyword only."""
    parameters = f.spec.parameters
    names = parameters.keyword_arrays
    if not names:
        return f
    count = len(parameters.arrays) - len(names)

    @functools.wraps(f)
    def call(*args, **kwargs):
        return f(*args[:count], **dict(zip(names, args[count:], strict=False)), **kwargs)

    places = parameters.signature.parameters
    arrays = [places[name].replace(kind=places[name].POSITIONAL_OR_KEYWORD) for name in parameters.arrays]
    options = [p.replace(kind=p.KEYWORD_ONLY) for name, p in places.items() if name not in parameters.arrays]
    signature = parameters.signature.replace(parameters=[*arrays, *options])
    call.spec = replace(f.spec, function=call, parameters=replace(parameters, signature=signature, keyword_arrays=()))
    return call
