"""What can go wrong in a backend that is a service of its own."""


class UnavailableError(Exception):
    """The backend can't be reached or can't serve now; the same request may succeed later. Nothing was acknowledged."""
