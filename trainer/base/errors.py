"""What is shown to the user as one sentence, never as a traceback."""

import errno
import os
import re
from typing import Any, Callable, Optional, Sequence, Tuple

_USER_INFO = re.compile(r'(?<=://)[^/?#\s\'"]*@')
_TOKEN = re.compile(
    r'(?i)([?&][\w-]*(?:token|key|secret|password|signature|credential)=)[^&\s\'"]+'
)


def without_secrets(text: str) -> str:
    """Takes user names, passwords and tokens out of the URLs in a text that is to be shown."""
    return _TOKEN.sub(r'\1***', _USER_INFO.sub('***@', text))


class UserError(Exception):
    """Something the user can mend: the message names the flag or file, its value and what to do.

    What secrets are in URLs of the message are left out of it.
    """

    def __init__(self, message: str):
        super().__init__(without_secrets(message))


# What to do where it is known, and the same command can go on then. It need not be known: whatever
# else fails at a path is a sentence too.
_REMEDIES = {
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
_OTHERWISE = 'see what is there, or name another'
# The C library's words, by which TF tells what the system said.
_NUMBERS = {os.strerror(number): number for number in errno.errorcode}


def of_files(error: BaseException, naming: Callable[[str], str] = lambda path: '') -> Optional[str]:
    """Returns the sentence for a failure of the file system, None for any other exception.

    Args:
      error: an OSError, or an exception of TF's: its messages are `PATH; REASON`, the reason in the
        C library's words. The path may have anything in it, `; ` too.
      naming: returns `--flag=value` where a path was made of a flag's value, else ''.
    """
    path, number = _of_python(error) if isinstance(error, OSError) else _of_tensorflow(error)
    if number is None or not (path or number in _REMEDIES):
        return None
    flag = naming(path) if path else ''
    where = ': '.join(part for part in (flag, path or 'a file') if part)
    if flag.endswith('=' + path):
        where = flag
    whole = ' What was saved before is whole: the same command goes on from it.'
    return '{}: {}: {}.{}'.format(
        where, os.strerror(number), remedy(error), whole if number in _REMEDIES else ''
    )


def reason(error: BaseException) -> str:
    """Returns why a file could not be read or written, without its path where that is known."""
    _, number = _of_python(error) if isinstance(error, OSError) else _of_tensorflow(error)
    if number is not None:
        return os.strerror(number)
    return first_line(getattr(error, 'message', error))


def remedy(error: BaseException) -> str:
    """Returns what to do about that, words for the end of a sentence."""
    _, number = _of_python(error) if isinstance(error, OSError) else _of_tensorflow(error)
    return _OTHERWISE if number is None else _REMEDIES.get(number, _OTHERWISE)


def _of_python(error: OSError) -> Tuple[str, Optional[int]]:
    path = error.filename
    if path is None or isinstance(path, int):  # A file that is open already has a number.
        path = ''
    return os.fsdecode(path), error.errno


def _of_tensorflow(error: BaseException) -> Tuple[str, Optional[int]]:
    path, _, words = first_line(getattr(error, 'message', '')).rpartition('; ')
    return path, _NUMBERS.get(words)


def first_line(text: Any) -> str:
    """Returns the first line of a text or an exception: TensorFlow goes on for several more."""
    return str(text).strip().split('\n')[0][:500]


def some(names: Sequence[str], shown: int = 3, separator: str = ', ') -> str:
    """Lists the first of `names`, and how many more there are."""
    more = ['{} more'.format(len(names) - shown)] if len(names) > shown else []
    listed = separator.join(names[:shown])
    return (' and ' if separator == ', ' else separator).join([listed] + more)
