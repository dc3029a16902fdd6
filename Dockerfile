# The service in a container; docs/serving/containers.md says how it is built and run.
FROM python:3.13-slim AS build
# The index of PyTorch's CPU wheels makes an image a fifth as large: --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL=""
COPY . /src
RUN python -m venv /opt/recsys \
    && /opt/recsys/bin/pip install --no-cache-dir -c /src/constraints.txt "/src[faiss,postgres,serve]"

FROM python:3.13-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin recsys \
    && install -d -o recsys -g recsys /var/lib/recsys /var/cache/recsys
COPY --from=build /opt/recsys /opt/recsys
# Kernels are compiled for the machine that they run on, and kept in the cache.
ENV PATH=/opt/recsys/bin:$PATH \
    OMP_NUM_THREADS=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RECSYS_CACHE=/var/cache/recsys
USER 10001:10001
VOLUME ["/var/lib/recsys", "/var/cache/recsys"]
EXPOSE 8080 9000
HEALTHCHECK --interval=10s --timeout=3s --start-period=180s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/readyz', timeout=2)"]
ENTRYPOINT ["recsys"]
CMD ["serve", "/runs/current", "--host", "0.0.0.0", "--port", "8080", "--metrics-host", "0.0.0.0", \
     "--events", "/var/lib/recsys/events.db", "--keys", "/etc/recsys/keys.toml"]
