"""Routes that anyone may use, because the policy says so: the platform's health, its webhooks.  [io]

In goes a request without a caller, out comes the upstream's answer. Nothing of ours goes with it, neither credential
nor identity, and nothing of the client's that could pass for one. Nothing here is verified, so nothing can be revoked:
which routes these are is the policy's to say, and it says none unless somebody wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aiohttp import web

from proxy.client_response import begin_stream
from proxy.envelope import Target
from proxy.errors import Refusal
from proxy.forwarding import Destination, check_answer, find_destination
from proxy.headers import form_client_headers, form_upstream_headers
from proxy.policy import RouteMatch
from proxy.request_body import BodyLimits, RequestUpload
from proxy.upstream import UploadLengthError, UpstreamAborted, UpstreamResponse


class PublicForwarder:
    """Carries what nobody vouches for."""

    def __init__(self, destinations: Mapping[str, Destination], limits: BodyLimits) -> None:
        self._destinations = destinations
        self._limits = replace(limits, max_upload_bytes=limits.max_body_bytes)

    async def forward(
        self, match: RouteMatch, target: Target, request: web.BaseRequest, request_id: str
    ) -> web.StreamResponse:
        """Send and relay. Raises Refusal while nothing has been answered yet."""
        destination = find_destination(self._destinations, match)
        # Not held: whoever sends it has proven nothing.
        body = RequestUpload(request, self._limits) if request.body_exists else b""
        headers = form_upstream_headers(
            request.headers.items(),
            request_id=request_id,
            identity_names=destination.identity.names,
        )
        call = destination.upstream.open()
        request.protocol.on_lost = call.abort  # type: ignore[attr-defined]
        try:
            response = await call.send(request.method, destination.base_path + target.text, headers, body)
            check_answer(response, match.route.protocol)
            answer = await _relay(response, request, request_id)
            response.release()
            return answer
        except UpstreamAborted as error:
            raise ConnectionResetError("the client has left") from error
        finally:
            request.protocol.on_lost = None  # type: ignore[attr-defined]
            call.abort()


async def _relay(response: UpstreamResponse, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
    headers = form_client_headers(response.headers, request_id=request_id)
    answer = begin_stream(request, response, headers, response.headers.get("Content-Length"))
    await answer.prepare(request)
    try:
        while chunk := await response.read_chunk():
            await answer.write(chunk)
    except (Refusal, UploadLengthError):  # its upload may fail when the answer has begun
        if request.transport is not None:
            request.transport.abort()  # a cut answer must look cut
        answer.force_close()
    return answer
