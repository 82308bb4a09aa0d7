from __future__ import annotations

import json

import pytest

from tests.support.compose import translate

MANIFEST = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}


@pytest.mark.parametrize(
    ("text", "message", "advice"),
    [
        ("", "empty", "raw.githubusercontent.com"),
        ("# nothing\n", "empty", "raw.githubusercontent.com"),
        ("<!DOCTYPE html>\n<html><title>x</title></html>", "web page", "raw.githubusercontent.com"),
        ("\n\n<html lang=en>\n<body>GitHub - a/compose.yml at main</body>", "page of GitHub", "Raw"),
        (json.dumps(MANIFEST), "manifest from a registry", "names the image"),
        (json.dumps({"message": "Not Found"}, indent=1), "JSON document", "raw"),
        ("ollama/ollama:latest", "image's name", "names the image"),
        ("docker.io/library/nginx@sha256:" + "0" * 64, "image's name", "names the image"),
        ("nginx", "image's name", "names the image"),
        ("https://github.com/opengpu-network/openchat", "Git repository", "raw"),
        ("https://gitlab.com/a/b.git", "Git repository", "raw"),
        ("git@github.com:a/b.git", "Git repository", "raw"),
        ("https://example.org/compose.yaml", "an address", "raw"),
        ("404: Not Found", "no such file", "raw"),
        ("FROM python:3.12\nRUN pip install x\n", "Dockerfile", "names the image"),
        ("# syntax\n\nARG X\nFROM x\n", "Dockerfile", "names the image"),
        ("Dear all,\nthis is a letter.\n", "plain text", "raw"),
        ("- a\n- b\n", "plain text", "raw"),
        ("title: [unclosed\nfoo", "neither YAML nor", "raw"),
        ("apiVersion: v1\nkind: Pod\n", "Kubernetes object", "kubectl"),
        ("web:\n  image: nginx\n", "first format", "services"),
        ("name: x\nversion: '3'\n", "defines no services", "raw"),
    ],
)
def test_what_is_given_instead(text: str, message: str, advice: str) -> None:
    (finding,) = translate(text).findings
    assert finding.reason == "NotAComposeFile"
    assert message.lower() in finding.message.lower()
    assert advice.lower() in finding.advice.lower()


def test_broken_compose_files_are_not_called_something_else() -> None:
    (finding,) = translate("services:\n  app:\n    image: [x\n").findings
    assert (finding.reason, finding.line) == ("BadYaml", 4)


def test_json_is_yaml() -> None:
    assert not translate('{"services": {"app": {"image": "x"}}}').refused
