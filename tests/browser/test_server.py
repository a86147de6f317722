"""The inspector over HTTP: what it answers, and what it never does."""

from __future__ import annotations

import http.client
import io
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from heatprint.runs.read import read_shown
from heatprint.web.specimens import pixels_of

TOKEN = "a-token-of-the-tests"


def ask(served: Any, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str | None):
    """One request, sent as it is written: no library tidies the path."""
    host = served.origin.removeprefix("http://")
    wanted = {"Host": host, "Authorization": f"Bearer {TOKEN}", **{k.replace("_", "-"): v for k, v in headers.items()}}
    line = http.client.HTTPConnection(host, timeout=30)
    line.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in wanted.items():
        if value is not None:
            line.putheader(name, value)
    if body is not None:
        line.putheader("Content-Length", str(len(body)))
    line.endheaders(body)
    answer = line.getresponse()
    content = answer.read()
    line.close()
    return answer, content


def post(served: Any, path: str, value: Any):
    answer, content = ask(
        served, path, method="POST", body=json.dumps(value).encode(), **{"Content-Type": "application/json"}
    )
    return answer.status, json.loads(content)


# --- who may ask ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api/run", "/api/points", "/static/main.js", "/view/results", "/api/live"])
def test_nothing_is_answered_without_the_token(served, path):
    for given in (None, "Bearer wrong", "Basic " + TOKEN, "Bearer ", "Bearer " + TOKEN + "x", "Bearer \xe9"):
        answer, content = ask(served, path, Authorization=given)
        assert answer.status == 401
        assert b"token" in content
    answer, _ = ask(served, path + "?token=wrong", Authorization=None)
    assert answer.status == 401


def test_the_token_leaves_the_address_for_a_cookie_no_script_reads(served):
    answer, _ = ask(served, f"/?a=1&token={TOKEN}", Authorization=None)
    assert (answer.status, answer.headers["location"]) == (303, "/?a=1")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert ask(served, "/api/run", Authorization=None, Cookie=cookie.split(";")[0])[0].status == 200
    assert ask(served, "/api/run", Authorization=None, Cookie=cookie.split(";")[0] + "x")[0].status == 401
    elsewhere, _ = ask(served, f"//evil.example/?token={TOKEN}", Authorization=None)
    assert elsewhere.headers["location"] == "/evil.example/"


def test_the_token_leaves_the_address_of_who_is_known_already(served):
    cookie = f"heatprint-{served.origin.rpartition(':')[2]}={TOKEN}"
    answer, _ = ask(served, f"/?token={TOKEN}", Authorization=None, Cookie=cookie)
    assert (answer.status, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize("foreign", ["foo[bar]=1", 'a={"x":1, "y":2}', "x=\xfc y", "=;;=", "a"])
def test_cookies_of_other_servers_lock_nobody_out(served, foreign):
    own = f"heatprint-{served.origin.rpartition(':')[2]}={TOKEN}"
    assert ask(served, "/api/run", Authorization=None, Cookie=f"{foreign}; {own}")[0].status == 200


@pytest.mark.parametrize("path", ["/%5Cevil.example", "/%0d%0aX-Evil:1", "/\\\\evil.example"])
def test_a_welcome_leads_nowhere_else(served, path):
    answer, _ = ask(served, f"{path}?token={TOKEN}", Authorization=None)
    assert answer.status in (303, 400)
    assert "x-evil" not in answer.headers
    assert not (answer.headers.get("location") or "/").startswith(("//", "/\\"))


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:80", "", "0.0.0.0"])
def test_other_names_are_not_answered_even_with_the_token(served, host):
    assert ask(served, "/api/run", Host=host)[0].status == 421


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://[", "https://127.0.0.1:1", "http://localhost"]
)
def test_pages_of_other_sites_are_not_answered(served, origin):
    assert ask(served, "/api/run", Origin=origin)[0].status == 403
    assert ask(served, "/api/live/upload", method="POST", body=b"x", Origin=origin)[0].status == 403


