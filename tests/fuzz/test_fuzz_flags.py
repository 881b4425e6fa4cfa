"""Random and hostile values of every flag: taken within their range, or refused in one sentence."""

import contextlib
import dataclasses
import math
import os
import subprocess
import sys
from unittest import mock

import hypothesis
import pytest
import yaml
from absl import flags
from hypothesis import strategies

from scripts import train_cluster
from scripts.benchmark import __main__ as benchmark
from scripts.clients import __main__ as clients
from scripts.load import __main__ as load
from tests.support import cloud_checks
from tests.support.fuzzing import examples
from tests.support.paths import ROOT
from trainer import evaluate, export, generate, predict, projector, task
from trainer.base import program as programs
from trainer.base import terminal
from trainer.base.errors import UserError
from trainer.data import prepare
from trainer.serving import client
from trainer.settings import command_line
from trainer.settings import table as settings_table
from trainer.training import checks

submit = cloud_checks.submit

HOSTILE = [
    '', ' ', '0', '-0', '1', '-1', '+1', '2', '1.0', '1.5', '.5', '1e3', '1e-3', '1e-400', '1e999',
    '-1e999', 'nan', 'NaN', '-nan', 'inf', '-inf', 'Infinity', '0x10', '0b1', '1_000', '1__0', '١٢',
    '²', '1,5', '1 2', '1e', 'e1', '9' * 400, '-' + '9' * 400, '1e' + '9' * 400, str(2**31),
    str(2**31 - 1), str(2**63), str(10**9), str(10**9 + 1), '8192', '8193', 'true', 'None', 'null',
    '\0', 'a\0b', '\n', 'a\nb', '\r', '\x1b[31m', '\x7f', '\udcff', 'x' * 300, 'x' * 5000, '.',
    '/', '//', '/dev/null', '/dev/null/x', '~', '~nobody/x', 'a/../b', '*', '[a]', '?', '\\', '%s',
    '{}', '{0}', '$(reboot)', '`reboot`', ';reboot', '| cat', '&', '"', "'", '-', '--', '--help=',
    '--flagfile=x', '--flagfile', '=', '==', ',', ',,', '"a', 'foo://x', '://', 'file://', 'mnist',
    'mnist:3.0.0', 'mnist:9.9.9', 'mnist/x', 'MNIST', 'é', '\u202e', '\u2028', '𝟙', 'elbo',
]  # fmt: skip
NUMBERS = strategies.one_of(
    strategies.integers(),
    strategies.floats(),
    strategies.integers(0, 9000),
    strategies.floats(0, 9),
).map(str)
# Not the schemes that TensorFlow would follow over a network.
VALUES = strategies.one_of(
    strategies.sampled_from(HOSTILE), NUMBERS, strategies.text(max_size=30)
).filter(lambda value: value.lower().split('://')[0] not in ('gs', 's3', 'hdfs', 'viewfs', 'har'))


def each_of(count, values, check, *more):
    """Calls `check` with each hostile value, then with `count` random ones."""
    for value in HOSTILE:
        check(value)

    def one(drawn):
        check(*drawn)

    examples(count)(hypothesis.given(strategies.tuples(values, *more))(one))()


def defined_by(define):
    """The flags that a program defines in absl's own table, in a table of their own."""
    values = flags.FlagValues()
    with mock.patch.dict(flags.FLAGS._flags(), clear=True), mock.patch.object(
        flags,
        'adopt_module_key_flags',  # Of what other programs have defined.
    ):
        define()
        for name, flag in flags.FLAGS._flags().items():
            if name == flag.name:
                values[name] = flag
    return values


def define_prepare_data():
    command_line.define_flags(command_line.OF_IMAGES)


PROGRAMS = {
    'task': (task.define_flags, None),
    'evaluate': (evaluate.define_flags, evaluate.main),
    'generate': (generate.define_flags, generate.main),
    'export': (export.define_flags, export.main),
    'predict': (predict.define_flags, predict.main),
    'projector': (projector.define_flags, projector.main),
    'prepare_data': (define_prepare_data, None),
}
TABLES = {name: defined_by(define) for name, (define, _) in PROGRAMS.items()}


