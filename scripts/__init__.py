"""The programs around the trainer; folders hold what they are made of, and what maintainers run."""

import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
