"""A fake of Google Cloud's APIs on loopback, for the real gcloud."""

import contextlib
import http.server
import json
import os
import threading

LOCATION = 'projects/1/locations/us-central1'


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers what gcloud waits for, and keeps each request with a body."""

    def log_message(self, *args):
        pass

    def do_POST(self):
        length = int(self.headers.get('content-length') or 0)
        body = json.loads(self.rfile.read(length) or b'null')
        path = self.path.split('?')[0]
        self.server.requests.append((self.command, path, body))
        content = json.dumps(_answer(self.command, path, body or {})).encode()
        self.send_response(200)
        self.send_header('content-type', 'application/json')
        self.send_header('content-length', str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PATCH = do_POST


def _answer(method, path, body):
    last = path.rsplit('/', 1)[1]
    if method == 'GET':
        shown = {'name': path.split('/', 2)[2], 'displayName': 'shown'}
        if '/models/' in path:
            return dict(shown, supportedDeploymentResourcesTypes=['DEDICATED_RESOURCES'])
        return dict(shown, state='JOB_STATE_RUNNING')
    if last in ('customJobs', 'hyperparameterTuningJobs'):
        return dict(body, name=f'{LOCATION}/{last}/123', state='JOB_STATE_PENDING')
    if last == 'builds':
        kind = 'type.googleapis.com/google.devtools.cloudbuild.v1.BuildOperationMetadata'
        build = dict(body, id='b-1', projectId='my-project', status='QUEUED', logUrl='http://x')
        build['createTime'] = '2026-01-01T00:00:00Z'
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
    )
    try:
        yield environ, server.requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
