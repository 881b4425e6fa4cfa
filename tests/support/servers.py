"""Servers on a port of this machine: of a folder's files, and of nothing at all."""

import contextlib
import functools
import http.server
import socket
import threading


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(folder):
    """The URL at which the files in `folder` are."""
    handler = functools.partial(_QuietHandler, directory=str(folder))
    with http.server.HTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield 'http://127.0.0.1:{}/'.format(server.server_port)
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def silent():
    """The address, `host:port`, of a server that never answers."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen(8)
        yield '127.0.0.1:{}'.format(listener.getsockname()[1])
