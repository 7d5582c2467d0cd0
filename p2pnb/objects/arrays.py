"""numpy arrays as dtype, shape and memory.

The dtype travels as a small description checked against a grammar, never as something to evaluate; the size that shape
and dtype ask for is computed in unbounded integers and must equal the buffer that arrives, so nothing is allocated for
what a description merely claims. A received array lies on the received memory and is writable.

Memory order (C or Fortran) is kept; an array that is neither is copied to C order, the only copy made here, save for
types with bytes that belong to no field (aligned structs, x87 long doubles): those are copied with the gaps zeroed,
because they may hold anything from this process's memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from p2pnb.errors import CorruptDataError, NotSupportedError
from p2pnb.objects.codec import Blob, Codec, Packed, read_note, write_note
from p2pnb.objects.dtypes import Dtype, array_bytes, build_dtype, describe_dtype, dtype_fields
from p2pnb.objects.plain import MAX_VALUES, Registry, pack_plain, unpack_plain
from p2pnb.objects.preview import describe_array
from p2pnb.protocol.wire import Preview

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ArrayCodec", "is_from", "pack_columns", "pack_memory", "unpack_memory"]

_OWN_BELOW_BYTES: Final = 64 * 1024  # smaller arrays are copied out, not to keep a large content alive


class ArrayNote(msgspec.Struct, frozen=True, array_like=True):
    """An array; `kind` is "array", "scalar", "recarray" or "masked" (data, then mask and fill value)."""

    kind: str
    dtype: Dtype
    shape: list[int]
    fortran: bool = False
    has_mask: bool = False
    hard_mask: bool = False


def is_from(value: object, *modules: str) -> bool:
    """Say whether the class of `value`, or a base of it, comes from one of these packages, without importing them."""
    return any(kind.__module__.split(".", 1)[0] in modules for kind in type(value).__mro__)


class ArrayCodec(Codec):
    """numpy.ndarray, masked and record arrays, and numpy scalars; arrays of objects if those are plain data."""

    name = "numpy"

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def takes(self, value: object) -> bool:
        if not is_from(value, "numpy"):
            return False
        import numpy as np

        return isinstance(value, np.ndarray | np.generic)

    def encode(self, value: Any) -> Packed:
        import numpy as np

        kind = "array"
        if isinstance(value, np.generic):
            kind, value = "scalar", np.asarray(value)
        elif isinstance(value, np.ma.MaskedArray):
            return self._encode_masked(value)
        elif type(value) is np.recarray:
            kind = "recarray"
        elif type(value) not in (np.ndarray, np.memmap):
            raise NotSupportedError(f"{self.type_name(value)} can't be sent; send numpy.asarray(value)")
        array = np.asarray(value)
        if array.dtype == object and kind == "array":
            packed = pack_plain(array.ravel(order="C").tolist(), self._registry)
            return Packed(write_note(ArrayNote("objects", Dtype(), list(array.shape))), packed.buffers)
        note = ArrayNote(kind, describe_dtype(array.dtype), list(array.shape), _is_fortran(array))
        return Packed(write_note(note), [array_blob(array)])

    def _encode_masked(self, value: Any) -> Packed:
        import numpy as np

        if type(value) is not np.ma.MaskedArray:
            raise NotSupportedError(f"{self.type_name(value)} can't be sent; send numpy.ma.array(value)")
        data, has_mask = np.asarray(value.data), value.mask is not np.ma.nomask
        fortran = _is_fortran(data)
        buffers = [array_blob(data)]
        if has_mask:
            mask = np.asarray(value.mask)
            buffers.append(array_blob(np.asfortranarray(mask) if fortran else np.ascontiguousarray(mask)))
        buffers.append(array_blob(np.asarray(value.fill_value, dtype=data.dtype)))
        note = ArrayNote("masked", describe_dtype(data.dtype), list(data.shape), fortran, has_mask, value.hardmask)
        return Packed(write_note(note), buffers)

    def check(self, note: bytes, lengths: Sequence[int]) -> None:
        import numpy as np

        parsed = read_note(note, ArrayNote)
        if parsed.kind == "objects":
            if array_bytes(parsed.shape, np.dtype("u1")) > MAX_VALUES or not lengths:
                raise CorruptDataError("the received array of objects is malformed")
            return
        dtype = build_dtype(parsed.dtype)
        expected = [array_bytes(parsed.shape, dtype)]
        if parsed.kind == "masked":
            if parsed.has_mask:
                expected.append(array_bytes(parsed.shape, np.ma.make_mask_descr(dtype)))
            expected.append(dtype.itemsize)
        elif parsed.kind not in ("array", "scalar", "recarray"):
            raise CorruptDataError("the received array is of an unknown kind")
        if parsed.kind == "scalar" and parsed.shape:
            raise CorruptDataError("a received scalar has dimensions")
        if list(lengths) != expected:
            raise CorruptDataError(
                f"the received array of shape {tuple(parsed.shape)} needs {sum(expected):,} bytes, "
                f"but {sum(lengths):,} belong to it"
            )

    def decode(self, note: bytes, buffers: Sequence[memoryview]) -> object:
        import numpy as np

        self.check(note, [len(buffer) for buffer in buffers])
        parsed = read_note(note, ArrayNote)
        if parsed.kind == "objects":
            values = unpack_plain(buffers[0], buffers[1:], self._registry)
            if type(values) is not list or len(values) != math.prod(parsed.shape):
                raise CorruptDataError("the received array of objects has another number of them than announced")
            return np.fromiter(values, dtype=object, count=len(values)).reshape(parsed.shape)
        dtype = build_dtype(parsed.dtype)
        array = array_over(buffers[0], dtype, parsed.shape, fortran=parsed.fortran)
        if parsed.kind == "scalar":
            return array[()]
        if parsed.kind == "recarray":
            return array.view(np.recarray)
        if parsed.kind == "array":
            return array
        mask: Any = np.ma.nomask
        if parsed.has_mask:
            mask = array_over(buffers[1], np.ma.make_mask_descr(dtype), parsed.shape, fortran=parsed.fortran)
        fill = array_over(buffers[-1], dtype, [])[()]
        masked: Any = np.ma.MaskedArray
        return masked(array, mask=mask, fill_value=fill, hard_mask=parsed.hard_mask, copy=False)

    def preview(self, value: Any) -> Preview:
        return describe_array(value, self.type_name(value))


def pack_memory(array: np.ndarray[Any, Any]) -> tuple[bytes, Blob]:
    """Return the note and the memory of an array without objects."""
    note = ArrayNote("array", describe_dtype(array.dtype), list(array.shape), _is_fortran(array))
    return write_note(note), array_blob(array)


def pack_columns(columns: Sequence[np.ndarray[Any, Any]]) -> tuple[bytes, Blob]:
    """Return columns of one type and length, wherever each lies, as the note and memory of one array of them all."""
    first = columns[0]
    note = ArrayNote("array", describe_dtype(first.dtype), [len(first), len(columns)], fortran=True)
    return write_note(note), tuple(piece for column in columns for piece in array_blob(column))


def unpack_memory(note: bytes, buffer: memoryview) -> np.ndarray[Any, Any]:
    """Return the array `pack_memory` described, on the received memory; raises `CorruptDataError`."""
    parsed = read_note(note, ArrayNote)
    dtype = build_dtype(parsed.dtype)
    if parsed.kind != "array" or array_bytes(parsed.shape, dtype) != len(buffer):
        raise CorruptDataError("a received column has another size than its description")
    return array_over(buffer, dtype, parsed.shape, fortran=parsed.fortran)


def _is_fortran(array: np.ndarray[Any, Any]) -> bool:
    return bool(array.flags.f_contiguous and not array.flags.c_contiguous)


def array_blob(array: np.ndarray[Any, Any]) -> Blob:
    """Return the array's memory in C order (Fortran order if it has that), copied only if it lies scattered."""
    import numpy as np

    if not array.nbytes:
        return ()
    if _is_fortran(array):
        array = array.T
    array = np.ascontiguousarray(array)
    gaps = _gaps(array.dtype)
    raw: Any = array.reshape(-1).view(np.uint8)
    if gaps.any():
        raw = raw.reshape(-1, array.dtype.itemsize).copy()
        raw[:, gaps] = 0
        raw = raw.reshape(-1)
    return (memoryview(raw),)


