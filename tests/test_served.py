"""The built bento as a process: what it answers, what it keeps when it is killed, and what it says when it cannot start."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
import yaml

from assets import packaging, served
from models.home import Home
from tests.serving import EVE, JUDGED, NOON, SHOWN, logged


def test_the_bento_answers_as_a_process(service: served.Served, built: Home) -> None:
    got = service.rank({"user_id": 2, "item_ids": [101, 205], "time": NOON})
    told = service.model()
    bento = packaging.read(built.promotion("bento", JUDGED))
    assert got["model"] == told["model"] == bento["model"]
    assert told["weights"] == {"click": 1.0, "buy": 3.0}
    assert told["replay"] is True
    assert told["lineage"]["metrics"] == {"click": {"auc": 0.7}}
    assert "samples/2026-03-29" in told["lineage"]["data"]
    assert told["histories"]["end"] == SHOWN.day_end(EVE)
    assert service.client.post("/rank", json={"user_id": 2}).status_code == 400
    assert service.client.get("/rank").status_code == 405
    for path in ("/livez", "/readyz", "/healthz", "/metrics", "/openapi.json"):
        assert service.client.get(path).status_code == 200
    assert 'endpoint="/rank",http_response_code="200"' in service.client.get("/metrics").text
    with pytest.raises(served.NotServed, match=r"answered 400: .*item_ids"):
        service.rank({"user_id": 2, "item_ids": []})


def test_a_killed_service_loses_no_line_and_knows_again(copied: Home) -> None:
    bento = packaging.read(copied.promotion("bento", JUDGED))["tag"]
    with served.start(copied, bento) as running:
        running.tell([{"user_id": 77, "item_id": 101, "behaviour": "view"}])
        running.rank({"user_id": 77, "item_ids": [101]})
        supervisor = psutil.Process(running.process.pid)
        workers, temporary = supervisor.children(recursive=True), Path(supervisor.environ()["TMPDIR"])
        assert {p.name.split("-")[0] for p in temporary.iterdir()} == {"bentoml"}
        running.process.kill()
        running.process.wait()
    assert workers
    assert not any(worker.is_running() for worker in workers), "a worker outlived its killed supervisor"
    with served.start(copied, bento) as running:
        running.rank({"user_id": 77, "item_ids": [101]})
    assert [line["history_length"]["view"] for line in logged(copied)] == [1, 1]
    assert not list(copied.staging.iterdir())
    assert not temporary.exists(), "what a killed service leaves"


def test_a_service_that_cannot_start_says_why(copied: Home) -> None:
    bento = packaging.read(copied.promotion("bento", JUDGED))["tag"]
    why = r"(?s)before it could answer.*Invalid isoformat"
    with pytest.raises(served.NotServed, match=why), served.start(copied, bento, until="yesterday"):
        pass


def test_a_port_in_use_is_said_plainly(service: served.Served, built: Home) -> None:
    port = int(service.url.rsplit(":", 1)[1])
    why = f"port {port} .*Address already in use.*PORT={port + 1}"
    with pytest.raises(served.NotServed, match=why), served.start(built, service.bento, port=port):
        pass


def test_serving_installs_the_very_versions_of_the_project() -> None:
    pins = yaml.safe_load(packaging.BENTOFILE.read_text())["python"]["packages"]
    assert {"bentoml", "torch"} < {pin.partition("==")[0] for pin in pins}
    for pin in pins:
        name, _, wanted = pin.partition("==")
        assert version(name).split("+")[0] == wanted
