"""Where keys stand in a file, for findings of its translation: those know the key alone."""

from __future__ import annotations

from opengpu_operator.api.findings import Finding
from opengpu_operator.compose import load
from opengpu_operator.compose.findings import Report, format_path


class Places:
    """The lines and columns of one file's keys."""

    def __init__(self, text: bytes | str) -> None:
        """Read a file; one that can't be read has no places."""
        report = Report()
        decoded = load.decode(text, report)
        document = None if decoded is None else load.load(decoded, report)
        positions = {} if document is None else document.positions
        self._positions = {format_path(path): position for path, position in positions.items() if path}

    def locate(self, finding: Finding) -> Finding:
        """Return a finding with the place of its key, or of the nearest one around it that the file has."""
        path = finding.path
        while path and path not in self._positions:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        if finding.line is not None or not path:
            return finding
        line, column = self._positions[path]
        return finding.model_copy(update={"line": line, "column": column})
