# One image, two entry points: perdure-operator and perdure-runner.
#   docker build -t perdure:dev .
# Both stages are of one base, so that the virtual environment's interpreter is at the same path in both.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python3 -m venv --without-pip /opt/perdure
# The dependencies are a layer of their own: a change of the code doesn't fetch them again.
COPY pyproject.toml ./
RUN python3 -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print("\n".join(p["dependencies"] + [d for e in ("operator", "compression", "encryption") for d in p["optional-dependencies"][e]]))' > /tmp/requirements.txt \
 && python3 -m pip --python /opt/perdure/bin/python install --requirement /tmp/requirements.txt \
 # A second copy of the Kubernetes client, for asyncio: a third of the image, and not used.
 && rm -rf /opt/perdure/lib/python3*/site-packages/kubernetes/aio
COPY README.md ./
COPY runtime runtime
COPY operator operator
RUN python3 -m pip --python /opt/perdure/bin/python install --no-deps '.[operator,compression,encryption]'

FROM ${BASE_IMAGE}
COPY --from=build /opt/perdure /opt/perdure
# HOME: the root file system is read-only in the pods; /tmp is a volume there.
ENV PATH=/opt/perdure/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
# A user without a name fails getpass, pwd and ~, in libraries that a workflow may use.
RUN echo 'perdure:x:65532:65532::/tmp:/usr/sbin/nologin' >> /etc/passwd && echo 'perdure:x:65532:' >> /etc/group
USER 65532:65532
CMD ["perdure-operator"]
