"""Fixtures for what asks models about images."""

import functools
import http.server
import json
import threading

import pytest
import tensorflow as tf

from scripts.clients import in_tensorflow_1
from scripts.servers import predict_protocol
from tests.support import serving_models
from trainer import predict
from trainer.scoring import scores, series_scores
from trainer.serving.client import Export


@pytest.fixture(scope='session')
def model(tmp_path_factory):
    """An export, its checkpoint and its settings."""
    return serving_models.write_export(tmp_path_factory.mktemp('model'))


@pytest.fixture(scope='module')
def server_of():
    """Starts a stand-in for TensorFlow Serving: its JSON, answered by an export in this process."""
    servers = []

    def start(export_dir):
        server = _server(export_dir)
        servers.append(server)
        return 'http://127.0.0.1:{}/v1/models/vae'.format(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture(scope='module')
def url(model, server_of):
    return server_of(model[0])


def _server(export_dir):
    calls, types = in_tensorflow_1.raw_session(export_dir), in_tensorflow_1.input_types(export_dir)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
            name = request['signature_name']
            try:
                assert self.path == '/v1/models/vae:predict'
                fed, by_row = predict_protocol.arrays_of(request, types[name])
                answer = predict_protocol.response_of(calls[name](fed), by_row)
            except tf.errors.InvalidArgumentError as error:
                answer = {'error': error.message}
            content = json.dumps(answer).encode('utf-8')
            self.send_response(400 if 'error' in answer else 200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Values:
    """What the flags say."""

    def __init__(self, images=None, export_dir=None, url=None, **others):
        given = dict(others, images=images, export_dir=export_dir, url=url)
        for name in ('source', 'output', 'latents', 'model_dir', 'checkpoint', 'threshold'):
            given.setdefault(name)
        self.samples, self.explain, self.data_dir = None, False, ''
        for name, value in given.items():
            is_path = value is not None and not isinstance(value, (bool, int))
            setattr(self, name, str(value) if is_path else value)


@pytest.fixture(scope='module')
def loaded():
    """Loads an export, once for a module of tests: it takes a second or two."""
    return functools.lru_cache(maxsize=None)(Export)


@pytest.fixture
def ask(monkeypatch, loaded):
    """Runs the program in this process."""

    def run_main(*arguments, **values):
        for module in (scores, series_scores):
            monkeypatch.setattr(module, 'Export', loaded)
        monkeypatch.setattr(predict.flags, 'FLAGS', Values(*arguments, **values))
        predict.main([])

    return run_main
