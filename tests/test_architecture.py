"""Who may know whom. The house has rooms, and a line of code that stands in the wrong one is found here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {str(path.relative_to(ROOT / "proxy")): ast.parse(path.read_text()) for path in (ROOT / "proxy").rglob("*.py")}
TESTS = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}

# A library is known to the rooms that own it, and a room may be read without knowing the others'.
OWNERS = {
    "aiohttp": {
        "client_connection.py",
        "client_response.py",
        "console/views.py",
        "fittings.py",
        "forwarding.py",
        "front_door.py",
        "console/sign_in.py",
        "console/signed_in.py",
        "management/dispatch.py",
        "ops.py",
        "provider_client.py",
        "public.py",
        "refusing.py",
        "relay.py",
        "request_body.py",
        "server.py",
    },
    "asyncpg": {"database.py", "keys/store.py"},
    "argon2": {"keys/hashing.py"},
    "cachetools": {
        "alarms.py",
        "decision_records.py",
        "assertions.py",
        "console/links.py",
        "failures.py",
        "keys/digests.py",
        "memory.py",
        "session_store.py",
    },
    "cryptography": {"assertions.py", "provider_documents.py", "sealing.py"},
    "jwt": {"assertions.py", "provider_documents.py", "provider_tokens.py"},
    "httptools": {"upstream_answer.py"},
    "jinja2": {"console/rendering.py"},
    "prometheus_client": {"metrics.py"},
    "structlog": {"logs.py"},
}
# The sample server is a program of its own that only lives in the same package.
FREE = ("demo/",)
# What a pure room would have to be given instead.
IMPURE = {"aiohttp", "asyncio", "asyncpg", "random", "secrets", "select", "socket", "ssl", "subprocess", "time"}
# Not pure itself, but what a pure room takes from it is: the arithmetic of the database's clock.
PURE_PARTS = {"clock.py", "__init__.py"}
# Front matter: packages, the command line (all of it io), and a script to paste.
UNTAGGED = ("__init__.py", "__main__.py", "cli/", "demo/client.py")

# Numbers that look like statuses outside `challenges`, and why they are no refusals of ours.
NUMBERS = {
    "cli/keys_usage.py": {400},  # days
    "client_connection.py": {500},  # aiohttp's word for a handler that failed
    "front_door.py": {499},  # never sent: the client has left
    "ops.py": {503},  # not ready, said to probes
    "forwarding.py": {400, 401, 403, 404, 407},  # what the upstream said
    "session_cleanup.py": {400, 404, 405},  # what the upstream said
    "upstream_answer.py": {599},  # the last status there is
    "upstream_address.py": {443},  # a port
    "management/models.py": {400},  # days
    "embedded_directory.py": {0o700},  # a mode
}

# Rooms without a test file of their name, and where their promises are held.
TESTED_BY = {
    # Nothing but values.
    "errors.py": "tests/journeys/test_refusals.py",
    "identity.py": "tests/test_authorization.py",
    # Through the rooms that gather.
    "gathering.py": "tests/keys/test_reader.py",
    # What only shows on a socket.
    "front_door.py": "tests/journeys/test_refusals.py",
    "refusing.py": "tests/journeys/test_refusals.py",
    "forwarding.py": "tests/journeys/test_wall.py",
    "relay.py": "tests/journeys/test_leaving.py",
    "public.py": "tests/journeys/test_identity.py",
    "request_body.py": "tests/journeys/test_rest.py",
    "settings_shapes.py": "tests/test_settings.py",
    "settings_management.py": "tests/test_settings.py",
    "settings_console.py": "tests/test_settings.py",
    "kept_documents.py": "tests/test_identity_provider.py",
    "console/page_headers.py": "tests/console/test_sign_in.py",
    "back_office.py": "tests/management/test_callers.py",
    "settings_upstreams.py": "tests/test_settings.py",
    # What only shows between several instances and a database.
    "listener.py": "tests/faults/test_lost_news.py",
    "revocation.py": "tests/journeys/test_streaming.py",
    "session_cleanup.py": "tests/journeys/test_two_proxies.py",
    "server.py": "tests/journeys/test_presets.py",
    "heart.py": "tests/journeys/test_presets.py",
    "fittings.py": "tests/journeys/test_presets.py",
    "cli/serving.py": "tests/cli/test_commands.py",
    "cli/serve.py": "tests/cli/test_commands.py",
    "cli/policy.py": "tests/cli/test_commands.py",
    "cli/key_options.py": "tests/cli/test_keys_life.py",
    "console/assets.py": "tests/console/test_views.py",
    "console/rendering.py": "tests/console/test_views.py",
    "keys/callers.py": "tests/keys/test_changes.py",
    "keys/holding.py": "tests/keys/test_changes.py",
    "keys/listing.py": "tests/management/test_pages_of_keys.py",
    "management/answers.py": "tests/management/test_operations.py",
    "management/callers.py": "tests/management/test_dispatch.py",
    "management/endpoints.py": "tests/management/test_openapi.py",
    "management/models.py": "tests/management/test_operations.py",
    "management/shown.py": "tests/management/test_operations.py",
    "keys/explaining.py": "tests/management/test_looking.py",
    "policy/reserved.py": "tests/policy/test_faults.py",
    "cli/policy_diff.py": "tests/cli/test_policy_tools.py",
    "live_policy.py": "tests/journeys/test_policy_edits.py",
    "policy_files.py": "tests/journeys/test_policy_edits.py",
    "recording.py": "tests/journeys/test_policy_edits.py",
    # The policy is tested as the language it is, not room by room.
    "policy/questions.py": "tests/policy/test_explanations.py",
    "policy/recorded_fields.py": "tests/policy/test_replays.py",
    "policy/mutants.py": "tests/policy/test_cases.py",
    "policy/build.py": "tests/policy/test_language.py",
    "policy/compiled.py": "tests/policy/test_decisions.py",
    "policy/load.py": "tests/policy/test_faults.py",
    "policy/model.py": "tests/policy/test_faults.py",
    "policy/requirements.py": "tests/policy/test_language.py",
    "policy/rules.py": "tests/policy/test_decisions.py",
    "policy/source.py": "tests/policy/test_faults.py",
    "policy/tables.py": "tests/policy/test_faults.py",
    # The sample server, through its own door.
    **dict.fromkeys(
        (f"demo/{name}.py" for name in ("client", "command", "sample_face", "sample_platform", "storage_tools",
                                        "system_tools", "tool_table", "work_tools")),
        "tests/demo/test_sample_server.py",
    ),
}  # fmt: skip


def find_imports(tree: ast.Module) -> Iterator[str]:
    """Every imported module, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who knows whom"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def find_libraries(room: str) -> set[str]:
    return {name.partition(".")[0] for name in find_imports(ROOMS[room])}


