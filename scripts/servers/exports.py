"""Exports on disk: which is the newest of a folder, and whether it is whole."""

import contextlib
import os


def newest(folder, but=()):
    """Returns the export itself, or the newest numbered one in `folder`, but for those of `but`.

    None where there is none.
    """
    if os.path.exists(os.path.join(folder, 'saved_model.pb')):
        return folder
    numbers = [
        int(name)
        for name in os.listdir(folder)
        if name.isdigit()
        and os.path.exists(os.path.join(folder, name, 'saved_model.pb'))
        and os.path.join(folder, name) not in but
    ]
    return os.path.join(folder, str(max(numbers))) if numbers else None


def state_of(export_dir):
    """Returns the sizes and times of all files: the same twice, nobody is writing to them."""
    found = []
    for folder, _, names in os.walk(export_dir):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(os.path.join(folder, name))
                found.append((folder, name, status.st_size, status.st_mtime_ns))
    return sorted(found)


class Newer:
    """Tells of an export that is newer than the one that is served.

    Args:
      folder: of numbered exports.
      served: the export that is served already.
    """

    def __init__(self, folder, served):
        self._folder = folder
        self._told = self._seen = (served, state_of(served))

    def look(self):
        """Returns the newest export once, when two looks have seen the same files; else None.

        One whose files are others than when it was told of is told of again: it may have been half.
        """
        try:
            export_dir = newest(self._folder)
        except OSError:
            return None  # The folder is away, for a moment or for good: what is loaded stays.
        if export_dir is None:
            return None
        before, self._seen = self._seen, (export_dir, state_of(export_dir))
        if self._seen == before and self._seen != self._told:
            self._told = self._seen
            return export_dir
        return None
