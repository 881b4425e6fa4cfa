"""A fake gs:// bucket on loopback, for TensorFlow 1.14's own GCS client.

The client cannot be told of another host: it speaks HTTPS to www.googleapis.com and
storage.googleapis.com, trusts /etc/ssl/certs/ca-certificates.crt, and has all three built in. But
it heeds https_proxy. So a proxy answers for both hosts with a certificate of its own, and a command
is started in a mount namespace where that certificate lies in the place of the CA file; nothing
outside of the command changes.

The API is the part of https://cloud.google.com/storage/docs/json_api/v1 that the client uses
(tensorflow/core/platform/cloud/gcs_file_system.cc): upload in sessions, read by ranges, list, stat,
copy, delete.
"""

import contextlib
import http.server
import json
import os
import re
import shutil
import socketserver
import ssl
import subprocess
import threading
import time
import urllib.parse

import pytest

CA_FILE = '/etc/ssl/certs/ca-certificates.crt'
BUCKET = 'my-bucket'
# Root may mount in a new mount namespace; others need to become root in a user namespace first.
UNSHARE = ['unshare', '--mount'] + ([] if os.geteuid() == 0 else ['--map-root-user'])


def skip_unless_possible():
    for tool in ('unshare', 'openssl'):
        if shutil.which(tool) is None:
            pytest.skip('no ' + tool + ' here, which the fake bucket needs')
    if not os.path.exists(CA_FILE):
        pytest.skip('no ' + CA_FILE + ' here, which gs:// needs in TensorFlow 1.14')
    script = 'mount --bind /dev/null ' + CA_FILE
    done = subprocess.run(UNSHARE + ['sh', '-c', script], capture_output=True, text=True)
    if done.returncode:
        pytest.skip('mount namespaces are not permitted here: ' + done.stderr.strip())


class FakeBucket:
    """The objects of `BUCKET` and how badly it serves them.

    Attributes:
      objects: bytes by object name.
      fail_every: each so-many-th request is answered 503 and has no effect; 0 for none.
      delay_seconds: what every answer waits.
      statuses: the HTTP status of every answer so far.
    """

    def __init__(self, environ):
        self.objects = {}
        self.fail_every = 0
        self.delay_seconds = 0.0
        self.statuses = []
        self.lock = threading.RLock()
        self.generations = {}
        self.uploads = []  # [name, bytes so far] of each session
        self._environ = environ

    def start(self, *command, **environ):
        """Starts a command that sees the bucket as gs://my-bucket."""
        script = 'mount --bind "$FAKE_GCS_CA" {} && exec "$@"'.format(CA_FILE)
        return subprocess.Popen(
            [*UNSHARE, 'sh', '-c', script, 'sh', *command],
            env=dict(os.environ, **self._environ, **environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )

    def write(self, name, content):
        self.objects[name] = content
        self.generations[name] = int(time.time() * 1e6)

    def below(self, prefix):
        """Names of the objects below a folder, relative to it."""
        prefix = prefix.rstrip('/') + '/'
        with self.lock:
            return sorted(name[len(prefix) :] for name in self.objects if name.startswith(prefix))

    def facts(self, name):
        generation = self.generations[name]
        updated = time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(generation / 1e6))
        size = str(len(self.objects[name]))
        return {'name': name, 'size': size, 'generation': str(generation), 'updated': updated}

    def listing(self, prefix, delimiter, count):
        items, folders = [], set()
        for name in sorted(self.objects):
            rest = name[len(prefix) :]
            if not name.startswith(prefix):
                continue
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                items.append(self.facts(name))
        return {'items': items[:count], 'prefixes': sorted(folders)}


class _Proxy(http.server.BaseHTTPRequestHandler):
    """Takes CONNECT, whatever the host, and answers inside of it as the bucket."""

    disable_nagle_algorithm = True  # an answer would wait 40 ms for an acknowledgement

    def log_message(self, *args):
        pass

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            connection = self.server.context.wrap_socket(self.connection, server_side=True)
            _Api(connection, self.client_address, self.server)
        self.close_connection = True


