"""What the page answers to whom, by real sockets, on a real database."""

from __future__ import annotations

import gzip
import re
from datetime import timedelta

import pytest

from proxy.console.assets import FOLDER
from proxy.errors import Reason
from tests.console.visiting import CSRF, Visitor
from tests.raw_client import ask_raw

ROOT = "/settings/api-keys"
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{7+7}}'


async def test_nobody_signed_in_is_sent_to_the_sign_in_and_back(visitor: Visitor) -> None:
    answer = await visitor.send(f"{ROOT}?q=ci")
    assert answer.status == 303
    assert answer.headers["Location"] == "/settings/sign-in?next=%2Fsettings%2Fapi-keys%3Fq%3Dci"
    assert answer.headers["Cache-Control"] == "no-store"


async def test_a_word_that_is_no_text_is_not_ours(visitor: Visitor) -> None:
    await visitor.stage.mint("full-access")
    await visitor.sign_in()
    address = visitor.proxy.data_address
    request = f"GET /settings/v1/api-keys HTTP/1.1\r\nHost: {address}\r\nX-CSRF-Token: ".encode() + b"\xff\r\n\r\n"
    answer = await ask_raw(address, request)
    assert (answer.status, answer.reason) == (403, Reason.ORIGIN_NOT_ALLOWED)


async def test_the_cookie_opens_the_api_of_the_page_only_with_the_word_of_its_own_pages(visitor: Visitor) -> None:
    await visitor.stage.mint("full-access")
    assert (await visitor.ask("/settings/v1/api-keys"))[0] == 401
    await visitor.sign_in()
    assert (await visitor.ask("/settings/v1/api-keys"))[0] == 403
    assert (await visitor.ask("/settings/v1/api-keys", X_CSRF_Token="another"))[0] == 403
    assert (await visitor.ask("/settings/v1/api-keys", X_CSRF_Token=CSRF))[0] == 200
    assert (await visitor.ask("/v1/api-keys", X_CSRF_Token=CSRF))[0] == 401


async def test_a_page_of_another_origin_is_refused_and_our_own_is_not(visitor: Visitor) -> None:
    await visitor.stage.mint("full-access")
    await visitor.sign_in()
    wanted = {"name": "ci", "preset": "read-only"}
    for origin in ("https://evil.example", "null", f"{visitor.url}0"):
        status, text = await visitor.ask("/settings/v1/api-keys", "POST", wanted, X_CSRF_Token=CSRF, Origin=origin)
        assert (status, "origin_not_allowed" in text) == (403, True)
    status, _ = await visitor.ask("/settings/v1/api-keys", "POST", wanted, X_CSRF_Token=CSRF, Origin=visitor.url)
    assert status == 201


async def test_no_page_may_be_kept_framed_or_given_anything_of_others(visitor: Visitor) -> None:
    await visitor.stage.mint("full-access")
    await visitor.sign_in()
    for path in (ROOT, f"{ROOT}/connect", "/settings/nothing"):
        headers = (await visitor.send(path)).headers
        assert headers["Cache-Control"] == "no-store"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"


async def test_files_are_kept_for_ever_and_named_by_what_they_hold(visitor: Visitor) -> None:
    await visitor.stage.mint("full-access")
    await visitor.sign_in()
    _, text = await visitor.ask(ROOT)
    names = re.findall(r'(?:href|src)="(/settings/static/[^"]+)"', text)
    assert {name.rpartition(".")[2] for name in names} == {"css", "js", "svg"}
    for name in names:
        answer = await visitor.send(name)
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert (await visitor.send(name, "POST")).status == 405
    assert (await visitor.send("/settings/static/0000000000000000/app.js")).status == 404
    plain = await visitor.send("/settings/static/app.css")
    assert (plain.status, plain.headers["Cache-Control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    ("said", "packed"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=1.0", True), ("gzip;q=0", False), ("gzip; q=0.000", False),
     ("identity", False), ("gzipped", False), ("*", False), ("", False)],
)  # fmt: skip
async def test_files_are_packed_for_whoever_can_unpack_them(said: str, packed: bool, visitor: Visitor) -> None:
    answer = await visitor.send("/settings/static/app.js", Accept_Encoding=said)
    sent, expected = await answer.read(), (FOLDER / "app.js").read_bytes()
    assert (gzip.decompress(sent) if packed else sent) == expected
    assert answer.headers.get("Content-Encoding") == ("gzip" if packed else None)
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"


