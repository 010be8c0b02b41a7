"""Where results are written: whether that can be done is asked before the long work, and missing folders are made.

One rule for all that the package writes: a folder that is not there is made, a place that cannot be written to is refused at once, in one sentence.
"""
from __future__ import annotations

import os
import tempfile


def check_place(path: str | os.PathLike[str], *, folder: bool = False) -> None:
    """Refuses a place where a file (or a folder, such as a capture) could not be made. Leaves nothing behind.

    Raises
    ------
    IsADirectoryError : a file is to be written, and there is a folder of its name
    NotADirectoryError : a part of the path before its last is a file
    OSError : nothing can be made in the nearest folder that is there
    """
    given = os.fspath(path)
    if not folder and os.path.isdir(given):
        raise IsADirectoryError(21, "expected the name of a file to write, got a folder", given)
    if not folder and os.path.exists(given):
        if not os.access(given, os.W_OK):
            raise PermissionError(13, "cannot be written", given)
        return
    above = os.path.dirname(os.path.abspath(given))
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        raise NotADirectoryError(20, f"cannot be made: {above} is not a folder", given)
    try:
        with tempfile.TemporaryDirectory(prefix=".porting-", dir=above):
            pass
    except OSError as error:
        raise type(error)(error.errno, f"cannot be made in {above}: {error.strerror}", given) from None


def make_way(path: str | os.PathLike[str]) -> None:
    """Makes the folders above a path that is about to be written. Raises OSError."""
    os.makedirs(os.path.dirname(os.path.abspath(os.fspath(path))), exist_ok=True)
