"""scripts/submit: what it sends, what it refuses, and what gcloud makes of it."""

import copy
import os
import shlex
import subprocess
import sys

import pytest
import yaml

from tests.support import cloud_checks, fake_cloud, readmes
from tests.support.cloud_checks import (
    IMAGE,
    JOB,
    ROOT,
    VERTEX,
    config_of,
    needs_gcloud,
    parsed,
    schema_errors,
    submit,
)
from trainer.base.errors import UserError

CLUSTER = ['--workers=2', '--ps=1', '--evaluator']
TUNING = [
    '--tune=learning_rate=1e-4:1e-2:log',
    '--tune=latent_size=8,16',
    '--tune=lstm_units=32:64',
]
TENSORBOARD = 'projects/1/locations/us-central1/tensorboards/2'
MANAGED = ['--service_account=a@b.iam.gserviceaccount.com', '--tensorboard=' + TENSORBOARD]
NORMAL = 'after --: --likelihood=normal needs --binarization=none'


def body_of(*arguments):
    return submit.request_body(parsed(*arguments)[0], config_of(*arguments))


def kind_of(body):
    return VERTEX + ('HyperparameterTuningJob' if 'studySpec' in body else 'CustomJob')


def pool(count, *arguments):
    container = dict(imageUri=IMAGE, **({'args': list(arguments)} if arguments else {}))
    machine = {'machineType': 'n1-highcpu-8'}
    return {'machineSpec': machine, 'replicaCount': count, 'containerSpec': container}


def test_a_job_on_one_machine():
    assert body_of(*JOB, '--max_hours=3', '--', '--latent_size=2') == {
        'displayName': 'first',
        'jobSpec': {
            'workerPoolSpecs': [pool('1', '--latent_size=2')],
            'scheduling': {'timeout': '10800s'},
            'baseOutputDirectory': {'outputUriPrefix': 'gs://my-bucket/runs/first'},
        },
    }


def test_the_place_of_a_pool_is_its_role():
    spec = body_of(*JOB, *CLUSTER, *MANAGED)['jobSpec']
    # Chief, workers, parameter servers, evaluator.
    assert spec['workerPoolSpecs'] == [pool('1'), pool('2'), pool('1'), pool('1')]
    assert spec['tensorboard'] == TENSORBOARD
    assert spec['serviceAccount'] == 'a@b.iam.gserviceaccount.com'


def test_a_tuning_goes_by_what_its_trials_minimise():
    weighted = ['--objective=dreg', '--training_samples=5']
    study = body_of(*JOB, *TUNING, '--', *weighted)['studySpec']
    assert study['metrics'][0]['metricId'] == 'validation_negative_importance_weighted_bound'


def test_a_tuning():
    body = body_of(*JOB, *TUNING, '--trials=4', '--', '--max_steps=10')
    assert body['maxTrialCount'] == 4
    assert body['parallelTrialCount'] == 2
    assert body['trialJobSpec'] == body_of(*JOB, '--', '--max_steps=10')['jobSpec']
    assert body['studySpec'] == {
        'metrics': [{'metricId': 'validation_negative_elbo', 'goal': 'MINIMIZE'}],
        'measurementSelectionType': 'LAST_MEASUREMENT',
        'parameters': [
            {
                'parameterId': 'learning_rate',
                'doubleValueSpec': {'minValue': 1e-4, 'maxValue': 1e-2},
                'scaleType': 'UNIT_LOG_SCALE',
            },
            {'parameterId': 'latent_size', 'categoricalValueSpec': {'values': ['8', '16']}},
            {
                'parameterId': 'lstm_units',
                'integerValueSpec': {'minValue': '32', 'maxValue': '64'},
                'scaleType': 'UNIT_LINEAR_SCALE',
            },
        ],
    }


@pytest.mark.parametrize('extra', [[], CLUSTER, MANAGED, TUNING, TUNING + CLUSTER])
def test_every_request_fits_the_schema(extra):
    body = body_of(*JOB, *extra, '--', '--batch_size=64')
    assert schema_errors(body, 'vertex', kind_of(body)) == []
    # What YAML makes of the printed text is what was meant.
    assert yaml.safe_load(submit.to_yaml(body)) == body