async def test_hostile_names_and_scopes_are_text(visitor: Visitor) -> None:
    key = await visitor.stage.mint(scopes=(f"workflow:run:{HOSTILE}",), name=HOSTILE)
    await visitor.stage.mint("full-access", owner=HOSTILE)
    for subject in ("ada", HOSTILE):
        await visitor.sign_in(subject)
        _, text = await visitor.ask(ROOT)
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "{{7+7}}" in text
    await visitor.sign_in()
    _, text = await visitor.ask(ROOT)
    assert key.summary.id in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    for path in (f"{ROOT}/{key.summary.id}", f"{ROOT}/new?rights={HOSTILE.replace(chr(34), '%22')}"):
        _, shown = await visitor.ask(path)
        assert "<script>alert" not in shown
        assert "<img" not in shown
    _, text = await visitor.ask(f"{ROOT}?q=%22%3E%3Cscript%3E")
    assert 'value="&#34;&gt;&lt;script&gt;"' in text


async def test_owners_see_their_own_keys_and_admins_the_tenants(visitor: Visitor) -> None:
    await visitor.stage.mint("full-access", owner="ada", name="hers", tier="enterprise")
    await visitor.stage.mint("read-only", owner="bob", name="his")
    await visitor.sign_in("bob")
    _, text = await visitor.ask(ROOT)
    assert ">his<" in text
    assert ">hers<" not in text
    await visitor.sign_in("ada", role="aegis:admin")
    _, text = await visitor.ask(ROOT)
    assert ">his<" in text
    assert "Owner: bob" in text


async def test_a_key_that_may_not_list_is_told_which_right_it_lacks(visitor: Visitor) -> None:
    key = await visitor.stage.mint(scopes=("key:create",))
    await visitor.sign_in_by_key(key.summary.id)
    status, text = await visitor.ask(ROOT)
    assert status == 403
    assert "key:list" in text


async def test_search_filters_and_pages(visitor: Visitor) -> None:
    for number in range(51):
        await visitor.stage.mint("read-only", name=f"worker {number:02}", lifetime=timedelta(days=90))
    await visitor.sign_in()
    _, text = await visitor.ask(ROOT)
    assert text.count('class="name"') == 50
    (older,) = re.findall(r'href="([^"]+)" rel="next"', text)
    _, text = await visitor.ask(older.replace("&amp;", "&"))
    assert text.count('class="name"') == 1
    assert "worker 00" in text
    _, text = await visitor.ask(f"{ROOT}?q=WORKER+17&status=active&preset=")
    assert re.findall(r'class="name"[^>]*>(.*?)</a>', text) == ["worker 17"]
    _, text = await visitor.ask(f"{ROOT}?status=revoked")
    assert "Nothing found" in text


@pytest.mark.parametrize(
    ("path", "status"),
    [(f"{ROOT}?cursor=x", 422), (f"{ROOT}?status=gone", 422), (f"{ROOT}?q=a&q=b", 400), (f"{ROOT}/a/b", 404)],
)
async def test_what_makes_no_sense_is_refused_as_a_page(path: str, status: int, visitor: Visitor) -> None:
    await visitor.stage.mint("read-only")
    await visitor.sign_in()
    answer = await visitor.send(path)
    assert (answer.status, answer.content_type) == (status, "text/html")


@pytest.mark.parametrize("place", [ROOT, "/settings", f"{ROOT}/connect", "/settings/sign-in"])
async def test_a_browser_that_brings_a_key_in_the_address_reads_a_page_without_it(place: str, visitor: Visitor) -> None:
    key = await visitor.stage.mint("full-access")
    answer = await visitor.send(f"{place}?q={key.token}")
    text = await answer.text()
    assert (answer.status, answer.content_type) == (400, "text/html")
    assert "revoke it now" in text
    assert key.token[20:] not in text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert (await visitor.send(f"/settings/v1/api-keys?q={key.token}")).content_type == "application/problem+json"


async def test_pages_are_only_read(visitor: Visitor) -> None:
    await visitor.stage.mint("read-only")
    await visitor.sign_in()
    answer = await visitor.send(ROOT, "POST", {})
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")


async def test_the_way_in_leads_to_the_keys(visitor: Visitor) -> None:
    answer = await visitor.send("/settings")
    assert (answer.status, answer.headers["Location"]) == (303, ROOT)


async def test_one_key_shows_what_is_known_of_it(visitor: Visitor) -> None:
    key = await visitor.stage.mint("execution", name="ci")
    await visitor.sign_in()
    status, text = await visitor.ask(f"{ROOT}/{key.summary.id}")
    assert status == 200
    for words in ("<h1>ci</h1>", f"aegis_{key.summary.id}", "None right now", "Nothing yet", "Created", "Execution"):
        assert words in text
    assert 'data-open="revoke"' in text
    assert key.token not in text


