"""Recognise what people give instead of a Compose file, and say what to give."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from opengpu_operator.compose.findings import FindingReason, Report

_HTML: Final = re.compile(r"<(?:!doctype\s+html|html|head|\?xml|!--)", re.IGNORECASE)
_IMAGE: Final = re.compile(
    r"(?:[a-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[\w.-]{1,128})?(?:@sha256:[0-9a-f]{64})?"
)
_GIT: Final = re.compile(
    r"(?:git@|git://|ssh://|git\+)\S+|https?://\S+\.git(?:#\S*)?|https?://(?:www\.)?github\.com/\S+"
)
_SERVICES: Final = re.compile(r"^[\"']?services[\"']?\s*:", re.MULTILINE)
#: Possessive: for each line that could be given back, the engine would remember a state.
_DOCKERFILE: Final = re.compile(r"(?:[ \t]*+(?:#[^\n]*+)?\n)*+[ \t]*+(?:FROM|ARG)\s+\S", re.IGNORECASE)
_FLOW_SERVICES: Final = re.compile(r"\A\s*\{.*[\"']?services[\"']?\s*:", re.DOTALL)

#: Names and addresses are no longer than this.
_MAX_NAME: Final = 2048

_RAW: Final = (
    "Give the URL of the file itself; on GitHub it starts with https://raw.githubusercontent.com/ "
    "(the button Raw leads there)."
)
_FROM_IMAGE: Final = "Write a Compose file with a service that names the image, and give its URL."


def looks_foreign(text: str, report: Report) -> bool:
    """Whether the text is plainly something else than YAML with services; ``report`` says what."""
    stripped = text.strip()
    found = _foreign(stripped)
    if found is None:
        return False
    message, advice = found
    report.add(FindingReason.NOT_A_COMPOSE_FILE, (), message, advice=advice, at=(1, 1))
    return True


def _foreign(text: str) -> tuple[str, str] | None:
    if not text:
        return "The file is empty.", _RAW
    if _HTML.match(text):
        page = "a page of GitHub" if "github" in text[:20_000].lower() else "a web page"
        return f"This is {page}, not a Compose file.", _RAW
    if "\n" not in text and len(text) <= _MAX_NAME:
        if _GIT.fullmatch(text):
            return "This is the address of a Git repository, not a Compose file.", _RAW
        if text.startswith(("http://", "https://")):
            return "This is an address, not a Compose file.", _RAW
        if _IMAGE.fullmatch(text):
            return "This is an image's name, not a Compose file.", _FROM_IMAGE
    if text.startswith("{"):
        return _json(text)
    if _DOCKERFILE.match(text) and not _SERVICES.search(text):
        return "This is a Dockerfile, not a Compose file.", _FROM_IMAGE
    if re.match(r"404:? not found", text, re.IGNORECASE):
        return "The server answered that it has no such file.", _RAW
    return None


def _json(text: str) -> tuple[str, str] | None:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or "services" in data:
        return None
    if "schemaVersion" in data or "vnd." in str(data.get("mediaType", "")):
        return "This is an image's manifest from a registry, not a Compose file.", _FROM_IMAGE
    return "This is a JSON document without services, not a Compose file.", _RAW


def check_data(data: Any, report: Report) -> bool:
    """Whether loaded data can be a Compose file at all; otherwise ``report`` says what it is."""
    if isinstance(data, dict):
        if "services" in data or "include" in data:
            return True
        message, advice = _mapping(data)
    elif data is None:
        message, advice = "The file is empty.", _RAW
    else:
        message, advice = "This is plain text, not a Compose file.", _RAW
    report.add(FindingReason.NOT_A_COMPOSE_FILE, (), message, advice=advice, at=(1, 1))
    return False


def _mapping(data: dict[str, Any]) -> tuple[str, str]:
    if "apiVersion" in data and "kind" in data:
        return (
            "This is a Kubernetes object, not a Compose file.",
            "Apply it with kubectl, or give a Compose file.",
        )
    if any(isinstance(value, dict) and ("image" in value or "build" in value) for value in data.values()):
        return (
            "This is a Compose file of the first format, without services.",
            "Move the services under a key named services.",
        )
    return "The file defines no services, so it is not a Compose file.", _RAW


def unreadable_is_foreign(text: str) -> bool:
    """Whether text that is no YAML was never meant to be a Compose file."""
    return not (_SERVICES.search(text) or _FLOW_SERVICES.match(text))
