"""What the tests of the cloud files share: schemas, the trainer's flags, scripts/submit."""

import importlib.machinery
import importlib.util
import json
import os
import shutil

import jsonschema
import pytest
from absl import flags

from tests.support.paths import ROOT
from trainer.settings import command_line

SCHEMAS = os.path.join(ROOT, 'tests', 'support', 'schemas')
VERTEX = 'GoogleCloudAiplatformV1'

IMAGE = 'us-central1-docker.pkg.dev/my-project/ml/vae-trainer:1'
JOB = [
    '--project=my-project', '--region=us-central1', '--image=' + IMAGE,
    '--output=gs://my-bucket/runs/first',
]  # fmt: skip

needs_gcloud = pytest.mark.skipif(
    shutil.which('gcloud') is None, reason='gcloud, the Google Cloud CLI, is not installed'
)


def schema_errors(value, file, definition):
    """What is wrong with `value`, as 'path: message', by a type of tests/schemas/<file>.json."""
    with open(os.path.join(SCHEMAS, file + '.json')) as f:
        schema = json.load(f)
    schema['$ref'] = '#/definitions/' + definition
    validator = jsonschema.Draft7Validator(schema)
    return [
        '{}: {}'.format('.'.join(map(str, error.absolute_path)), error.message)
        for error in validator.iter_errors(value)
    ]


def parse_trainer_flags(arguments):
    """Parses them as trainer.task does; absl raises for an unknown flag or a bad value."""
    values = flags.FlagValues()
    command_line.define_flags(flag_values=values)
    assert values(['trainer.task', *arguments]) == ['trainer.task']
    return values


def load_script(name):
    """A program of scripts/ that has no .py in its name, as a module."""
    loader = importlib.machinery.SourceFileLoader(name, os.path.join(ROOT, 'scripts', name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


submit = load_script('submit')


def parsed(*arguments):
    """The flag values of a command line, and what stands after its `--`."""
    values = flags.FlagValues()
    submit.define_flags(values)
    arguments = list(arguments)
    end = arguments.index('--') if '--' in arguments else len(arguments)
    assert len(values(['submit', *arguments[:end]])) == 1
    return values, arguments[end + 1 :]


def config_of(*arguments):
    values, after = parsed(*arguments)
    submit.check(values)
    return submit.gcloud_config(values, after, submit.parse_trainer_flags(after))
