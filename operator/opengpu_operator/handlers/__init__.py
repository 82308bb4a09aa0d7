"""kopf as the informer layer: it lists, watches and reconnects; everything that it sees is handed on, nothing else.

kopf's own reconciling (change handlers) is edge-triggered, stores a copy of each object in an annotation, and ignores
what happens to children. So no handler here decides anything, or ever changes an object.
"""

from opengpu_operator.handlers.configure import NoMemories, configure
from opengpu_operator.handlers.informer import Informer, Scope
from opengpu_operator.handlers.login import login
from opengpu_operator.handlers.watched import WATCHED

__all__ = ["WATCHED", "Informer", "NoMemories", "Scope", "configure", "login"]
