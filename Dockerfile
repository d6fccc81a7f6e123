# kshot as one image: the service, the core and the packaged checkpoint; no training, no compiler, no root.
#
#   docker build -t kshot .                       with onnxruntime-gpu (runs on a processor too)
#   docker build --build-arg EXTRA=cpu -t kshot . with onnxruntime
#   docker run --rm -e KSHOT_OPEN=1 -p 127.0.0.1:8000:8000 -v kshot-data:/var/lib/kshot kshot
#
# Without KSHOT_OPEN it asks for a key and starts only where there is one: docs/keys.md.

FROM python:3.11-slim-bookworm AS builder

# Which runtime beside torch: gpu or cpu, as in pyproject.toml.
ARG EXTRA=gpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/kshot
WORKDIR /src

# What the service stands on changes rarely: a layer of its own, built before the code is there.
# Left out again is what only a compiler reads: headers, static libraries, and triton, which torch
# uses in torch.compile alone, and nothing here calls that.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN /opt/kshot/bin/python -m pip install --no-cache-dir --quiet -c constraints.txt ".[${EXTRA}]" \
 && /opt/kshot/bin/python -m pip uninstall --quiet --yes triton \
 && find /opt/kshot/lib -type d -name include -not -path '*.dist-info/*' -prune -exec rm -rf {} + \
 && find /opt/kshot/lib -type f -name '*.a' -delete

# The packaged checkpoint is exported for ONNX Runtime, often the faster one on a processor; what the
# export needs is not needed to serve.
COPY model model
COPY service service
RUN /opt/kshot/bin/python -m pip install --no-cache-dir --quiet --no-deps --force-reinstall . \
 && /opt/kshot/bin/python -m pip install --no-cache-dir --quiet --target /export -c constraints.txt \
      onnx onnxscript \
 && cd / && PYTHONPATH=/export /opt/kshot/bin/python -m model.export \
 && /opt/kshot/bin/python -m pip uninstall --quiet --yes setuptools pip


FROM python:3.11-slim-bookworm

RUN groupadd --gid 10001 kshot \
 && useradd --uid 10001 --gid kshot --home-dir /var/lib/kshot --no-create-home --no-log-init \
      --shell /usr/sbin/nologin kshot \
 && install -d -o kshot -g kshot -m 0750 /var/lib/kshot

COPY --from=builder /opt/kshot /opt/kshot

ENV PATH=/opt/kshot/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    KSHOT_HOST=0.0.0.0 \
    KSHOT_PORT=8000 \
    KSHOT_STORE=sqlite:/var/lib/kshot/kshot.db \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /var/lib/kshot
VOLUME /var/lib/kshot
EXPOSE 8000
USER kshot
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=90s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['KSHOT_PORT'] + '/livez', timeout=2)"]
CMD ["python", "-m", "service"]