# A path in the body of TUNING + CLUSTER, and what to put there; None renames the key's spelling.
@pytest.mark.parametrize(
    'path, value, message',
    [
        (['trialJobSpec', 'schedulling'], {}, "'schedulling' was unexpected"),
        (['trialJobSpec', 'worker_pool_specs'], [], "'worker_pool_specs' was unexpected"),
        (['trialJobSpec', 'workerPoolSpecs', 0, 'replica_count'], '1', "'replica_count'"),
        (['trialJobSpec', 'workerPoolSpecs', 3, 'containerSpec', 'imageURI'], 'x', "'imageURI'"),
        (['trialJobSpec', 'workerPoolSpecs', 0, 'replicaCount'], 'one', 'does not match'),
        (
            ['trialJobSpec', 'workerPoolSpecs', 0, 'containerSpec', 'args'],
            '--a',
            "not of type 'arr",
        ),
        (['trialJobSpec', 'workerPoolSpecs', 0, 'containerSpec', 'args'], [2], "not of type 'str"),
        (['trialJobSpec', 'scheduling', 'timeout'], '24h', 'does not match'),
        (['trialJobSpec', 'scheduling', 'strategy'], 'CHEAP', 'is not one of'),
        (['studySpec', 'metrics', 0, 'goal'], 'minimize', 'is not one of'),
        (['studySpec', 'parameters', 0, 'scaleType'], 'LOG', 'is not one of'),
        (['studySpec', 'measurementSelectionType'], 'LAST', 'is not one of'),
        (['maxTrialCount'], '16', "not of type 'integer'"),
        (['state'], 'JOB_STATE_QUEUED', "'state' was unexpected"),  # only answers have it
    ],
)
def test_the_schema_refuses_what_is_wrong(path, value, message):
    body = copy.deepcopy(body_of(*JOB, *TUNING, *CLUSTER, '--', '--batch_size=64'))
    parent = body
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    [error] = schema_errors(body, 'vertex', kind_of(body))
    assert message in error


@pytest.mark.parametrize(
    'changed, message',
    [
        (['--project=My Project'], '--project=My Project'),
        (['--region=europe'], '--region=europe: it has to be a region'),
        (['--image=vae-trainer'], '--image=vae-trainer: it has to be HOST/PATH:TAG'),
        (['--image=' + IMAGE.replace(':1', '')], 'HOST/PATH:TAG'),
        (['--output=/tmp/run'], 'gs://BUCKET/FOLDER'),
        (['--output=gs://my-bucket'], 'gs://BUCKET/FOLDER'),
        (['--workers=2'], 'give both or neither'),
        (['--ps=1'], 'give both or neither'),
        (['--evaluator'], 'only with --workers'),
        (['--tensorboard=' + TENSORBOARD], 'asks for --service_account'),
        (MANAGED + ['--region=europe-west4'], 'has to be in --region=europe-west4'),
        (MANAGED + ['--tensorboard=mine'], '--tensorboard=mine'),
        (['--trials=2', '--parallel_trials=3'], 'at most --trials=2'),
        (['--tune=latnt_size=1:2'], '--tune=latnt_size=1:2: it tunes none of'),
        (['--tune=model_dir=a,b'], 'it tunes none of'),
        (['--tune=latent_size'], '--tune=latent_size: .* a whole number'),
        (['--tune=latent_size=2.0:4'], 'a whole number'),
        (['--tune=latent_size=4:2'], 'LOW below HIGH'),
        (['--tune=warmup_steps=0:10:log'], 'LOW above 0'),
        (['--tune=latent_size=2:4:exp'], 'LOW:HIGH'),
        (['--tune=latent_size=0,4'], 'from 1 to 8,192'),
        (['--tune=latent_size=2,4', '--tune=latent_size=2:4'], 'latent_size more than once'),
        (['--tune=latent_size=2,4', '--', '--latent_size=2'], 'also stands after --'),
        (['--', '--latnt_size=2'], 'Did you mean: latent_size'),
        (['--', '--latent_size=0'], 'from 1 to 8,192'),
        (['--', 'latent_size=2'], "unexpected argument 'latent_size=2'"),
        (['--', '--model_dir=gs://b/run'], 'follows from --output'),
        (['--', '--idx_dir=x'], '--idx_dir is not for jobs'),
        (['--', '--data_dir=/home/me/data'], '--data_dir=/home/me/data'),
        (['--', '--init_from=runs/a'], '--init_from=runs/a: a job sees no folder'),
        (['--', '--source=icons'], 'prepare_data --source=icons --data_dir=gs://BUCKET/FOLDER'),
        (['--', '--source=gs://b/d', '--dataset=mnist'], '--dataset=mnist and --source=gs://b/d'),
        (['--', '--likelihood=normal', '--binarization=dynamic'], NORMAL),
        (['--', '--objective=iwae'], 'after --: --objective=iwae needs --training_samples'),
        (['--', '--dataset=mnits'], 'after --: --dataset=mnits: .* did you mean mnist'),
        (['--', '--batch_size=60000'], 'after --: --batch_size=60000 must be at most 55,000'),
        (['--tune=latent_size=8,16,08'], '--tune=latent_size=8,16,08: 8 and 08 are one value'),
        (['--tune=prior=vamp,vamp'], 'vamp and vamp are one value'),
        (['--tune=learning_rate=1e-3,0.001'], '1e-3 and 0.001 are one value'),
    ],
)
def test_what_cannot_work_is_refused(changed, message):
    with pytest.raises(UserError, match=message):
        config_of(*JOB, *changed)


