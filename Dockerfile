# syntax=docker/dockerfile:1

FROM python:3.12.11-slim-bookworm AS build
RUN python -m venv /venv
WORKDIR /app
# What is installed changes less often than the sources, and has a layer of its own.
COPY requirements.lock .
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock \
    && rm requirements.lock
COPY core core
COPY services services
COPY bot bot
# Compiled here: where the file system is read-only every start would compile anew.
RUN /venv/bin/python -m compileall -q --invalidation-mode unchecked-hash core services bot

FROM python:3.12.11-slim-bookworm
# /data holds the SQLite file and /tmp what passes; everything else may be read-only.
RUN groupadd --system --gid 10001 understudy \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /data understudy \
    && install -d -o understudy -g understudy -m 0700 /data
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/data \
    DATA_DIR=/data
WORKDIR /app
COPY --from=build /venv /venv
COPY --from=build /app /app
USER 10001:10001
VOLUME /data
STOPSIGNAL SIGTERM
# Asks /healthz where WEB_PORT is set; without the web side it says so, and Docker watches the process itself.
HEALTHCHECK --interval=30s --timeout=6s --start-period=60s --retries=3 CMD ["python", "-m", "bot.web.healthcheck"]
# Starts the bot again after a crash, with a growing pause; a configuration error ends the container.
ENTRYPOINT ["python", "-m", "bot.supervisor"]
CMD ["telegram"]
