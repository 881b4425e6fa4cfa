"""The README's commands: the flags of each are the program's, and go together."""

import json
import os
import re
import subprocess

import pytest

from tests.fuzz.test_fuzz_flags import SCRIPTS, TABLES, defined_by
from tests.support.cloud_checks import load_script
from tests.support.paths import ROOT
from trainer.serving import signatures
from trainer.settings import command_line, rules

# What stands for a command says what it was given.
_STAND_INS = ''.join(
    name + r"() { printf '%s\0' " + name + r' "$@" END; }' + '\n'
    for name in ('scripts_run', 'scripts_serve', 'scripts_predict', 'python', 'curl')
)
# They have tests of their own, which run them.
_ELSEWHERE = ('gcloud', 'scripts/submit')
# Programs of others, and ours without flags of absl's.
_OTHERS = ('pytest', 'tensorboard', 'saved_model_cli')


def readme():
    with open(os.path.join(ROOT, 'README.md')) as f:
        return f.read()


def tables():
    """The flags of each program, by the name that commands have for it."""
    found = {'trainer.' + name: table for name, table in TABLES.items()}
    for name, define in SCRIPTS.items():
        folder = 'scripts/' + name
        ending = '' if os.path.isdir(os.path.join(ROOT, folder)) else '.py'
        found[folder + ending] = defined_by(define)
    found['scripts/reproduce_results'] = defined_by(load_script('reproduce_results').define_flags)
    return found


def in_blocks():
    """The commands of the shell blocks, as lists of words."""
    blocks = re.findall(r'^```sh\n(.*?)^```', readme(), re.M | re.S)
    chosen = [text for text in blocks if not any(word in text for word in _ELSEWHERE)]
    code = _STAND_INS + ''.join(chosen).replace('./scripts/', 'scripts_')
    done = subprocess.run(
        ['bash', '-u', '-c', code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    commands = [text.strip('\0').split('\0') for text in done.stdout.split('END\0')[:-1]]
    # Each line that is no comment, goes no line on and sets no variable is a command.
    lines = re.sub(r'\\\n', '', ''.join(chosen)).splitlines()
    assert len(commands) == sum(bool(re.match(r'[.a-z]', line)) for line in lines) > 20
    return commands


def in_text():
    """The commands with flags in the running text, as lists of words."""
    text = re.sub(r'^```.*?^```', '', readme(), flags=re.M | re.S)
    codes = [' '.join(code.split()) for code in re.findall(r'`([^`]+)`', text)]
    rows = re.findall(r'^\| `(--\w+=[^`]+)` \|', text, re.M)
    assert len(rows) > 5
    return [['trainer.task', *row.split()] for row in rows] + [
        code.split() for code in codes if re.search(r'(trainer\.\w+|scripts/\w+(\.py)?) --', code)
    ]


def test_the_commands_of_the_readme_are_taken():
    known, met = tables(), set()
    for command in in_blocks() + in_text():
        words = [word for word in command if word in known or word in _OTHERS]
        if command[0] == 'scripts_predict':
            words = ['trainer.predict']
            command = ['trainer.predict', *command[1:]]
        if not words or words[0] in _OTHERS:
            assert words or command[0] in ('scripts_serve', 'curl', 'python'), command
            continue
        arguments = command[command.index(words[0]) + 1 :]
        end = arguments.index('--') if '--' in arguments else len(arguments)
        if arguments == ['--help']:
            continue
        met.add(words[0])
        parse(known[words[0]], arguments[:end])
        parse(known['trainer.task'], arguments[end + 1 :])
    assert met >= {'trainer.' + name for name in TABLES} | {'scripts/reproduce_results'}


def parse(table, arguments):
    """absl raises for an unknown flag or a bad value, the trainer for what does not fit."""
    table.unparse_flags()
    for flag in table._flags().values():
        flag.unparse()
    table(['x', *arguments])
    if 'learning_rate' in table:
        rules.check_consistent(command_line.from_flags(table, (28, 28, 1)))


def test_the_flags_in_the_text_exist():
    text = re.sub(r'^```.*?^```', '', readme(), flags=re.M | re.S)
    names = {
        name for code in re.findall(r'`([^`]+)`', text) for name in re.findall(r'--(\w+)', code)
    }
    ours = {name for table in tables().values() for name in table}
    # Of scripts/submit, whose commands have a test of their own, TensorBoard, and scripts/audit.py.
    assert names - ours == {'dry_run', 'host', 'all'}


def test_the_request_by_curl_is_one_of_generate():
    [command] = [command for command in in_blocks() if command[0] == 'curl']
    body = json.loads(command[command.index('-d') + 1])
    assert body['signature_name'] in signatures.NAMES
    assert set(body['inputs']) == {'count', 'seed'}
    assert command[-1].endswith('/v1/models/vae:predict')


@pytest.mark.parametrize('wrong', ['--latnt_size=2', '--objective=iwae', '--batch_size=0'])
def test_a_wrong_command_would_be_noticed(wrong):
    with pytest.raises(Exception, match=wrong[2:10]):
        parse(tables()['trainer.task'], [wrong])
