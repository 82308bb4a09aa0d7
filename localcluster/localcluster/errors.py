"""The one exception that ends a command."""


class Failure(Exception):
    """Something the user can act on: the text is one paragraph that names the fix."""
