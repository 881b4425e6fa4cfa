"""The README.md files, and the commands in them."""

import itertools
import os
import pathlib
import re

from tests.support.paths import ROOT

_FOLDERS = ('trainer', 'scripts', 'tests')


def paths():
    """Returns the README.md files, as they are read: the first page, then those of folders."""
    below = [path for folder in _FOLDERS for path in pathlib.Path(ROOT, folder).rglob('README.md')]
    return [pathlib.Path(ROOT, 'README.md'), *sorted(below)]


def text(path=None):
    """Returns the text of one of them, or of all."""
    return '\n'.join(one.read_text() for one in ([path] if path else paths()))


def blocks(language, path=None):
    """Returns the code of blocks of a language, in one of them or in all."""
    return re.findall(r'^```{}\n(.*?)^```'.format(language), text(path), re.M | re.S)


def prose(path=None):
    """Returns the text without the blocks."""
    return re.sub(r'^```.*?^```', '', text(path), flags=re.M | re.S)


def spans(path=None):
    """Returns the code in the running text, each in one line."""
    return [' '.join(code.split()) for code in re.findall(r'`([^`]+)`', prose(path))]


def file_named(name):
    """Whether some file of the project has a name, with or without folders before it."""
    folders = [pathlib.Path(ROOT, folder).rglob(os.path.basename(name)) for folder in _FOLDERS]
    found = [pathlib.Path(ROOT, name), *itertools.chain(*folders)]
    return any(path.exists() and str(path).endswith('/' + name) for path in found)
