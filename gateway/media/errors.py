"""What can go wrong with pictures and videos on disk.

MediaError
    NoSuchFile            the cache does not hold it
        BadName           no file can have this name
    StorageFailed         the disk refuses
        StorageFull       no room, or hardly any
    BadContent            bytes that are not kept, for what they are
        WrongType         none of the expected types
        Damaged           cut off, or not all of it is a picture
        TooManyPixels     would need too much memory to show
        TooLarge          more bytes than allowed
"""

from __future__ import annotations

import errno

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class MediaError(Exception):
    """``message`` is for clients: it names no path and repeats nothing of the content."""

    message = "The file cannot be used."

    def __init__(self, message: str | None = None) -> None:
        self.message = message or self.message
        super().__init__(self.message)


class NoSuchFile(MediaError):
    message = "There is no such file, or it is no longer kept."


class BadName(NoSuchFile):
    """Answered as a file that is not there: what is wrong with a name is nobody's business."""


class StorageFailed(MediaError):
    message = "The file could not be stored."


class StorageFull(StorageFailed):
    message = "There is no room to store the file."


class BadContent(MediaError):
    """``code`` is the error code that a client gets for a file of its own."""

    code = "invalid_file"


class WrongType(BadContent):
    code = "invalid_image_type"


class Damaged(BadContent):
    code = "damaged_file"
    message = "The file is damaged or incomplete."


class TooManyPixels(BadContent):
    code = "too_many_pixels"


class TooLarge(BadContent):
    code = "file_too_large"


def storage_error(error: OSError) -> StorageFailed:
    """What a refusal of the disk means; raise it ``from`` the error."""
    return StorageFull() if error.errno in _NO_ROOM else StorageFailed()
