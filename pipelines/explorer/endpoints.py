"""The endpoints of the API: where each is, what it takes and gives; and the OpenAPI document that says so."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter

from pipelines.explorer import answers
from recmodels.serving.shown import ItemDetails, Reason, User, UserDetails


@dataclass(frozen=True)
class Endpoint:
    """One address of the API."""

    path: str
    """Below the server's address."""
    question: type[answers.Question]
    """Its parameters."""
    answer: Any
    """Type of what it gives."""
    respond: Callable[..., Any]
    """From the results and the parameters to the answer."""
    quick: bool = False
    """Whether it takes a millisecond and may be asked all the time."""

    @property
    def summary(self) -> str:
        """What it is for, in one line."""
        return inspect.getdoc(self.respond) or ""


ENDPOINTS = (
    Endpoint("/api/datasets", answers.Question, answers.DataSets, answers.data_sets),
    Endpoint("/api/overview", answers.OfDataSet, answers.Overview, answers.overview),
    Endpoint("/api/users", answers.OfUsers, list[User], answers.find_users),
    Endpoint("/api/any_user", answers.OfGroup, User, answers.any_user),
    Endpoint("/api/user", answers.OfUser, UserDetails, answers.user),
    Endpoint("/api/recommendations", answers.ForUser, answers.Recommendations, answers.recommendations, quick=True),
    Endpoint("/api/reasons", answers.Why, list[Reason], answers.reasons),
    Endpoint("/api/item", answers.OfItem, ItemDetails, answers.item),
    Endpoint("/api/similar", answers.Like, answers.Similar, answers.similar),
    Endpoint("/api/stale", answers.OfDataSet, list[answers.StaleCheckpoint], answers.stale),
)

_REFERENCE = "#/components/schemas/{model}"
_ERROR = {
    "type": "object",
    "description": "What was expected, what was found and what to do.",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
}


def openapi(endpoints: Sequence[Endpoint] = ENDPOINTS) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of some endpoints."""
    schemas: dict[str, Any] = {"Error": _ERROR}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "recmodels explorer",
            "version": version("recmodels"),
            "description": "Recommendations of trained models, by the names of the raw data. Everything is read only.",
        },
        "paths": {endpoint.path: {"get": _operation(endpoint, schemas)} for endpoint in endpoints},
        "components": {"schemas": schemas},
    }


def _operation(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters = endpoint.question.model_json_schema(ref_template=_REFERENCE)
    answer = TypeAdapter(endpoint.answer).json_schema(ref_template=_REFERENCE, mode="serialization")
    schemas |= answer.pop("$defs", {})
    error = {"$ref": _REFERENCE.format(model="Error")}
    return {
        "operationId": endpoint.respond.__name__,
        "summary": endpoint.summary,
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": name in parameters.get("required", ()),
                "description": endpoint.question.model_fields[name].description or "",
                "schema": schema,
            }
            for name, schema in parameters.get("properties", {}).items()
        ],
        "responses": {
            "200": {"description": "The answer.", "content": {"application/json": {"schema": answer}}},
            **{
                status: {"description": text, "content": {"application/json": {"schema": error}}}
                for status, text in (("400", "A parameter is wrong."), ("404", "What it needs is not there."))
            },
        },
    }