def _gaps(dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    unused = np.zeros(dtype.itemsize, dtype=bool)
    if dtype.names is not None:
        unused[:] = True
        for name in dtype.names:
            kind, offset = dtype_fields(dtype)[name][:2]
            base, count = kind.base, math.prod(kind.shape)
            unused[offset : offset + kind.itemsize] &= np.tile(_gaps(base), count)
    elif dtype.kind in "fc" and np.finfo(dtype).nmant == 63:  # x87: 80 bits in 12 or 16 bytes
        each = np.finfo(dtype).dtype.itemsize
        for start in range(0, dtype.itemsize, each):
            unused[start + 10 : start + each] = True
    return unused


def array_over(
    buffer: memoryview, dtype: np.dtype[Any], shape: Sequence[int], *, fortran: bool = False
) -> np.ndarray[Any, Any]:
    """Return a writable array over received memory (a copy where it is small); the caller has checked the size."""
    import numpy as np

    order: Any = "F" if fortran else "C"
    if not len(buffer):
        return np.zeros(shape, dtype=dtype, order=order)
    if buffer.readonly or len(buffer) < _OWN_BELOW_BYTES:
        buffer = memoryview(bytearray(buffer))
    flat = np.frombuffer(buffer, dtype=np.uint8)
    if dtype.kind == "b":
        _check_booleans(flat)
    elif dtype.names is not None:
        _check_boolean_fields(flat.view(dtype))
    return flat.view(dtype).reshape(shape, order=order)


def _check_booleans(raw: np.ndarray[Any, Any]) -> None:
    if raw.size and raw.max() > 1:  # numpy's behaviour is undefined for other bytes
        raise CorruptDataError("the received array has truth values that are neither true nor false")


def _check_boolean_fields(array: np.ndarray[Any, Any]) -> None:
    import numpy as np

    if array.dtype.names is not None:
        for name in array.dtype.names:
            _check_boolean_fields(np.asarray(array[name]))
    elif array.dtype.kind == "b":
        _check_booleans(array.view(np.uint8))
