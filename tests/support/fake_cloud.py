"""A fake of Google Cloud's APIs on loopback, for the real gcloud."""

import contextlib
import http.server
import json
import os
import threading

LOCATION = 'projects/1/locations/us-central1'
_BUILD = {
    'id': 'b-1', 'projectId': 'my-project', 'logUrl': 'http://x',
    'createTime': '2026-01-01T00:00:00Z', 'options': {'logging': 'CLOUD_LOGGING_ONLY'},
}  # fmt: skip


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers what gcloud waits for, and keeps each request with a body."""

    def log_message(self, *args):
        pass

    def do_POST(self):
        content = self.rfile.read(int(self.headers.get('content-length') or 0))
        path = self.path.split('?')[0]
        is_upload = path.startswith('/upload/')
        body = _uploaded(content) if is_upload else json.loads(content or b'null')
        self.server.requests.append((self.command, path, body))
        content = json.dumps(_answer(self.command, path, body or {})).encode()
        self.send_response(200)
        self.send_header('content-type', 'application/json')
        self.send_header('content-length', str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PATCH = do_POST


def _uploaded(content):
    """The file in the body of an upload, whose other part says what it is."""
    boundary = content.split(b'\n', 1)[0]
    part = content.split(b'\n' + boundary)[1]
    return part.split(b'\n\n', 1)[1]


def _answer(method, path, body):
    if path.startswith(('/storage/', '/upload/')):
        return _answer_of_storage(path, body)
    last = path.rsplit('/', 1)[1]
    if path.endswith('/builds/b-1'):
        return dict(_BUILD, status='SUCCESS')
    if method == 'GET':
        shown = {'name': path.split('/', 2)[2], 'displayName': 'shown'}
        if '/models/' in path:
            return dict(shown, supportedDeploymentResourcesTypes=['DEDICATED_RESOURCES'])
        return dict(shown, state='JOB_STATE_RUNNING')
    if last in ('customJobs', 'hyperparameterTuningJobs'):
        return dict(body, name=f'{LOCATION}/{last}/123', state='JOB_STATE_PENDING')
    if last == 'builds':
        kind = 'type.googleapis.com/google.devtools.cloudbuild.v1.BuildOperationMetadata'
        build = dict(body, **_BUILD, status='QUEUED')
        return {'name': 'operations/build/x/QQ==', 'metadata': {'@type': kind, 'build': build}}
    if last.endswith(':predict'):
        return {'predictions': [{'negative_elbo': 1.0}], 'deployedModelId': '5'}
    made = {
        'models:upload': {'model': LOCATION + '/models/9'},
        'endpoints': {'name': LOCATION + '/endpoints/7'},
    }.get(last, {'deployedModel': {'id': '5'}})
    return {
        'name': LOCATION + '/operations/1',
        'done': True,
        'response': dict(made, **{'@type': 'x'}),
    }


def _answer_of_storage(path, body):
    """The bucket that gcloud keeps sources of builds in."""
    bucket = {'id': 'my-project_cloudbuild', 'name': 'my-project_cloudbuild', 'location': 'US'}
    if path.startswith('/upload/'):
        return {'bucket': bucket['name'], 'name': 'x.tgz', 'generation': '1', 'size': len(body)}
    return bucket if path.endswith(bucket['name']) else {'items': [bucket]}


@contextlib.contextmanager
def running(folder):
    """Yields the environment for gcloud, which keeps its own files in `folder`, and the list of
    the (method, path, body) that it sends."""
    token = os.path.join(str(folder), 'token')
    with open(token, 'w') as f:
        f.write('none')
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = 'http://127.0.0.1:{}/'.format(server.server_address[1])
    environ = dict(
        os.environ,
        CLOUDSDK_CONFIG=str(folder),
        CLOUDSDK_CORE_PROJECT='my-project',
        CLOUDSDK_AUTH_ACCESS_TOKEN_FILE=token,
        CLOUDSDK_CORE_DISABLE_PROMPTS='1',
        CLOUDSDK_CORE_DISABLE_USAGE_REPORTING='1',
        CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK='1',
        CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM=address,
        CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDBUILD=address,
        CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE=address + 'storage/v1/',
    )
    try:
        yield environ, server.requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