def test_everything_that_a_trial_is_given_parses():
    body = body_of(*JOB, *TUNING, *CLUSTER, '--', '--max_steps=10', '--data_dir=gs://b/tfds')
    for spec in body['trialJobSpec']['workerPoolSpecs']:
        for parameter in body['studySpec']['parameters']:
            [values] = [values for key, values in parameter.items() if key.endswith('ValueSpec')]
            for value in values.get('values') or values.values():
                flag = '--{}={}'.format(parameter['parameterId'], value)
                cloud_checks.parse_trainer_flags(spec['containerSpec']['args'] + [flag])


def run(*arguments, path=os.environ['PATH'], **environ):
    return subprocess.run(
        [sys.executable, os.path.join(ROOT, 'scripts', 'submit'), *arguments],
        env=dict(os.environ, PYTHONPATH=ROOT, PATH=path, **environ),
        capture_output=True,
        text=True,
    )


def stub_gcloud(folder, script):
    """A PATH whose gcloud is that shell script."""
    path = folder / 'gcloud'
    path.write_text('#!/bin/sh\n' + script)
    path.chmod(0o755)
    return '{}:/usr/bin:/bin'.format(folder)


def test_a_dry_run_prints_the_body_and_sends_nothing(tmp_path):
    path = stub_gcloud(tmp_path, 'touch {}/called'.format(tmp_path))
    done = run(*JOB, '--dry_run', '--', '--latent_size=2', path=path)
    assert (done.returncode, done.stderr) == (0, '')
    assert yaml.safe_load(done.stdout) == body_of(*JOB, '--', '--latent_size=2')
    assert done.stdout.startswith(
        '# POST https://us-central1-aiplatform.googleapis.com/v1/projects/my-project/locations/'
        'us-central1/customJobs\n'
    )
    assert not (tmp_path / 'called').exists()


def test_errors_are_one_sentence_and_an_exit_code(tmp_path):
    done = run(*JOB, '--', '--latnt_size=2', path=stub_gcloud(tmp_path, 'exit 9'))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_what_gcloud_says_is_shown_and_its_failure_is_ours(tmp_path, monkeypatch, capfd):
    path = stub_gcloud(tmp_path, 'echo "ERROR: no such project" >&2; exit 9')
    monkeypatch.setenv('PATH', path)
    with pytest.raises(UserError, match=r'gcloud could not create the job \(exit code 9\)'):
        submit.send(parsed(*JOB)[0], config_of(*JOB))
    assert capfd.readouterr().err == 'ERROR: no such project\n'


def test_without_gcloud_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(UserError, match='gcloud is not on PATH'):
        submit.send(parsed(*JOB)[0], config_of(*JOB))


def test_gcloud_is_not_given_our_python(tmp_path, monkeypatch):
    ours = tmp_path / 'venv' / 'bin'
    environ = {
        'PATH': f'/a:{ours}:/b',
        'VIRTUAL_ENV': str(ours.parent),
        'PYTHONPATH': 'x',
        'K': 'v',
    }
    assert submit._without_our_python(environ) == {'PATH': '/a:/b', 'K': 'v'}


@needs_gcloud
@pytest.mark.parametrize(
    'extra',
    [
        pytest.param(CLUSTER + MANAGED, id='cluster'),
        pytest.param(TUNING, id='tuning'),
    ],
)
@pytest.mark.slow
def test_gcloud_sends_what_a_dry_run_prints(extra, tmp_path, monkeypatch, capfd):
    arguments = [*JOB, *extra, '--', '--latent_size=2'] if extra is not TUNING else JOB + TUNING
    with fake_cloud.running(tmp_path) as (environ, requests):
        monkeypatch.setattr(os, 'environ', environ)
        values, after = parsed(*arguments)
        submit.main(values, after)
        collection = 'hyperparameterTuningJobs' if extra is TUNING else 'customJobs'
        place = '/v1/projects/my-project/locations/us-central1/' + collection
        assert requests == [('POST', place, body_of(*arguments))]
        told = capfd.readouterr().out
        # The commands it names work as they stand.
        commands = [line.split(None, 1)[1] for line in told.splitlines() if 'gcloud ai' in line]
        commands = [text for text in commands if text.startswith('gcloud')]
        assert [text.split()[3] for text in commands] == ['stream-logs', 'describe', 'cancel']
        for text in commands[1:]:
            subprocess.run(shlex.split(text), env=environ, check=True, stdout=subprocess.DEVNULL)
        assert [(method, path) for method, path, _ in requests[1:]] == [
            ('GET', place + '/123'),
            ('POST', place + '/123:cancel'),
        ]


def test_readme_commands_make_requests_that_fit_the_schema():
    [block] = [code for code in readmes.blocks('sh') if 'scripts/submit' in code]
    script = 'submit() { printf "%s\\0" "$@" END; }\n' + block.replace(
        './scripts/run scripts/submit', 'submit'
    )
    done = subprocess.run(['bash', '-c', script], check=True, capture_output=True, text=True)
    commands = done.stdout.split('END\0')[:-1]
    assert len(commands) == 4
    for command in commands:
        body = body_of(*command.rstrip('\0').split('\0'))
        assert schema_errors(body, 'vertex', kind_of(body)) == []