def parsed(program, arguments):
    """The program's flags as `logs.run` takes them, or None and the sentence that refuses them."""
    values = TABLES[program]
    for flag in values._flags().values():
        flag.unparse()
    try:
        rest = values(programs.expanded([program] + arguments, values))
    except (flags.Error, UserError) as error:
        return None, str(error)
    return (values, '') if len(rest) == 1 else (None, 'unexpected argument')


def is_one_sentence(message, *shown):
    """Whether it is one line, whatever the value in it, that shows one of the texts `shown`."""
    lines = message.strip('\n').split('\n')
    return len(lines) == 1 and len(message) > 10 and any(text in message for text in shown)


@pytest.fixture(scope='module', autouse=True)
def nowhere(tmp_path_factory):
    """The tests run in an empty folder, which has to stay empty."""
    folder = tmp_path_factory.mktemp('nowhere')
    before = os.getcwd()
    os.chdir(str(folder))
    yield folder
    os.chdir(before)
    assert os.listdir(str(folder)) == []


def expected_number(row, text):
    """What Python makes of a number, where it is within the setting's documented range."""
    try:
        value = int(text) if isinstance(row.default, int) else float(text)
    except (ValueError, OverflowError):
        return None
    allowed = row.metadata['range']
    if not math.isfinite(value if abs(value) < 1e300 else math.inf):
        return None
    low = value > allowed.low if allowed.open_low else value >= allowed.low
    return value if low and value <= allowed.high else None


def expected_path(row, text):
    """What the home folder makes of it, if it is a path; None where it has to be refused."""
    if row.name not in settings_table.paths():
        return text
    if row.name in ('model_dir', 'init_from') and set(text) & set('*?[\\'):
        return None
    whole = os.path.expanduser(text)
    return None if whole.startswith('~') else whole


@pytest.mark.parametrize('row', settings_table.settings(), ids=lambda row: row.name)
def test_a_setting_is_within_its_range_or_refused_by_name(row):
    def check(text):
        values, refusal = parsed('task', ['--{}={}'.format(row.name, text)])
        plain = text.isprintable() or text in ('\u202e', '\u2028')
        if row.metadata['range'] is not None:
            expected = expected_number(row, text) if terminal.is_text(text) else None
        elif row.metadata['choices']:
            expected = text if text in row.metadata['choices'] else None
        else:
            expected = expected_path(row, text) if terminal.is_text(text) else None
        assert not plain or terminal.is_text(text)
        if expected is None:
            assert values is None, getattr(values, row.name)
            assert is_one_sentence(refusal, '--' + row.name)
        else:
            assert values is not None, refusal
            assert getattr(values, row.name) == expected
            assert type(getattr(values, row.name)) is type(row.default)

    each_of(50, VALUES, check)


SETTING = strategies.one_of(
    [
        strategies.tuples(
            strategies.just(row.name), strategies.sampled_from(list(row.metadata['choices']))
        )
        if row.metadata['choices']
        else strategies.tuples(strategies.just(row.name), VALUES)
        for row in settings_table.settings()
    ]
)


@examples(500)
@hypothesis.given(strategies.lists(SETTING, max_size=4))
def test_a_run_is_checked_before_anything_is_made(settings):
    arguments = ['--{}={}'.format(*setting) for setting in settings]
    values, refusal = parsed('task', arguments)
    named = ['--' + name for name, _ in settings]
    if values is None:
        assert is_one_sentence(refusal, *named), refusal
        return
    try:
        params = command_line.from_flags(values)
        facts = prepare.facts(params)
        params = dataclasses.replace(params, image_shape=facts.image_shape or (28, 28, 1))
        checks.check(params, facts.num_examples)
    except UserError as error:
        assert is_one_sentence(str(error), *named), error
        return
    assert params.beta_cycles <= params.max_steps
    assert params.batch_size <= 55000 or params.dataset.partition(':')[0] != 'mnist'
    assert params.objective != 'iwae' or params.training_samples >= 2
    assert not params.free_bits_groups or params.latent_size % params.free_bits_groups == 0


