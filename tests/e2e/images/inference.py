"""Stands in for OpenGPU's Hugging Face worker: same function, fields and PIPE_ARGS_STR, no pipeline."""

from __future__ import annotations

import ast
import os
from typing import Any

from ogpu.service import expose, start  # type: ignore[import-not-found]
from pydantic import BaseModel, Field

from tests.e2e.images.devices import devices


class Inference(BaseModel):
    """What to run the pipeline on."""

    input: str | dict[str, Any]
    args: dict[str, Any] = Field(default_factory=dict)


class InferenceResult(BaseModel):
    """What the pipeline said."""

    result: dict[str, Any]


PIPELINE: dict[str, Any] = ast.literal_eval(os.environ["PIPE_ARGS_STR"])


def inference(data: Inference) -> InferenceResult:
    """Return the pipeline's result."""
    return InferenceResult(
        result={"input": data.input, "args": data.args, "pipeline": PIPELINE, "devices": devices()}
    )


if __name__ == "__main__":
    expose()(inference)
    start()
