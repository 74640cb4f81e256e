import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from published import make_published_shop, serve
from schemathesis.specs.openapi.checks import positive_data_acceptance

OPERATIONS = [
    *("POST /search", "GET /users/{user_id}/recommendations", "GET /sessions/{session_id}/recommendations"),
    *("GET /items/{item_id}/similar", "POST /similar", "GET /weights/{user_id}", "POST /events", "GET /suspects"),
    *("POST /ratings", "DELETE /ratings/{rating_id}"),
]
WITHOUT_PARTS = ["GET /health", "GET /ready", "GET /metrics"]  # nothing of them can be wrong
TRIED = [
    *((kind, name) for kind in ("POSITIVE", "NEGATIVE") for name in OPERATIONS),
    *(("POSITIVE", name) for name in WITHOUT_PARTS),
]
# ids that are words for nothing, times that cannot be, samples and grades that are not there: no schema says so
BEYOND_SCHEMA = [positive_data_acceptance]


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    make_published_shop().publish(home / "published")
    app, serving = serve(home)
    with TestClient(app):
        found = schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations()
        yield {operation.ok().label: operation.ok() for operation in found}
    serving.close()


def test_every_path_is_among_those_that_are_tried(api):
    assert set(api) == {*OPERATIONS, *WITHOUT_PARTS}


@pytest.mark.parametrize(("kind", "name"), TRIED)
def test_whatever_is_sent_is_answered_as_the_openapi_says_and_never_by_a_failure(api, kind, name):
    cases = api[name].as_strategy(generation_mode=schemathesis.GenerationMode[kind])

    @given(cases)
    @settings(max_examples=15, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    def holds(case):
        case.call_and_validate(excluded_checks=BEYOND_SCHEMA)

    holds()
