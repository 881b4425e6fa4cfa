"""The one exception that is shown to the user as a sentence, never as a traceback."""

import re

_USER_INFO = re.compile(r'(?<=://)[^/?#\s\'"]*@')
_TOKEN = re.compile(
    r'(?i)([?&][\w-]*(?:token|key|secret|password|signature|credential)=)[^&\s\'"]+'
)


def without_secrets(text: str) -> str:
    """Takes user names, passwords and tokens out of the URLs in a text that is to be shown."""
    return _TOKEN.sub(r'\1***', _USER_INFO.sub('***@', text))


class UserError(Exception):
    """Something the user can mend: the message names the flag or file, its value and what to do.

    What secrets are in URLs of the message are left out of it.
    """

    def __init__(self, message: str):
        super().__init__(without_secrets(message))
