"""Random requests against the OpenAPI document: whatever comes, the answer is one that the document names."""

from collections.abc import Callable

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from habitlab.serving import openapi

PATHS = openapi.document()["paths"]
RIGHT, WRONG = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
CASES = [(path, method, RIGHT) for path, methods in PATHS.items() for method in methods]
CASES += [(path, method, WRONG) for path, method, _ in CASES if path.startswith("/v1/")]


@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_7_1_b_every_answer_is_one_that_the_document_names(make: Callable[..., Flask], path, method, mode):
    """Requests by the document are understood, others are refused with 4xx, none ends in 5xx."""
    operation = schemathesis.openapi.from_wsgi("/openapi.json", make(background=False))[path][method]
    # No document can say that nothing happens in the future, or which time zones there are.
    excluded = [positive_data_acceptance] if method == "post" else []

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate(excluded_checks=excluded)

    check()


def test_7_1_b_the_document_names_every_route(app):
    rules = {rule.rule for rule in app.url_map.iter_rules() if not rule.rule.startswith("/static")}
    assert rules - set(openapi.document()["paths"]) == {"/metrics", "/openapi.json"}
