"""Requests generated from the OpenAPI document: no server error, and answers as documented."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKED = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def check_operations(url: str, examples: int) -> None:
    """Send ``examples`` requests to every operation of the document."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {f"{operation.method.upper()} {operation.path}" for operation in operations} == {
        *(f"POST /{name}" for name in ("predict", "features", "maps")),
        *(f"GET /{name}" for name in ("health", "ready", "metrics", "model")),
    }
    for operation in operations:

        @settings(
            max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(operation.as_strategy())
        def check(case) -> None:
            case.call_and_validate(checks=CHECKED)

        check()


def test_generated_requests(url: str) -> None:
    check_operations(url, 10)


@pytest.mark.exhaustive
def test_many_generated_requests(url: str) -> None:
    check_operations(url, 300)
