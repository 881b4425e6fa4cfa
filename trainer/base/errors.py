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
    """Something the user can mend: the message names the flag or file, its value and what to do."""

    def __init__(self, message: str):
        super().__init__(without_secrets(message))


# What to do where it is known, and the same command can go on then.
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
# How TF tells of an OSError in Python code that it called.
_IN_PYTHON = re.compile(r"\w+: \[Errno (\d+)\] [^:]+: ['\"](.+)['\"]")
# The C library's words, by which TF tells what the system said.
_NUMBERS = {os.strerror(number): number for number in errno.errorcode}


def of_files(error: BaseException, naming: Callable[[str], str] = lambda path: '') -> Optional[str]:
    """Returns the sentence for a failure of the file system, None for any other exception.

    Args:
      error: an OSError, or an exception of TF's, whose messages are `PATH; REASON`, or those of an
        OSError.
      naming: returns `--flag=value` where a path was made of a flag's value, else ''.
    """
    path, number = _path_and_number(error)
    if number is None or not (path or number in _REMEDIES):
        return None
    flag = naming(path) if path else ''
    where = ': '.join(part for part in (flag, path or 'a file') if part)
    if flag.endswith('=' + path):
        where = flag
    whole = ' What was saved before is whole: the same command goes on from it.'
    return f'{where}: {os.strerror(number)}: {remedy(error)}.' + whole * (number in _REMEDIES)


def reason(error: BaseException) -> str:
    """Returns why a file could not be read or written, without its path where that is known."""
    number = _path_and_number(error)[1]
    return first_line(getattr(error, 'message', error)) if number is None else os.strerror(number)


def remedy(error: BaseException) -> str:
    """Returns what to do about that, words for the end of a sentence."""
    return _REMEDIES.get(_path_and_number(error)[1] or 0, 'see what is there, or name another')


def _path_and_number(error: BaseException) -> Tuple[str, Optional[int]]:
    """The path that an exception names, '' for none, and its `errno`."""
    if not isinstance(error, OSError):
        line = first_line(getattr(error, 'message', ''))
        in_python = _IN_PYTHON.fullmatch(line)
        if in_python:
            return in_python.group(2), int(in_python.group(1))
        path, _, words = line.rpartition('; ')
        return path, _NUMBERS.get(words)
    path = error.filename
    if path is None or isinstance(path, int):  # A file that is open already has a number.
        path = ''
    return os.fsdecode(path), error.errno


def first_line(text: Any) -> str:
    """Returns the first line of a text or an exception: TensorFlow goes on for several more."""
    return str(text).strip().split('\n')[0][:500]


def printable(name: str) -> str:
    """Returns a name as it is, or quoted with escapes where a terminal would not show it."""
    return name if name.isprintable() else repr(name)


def as_text(name: str) -> str:
    """Returns a name as text that UTF-8 can write: of other bytes, their escapes."""
    return os.fsencode(name).decode('utf-8', 'backslashreplace')


def some(names: Sequence[str], shown: int = 3, separator: str = ', ') -> str:
    """Lists the first of `names`, and how many more there are."""
    listed = separator.join(names[:shown])
    if len(names) <= shown:
        return listed
    return f'{listed}{" and " if separator == ", " else separator}{len(names) - shown} more'