def test_every_answer_has_the_strict_headers(served):
    for path, token in (
        ("/", TOKEN),
        ("/api/run", TOKEN),
        ("/nowhere", TOKEN),
        ("/static/main.js", TOKEN),
        ("/", "no"),
    ):
        answer, _ = ask(served, path, Authorization=f"Bearer {token}")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers


# --- what cannot be reached -------------------------------------------------------------------------------

DOTS = ["..", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "..%c0%af", "..%5c", "....//"]


@pytest.mark.parametrize("dots", DOTS)
@pytest.mark.parametrize("where", ["/static/", "/view/", "/api/image/", "/"])
def test_no_dots_lead_out(served, dots, where):
    for target in ("app.py", "__init__.py", "etc/passwd", "run.json"):
        for slash in ("/", "%2f"):
            answer, content = ask(served, where + slash.join([dots] * 3 + [target]))
            assert answer.status in (400, 404, 405, 422)
            assert b"import" not in content
            assert b"root:" not in content


def test_the_run_folder_itself_is_not_served(served):
    for path in ("/run.json", "/api/run.json", "/static/run.json", "/metrics.json", "/models/clear/model.safetensors",
                 f"/static/{served.run}/run.json", f"/{served.run}/run.json"):  # fmt: skip
        assert ask(served, path)[0].status == 404


def test_a_run_with_a_link_that_leads_out_is_refused(tmp_path: Path):
    from heatprint.core.errors import StoreError
    from heatprint.runs.inside import inside

    run = tmp_path / "run"
    (run / "cards").mkdir(parents=True)
    (run / "a.json").write_text("{}")
    (run / "b.json").symlink_to(run / "a.json")
    inside(run)
    (tmp_path / "secret.json").write_text("{}")
    (run / "cards" / "x").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="cards/x"):
        inside(run)


def test_a_link_that_leads_out_of_the_static_folder_is_not_followed(tmp_path: Path):
    from starlette.staticfiles import StaticFiles

    (tmp_path / "static").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "static" / "link.txt").symlink_to(tmp_path / "secret.txt")
    files = StaticFiles(directory=tmp_path / "static", follow_symlink=False)
    assert files.lookup_path("link.txt")[1] is None


# --- what it answers --------------------------------------------------------------------------------------


def test_columns_come_as_one_block_of_bytes_and_never_as_rows(served):
    facts = json.loads(ask(served, "/api/run")[1])
    block = ask(served, "/api/points")[1]
    shown = read_shown(served.run)
    assert facts["rows"] == len(shown)
    assert len(json.dumps(facts)) < 4000
    source = None
    for column in facts["columns"]:
        assert column["offset"] % 8 == 0
        if column["name"] == "source":
            source = np.frombuffer(block, "<i4", facts["rows"], column["offset"])
            continue
        wanted = shown.columns[column["name"]]
        got = np.frombuffer(block, column["type"], facts["rows"] * column["width"], column["offset"])
        np.testing.assert_array_equal(got.reshape(wanted.shape), wanted)
    where = facts["ids"]
    begins = np.frombuffer(block, "<u4", where["count"] + 1, where["begins"])
    text = block[where["offset"] :][: where["bytes"]]
    ids = [text[begin:end].decode() for begin, end in pairwise(begins)]
    kinds = [facts["kinds"][kind]["name"] for kind in shown.columns["kind"]]
    assert tuple(f"{kind}/{ids[place]}" for kind, place in zip(kinds, source, strict=True)) == served.rows


def test_an_attacked_copy_and_its_original_know_each_other(served):
    shown = read_shown(served.run)
    kind, pair = shown.columns["kind"], shown.columns["pair"]
    attacked = np.flatnonzero(kind > 0)
    assert len(attacked)
    for row in attacked:
        assert shown.ids[int(pair[row])] == shown.ids[int(row)]
        assert kind[pair[row]] == 0
        moved = np.linalg.norm(np.subtract(*shown.signatures.take(np.array([row, pair[row]]))))
        assert shown.more()["moved"][row] == pytest.approx(moved, rel=1e-5)
    assert all(kind[pair[row]] > 0 for row in np.flatnonzero(kind == 0) if pair[row] >= 0)


