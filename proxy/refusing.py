"""How a client is told no: in the answer to its request, or on the stream where it listens.  [io]

In go a refusal and what is known of its request, out comes the response. Which status, headers and body a reason has is
`challenges`' to say; nothing is decided here, and nothing recorded.
"""

from __future__ import annotations

from aiohttp import web

from proxy.challenges import Answer, form_acknowledgement, form_answer, form_rpc_error, is_told_apart
from proxy.discovery import Discovery
from proxy.errors import Refusal
from proxy.recording import PLAIN, Passage
from proxy.sessions import Registry
from proxy.sse import form_event


class Refuser:
    """`realm`: of challenges; `discovery`: what they point to; `registry`: where streams are found."""

    def __init__(self, realm: str, discovery: Discovery, registry: Registry) -> None:
        self._realm = realm
        self._discovery = discovery
        self._registry = registry

    def refuse(self, refusal: Refusal, request: web.BaseRequest, passage: Passage) -> web.Response:
        """The answer to a request, as far as it was read."""
        route = passage.match.route if passage.match else None
        if refusal.rpc_id is None:
            refusal.rpc_id = passage.rpc_id
        if is_told_apart(refusal, passage.dialect) and self._tell_on_stream(refusal, passage):
            answer = form_acknowledgement(passage.request_id)
        else:
            answer = form_answer(
                refusal,
                passage.dialect,
                realm=self._realm,
                request_id=passage.request_id,
                metadata_url=self._discovery.form_metadata_url(route.path) if route else None,
            )
        response = _form_response(answer)
        response.headers.extend(passage.warnings)
        if answer.close or not request.content.is_eof():
            response.force_close()  # what was not read must not be taken for the next request
        return response

    def refuse_unread(self, refusal: Refusal, request_id: str) -> web.Response:
        """The answer to something that never became a request."""
        return _form_response(form_answer(refusal, PLAIN, realm=self._realm, request_id=request_id))

    def _tell_on_stream(self, refusal: Refusal, passage: Passage) -> bool:
        """Clients of HTTP+SSE hear answers on their stream alone. False: it is not here, or cannot be spoken on."""
        if passage.session is None or passage.key_id is None:
            return False
        stream = self._registry.find_stream(passage.key_id, passage.session)
        if stream is None or stream.inject is None:
            return False
        return stream.inject(form_event(form_rpc_error(refusal, passage.request_id)))


def _form_response(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