def arguments_of(program):
    """Up to three flags of a program, each with a value that its kind may have or with any."""
    names = [name for name in sorted(TABLES[program]) if name not in ('url', 'flagfile', 'undefok')]
    ordinary = {'split': ['test', 'nowhere'], 'mode': ['prior', 'no'], 'signature': ['decode', '']}
    return strategies.lists(
        strategies.sampled_from(names).flatmap(
            lambda name: strategies.tuples(
                strategies.just(name),
                strategies.one_of(strategies.sampled_from(ordinary.get(name, ['1'])), VALUES),
            )
        ),
        max_size=3,
    )


@pytest.mark.parametrize('program', [name for name, (_, main) in PROGRAMS.items() if main])
def test_other_programs_refuse_by_name_what_is_no_model(program):
    required = [name for name in ('images', 'model_dir') if name in TABLES[program]]

    def check(where, settings=()):
        given = [(required[0], where), *settings]
        given += [('export_dir', where)] if program == 'predict' else []
        values, refusal = parsed(program, ['--{}={}'.format(*setting) for setting in given])
        named = ['--' + name for name, _ in given]
        if values is None:
            assert is_one_sentence(refusal, *named), refusal
            return
        with mock.patch.object(flags, 'FLAGS', values), pytest.raises(UserError) as error:
            PROGRAMS[program][1]([program])
        assert is_one_sentence(str(error.value), *named), error.value

    each_of(120, VALUES, check, arguments_of(program))


def submit_arguments():
    """A job that is right, with up to three flags given any value, and flags of the trainer."""
    own, trainers = flags.FlagValues(), [row.name for row in settings_table.settings()]
    submit.define_flags(own)
    good = {
        'project': 'my-project', 'region': 'us-central1', 'image': 'host/image:1',
        'output': 'gs://bucket/runs/first',
    }  # fmt: skip

    def joined(drawn):
        changes, tunes, after = drawn
        given = dict(good, **changes)
        arguments = ['--{}={}'.format(name, value) for name, value in given.items()]
        return (
            arguments + ['--tune={}={}'.format(name, value) for name, value in tunes],
            ['--{}={}'.format(name, value) for name, value in after],
        )

    names = strategies.sampled_from(sorted(set(own) - {'tune'}))
    settings = strategies.tuples(strategies.sampled_from(trainers), VALUES)
    return strategies.tuples(
        strategies.dictionaries(names, VALUES, max_size=3),
        strategies.lists(settings, max_size=2),
        strategies.lists(settings, max_size=2),
    ).map(joined)


def test_a_job_is_refused_in_a_sentence_or_its_request_is_one():
    @examples(600)
    @hypothesis.given(submit_arguments())
    def check(arguments):
        own, after = arguments
        values = flags.FlagValues()
        submit.define_flags(values)
        try:
            rest = values(programs.expanded(['submit', *own], values))
            submit.check(values)
            config = submit.gcloud_config(values, after, submit.parse_trainer_flags(after))
        except (flags.Error, UserError) as error:
            assert len(str(error)) > 10
            return
        body = submit.request_body(values, config)
        assert len(rest) == 1 and yaml.safe_load(submit.to_yaml(body)) == body
        assert body['displayName'].isascii()

    check()


def test_a_job_has_a_name_that_the_service_takes():
    values = flags.FlagValues()
    submit.define_flags(values)
    job = ['--project=p1', '--region=us-central1', '--image=host/image:1']
    values(['submit', *job, '--output=gs://bucket/r\u00fcn'])
    with pytest.raises(UserError, match='--output'):
        submit.check(values)


SCRIPTS = {
    'benchmark': benchmark.define_flags,
    'clients': clients.define_flags,
    'load': load.define_flags,
    'train_cluster': train_cluster.define_flags,
}


@pytest.mark.parametrize('script', sorted(SCRIPTS))
def test_a_script_s_flag_takes_a_value_or_refuses_it(script):
    table = defined_by(SCRIPTS[script])

    def check(name, text):
        try:
            table(programs.expanded([script, '--{}={}'.format(name, text)], table))
        except (flags.Error, UserError) as error:
            assert len(str(error)) > 10
        finally:
            table.unparse_flags()

    names = [name for name in sorted(table) if name not in ('flagfile', 'undefok')]
    examples(200)(hypothesis.given(strategies.sampled_from(names), VALUES)(check))()


