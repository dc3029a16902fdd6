"""The whole API as its own OpenAPI document has it: what schemathesis makes of it, good and bad."""

from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok

from recsys.serving.http.app import create_app
from tests.serving.doubles import memory_service

EXAMPLES = 12
"""Of each route and kind."""


@pytest.fixture(scope="module")
def app() -> FastAPI:
    # schemathesis asks from a host of its own choice.
    return create_app(memory_service(insecure=True))


def broken(app: FastAPI, mode: GenerationMode) -> tuple[list[str], list[str]]:
    """Routes that were asked, and what they did that the document does not say."""
    load_all_checks()
    # That a document's words allow a request does not make it one: users are known or not, "user or history"
    # is no schema.
    rules: Any = [each for each in CHECKS.get_all() if each.__name__ != "positive_data_acceptance"]
    asked, wrong = [], []
    for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        assert isinstance(found, Ok), found.err()
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def keeps(case: Case[Any]) -> None:
            case.call_and_validate(checks=rules)

        try:
            keeps()
        except Unsatisfiable:
            continue  # nothing can be wrong with a request that has no parts
        except (Failure, FailureGroup) as error:
            wrong.append(f"{operation.label}: {error}")
        asked.append(operation.label)
    return asked, wrong


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_route_keeps_what_the_document_says(app: FastAPI, mode: GenerationMode) -> None:
    asked, wrong = broken(app, mode)
    assert not wrong, "\n\n".join(wrong)
    assert "POST /v1/recommend" in asked
    assert len(asked) >= (20 if mode is GenerationMode.POSITIVE else 3)


def test_what_is_refused_before_a_route_is_asked_is_in_the_document(app: FastAPI) -> None:
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            if path.startswith(("/v1/", "/v2/models")):
                early = {"414", "431"} | ({"408", "413"} if "requestBody" in operation else set())
                assert early <= set(operation["responses"]), (method, path)


def test_what_the_document_does_not_say_is_found() -> None:
    app = FastAPI()

    @app.get("/number", response_model=int)
    async def number(upper: int) -> Any:
        return JSONResponse({"upper": upper}, 418)

    _, wrong = broken(app, GenerationMode.POSITIVE)
    assert len(wrong) == 1
    assert "GET /number" in wrong[0]
