"""matplotlib's figures, alike on every machine: no setting of the user's reaches them.

`text.usetex` would need a LaTeX, a backend for windows a screen, and its folder of settings and
fonts a home folder. pyplot would choose a backend; figures made without it draw by themselves.
"""

import atexit
import contextlib
import io
import logging
import os
import shutil
import tempfile
import warnings
from typing import Any, Callable, Iterator, Tuple

from trainer.base.errors import UserError


def png(size: Tuple[float, float], draw: Callable[[Any], None]) -> bytes:
    """Returns as a PNG file what `draw` puts into an empty `matplotlib.figure.Figure`.

    Its size is in inches, of 100 pixels each. Raises UserError where matplotlib is not installed.
    """
    try:
        with _plain_matplotlib():
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure

            figure = Figure(figsize=size)
            FigureCanvasAgg(figure)
            draw(figure)
            figure.tight_layout()
            content = io.BytesIO()
            figure.savefig(content, dpi=100, format='png')
            return content.getvalue()
    except ImportError as error:
        raise UserError(f"pip install 'matplotlib<=3.4.3' ({error})") from error


@contextlib.contextmanager
def _plain_matplotlib() -> Iterator[None]:
    """Keeps the user's settings out, and matplotlib's remarks about them and about its fonts."""
    logging.getLogger('matplotlib').setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        names = ('MATPLOTLIBRC', 'MPLBACKEND')
        before = {name: os.environ[name] for name in names if name in os.environ}
        # An empty file of settings, while it is imported: a bad one fails.
        os.environ.update(MATPLOTLIBRC=os.devnull, MPLBACKEND='')
        try:
            import matplotlib
        finally:
            for name in names:
                del os.environ[name]
            os.environ.update(before)
        try:
            matplotlib.get_cachedir()
        except Exception:  # Which one is raised without a home folder depends on the Python.
            folder = tempfile.mkdtemp(prefix='matplotlib-')
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            os.environ['MPLCONFIGDIR'] = folder
        with matplotlib.rc_context(matplotlib.rcParamsDefault):
            yield