def test_neighbours_are_those_of_a_slow_count(served):
    shown = read_shown(served.run)
    signatures = shown.signatures.rows(0, len(shown))
    for row in (0, len(shown) - 1):
        told = json.loads(ask(served, f"/api/near/{row}")[1])
        away = [float(np.linalg.norm(one - signatures[row])) for one in signatures]
        nearest = sorted(value for other, value in enumerate(away) if other != row)[: len(told)]
        assert [one["distance"] for one in told] == pytest.approx(nearest)
        assert row not in [one["row"] for one in told]


def test_an_image_is_the_stored_one(served):
    answer, content = ask(served, "/api/image/0.png")
    assert answer.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(pixels_of(content), pixels_of(read_shown(served.run).images[0]))
    for row in (-1, len(served.rows), 10**9):
        assert ask(served, f"/api/image/{row}.png")[0].status == 404


def test_a_damaged_file_of_a_view_says_what_to_do(served):
    told = served.run / "forensics.json"
    told.write_text('{"a": 1}')
    try:
        answer, content = ask(served, "/view/detection")
    finally:
        told.unlink()
    assert answer.status == 422
    assert "not fit together" in json.loads(content)["error"]


@pytest.mark.parametrize("name", ["clusters", "results", "detection", "defences"])
def test_views_are_sections_of_the_report(served, name):
    answer, content = ask(served, f"/view/{name}")
    assert answer.status == 200
    assert b"<h2" in content
    assert b"<script" not in content
    assert b"style=" not in content


# --- the live laboratory ----------------------------------------------------------------------------------


def test_a_look_is_the_models_own(served):
    import base64

    import torch

    from heatprint.core.values import Batch
    from heatprint.explainers import explain, make
    from heatprint.models import load, predict

    about = json.loads(ask(served, "/api/live")[1])
    method = about["explainers"][0]["name"]
    status, told = post(served, "/api/live/look", {"specimen": {"base": "row:0"}, "method": method})
    assert status == 200
    model, shown = load(served.run / "models" / "clear"), read_shown(served.run)
    pixels = torch.from_numpy(pixels_of(shown.images[0]))[None]
    np.testing.assert_allclose(told["probabilities"], predict(model, pixels).softmax(1)[0], atol=1e-4)
    heat = np.frombuffer(base64.b64decode(told["heat"]), "<f4").reshape(told["side"], told["side"])
    batch = Batch(ids=("one",), pixels=pixels, labels=torch.tensor([0]))
    np.testing.assert_allclose(heat, explain(model, batch, make(method)).heat[0], rtol=1e-3, atol=1e-4)
    assert (told["l0"], told["l2"], told["linf"]) == (0, 0, 0)


def test_edits_and_gain_change_what_they_say(served):
    method = json.loads(ask(served, "/api/live")[1])["explainers"][0]["name"]
    base = pixels_of(read_shown(served.run).images[0])
    colour = [int(value) for value in 255 - base[:, 3, 5]]
    edit = {"base": "row:0", "edits": [[3, 5, *colour]]}
    _, told = post(served, "/api/live/look", {"specimen": edit, "method": method})
    assert (told["l0"], told["changed"]) == (1, [[3, 5]])
    _, told = post(served, "/api/live/look", {"specimen": {"base": "row:0", "gain": 3}, "method": method})
    assert told["linf"] == 3
    assert told["l0"] > base[0].size / 2


