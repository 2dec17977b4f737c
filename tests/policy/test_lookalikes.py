"""A path that only its case or its escapes keep from another route is nobody's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.envelope import parse_target
from proxy.policy import Policy, load_policy
from proxy.policy.lookalikes import Lookalikes

Routes = Callable[[str], Policy]
SHIPPED: Final = load_policy(Path(__file__).parents[2] / "config" / "policy.yaml")
ROUTES: Final = """
- { id: item, path: "/v1/a/{id}", methods: [GET], upstream: api, require: "volume:read:{id}" }
- { id: all, path: "/v1/a/list:all", methods: [GET], upstream: api, require: workflow:list }
- { id: world, path: "/open/**", methods: [GET], upstream: api, allow: anyone }
- { id: inner, path: "/open/admin/**", methods: [GET], upstream: api, require: workflow:list }
- { id: API, path: "/API/{id}", methods: [GET], upstream: api, require: workflow:list }
- { id: api, path: "/api/{id}", methods: [GET], upstream: api, require: workflow:list }
"""


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/a/list:all", "all"),
        ("/v1/a/list%3Aall", None),  # whoever decodes first reads the line above
        ("/v1/a/List:all", None),
        ("/v1/a/Li%C5%BFt:all", None),  # ſ is an s to whoever folds case by Unicode
        ("/v1/a/list%3Aothers", "item"),
        ("/v1/a/Ab%20c", "item"),
        ("/v1/a/list:all%3F", "item"),  # a name that ends in a question mark
        ("/open/admin/x", "inner"),
        ("/open/Admin/x", None),
        ("/open/admin%3Ax", "world"),
        ("/open/X", "world"),
        ("/API/x", "API"),  # a policy that tells them apart by case is believed
        ("/api/X", "api"),
    ],
)
def test_a_path_that_could_mean_another_route_is_not_served(with_routes: Routes, path: str, route: str | None) -> None:
    found = with_routes(ROUTES).find_route(parse_target(path).path)
    assert (found.route.id if found is not None else None) == route


@given(st.sampled_from([route.path for route in SHIPPED.routes]), st.data())
def test_no_case_of_a_shipped_path_leads_to_another_route(path: str, data: st.DataObject) -> None:
    plain = path.replace("{", "").replace("}", "").replace("**", "rest")
    shifted = data.draw(st.lists(st.booleans(), min_size=len(plain), max_size=len(plain)))
    spelt = "".join(sign.upper() if up else sign for sign, up in zip(plain, shifted, strict=True))
    found, meant = SHIPPED.find_route(spelt), SHIPPED.find_route(plain)
    assert meant is not None
    assert found is None or found.route is meant.route


def test_what_no_route_could_mean_misleads() -> None:
    assert Lookalikes(["/a/{x}"]).misleads("/A/b/c", "/a/{x}")
