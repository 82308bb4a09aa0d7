# The operator's image (operator, translator, store) and the agent's, by Docker or buildah:
#   docker build --target operator -t opengpu-operator .
#   docker build --target agent -t opengpu-agent .

# Any Debian with Python 3.11 or later and its venv module.
ARG BASE_IMAGE=python:3.12-slim-bookworm
ARG GO_IMAGE=golang:1.26-bookworm
# Where kompose comes from: "source" compiles kompose/go.mod in an image with Go; "prebuilt" takes build/kompose, which
# `make images` put there after compiling the same go.mod for the local tools.
ARG KOMPOSE=source

# ------------------------------------------------------------------------------------------------------------ kompose
FROM ${GO_IMAGE} AS kompose-source
WORKDIR /src
COPY kompose/ ./
# Pure Go, without paths of the machine that builds: the same program everywhere.
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o /kompose github.com/kubernetes/kompose

FROM ${BASE_IMAGE} AS kompose-prebuilt
COPY build/kompose /kompose

# hadolint ignore=DL3006
FROM kompose-${KOMPOSE} AS kompose

# ------------------------------------------------------------------------------------------------------- dependencies
FROM ${BASE_IMAGE} AS dependencies
# For a package index behind a certificate authority of its own; mount the bundle for the build. Not kept in the image.
ARG PIP_CERT
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY constraints/ constraints/
# pip lives in an environment of its own, so that the one that is shipped can't install anything. What we ship is found
# beside the dependencies (the .pth file), so that a change of ours leaves their layer as it is. The Kubernetes client's
# thousands of models aren't kept compiled, but for the few that are ever loaded.
RUN python3 -m venv /pip \
 && /pip/bin/pip install --quiet -c constraints/build.txt pip \
 && python3 -m venv --without-pip /opt/opengpu \
 && /pip/bin/pip --python /opt/opengpu/bin/python3 install --quiet -r constraints/runtime.txt \
 && cd "$(/opt/opengpu/bin/python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
 && echo /opt/opengpu-app > opengpu-app.pth \
 && rm -r kubernetes/client/models/__pycache__ kubernetes/client/api/__pycache__ \
          kubernetes/aio/client/models/__pycache__ kubernetes/aio/client/api/__pycache__ \
 && /opt/opengpu/bin/python3 -c 'import kopf, kubernetes.aio.client, kubernetes.aio.config'

# ------------------------------------------------------------------------------------------------------------- python
FROM dependencies AS python
ARG PIP_CERT
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY operator/ operator/
RUN /pip/bin/pip --python /opt/opengpu/bin/python3 install --quiet --no-deps --target /opt/opengpu-app \
      --build-constraint constraints/build.txt . \
 && python3 -m compileall -q operator/gpux

# -------------------------------------------------------------------------------------------------------------- agent
FROM ${BASE_IMAGE} AS agent
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="opengpu-agent" \
      org.opencontainers.image.description="GPUX beside a job: its storage and its calls" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY LICENSE NOTICE /usr/share/licenses/opengpu/
# The standard library and this, found through PYTHONPATH, since the agent starts Python without site-packages.
COPY --from=python /src/operator/gpux/ /opt/gpux/gpux/
ENV PYTHONPATH=/opt/gpux PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
CMD ["python3", "-S", "-m", "gpux.agent"]

# ----------------------------------------------------------------------------------------------------------- operator
FROM ${BASE_IMAGE} AS operator
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="opengpu-operator" \
      org.opencontainers.image.description="Runs Docker Compose files as GPU workloads: operator, translator, store" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY LICENSE NOTICE /usr/share/licenses/opengpu/
COPY LICENSE NOTICE kompose/third-party-licenses.txt /usr/share/licenses/kompose/
COPY --from=kompose /kompose /usr/local/bin/kompose
COPY --from=dependencies /opt/opengpu/ /opt/opengpu/
COPY --from=python /opt/opengpu-app/ /opt/opengpu-app/
# LOGNAME: kopf asks for the user's name, and the user may be any number.
ENV PATH=/opt/opengpu-app/bin:/opt/opengpu/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LOGNAME=opengpu
USER 65532:65532
CMD ["opengpu-operator", "--help"]
