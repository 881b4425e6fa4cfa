"""The faults, a row of the table each."""

import collections
from signal import SIGINT, SIGKILL, SIGTERM

from scripts.load import server
from tests.faults import cluster, data, serving, training

# What goes wrong; what lets it happen to an `Attempt`, which notes what is not as expected; how
# often it is tried for the table, where a test tries it once.
Fault = collections.namedtuple('Fault', 'name run tries')


def fault(name, function, *arguments, tries=1, **options):
    return Fault(name, lambda attempt: function(attempt, *arguments, **options), tries)


_INDEX = 'model.ckpt-40.index'
_FINAL = 'Exporting the final model'
# Some seconds between two checkpoints.
_SLOWLY = {'max_steps': 360, 'save_checkpoints_steps': 120}
_IN_STEPS = ('step 120: validation', 0.2, 2.0)
_IN_EVALUATIONS = [(_INDEX, 0.2, 1.0), ('Evaluating the final model', 0.2, 4.0)]
_SUMMARIES = {'save_summary_steps': 1, 'save_checkpoints_steps': 60}
_DATA = '.data-00000-of-00001'
_TURNS = ('worker:0', 'evaluator:0', 'ps:0', 'chief:0')
_told, _full = training.told_to_end, training.disk_full
_damaged, _fatal, _export = training.damaged, training.irreplaceable, training.damaged_export

# The rows that `pytest -m slow` tries; the whole table takes an hour.
SAMPLE = (
    'SIGTERM during steps', 'disk full at the best export', 'disk full in preparation',
    'read-only model_dir', 'damaged checkpoint data', 'damaged results.json', 'damaged TFRecord',
    'two trainers on one model_dir', 'a trainer after a killed one', 'NaN in a batch',
    'clock set back an hour', 'cluster: chief killed',
)  # fmt: skip

# The longest first, as others go on beside it.
FAULTS = [
    fault('soak', training.soak),
    fault('SIGKILL at random moments', training.killed_at_random, tries=4),
    fault('SIGKILL in preparation', data.killed, tries=2),
    fault('SIGTERM during steps', _told, SIGTERM, _IN_STEPS, **_SLOWLY, tries=3),
    fault('SIGINT during steps', _told, SIGINT, _IN_STEPS, **_SLOWLY, tries=3),
    fault('SIGTERM in an evaluation', _told, SIGTERM, *_IN_EVALUATIONS, tries=2),
    fault('SIGTERM in the final export', _told, SIGTERM, (_FINAL, 0.0, 3.0), tries=2),
    fault('SIGTERM in preparation', data.told_to_end),
    fault('disk full at a checkpoint', _full, 'step 40: validation'),
    fault('disk full at event writes', _full, 'step 60: validation', **_SUMMARIES),
    fault('disk full at the best export', _full, _INDEX),
    fault('disk full at the final export', _full, _FINAL),
    fault('disk full in preparation', data.disk_full, tries=2),
    fault('read-only data_dir, prepared', data.read_only),
    fault('read-only data_dir, empty', data.read_only_and_empty),
    fault('read-only model_dir', training.read_only, tries=2),
    fault('no network', data.no_network),
    fault('server that never answers', data.silent_server),
    fault('damaged checkpoint data', training.damaged_checkpoint, _DATA, tries=3),
    fault('damaged checkpoint index', training.damaged_checkpoint, '.index', tries=3),
    fault('damaged checkpoint state file', _damaged, 'checkpoint', ' is ', tries=3),
    fault('no good checkpoint left', _fatal, 'model.*' + _DATA, 'no other checkpoint', tries=3),
    fault('damaged event files', training.damaged_event_files, tries=3),
    fault('damaged TFRecord', data.damaged_records, tries=3),
    fault('damaged decoded copy', data.damaged_decoded_copy, tries=3),
    fault('damaged IDX file', data.damaged_idx_file, tries=3),
    fault('damaged export, graph', _export, 'saved_model.pb', tries=3),
    fault('damaged export, weights', _export, 'variables/variables' + _DATA, tries=3),
    fault('damaged best.json', _damaged, 'export/best/best.json', ' is damaged', tries=3),
    fault('damaged results.json', _damaged, 'results.json', ' is damaged', 'finished', tries=3),
    fault('damaged hyper_parameters.json', _fatal, 'hyper_parameters.json', tries=3),
    fault('damaged flag file', training.damaged_flag_file, tries=3),
    fault('two trainers on one model_dir', training.two_trainers),
    fault('a trainer after a killed one', training.killed, (': validation', 0.0, 2.0)),
    fault('evaluate, generate, export beside a trainer', training.others_beside),
    fault('NaN in weights', training.bad_weight, float('nan')),
    fault('infinity in weights', training.bad_weight, float('inf')),
    fault('NaN in a batch', training.bad_pixel, float('nan')),
    fault('infinity in a batch', training.bad_pixel, float('inf')),
    fault('learning rate of a million', training.absurd_learning_rate),
    fault('clock set back an hour', training.clock_set_back),
    fault('other settings on resume', training.other_settings),
    fault('checkpoint of an older version', training.older_version),
    fault('cluster: nothing', cluster.train, max_steps=1500),
    fault('cluster: worker killed', cluster.train, 'worker:0'),
    fault('cluster: chief killed', cluster.train, 'chief:0'),
    fault('cluster: ps killed', cluster.train, 'ps:0'),
    fault('cluster: evaluator killed', cluster.train, 'evaluator:0'),
    fault('cluster: each killed in turn', cluster.train, *_TURNS),
    fault('cluster: no evaluator', cluster.train, options=['--noevaluator']),
    fault('cluster: whole job killed', cluster.train, SIGKILL),
    fault('cluster: the same, one absent', cluster.train, SIGKILL, options=['--absent=worker:1']),
    fault('cluster: whole job told to end', cluster.train, SIGTERM),
    fault('cluster: random kills', cluster.train, at_random=True, tries=20),
]  # fmt: skip
for _name in server.KINDS:
    FAULTS += [
        fault('{}: {} requests'.format(_name, habit), serving.bad_client, _name, habit)
        for habit in ('malformed', 'huge', 'slow', 'half-closed')
    ]
    FAULTS += [
        fault('{}: twice its capacity'.format(_name), serving.overload, _name),
        fault('{}: a newer export'.format(_name), serving.newer_export, _name),
        fault('{}: SIGTERM'.format(_name), serving.told_to_end, _name),
    ]
