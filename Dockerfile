# The service with everything it needs, its own PostgreSQL and Valkey included. docs/deployment.md says how to run it.

FROM python:3.13.14-slim-trixie AS base

FROM base AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/modelcatalog
WORKDIR /src
# First what changes rarely: the pinned requirements, each checked against its hash.
# REQUIREMENTS=tracing: with what traces need.
ARG REQUIREMENTS=server
COPY requirements/${REQUIREMENTS}.txt requirements.txt
RUN /opt/modelcatalog/bin/python -m pip install --require-hashes --requirement requirements.txt
COPY LICENSE README.md pyproject.toml ./
COPY generated generated
COPY server server
COPY client client
RUN /opt/modelcatalog/bin/python -m pip install --no-deps --no-build-isolation .

FROM base

# A user with an entry in /etc/passwd: initdb refuses one without, and PostgreSQL refuses root. The number is for
# orchestrators that want to see that it is not 0.
RUN groupadd --gid 10001 modelcatalog \
    && useradd --uid 10001 --gid modelcatalog --home-dir /var/lib/modelcatalog --no-create-home --no-log-init \
        --shell /usr/sbin/nologin modelcatalog \
    && install --directory --owner=modelcatalog --group=modelcatalog --mode=0700 /var/lib/modelcatalog
COPY --from=build /opt/modelcatalog /opt/modelcatalog

# Nothing is written outside of the data directory (and /tmp where its path is too long for a socket), so the root file
# system may be read-only.
ENV PATH=/opt/modelcatalog/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MODELCATALOG_DATA_DIR=/var/lib/modelcatalog
USER 10001:10001
WORKDIR /var/lib/modelcatalog
VOLUME /var/lib/modelcatalog
EXPOSE 50051 9464
STOPSIGNAL SIGTERM

COPY --chmod=0644 deploy/health_check.py /opt/modelcatalog/health_check.py
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "/opt/modelcatalog/health_check.py"]

ENTRYPOINT ["modelcatalog"]
# All addresses of the container, because its loopback cannot be published; --insecure, because callers are not
# identified: publish the port only where everybody may do everything.
CMD ["serve", "--listen", "0.0.0.0:50051", "--insecure"]
