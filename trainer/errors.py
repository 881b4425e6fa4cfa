"""What is shown to the user as one sentence, never as a traceback."""

import errno
import os
import re
from typing import Optional


class UserError(Exception):
    """Something the user can mend: the message names the flag or file, its value and what to do."""


# What can go wrong with any file at any time, and what to do.
_OF_FILES = {
    errno.ENOSPC: 'make room',
    errno.EDQUOT: 'make room',
    errno.EROFS: 'name a folder that can be written',
    errno.EACCES: 'get the right to it, or name another',
    errno.EPERM: 'get the right to it, or name another',
    errno.EIO: 'check the disk',
    errno.ESTALE: 'mount its file system again',
    errno.EMFILE: 'raise the limit of open files (ulimit -n)',
    errno.ENFILE: 'raise the limit of open files',
    errno.ENAMETOOLONG: 'choose a shorter name',
    errno.EFBIG: 'raise the limit of file sizes (ulimit -f)',
}


def of_files(error: BaseException) -> Optional[str]:
    """Returns the sentence for a failure of the file system, None for any other exception.

    Args:
      error: an OSError, or an exception of TF's: its messages are `PATH; REASON`, the reason in the
        C library's words.
    """
    number, path = _of_python(error) if isinstance(error, OSError) else _of_tensorflow(error)
    if number is None:
        return None
    return '{}: {}: {}. What was saved before is whole: the same command goes on from it.'.format(
        path or 'a file', os.strerror(number), _OF_FILES[number]
    )


def _of_python(error: OSError) -> tuple:
    return error.errno if error.errno in _OF_FILES else None, error.filename


def _of_tensorflow(error: BaseException) -> tuple:
    first_line = str(getattr(error, 'message', '')).strip().split('\n')[0]
    for number in _OF_FILES:
        match = re.search(r'(?:([^\s;]+); )?' + re.escape(os.strerror(number)), first_line)
        if match:
            return number, match.group(1)
    return None, None