async def test_a_key_that_is_not_ones_own_is_not_there(visitor: Visitor) -> None:
    key = await visitor.stage.mint("execution", owner="bob")
    await visitor.stage.mint("execution", owner="ada")
    await visitor.sign_in("ada")
    for key_id in (key.summary.id, "000000000000"):
        status, text = await visitor.ask(f"{ROOT}/{key_id}")
        assert (status, "There is no such API key." in text) == (404, True)


async def test_a_form_for_a_change_begins_with_what_is_there(visitor: Visitor) -> None:
    held = {"sources": ["10.0.0.0/8"], "requests_per_second": 2, "max_streams": 3}
    key = await visitor.stage.mint(scopes=("workflow:run:nightly-etl", "agent:list"), name=HOSTILE, constraints=held)
    await visitor.sign_in()
    status, text = await visitor.ask(f"{ROOT}/{key.summary.id}/edit")
    assert status == 200
    assert re.findall(r'name="(?:rights|expiry)" value="(\w+)"[^>]* checked', text) == ["keep", "keep"]
    assert re.findall(r'type="checkbox" value="([^"]+)"[^>]* checked', text) == ["agent:list", "workflow:run"]
    for words in (">nightly-etl</textarea>", ">10.0.0.0/8</textarea>", 'id="requests_per_second" inputmode="decimal"'):
        assert words in text
    assert 'value="2" data-limit' in text
    assert "<script>alert" not in text
    assert key.token not in text


async def test_what_may_not_be_changed_has_no_form_for_it(visitor: Visitor) -> None:
    admin, target = await visitor.stage.mint("full-access"), await visitor.stage.mint("execution")
    reader = await visitor.stage.mint(scopes=("key:list", "key:read"))
    gone, foreign = await visitor.stage.mint("execution"), await visitor.stage.mint("execution", owner="bob")
    await visitor.stage.revoke_by_sql(gone)
    await visitor.sign_in_by_key(reader.summary.id)
    assert (await visitor.ask(f"{ROOT}/{target.summary.id}/edit"))[0] == 403
    await visitor.sign_in_by_key(admin.summary.id)
    assert (await visitor.ask(f"{ROOT}/{admin.summary.id}/edit"))[0] == 409
    await visitor.sign_in()
    assert (await visitor.ask(f"{ROOT}/{gone.summary.id}/edit"))[0] == 409
    assert (await visitor.ask(f"{ROOT}/{foreign.summary.id}/edit"))[0] == 404
    assert (await visitor.ask(f"{ROOT}/{target.summary.id}/edit", "POST", {}))[0] == 405
    assert (await visitor.ask(f"{ROOT}/{target.summary.id}/other"))[0] == 404


async def test_a_key_is_offered_nothing_to_do_to_itself_and_a_dead_one_nothing_at_all(visitor: Visitor) -> None:
    admin = await visitor.stage.mint("full-access")
    gone = await visitor.stage.mint("execution")
    await visitor.stage.revoke_by_sql(gone)
    await visitor.sign_in_by_key(admin.summary.id)
    _, text = await visitor.ask(f"{ROOT}/{admin.summary.id}")
    assert "You are signed in with this key" in text
    assert "data-open=" not in text
    await visitor.sign_in()
    _, text = await visitor.ask(f"{ROOT}/{gone.summary.id}")
    assert "Revoked" in text
    assert "data-open=" not in text
    assert "data-do=" not in text


async def test_a_history_goes_on_on_further_pages(visitor: Visitor) -> None:
    key = await visitor.stage.mint("execution")
    for number in range(25):
        await visitor.stage.sql(
            "INSERT INTO audit_events (actor, action, key_id) VALUES ('test', $1, $2)", f"deed {number}", key.summary.id
        )
    await visitor.sign_in()
    _, text = await visitor.ask(f"{ROOT}/{key.summary.id}")
    assert "deed 24" in text
    assert "deed 1<" not in text
    (older,) = re.findall(r'href="([^"]+)#audit"', text)
    _, text = await visitor.ask(older)
    assert "deed 1<" in text


async def test_who_may_not_make_keys_gets_no_form_for_it(visitor: Visitor) -> None:
    key = await visitor.stage.mint(scopes=("key:list",))
    await visitor.sign_in_by_key(key.summary.id)
    status, text = await visitor.ask(f"{ROOT}/new")
    assert (status, "key:create" in text) == (403, True)
    _, text = await visitor.ask(ROOT)
    assert "New API key" not in text


async def test_what_cannot_be_given_is_shown_with_the_reason(visitor: Visitor) -> None:
    key = await visitor.stage.mint(scopes=("key:create", "key:list", "workflow:run:nightly-etl"))
    await visitor.sign_in_by_key(key.summary.id)
    _, text = await visitor.ask(f"{ROOT}/new")
    assert 'value="preset:developer"' in text
    assert "Not available: " in text
    assert "does not hold" in text
    assert '<option value="nightly-etl">' in text