class _Api(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def handle_any(self):
        body = self.read_body()
        bucket = self.server.bucket
        time.sleep(bucket.delay_seconds)
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        with bucket.lock:
            turn = len(bucket.statuses) + 1
            if bucket.fail_every and turn % bucket.fail_every == 0:
                status, content, headers = 503, b'', {}
            else:
                status, content, headers = self.answer(bucket, url.path, query, body)
            bucket.statuses.append(status)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header('content-length', str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def read_body(self):
        if 'chunked' not in self.headers.get('transfer-encoding', ''):
            return self.rfile.read(int(self.headers.get('content-length') or 0))
        body = b''
        while True:
            size = int(self.rfile.readline(), 16)
            body += self.rfile.read(size)
            self.rfile.readline()
            if size == 0:
                return body

    def answer(self, bucket, path, query, body):
        if self.headers.get('host', '').startswith('storage.googleapis.com'):
            return self.read(bucket, urllib.parse.unquote(path.split('/', 2)[2]))
        if path.startswith('/upload/'):
            return self.upload(bucket, query, body)
        parts = [urllib.parse.unquote(part) for part in path.split('/')[3:]]
        if parts[:2] != ['b', BUCKET]:
            return 404, b'', {}
        if len(parts) == 2:
            return _json({'name': BUCKET, 'location': 'US'})
        if len(parts) == 3 or not parts[3]:
            count = int(query.get('maxResults', 1000))
            return _json(bucket.listing(query.get('prefix', ''), query.get('delimiter'), count))
        return self.object(bucket, parts[3], parts[4:])

    def object(self, bucket, name, rest):
        if name not in bucket.objects:
            return 404, b'', {}
        if rest[:1] == ['rewriteTo']:
            bucket.write(rest[4], bucket.objects[name])
            return _json({'done': True, 'resource': bucket.facts(rest[4])})
        if self.command == 'DELETE':
            del bucket.objects[name]
            return 204, b'', {}
        return _json(bucket.facts(name))

    def read(self, bucket, name):
        if name not in bucket.objects:
            return 404, b'', {}
        content = bucket.objects[name]
        first, last = re.fullmatch(r'bytes=(\d+)-(\d+)', self.headers['range']).groups()
        if int(first) >= len(content):
            return 416, b'', {}
        return 206, content[int(first) : int(last) + 1], {}

    def upload(self, bucket, query, body):
        if self.command == 'POST' and query['uploadType'] == 'media':  # an empty file
            bucket.write(query['name'], body)
            return _json(bucket.facts(query['name']))
        if self.command == 'POST':
            bucket.uploads.append([query['name'], b''])
            url = 'https://www.googleapis.com/upload/storage/v1/b/{}/o?upload_id={}'
            return 200, b'', {'Location': url.format(BUCKET, len(bucket.uploads) - 1)}
        session = bucket.uploads[int(query['upload_id'])]
        # Without the header it is an empty file.
        position = self.headers.get('content-range', 'bytes */0')
        first, total = re.fullmatch(r'bytes (?:(\d+)-\d+|\*)/(\d+)', position).groups()
        if first is not None:
            session[1] = session[1][: int(first)] + body
        if len(session[1]) < int(total):  # the client asks how far a broken upload came
            last = len(session[1]) - 1
            return 308, b'', {'Range': 'bytes=0-{}'.format(last)} if last >= 0 else {}
        bucket.write(*session)
        return _json(bucket.facts(session[0]))


def _json(value):
    return 200, json.dumps(value).encode(), {'content-type': 'application/json'}


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextlib.contextmanager
def running(folder):
    """Yields a FakeBucket; its certificate goes to `folder`."""
    certificate, key = os.path.join(str(folder), 'ca.crt'), os.path.join(str(folder), 'ca.key')
    names = 'subjectAltName=DNS:www.googleapis.com,DNS:storage.googleapis.com'
    command = [
        'openssl',
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
    ]
    command += ['-nodes', '-days', '2']
    command += ['-subj', '/CN=fake bucket', '-addext', names, '-out', certificate, '-keyout', key]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    server = _Server(('127.0.0.1', 0), _Proxy)
    proxy = 'http://127.0.0.1:{}'.format(server.server_address[1])
    server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.context.load_cert_chain(certificate, key)
    server.bucket = FakeBucket(
        {
            'FAKE_GCS_CA': certificate,
            'XDG_CACHE_HOME': os.path.join(str(folder), 'cache'),
            'https_proxy': proxy,
            'HTTPS_PROXY': proxy,
            'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'none',
            'NO_GCE_CHECK': 'true',  # else the client waits for a metadata server
        }
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
