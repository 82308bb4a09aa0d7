"""Turn the Compose file of a stranger into what a job needs: a :class:`~opengpu_operator.api.translation.Translation`.

The steps, each in a module of its own: fetch · load (limits) · interpolate · schema · shape · extends · project
(normalise) · policy · sanitise · kompose · overlay; ``pipeline`` puts them in order, ``server`` and ``client`` put a
process boundary around them, because nothing that reads strangers' files should hold a token.
"""
