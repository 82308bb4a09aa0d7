"""What was found in a Compose file: one model for the status, the CLI, the log and the documentation."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from opengpu_operator.api.meta import cut_to

#: Findings quote the file, so their texts are cut; three environments of them must fit into one object.
TEXT_LIMIT = 512


class Severity(StrEnum):
    """How much a finding changes."""

    ERROR = "error"
    """The file is refused because of it."""
    WARNING = "warning"
    """The file is translated, and behaves differently from what it says."""
    INFO = "info"
    """Something was ignored or chosen, without a visible difference."""


class Finding(BaseModel):
    """One thing a person should know about a file, and what to do about it."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, use_attribute_docstrings=True
    )

    severity: Severity
    """severity is error (the file is refused), warning (it behaves differently) or info."""
    reason: Annotated[str, Field(max_length=128)]
    """reason is a stable CamelCase word, documented in docs/reference/findings.md."""
    path: Annotated[str, Field(max_length=TEXT_LIMIT), cut_to(TEXT_LIMIT)] = ""
    """path says where, as a key path: ``services.web.ports[0]``."""
    line: Annotated[int | None, Field(ge=1)] = None
    """line in the file, from 1, where it is known."""
    column: Annotated[int | None, Field(ge=1)] = None
    """column in the line, from 1, where it is known."""
    message: Annotated[str, Field(max_length=TEXT_LIMIT), cut_to(TEXT_LIMIT)]
    """message says what is the case, in one sentence."""
    advice: Annotated[str, Field(max_length=TEXT_LIMIT), cut_to(TEXT_LIMIT)] = ""
    """advice says what to do about it, in one sentence."""


class FileReport(BaseModel):
    """Everything that was found in one file, as ``opengpu lint`` prints it and the store keeps it."""

    model_config = ConfigDict(frozen=True)

    environment: str | None
    """The hardware that the file is for; None where it can't be told."""
    digest: str | None
    """``sha256:`` + hex of the file's bytes; None where there are none."""
    findings: list[Finding]

    @property
    def refused(self) -> bool:
        """Whether any finding forbids to run the file."""
        return any(finding.severity is Severity.ERROR for finding in self.findings)

    def dump(self) -> dict[str, Any]:
        """Return it as JSON has it. Every key is always there."""
        findings = [finding.model_dump(mode="json", by_alias=True) for finding in self.findings]
        return {
            "environment": self.environment,
            "digest": self.digest,
            "refused": self.refused,
            "findings": findings,
        }

    def canonical(self) -> bytes:
        """Return the one spelling of it: the same report has the same hash."""
        return json.dumps(self.dump(), sort_keys=True, separators=(",", ":")).encode()