def get_first_line(room: str) -> str:
    return (ast.get_docstring(ROOMS[room]) or "").partition("\n")[0]


def is_pure(room: str) -> bool:
    return "[pure" in get_first_line(room)


def find_neighbours(room: str) -> Iterator[str]:
    """The rooms of ours that a room imports from."""
    for name in find_imports(ROOMS[room]):
        parts = name.split(".")
        while parts[0] == "proxy" and len(parts) > 1:
            path = "/".join(parts[1:])
            found = next((room for room in (f"{path}.py", f"{path}/__init__.py") if room in ROOMS), None)
            if found is not None:
                yield found
                break
            parts.pop()


PURE_ROOMS = sorted(filter(is_pure, ROOMS))


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_known_only_to_the_rooms_that_own_it(library: str) -> None:
    users = {room for room in ROOMS if library in find_libraries(room) and not room.startswith(FREE)}
    assert users <= OWNERS[library]
    assert users, "nobody uses it any more: strike it"


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_every_room_says_what_it_is_for_and_whether_it_is_pure(room: str) -> None:
    assert ast.get_docstring(ROOMS[room])
    if not any(mark in room for mark in UNTAGGED):
        assert "[pure" in get_first_line(room) or "[io" in get_first_line(room)


@pytest.mark.parametrize("room", PURE_ROOMS)
def test_a_pure_room_imports_neither_clocks_nor_chance_nor_sockets(room: str) -> None:
    assert not find_libraries(room) & IMPURE


@pytest.mark.parametrize("room", PURE_ROOMS)
def test_a_pure_room_knows_pure_rooms_only(room: str) -> None:
    assert {neighbour for neighbour in find_neighbours(room) if not is_pure(neighbour)} <= PURE_PARTS


def test_there_are_pure_rooms() -> None:
    assert {"credentials.py", "envelope.py", "messages.py", "authorization.py", "challenges.py"} <= set(PURE_ROOMS)


@pytest.mark.parametrize(
    ("made", "maker"),
    [
        ("Permit", "authorization.py"),
        ("Principal", "memory.py"),
        ("Token", "keys/token.py"),
        ("LegacyToken", "keys/legacy.py"),
    ],
)
def test_what_proves_a_step_of_the_walk_is_made_in_one_room(made: str, maker: str) -> None:
    makers = {
        room
        for room, tree in ROOMS.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and made in (getattr(node.func, "id", None), getattr(node.func, "attr", None))
    }
    assert makers == {maker}


def test_only_challenges_knows_status_numbers() -> None:
    for room, tree in ROOMS.items():
        if room == "challenges.py":
            continue
        numbers = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        statuses = {number for number in numbers if isinstance(number, int) and 400 <= number <= 599}
        assert statuses <= NUMBERS.get(room, set()), room


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_every_room_has_a_test_of_its_name_or_says_where_else_it_is_tested(room: str) -> None:
    name = Path(room).name
    if name.startswith("__"):
        return
    assert any(Path(test).name == f"test_{name}" for test in TESTS) or TESTED_BY.get(room) in TESTS


def test_what_is_said_of_rooms_is_said_of_rooms_there_are() -> None:
    assert {*TESTED_BY, *NUMBERS, *set().union(*OWNERS.values())} <= set(ROOMS)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_fits_on_a_few_screens(room: str) -> None:
    """Past 400 lines there is a second room hiding in it."""
    assert len((ROOT / "proxy" / room).read_text().splitlines()) <= 400
