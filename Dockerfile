# One image, three commands: web (default), worker, migrate. Postgres and Redis are somebody else's containers.
FROM python:3.12-slim AS build
COPY requirements.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.txt

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home torg
COPY --from=build /venv /venv
WORKDIR /torg
COPY app app
COPY workers workers
COPY lua lua
COPY sql sql
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TORG_HOST=0.0.0.0
USER torg
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/live', timeout=2)"]
ENTRYPOINT ["python", "-m", "app.cli"]
CMD ["web"]