def test_an_upload_can_be_looked_at_and_garbage_is_refused(served):
    sink = io.BytesIO()
    Image.fromarray(np.full((50, 80, 3), 99, np.uint8)).save(sink, "PNG")
    answer, content = ask(served, "/api/live/upload", method="POST", body=sink.getvalue())
    base = json.loads(content)["base"]
    assert answer.status == 200
    method = json.loads(ask(served, "/api/live")[1])["explainers"][0]["name"]
    status, told = post(served, "/api/live/look", {"specimen": {"base": base}, "method": method})
    assert status == 200
    assert told["predicted"] == told["label"]
    for rubbish in (b"", b"GIF89a", b"<svg/>", b"\x89PNG\r\n\x1a\n" + bytes(50), os.urandom(500), sink.getvalue()[:60]):
        answer, content = ask(served, "/api/live/upload", method="POST", body=rubbish)
        assert answer.status == 422
        assert "Traceback" not in content.decode()
        assert "upload" in json.loads(content)["error"] or "image" in json.loads(content)["error"]


def test_a_bomb_and_a_flood_are_refused_before_they_are_opened(served):
    sink = io.BytesIO()
    Image.new("1", (20000, 20000)).save(sink, "PNG")
    assert len(sink.getvalue()) < 100_000
    answer, _ = ask(served, "/api/live/upload", method="POST", body=sink.getvalue())
    assert answer.status == 422
    try:
        answer, _ = ask(served, "/api/live/upload", method="POST", body=bytes(17 * 2**20))
        assert answer.status in (413, 422)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it hung up while we were still sending


def test_a_long_question_is_refused_before_it_is_read(served):
    body = json.dumps({"specimen": {"base": "row:0"}, "method": "a" * 70_000}).encode()
    try:
        answer, content = ask(served, "/api/live/look", method="POST", body=body)
        assert answer.status == 413
        assert "bytes" in json.loads(content)["error"]
    except (BrokenPipeError, ConnectionResetError):
        pass  # it hung up while we were still sending


@pytest.mark.parametrize(
    "specimen",
    [
        {"base": "row:99999"}, {"base": "row:-1"}, {"base": "kept:0000000000000000"}, {"base": "../../etc/passwd"},
        {"base": "row:0", "gain": 65}, {"base": "row:0", "gain": -1}, {"base": "row:0", "edits": [[4095, 0, 1, 2, 3]]},
        {"base": "row:0", "edits": [[0, 0, 256, 0, 0]]}, {"base": "row:0", "edits": [[0, 0]]},
        {"base": "row:0", "edits": [[0, 0, 0, 0, 0]] * 2000}, {"base": "row:0", "more": 1}, {},
    ],
)  # fmt: skip
def test_a_malformed_specimen_is_refused_in_words(served, specimen):
    method = json.loads(ask(served, "/api/live")[1])["explainers"][0]["name"]
    status, told = post(served, "/api/live/look", {"specimen": specimen, "method": method})
    assert status == 422
    assert told["error"]
    assert "Traceback" not in told["error"]


def test_unknown_methods_searches_and_jobs_are_refused(served):
    assert post(served, "/api/live/look", {"specimen": {"base": "row:0"}, "method": "os.system"})[0] == 422
    assert post(served, "/api/live/look", {"specimen": {"base": "row:0"}, "method": "lrp", "target": 99})[0] == 422
    status, told = post(served, "/api/live/search", {"specimen": {"base": "row:0"}, "search": "nothing"})
    assert status == 422 or told["state"] in ("waiting", "running", "failed")
    assert ask(served, "/api/live/jobs/none")[0].status == 422


def test_the_address_of_the_page_is_never_guessable():
    from heatprint.cli_serve import serve

    assert serve.__defaults__[0] == "127.0.0.1"  # type: ignore[index]
    assert serve.__defaults__[2] == ""  # type: ignore[index]  # a random one


def test_no_module_of_the_web_reads_pickles():
    import heatprint.live
    import heatprint.web

    for package in (heatprint.web, heatprint.live):
        for path in Path(package.__file__).parent.rglob("*.py"):
            text = path.read_text()
            assert "pickle" not in text, path
            assert "torch.load" not in text, path
