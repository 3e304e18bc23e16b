"""A client of the web server, as a probe, Prometheus or an operator uses it."""

import asyncio
import io
import json
from dataclasses import dataclass
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Page:
    """A response."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def samples(self) -> dict[str, float]:
        """The samples of a page of metrics by name and labels: `name{label=value}`."""
        samples: dict[str, float] = {}
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples


class WebClient:
    """Sends requests to one server and keeps every response body, to be searched for secrets."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.token = token
        self.bodies: list[str] = []

    async def get(self, path: str, *, token: str | None = None, method: str = "GET", data: bytes | None = None) -> Page:
        """Sends a request, with the token if there is one."""
        bearer = token or self.token
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, self.url + path, headers=headers, data=io.BytesIO(data) if data else None
            ) as response,
        ):
            text = await response.text()
            self.bodies.append(text)
            return Page(response.status, dict(response.headers), text)

    async def becomes(self, path: str, status: int, within_s: float = 15.0) -> Page:
        """Repeats a request until the response has that status."""
        async with asyncio.timeout(within_s):
            while (page := await self.get(path)).status != status:
                await asyncio.sleep(0.05)
            return page
