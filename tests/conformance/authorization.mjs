// The suite has no option for headers: this module, preloaded with `node --import`, adds the key to all it sends.
// In server mode everything goes to the server under test. undici also is what carries Node's own fetch.
import http from "node:http";
import { getGlobalDispatcher, setGlobalDispatcher } from "undici";

const authorization = `Bearer ${process.env.AEGIS_CONFORMANCE_TOKEN}`;

setGlobalDispatcher(
  getGlobalDispatcher().compose((dispatch) => (options, handler) =>
    dispatch({ ...options, headers: { ...options.headers, authorization } }, handler),
  ),
);

const { request } = http;
http.request = (...given) => {
  const sent = request(...given);
  sent.setHeader("authorization", authorization);
  return sent;
};