@examples(150)
@hypothesis.given(VALUES)
def test_a_server_s_address_is_any_text(url):
    hypothesis.assume(not url.lower().startswith('http'))
    with contextlib.suppress(UserError):
        client.predict_by_rest([b''], 'score_png', url)
        raise AssertionError('an answer from nowhere')


@pytest.mark.parametrize('dataset', ['cifar10', 'cifar10:9.9.9', 'cifar10/x', 'nothing', 'é', '_'])
def test_other_datasets_in_any_folder(dataset):
    @examples(25)
    @hypothesis.given(VALUES.filter(terminal.is_text))
    def check(data_dir):
        try:
            facts = prepare.dataset_facts(dataset, data_dir)
            assert (dataset, facts.image_shape) == ('cifar10', (32, 32, 3))
        except UserError as error:
            assert is_one_sentence(str(error), '--dataset=', '--data_dir=')

    check()


# Files of flags.


def written(folder, content):
    (folder / 'flags').write_bytes(content)
    return ['--flagfile={}'.format(folder / 'flags')]


def test_flag_files_are_read(tmp_path):
    (tmp_path / 'inner').write_text('--seed=7\n')
    content = '# A comment\n\n--latent_size=5\n--flagfile={}\n'.format(tmp_path / 'inner')
    values, refusal = parsed('task', written(tmp_path, content.encode('utf-8')) + ['--beta=2'])
    assert not refusal
    assert (values.latent_size, values.seed, values.beta) == (5, 7, 2.0)


@pytest.mark.parametrize('how', ['missing', 'folder', 'empty', 'blank', 'last', 'itself', 'nul'])
def test_a_flag_file_that_cannot_be_read_is_refused(tmp_path, how):
    arguments = {
        'missing': ['--flagfile={}'.format(tmp_path / 'none')],
        'folder': ['--flagfile={}'.format(tmp_path)],
        'empty': ['--flagfile='],
        'blank': ['--flagfile', ' '],
        'last': ['--flagfile'],
        'itself': written(tmp_path, '--flagfile={}'.format(tmp_path / 'flags').encode('utf-8')),
        'nul': ['--flagfile=a\0b'],
    }[how]
    for given in (arguments, ['--seed=1'] + arguments):
        values, refusal = parsed('task', given)
        assert values is None
        assert is_one_sentence(refusal, '--flagfile')


@examples(200)
@hypothesis.given(strategies.one_of(strategies.binary(max_size=60), VALUES.map(os.fsencode)))
def test_a_flag_file_of_random_bytes_sets_nothing(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    values, refusal = parsed('task', written(folder, content))
    if values is None:
        assert is_one_sentence(refusal, 'flag', 'argument', 'not one line')
    else:
        assert not any(values[row.name].present for row in settings_table.settings())


@pytest.mark.parametrize('argument', ['--flagfile=', '--flagfile=/dev', '--dataset=a\nb'])
def test_a_refusal_is_one_line_and_an_exit_code(argument, capsys):
    with pytest.raises(SystemExit) as ended:
        programs._parse(['task', argument])
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith('error: ') and message.count('\n') == 1


def test_a_flag_file_with_an_unknown_flag_is_named(tmp_path, capsys):
    path = tmp_path / 'flags'
    path.write_text('--no_such_setting=5\n')
    with pytest.raises(SystemExit) as ended:
        programs._parse(['task', '--flagfile={}'.format(path)])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert is_one_sentence(error, 'no_such_setting') and str(path) in error


def test_a_program_with_a_bad_flag_file_ends_so():
    done = subprocess.run(
        [sys.executable, '-m', 'trainer.task', '--flagfile=/dev'],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(os.environ, PYTHONPATH=ROOT),
    )
    assert done.returncode == 1
    assert done.stdout.startswith(b'error: --flagfile') and done.stdout.count(b'\n') == 1
