# Aegis MCP Proxy, as an unprivileged user.
#
#   docker run -p 8080:8080 -e AEGIS_DATABASE_URL=... -e AEGIS_SECRET_KEY=... -e AEGIS_UPSTREAM_MCP=... aegis-mcp-proxy
#
# Settings and policy shipped in the package apply; to bring your own, mount them and say so:
# `serve --config /etc/aegis/gateway.yaml --policy /etc/aegis/policy.yaml`.
#
# The ops listener is open on the container's own network, where probes and scrapers come from, and is not among the
# exposed ports: publish 8080 only.

FROM python:3.11-slim AS build
RUN python -m venv /opt/aegis
WORKDIR /src
COPY requirements.lock ./
# There is no compiler here: a dependency without a wheel fails the build instead of being built.
RUN /opt/aegis/bin/pip install --no-cache-dir --only-binary=:all: --require-hashes --requirement requirements.lock
COPY . .
# What built the wheel stays behind.
RUN /opt/aegis/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /dist . \
 && /opt/aegis/bin/pip uninstall --yes hatchling editables pathspec pluggy trove-classifiers \
 && /opt/aegis/bin/pip install --no-cache-dir --no-index --no-deps /dist/*.whl \
 && /opt/aegis/bin/pip check \
 && /opt/aegis/bin/pip uninstall --yes setuptools pip

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/aegis-proxy --create-home aegis \
 && chmod 0700 /var/lib/aegis-proxy
COPY --from=build /opt/aegis /opt/aegis
ENV PATH=/opt/aegis/bin:$PATH \
    AEGIS_LISTEN=0.0.0.0:8080 \
    AEGIS_OPS_LISTEN=0.0.0.0:9090 \
    AEGIS_STATE_DIR=/var/lib/aegis-proxy
USER 10001
WORKDIR /var/lib/aegis-proxy
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-c", "\
import http.client, os, sys; \
port = int(os.environ['AEGIS_OPS_LISTEN'].rpartition(':')[2]); \
ops = http.client.HTTPConnection('127.0.0.1', port, timeout=2); \
ops.request('GET', '/healthz'); \
sys.exit(ops.getresponse().status != 200)"]
ENTRYPOINT ["aegis-proxy"]
CMD ["serve"]
