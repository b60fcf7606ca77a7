"""Arrays of every datatype of the protocol, for hypothesis."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workbench.serving.tensors import Array

__all__ = ["ARRAYS", "DTYPES", "arrays", "same"]

DTYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8",
    "INT8": "i1", "INT16": "i2", "INT32": "i4", "INT64": "i8",
    "FP16": "f2", "BF16": ml_dtypes.bfloat16, "FP32": "f4", "FP64": "f8", "BYTES": object,
}  # fmt: skip
_TEXTS = st.binary(max_size=9)
_SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def arrays(datatype: str, texts: st.SearchStrategy[bytes] = _TEXTS) -> st.SearchStrategy[Array]:
    """Give arrays of a datatype with up to four axes, some without elements.

    Args:
        datatype: in the protocol's words.
        texts: the elements of BYTES; by default any.
    """
    if datatype == "BYTES":
        return hnp.arrays(object, _SHAPES, elements=texts)
    if datatype == "BF16":  # any two bytes are one
        return hnp.arrays("u2", _SHAPES).map(lambda array: array.view(ml_dtypes.bfloat16))
    return hnp.arrays(DTYPES[datatype], _SHAPES)


ARRAYS = st.sampled_from(list(DTYPES)).flatmap(arrays)


def same(a: Array, b: Array) -> bool:
    """Return whether two arrays are equal, bit for bit."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype == np.dtype(object):
        return bool((a == b).all())
    return a.tobytes() == b.tobytes()
