"""The one exception that is shown to the user as a sentence, never as a traceback."""


class UserError(Exception):
    """Something the user can mend: the message names the flag or file, its value and what to do."""
