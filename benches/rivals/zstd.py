"""libzstd by ctypes, decompression only: Python 3.11 brings none. `available()` is false where the library is missing."""

import ctypes
import ctypes.util

_name = ctypes.util.find_library("zstd")
_lib = None
if _name:
    _lib = ctypes.CDLL(_name)
    for name in ("ZSTD_findFrameCompressedSize", "ZSTD_decompressDCtx", "ZSTD_decompressStream", "ZSTD_isError"):
        getattr(_lib, name).restype = ctypes.c_size_t
    _lib.ZSTD_getFrameContentSize.restype = ctypes.c_ulonglong
    _lib.ZSTD_createDCtx.restype = ctypes.c_void_p
    _lib.ZSTD_versionString.restype = ctypes.c_char_p

UNKNOWN = (1 << 64) - 1
PIECE_BYTES = 1 << 20


def available():
    return _lib is not None


def version():
    return _lib.ZSTD_versionString().decode() if _lib else None


class _In(ctypes.Structure):
    _fields_ = [("src", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


class _Out(ctypes.Structure):
    _fields_ = [("dst", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


def pieces(data):
    """The bytes that `data` (bytes: frames one behind the other, skippable ones included) stands for, in pieces."""
    context = ctypes.c_void_p(_lib.ZSTD_createDCtx())
    piece = ctypes.create_string_buffer(PIECE_BYTES)
    source = _In(ctypes.cast(data, ctypes.c_void_p), len(data), 0)
    rest = 0
    try:
        # 0 says that a frame has just ended and is flushed; otherwise the library wants more, or has more to give.
        while rest or source.pos < source.size:
            target = _Out(ctypes.cast(piece, ctypes.c_void_p), PIECE_BYTES, 0)
            before = source.pos
            rest = _lib.ZSTD_decompressStream(context, ctypes.byref(target), ctypes.byref(source))
            if _lib.ZSTD_isError(ctypes.c_size_t(rest)):
                raise ValueError(f"a zstd frame is damaged before byte {source.pos}")
            if not target.pos and source.pos == before:
                raise ValueError("the last zstd frame is cut short")
            yield piece.raw[: target.pos]
    finally:
        _lib.ZSTD_freeDCtx(context)


def decompress_all(data):
    """Decompresses every frame into one buffer that is used again, as fast as the library does it. The bytes' number."""
    base = ctypes.cast(data, ctypes.c_void_p).value
    context = ctypes.c_void_p(_lib.ZSTD_createDCtx())
    at, total, room, buffer = 0, 0, 0, None
    while at < len(data):
        here = ctypes.c_void_p(base + at)
        size = _lib.ZSTD_findFrameCompressedSize(here, ctypes.c_size_t(len(data) - at))
        content = _lib.ZSTD_getFrameContentSize(here, ctypes.c_size_t(len(data) - at))
        if content >= UNKNOWN - 1:
            raise ValueError(f"the frame at byte {at} does not tell its size")
        if content > room:
            room = content
            buffer = ctypes.create_string_buffer(room)
        if content:
            total += _lib.ZSTD_decompressDCtx(context, buffer, ctypes.c_size_t(room), here, ctypes.c_size_t(size))
        at += size
    _lib.ZSTD_freeDCtx(context)
    return total
