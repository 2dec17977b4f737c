"""The document says what there is, and is there for anybody."""

from __future__ import annotations

from proxy.management.answers import ANSWERS
from proxy.management.endpoints import ENDPOINTS, find_endpoints
from proxy.policy.reserved import is_reserved
from tests.management.asking import KEYS, Api


async def test_the_document_is_there_for_anybody(api: Api) -> None:
    said = await api.ask("GET", "/v1/openapi.json", None)
    document = said.json
    assert (said.status, document["openapi"]) == (200, "3.1.0")
    assert document["paths"].keys() == {endpoint.path for endpoint in ENDPOINTS}
    wanted = document["components"]["schemas"]["WantedKey"]
    assert wanted["additionalProperties"] is False
    assert document["paths"][KEYS]["post"]["responses"].keys() >= {"200", "201", "400", "401", "403", "409", "422"}
    assert document["paths"]["/v1/openapi.json"]["get"]["security"] == []


def test_every_reference_of_the_document_leads_somewhere() -> None:
    from proxy.management.openapi import form_document

    document = form_document(ENDPOINTS, "1")
    text = str(document)
    for name in document["components"]["schemas"]:
        text = text.replace(f"'#/components/schemas/{name}'", "")
    assert "#/components" not in text


def test_every_endpoint_is_answered_on_a_path_that_no_policy_can_route() -> None:
    assert {endpoint.name for endpoint in ENDPOINTS} == {*ANSWERS, "show_openapi"}
    for endpoint in ENDPOINTS:
        path = endpoint.path.replace("{id}", "000000000000")
        assert is_reserved(path)
        found = find_endpoints(path)
        assert found is not None
        assert found[0][endpoint.method] is endpoint
