"""Errors as clients get them: one JSON form for all, with the four parts.

On the floor of `service`. RFC 9457, problem details for HTTP APIs.
"""

from dataclasses import dataclass

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"


class ProblemBody(BaseModel):
    """Problem details, RFC 9457; the last three are ours."""

    type: str = Field(description="A word for the kind of problem.", examples=["item-unknown"])
    title: str = Field(description="What is wrong.", examples=["an item is unknown"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="How many, and which first.", examples=["1 item_id is not in the catalogue: 'x'"])
    must: str = Field(description="What must hold.", examples=["item_id must be of a published item"])
    action: str = Field(description="What to do.", examples=["publish again if the item is new, or mend the id"])


@dataclass(eq=False)  # a fresh one is raised each time: Python notes in it where that was
class Problem(Exception):
    """An answer that is an error."""

    status: int
    type: str
    title: str
    detail: str
    must: str
    action: str
    headers: tuple[tuple[str, str], ...] = ()

    def response(self) -> JSONResponse:
        """As it is sent."""
        body = ProblemBody(
            type=self.type,
            title=self.title,
            status=self.status,
            detail=self.detail,
            must=self.must,
            action=self.action,
        )
        return JSONResponse(body.model_dump(), self.status, dict(self.headers), MEDIA_TYPE)


def of_validation(error: RequestValidationError) -> Problem:
    """Of a request whose parts are not as they must be."""
    wrong = error.errors()
    place = ".".join(str(part) for part in wrong[0]["loc"])
    return Problem(
        status=422,
        type="request-invalid",
        title="parts of the request are not as they must be",
        detail=f"{len(wrong)} parts; first: {place}: {wrong[0]['msg']}",
        must="a request must be as /openapi.json says",
        action="mend what is named; nothing was kept or changed",
    )


_OF_STATUS = {
    400: ("body-unreadable", "the body cannot be read", "a body must be JSON in UTF-8"),
    404: ("path-unknown", "nothing lies under this path", "the path must be one that /openapi.json names"),
    405: ("method-unknown", "the path does not take this method", "the method must be one that /openapi.json names"),
}


def of_status(request: Request, error: HTTPException) -> Problem:
    """Of what the framework refuses."""
    kind, title, must = _OF_STATUS.get(
        error.status_code, ("request-refused", str(error.detail), "a request must be as /openapi.json says")
    )
    return Problem(
        status=error.status_code,
        type=kind,
        title=title,
        detail=f"1 request: {request.method} {request.url.path[:200]!r}",
        must=must,
        action="mend the request",
        headers=tuple((error.headers or {}).items()),
    )


def internal() -> Problem:
    """Of an error that is ours; what it was stands in the log, not in the answer."""
    return Problem(
        status=500,
        type="internal",
        title="the service failed",
        detail="1 request; its error is in the service's log",
        must="the service must answer",
        action="try again, and tell whoever runs the service",
    )
