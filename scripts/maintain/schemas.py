"""Writes tests/support/schemas/*.json anew: ./scripts/run python scripts/maintain/schemas.py

They are JSON Schemas of what is sent to the cloud, and stricter than what receives it: an unknown
key, a value that is none of an enum's, and a key that only answers have are refused. Vertex AI's
and Cloud Build's come from Google's discovery documents, which google-api-python-client ships;
TFJob's from the generated clients of the Training Operator and of Kubernetes.
"""

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile

from scripts import ROOT

SCHEMAS = os.path.join(ROOT, 'tests', 'support', 'schemas')

GOOGLE = 'google-api-python-client==2.202.0'
KUBEFLOW = 'kubeflow-training==1.9.4'
KUBERNETES = 'kubernetes==31.0.0'
VERTEX = ('CustomJob', 'HyperparameterTuningJob', 'UploadModelRequest', 'Endpoint')
VERTEX += ('DeployModelRequest', 'PredictRequest')

PLAIN = {'str': 'string', 'bool': 'boolean', 'int': 'integer', 'float': 'number'}
# A quantity may also be a number, but is seldom meant so.
PLAIN.update(datetime='string', Quantity='string')
KEPT = ('type', 'enum', 'items', 'properties', 'additionalProperties', '$ref')
OBJECT = {'type': 'object', 'additionalProperties': False}
FORMATS = {
    # As protobuf's JSON has it: a string, although numbers are taken too.
    'int64': {'type': ['string', 'integer'], 'pattern': r'^-?\d+$'},
    'google-duration': {'type': 'string', 'pattern': r'^\d+(\.\d{1,9})?s$'},
}


def download(folder, requirement):
    """Opens the wheel of a package."""
    command = [sys.executable, '-Im', 'pip', '--disable-pip-version-check', 'download', '--quiet']
    command += ['--no-deps', '--only-binary=:all:', '--ignore-requires-python', '--dest', folder]
    subprocess.run([*command, requirement], check=True)
    start = requirement.split('==')[0].replace('-', '_')
    [name] = [name for name in os.listdir(folder) if name.startswith(start + '-')]
    return zipfile.ZipFile(os.path.join(folder, name))


def from_discovery(schema):
    """Turns a type of a discovery document into JSON Schema."""
    if schema.get('format') in FORMATS:
        return FORMATS[schema['format']]
    if schema.get('type') == 'any':
        return {}
    out = {key: value for key, value in schema.items() if key in KEPT}
    if '$ref' in out:
        return {'$ref': '#/definitions/' + out['$ref']}
    if 'items' in out:
        out['items'] = from_discovery(out['items'])
    if 'properties' in out:
        out['properties'] = {
            name: from_discovery(value)
            for name, value in out['properties'].items()
            if not value.get('readOnly')
        }
    if out.get('type') == 'object':
        more = out.get('additionalProperties')
        out['additionalProperties'] = from_discovery(more) if more else False
    return out


def from_client(name):
    """Turns a type as the generated clients of Kubernetes write it into JSON Schema."""
    if name in PLAIN:
        return {'type': PLAIN[name]}
    if name == 'object':  # an IntOrString and the like
        return {}
    inner = re.fullmatch(r'(list\[|dict\(str, )(.*)[\])]', name)
    if not inner:
        return {'$ref': '#/definitions/' + name}
    kind, part = ('array', 'items') if name[:4] == 'list' else ('object', 'additionalProperties')
    return {'type': kind, part: from_client(inner.group(2))}


def client_types(wheel):
    """A dict of all types of a generated client to their JSON Schemas."""
    types = {}
    for path in wheel.namelist():
        if '/models/' not in path or not path.endswith('.py'):
            continue
        for node in ast.parse(wheel.read(path)).body:
            if isinstance(node, ast.ClassDef):
                facts = {
                    item.targets[0].id: ast.literal_eval(item.value)
                    for item in node.body
                    if isinstance(item, ast.Assign) and isinstance(item.value, ast.Dict)
                }
                found = facts['openapi_types'].items()
                properties = {facts['attribute_map'][key]: from_client(one) for key, one in found}
                types[node.name] = dict(OBJECT, properties=properties)
    return types


def reached(types, roots):
    """The part of `types` that `roots` use."""
    found, left = {}, list(roots)
    while left:
        name = left.pop()
        if name not in found:
            found[name] = types[name]
            left += re.findall('#/definitions/([^"]+)', json.dumps(types[name]))
    return found


def write(name, comment, types, roots):
    value = {
        '$schema': 'http://json-schema.org/draft-07/schema#',
        '$comment': comment,
        'definitions': reached(types, roots),
    }
    if len(roots) == 1:
        value['$ref'] = '#/definitions/' + roots[0]
    path = os.path.join(SCHEMAS, name + '.json')
    with open(path, 'w') as file:
        file.write(json.dumps(value, sort_keys=True, separators=(',', ':')) + '\n')
    print(path, len(value['definitions']), 'types')


def write_google(name, wheel, api, prefix, roots):
    member = f'googleapiclient/discovery_cache/documents/{api}.json'
    document = json.loads(wheel.read(member).decode())
    types = {key: from_discovery(value) for key, value in document['schemas'].items()}
    comment = 'Discovery document {}, revision {}, from {}'.format(
        document['id'], document['revision'], GOOGLE
    )
    write(name, comment, types, [prefix + root for root in roots])


def main():
    os.makedirs(SCHEMAS, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        google = download(folder, GOOGLE)
        write_google('vertex', google, 'aiplatform.v1', 'GoogleCloudAiplatformV1', VERTEX)
        write_google('cloud_build', google, 'cloudbuild.v1', '', ['Build'])
        types = client_types(download(folder, KUBERNETES))
        types.update(client_types(download(folder, KUBEFLOW)))
        write('tfjob', f'From {KUBEFLOW} and {KUBERNETES}', types, ['KubeflowOrgV1TFJob'])


if __name__ == '__main__':
    main()
