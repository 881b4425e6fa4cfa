"""Where the project lies, and what belongs to several tests."""

import os

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# A run of an older version of this trainer, stopped at step 4.
OLD_RUN = os.path.join(ROOT, 'tests', 'support', 'old_run')
# Of commit 031c0d2: a run with a VampPrior, and an export.
OLD_VAMP_RUN = os.path.join(ROOT, 'tests', 'support', 'old_vamp_run')
OLD_EXPORT = os.path.join(ROOT, 'tests', 'support', 'old_export')
