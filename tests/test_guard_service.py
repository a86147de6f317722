"""The guard over HTTP, on real servers on loopback: answers, hostile input, a full queue, a failing guard, an end."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from heatprint.cli_guard import check_installed
from heatprint.core.errors import InvalidInput, MissingExtra
from heatprint.core.lattice import encode_png
from heatprint.detectors import Examples, Identifier, fit
from heatprint.detectors.heat_print import HeatPrint
from heatprint.live import Guard
from heatprint.models import load, save
from heatprint.web.guard.client import GuardClient, GuardError
from heatprint.web.guard.journal import JsonLines
from heatprint.web.guard.server import Server
from heatprint.web.guard.service import drawn
from heatprint.web.guard.settings import Settings

SIZE = 32


def smooth(count, seed):
    """Soft random images."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    soft = [np.asarray(Image.fromarray(one).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for one in noise]
    return torch.from_numpy(np.stack(soft).transpose(0, 3, 1, 2).copy())


def known(count, seed):
    """Soft images, and the same with noise, which plays the attack."""
    clean = smooth(count, seed)
    noise = torch.randint(-24, 25, clean.shape, generator=torch.Generator().manual_seed(seed))
    names = ("clean",) * count + ("fgsm",) * count
    return Examples(
        sources=tuple(f"{seed}/{row}" for row in range(count)) * 2, kinds=names, names=names,
        pixels=torch.cat([clean, (clean + noise).clamp(0, 255).to(torch.uint8)]),
        labels=torch.zeros(2 * count, dtype=torch.long), attacked=np.repeat([False, True], count),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model = load("vgg-slim", classes=("cats", "dogs"), size=SIZE, seed=0)
    save(model, folder / "models/clear")
    families = ("margin", "image")
    detector = fit(model, known(30, 1), HeatPrint(families=families, learner="logistic"), name="heat-print")
    detector.calibrate(detector.score(model, smooth(40, 3)), fpr=0.05).save(folder / "forensics/fitted")
    identifier = Identifier(families=families, learner="logistic").fit(model, known(30, 1), known(30, 2))
    identifier.save(folder / "forensics/fitted")
    return folder


@pytest.fixture(scope="module")
def guard(run):
    return Guard.load(run / "models/clear", run)


@pytest.fixture(scope="module")
def images():
    return known(3, 7).pixels


@contextmanager
def serving(guard, **settings):
    """A server in a thread, and its port."""
    server = Server(guard, Settings(port=0, **settings))
    taken = server.config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
    thread.start()
    try:
        port = taken.getsockname()[1]
        wait_for(lambda: server.started)
        yield port
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def port(guard):
    with serving(guard) as port:
        yield port


def wait_for(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def ask(port, method="POST", path="/v1/check", body=None, **headers):
    """Status, headers and body of one request; never a stack trace."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        link.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = link.getresponse()
        content = answer.read()
        assert b"Traceback" not in content
        assert b".py" not in content
        return answer.status, answer.headers, content
    finally:
        link.close()


def counted(port, line):
    """A number of /metrics."""
    text = ask(port, "GET", "/metrics")[2].decode()
    found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.M)
    return float(found[1]) if found else 0.0


def png(pixels):
    return encode_png(pixels)


def told(answer):
    """What must agree between the service and the guard in process."""
    attack = None if answer.attack is None else (answer.attack.name, answer.attack.family, answer.attack.unknown)
    return answer.prediction, answer.verdict, pytest.approx(answer.score, abs=1e-5), attack


def test_one_image_is_answered_as_in_process(guard, images, port):
    for row in (0, 3):
        status, _, content = ask(port, body=png(images[row]), content_type="image/png")
        assert status == 200
        (one,) = json.loads(content)["images"]
        mine = guard.check(images[row : row + 1])[0]
        assert (one["prediction"], one["verdict"]) == (mine.prediction, mine.verdict)
        assert one["probability"] == pytest.approx(mine.probability, abs=1e-5)
        assert one["threshold"] == mine.threshold
        assert (one["attack"] is None) == (mine.verdict == "passed")


def test_several_are_answered_in_order_by_the_client(guard, images, port, tmp_path):
    paths = [tmp_path / f"{row} ä.png" for row in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(png(image))
    found = GuardClient(f"http://127.0.0.1:{port}").check([*paths, png(images[0])])
    expected = guard.check(torch.cat([images, images[:1]]))
    assert [told(one) for one in found] == [told(one) for one in expected]
    assert {one.verdict for one in found} == {"attacked", "passed"}
    assert [one.file for one in found] == [*map(str, paths), ""]


def test_the_heat_map_is_the_guards(guard, images, port):
    client = GuardClient(f"http://127.0.0.1:{port}")
    (answer,) = client.check(png(images[0]))
    assert client.heat(answer) == drawn(guard.heat(images[:1])[0])


def test_heat_maps_of_old_images_are_forgotten(guard, images):
    with serving(guard, recent=2) as port:
        client = GuardClient(f"http://127.0.0.1:{port}")
        answers = [client.check(png(image))[0] for image in images[:3]]
        assert client.heat(answers[2])
        with pytest.raises(GuardError, match="404") as caught:
            client.heat(answers[0])
        assert caught.value.status == 404


def bomb():
    """A PNG of few bytes whose header promises 1,600 million pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")


def form(*parts):
    """A multipart body of (headers, content)."""
    pieces = [f"--x\r\n{headers}\r\n\r\n".encode() + content + b"\r\n" for headers, content in parts]
    return b"".join([*pieces, b"--x--\r\n"])


FILE = 'Content-Disposition: form-data; name="image"; filename="a.png"'
IMAGE = f"{FILE}\r\nContent-Type: image/png"
HOSTILE = {
    "garbage": (400, b"\0garbage" * 99, "image/png"),
    "nothing": (400, b"", "image/png"),
    "svg": (400, b"<svg/>", "image/svg+xml"),
    "a bomb": (413, bomb(), "image/png"),
    "a huge body": (413, bytes(17 * 2**20), "image/png"),
    "no type": (415, b"data", ""),
    "json": (415, b'{"image": "/etc/passwd"}', "application/json"),
    "a form of text": (400, form((FILE.partition("; filename")[0], b"x")), "multipart/form-data; boundary=x"),
    "a form of nothing": (400, form(), "multipart/form-data; boundary=x"),
    "a form without boundary": (400, form((IMAGE, b"x")), "multipart/form-data"),
    "a broken form": (400, b"--x\r\nno header", "multipart/form-data; boundary=x"),
    "a form of no images": (415, form((f"{FILE}\r\nContent-Type: text/html", b"x")), "multipart/form-data; boundary=x"),
    "too many": (413, form(*[(IMAGE, b"x")] * 33), "multipart/form-data; boundary=x"),
    "one bad of two": (400, form((IMAGE, png(torch.zeros(3, 8, 8, dtype=torch.uint8))), (IMAGE, b"x")),
                       "multipart/form-data; boundary=x"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_refused_in_words(name, port, images):
    status, body, kind = HOSTILE[name]
    try:
        found, _, content = ask(port, body=body, content_type=kind)
    except (BrokenPipeError, ConnectionResetError):  # turned away before the body was through
        assert name == "a huge body"
    else:
        assert (found, bool(json.loads(content)["detail"])) == (status, True)
    assert ask(port, body=png(images[0]), content_type="image/png")[0] == 200


def test_a_body_that_does_not_say_how_long_it_is_is_cut_off(port):
    def endless():
        for _ in range(40):
            yield bytes(2**20)

    try:
        status = ask(port, body=endless(), content_type="image/png")[0]
    except (BrokenPipeError, ConnectionResetError):
        return
    assert status == 413


@contextmanager
def upload(port, announced, sent, kind="image/png"):
    """A connection that has announced so many bytes of a body and sent these, and then says nothing."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        link.sendall(
            f"POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {announced}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert link.recv(100).startswith(b"HTTP/1.1 100")  # it is being read
        link.sendall(sent)
        yield link


def test_idle_uploads_shut_nobody_out(port, images):
    with ExitStack() as idle:
        for _ in range(20):
            idle.enter_context(upload(port, Settings.most_bytes, b"x"))
        assert ask(port, body=png(images[0]), content_type="image/png")[0] == 200


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=x"])
def test_bytes_that_have_arrived_are_held_until_their_request_ends(guard, images, kind):
    most, body = 100_000, form((IMAGE, png(images[0])))
    start = form((IMAGE, bytes(most)))[: most - len(body) + 1]  # both would fit but for one byte

    def status():
        return ask(port, body=body, content_type="multipart/form-data; boundary=x")[0]

    with serving(guard, most_bytes=most, most_held=most) as port:
        with upload(port, most, start, kind):
            wait_for(lambda: status() == 429)
        wait_for(lambda: status() == 200)
        with upload(port, most, start[:-1], kind):
            assert [status() for _ in range(5)] == [200] * 5


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=x"])
def test_a_body_that_does_not_arrive_is_given_up(guard, images, kind):
    with serving(guard, read_s=1) as port, upload(port, 1000, b"--x\r\n", kind) as link:
        with link.makefile("rb") as told:
            answer = told.read()  # to the end: the connection is closed
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"did not arrive within 1 s" in answer
        assert counted(port, 'heatprint_guard_requests_total{outcome="refused"}') == 1
        assert counted(port, 'heatprint_guard_requests_total{outcome="failed"}') == 0
        assert ask(port, body=png(images[0]), content_type="image/png")[0] == 200


@pytest.mark.parametrize("charset", ["undefined", "punycode"])
def test_names_that_are_not_in_their_charset_are_refused_in_words(charset, port, images):
    body = form((IMAGE, png(images[0])))
    failed = counted(port, 'heatprint_guard_requests_total{outcome="failed"}')
    status, _, content = ask(port, body=body, content_type=f"multipart/form-data; boundary=x; charset={charset}")
    assert (status, "charset" in json.loads(content)["detail"]) == (400, True)
    assert counted(port, 'heatprint_guard_requests_total{outcome="failed"}') == failed


def test_a_name_with_half_a_character_is_spelled_out(port, images):
    body = form((IMAGE.replace("a.png", r"\ud800.png"), png(images[0])))
    status, _, content = ask(port, body=body, content_type="multipart/form-data; boundary=x; charset=unicode_escape")
    assert (status, json.loads(content)["images"][0]["file"]) == (200, r"\ud800.png")


@pytest.mark.parametrize("name", ["../../etc/passwd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c", "x" * 4000, "%00",
                                  "0" * 32, "…".encode().hex()])  # fmt: skip
def test_no_path_leads_anywhere(name, port):
    for path in (f"/v1/heat/{name}.png", f"/v1/heat/{name}", f"/{name}"):
        assert ask(port, "GET", path)[0] == 404


def test_only_its_own_names_and_its_own_pages_are_answered(port):
    assert ask(port, "GET", "/health/live", host="evil.example")[0] == 421
    assert ask(port, "GET", "/health/live", host="localhost:1")[0] == 200
    assert ask(port, origin="http://evil.example")[0] == 403


def test_without_the_token_nothing_but_health_is_answered(guard, images):
    body, token = png(images[0]), "a secret of the guard"
    with serving(guard, token=token) as port:
        for path in ("/health/live", "/health/ready"):
            assert ask(port, "GET", path)[0] == 200
        for path in ("/metrics", "/openapi.json", "/v1/heat/0.png", "/nothing"):
            assert ask(port, "GET", path)[0] == 401
        for word in ("", "Bearer", "Bearer wrong", f"Basic {token}", f"Bearer {token}x"):
            assert ask(port, body=body, content_type="image/png", authorization=word)[0] == 401
        with pytest.raises(GuardError, match="token="):
            GuardClient(f"http://127.0.0.1:{port}").check(body)
        assert GuardClient(f"http://127.0.0.1:{port}", token).check(body)[0].prediction in ("cats", "dogs")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "192.0.2.1"}, "needs a token"),
        ({"host": "0.0.0.0", "token": "long enough"}, "--name HOSTNAME"),
        ({"token": "short"}, "8 or more"),
        ({"fail": "sometimes"}, "'closed' or 'open'"),
        ({"batch": 0}, "batch = 0 must be 1 or more"),
        ({"limit_s": float("nan")}, "limit_s = nan"),
        ({"queue": 4}, "never fit"),
    ],
)
def test_unsafe_settings_are_refused(settings, words):
    with pytest.raises(InvalidInput, match=words):
        Settings(**settings)


def test_the_api_describes_itself_without_foreign_pages(port):
    paths = json.loads(ask(port, "GET", "/openapi.json")[2])["paths"]
    assert {"/v1/check", "/v1/heat/{name}.png", "/health/live", "/health/ready", "/metrics"} == set(paths)
    check = paths["/v1/check"]["post"]
    assert set(check["requestBody"]["content"]) == {"image/*", "multipart/form-data"}
    assert {"200", "400", "401", "408", "413", "415", "429", "503"} <= set(check["responses"])
    for page in ("/docs", "/redoc"):
        assert ask(port, "GET", page)[0] == 404


class Slow:
    """A guard that waits to be let go."""

    def __init__(self, guard):
        self.guard, self.size, self.go = guard, guard.size, threading.Event()
        self.predict, self.heat = guard.predict, guard.heat

    def check(self, pixels):
        assert self.go.wait(30)
        return self.guard.check(pixels)


def test_a_full_queue_says_when_to_come_again_and_the_client_does(guard, images):
    slow, body = Slow(guard), png(images[0])
    with ThreadPoolExecutor(8) as pool, serving(slow, queue=2, most_images=2, batch=1) as port:
        try:
            first = pool.submit(ask, port, body=body, content_type="image/png")
            wait_for(lambda: counted(port, "heatprint_guard_batch_size_count") == 1)
            waiting = [pool.submit(ask, port, body=body, content_type="image/png") for _ in range(2)]
            wait_for(lambda: counted(port, "heatprint_guard_queue_depth") == 2)
            status, headers, _ = ask(port, body=body, content_type="image/png")
            assert (status, int(headers["Retry-After"]) >= 1) == (429, True)
            with pytest.raises(GuardError, match="queue is full"):
                GuardClient(f"http://127.0.0.1:{port}", tries=1).check(body)
            patient = pool.submit(GuardClient(f"http://127.0.0.1:{port}").check, body)
            wait_for(lambda: counted(port, 'heatprint_guard_requests_total{outcome="full"}') == 3)
        finally:
            slow.go.set()
        assert patient.result()[0].verdict == "passed"
        assert [one.result()[0] for one in (first, *waiting)] == [200] * 3


def test_a_request_ends_in_time_and_a_stuck_guard_is_not_ready(guard, images):
    slow = Slow(guard)
    with serving(slow, limit_s=1) as port:
        try:
            status, _, content = ask(port, body=png(images[0]), content_type="image/png")
            assert (status, b"too long" in content) == (503, True)
            wait_for(lambda: ask(port, "GET", "/health/ready")[0] == 503)
            assert json.loads(ask(port, "GET", "/health/ready")[2]) == {"status": "stuck"}
        finally:
            slow.go.set()
        wait_for(lambda: ask(port, "GET", "/health/ready")[0] == 200)
        assert ask(port, body=png(images[0]), content_type="image/png")[0] == 200


def outdated(guard):
    """The same with a detector that learned from other features than it is shown: every check fails."""
    method = replace(guard.detector.method, families=("margin",))
    return replace(guard, detector=replace(guard.detector, method=method))


def test_a_failing_guard_lets_nothing_through_when_closed(guard, images):
    with serving(outdated(guard)) as port:
        status, _, content = ask(port, body=png(images[0]), content_type="image/png")
        assert status == 503
        assert b"column" not in content
        assert counted(port, "heatprint_guard_failures_total") == 1


def test_a_failing_guard_answers_unchecked_when_open(guard, images):
    with serving(outdated(guard), fail="open") as port:
        (found,) = GuardClient(f"http://127.0.0.1:{port}").check(png(images[0]))
        assert (found.verdict, found.score, found.attack) == ("unchecked", None, None)
        assert found.prediction == guard.predict(images[:1])[0].prediction
        assert counted(port, 'heatprint_guard_images_total{verdict="unchecked"}') == 1


def test_a_broken_network_is_not_answered_for_even_when_open(guard, images):
    class Broken(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :2] * float("nan")

    broken = replace(guard, classifier=replace(guard.classifier, network=Broken()))
    with serving(broken, fail="open") as port:
        assert ask(port, body=png(images[0]), content_type="image/png")[0] == 503


def test_an_image_that_breaks_the_guard_spoils_no_other(guard, images):
    class Fragile(Slow):
        def check(self, pixels):
            if (pixels == 255).all((1, 2, 3)).any():
                raise ZeroDivisionError("white")
            return super().check(pixels)

    fragile, white = Fragile(guard), torch.full((3, SIZE, SIZE), 255, dtype=torch.uint8)
    with ThreadPoolExecutor(8) as pool, serving(fragile) as port:
        first = pool.submit(ask, port, body=png(images[0]), content_type="image/png")  # holds the thread meanwhile
        wait_for(lambda: counted(port, "heatprint_guard_batch_size_count") == 1)
        both = [pool.submit(ask, port, body=png(one), content_type="image/png") for one in (white, images[1])]
        wait_for(lambda: counted(port, "heatprint_guard_queue_depth") == 2)
        fragile.go.set()
        assert [one.result()[0] for one in (first, *both)] == [200, 503, 200]
        assert counted(port, "heatprint_guard_batch_size_sum") == 3


def test_everything_is_counted(guard, images):
    body = form((IMAGE, png(images[0])), (IMAGE, png(images[3])))
    with serving(guard) as port:
        ask(port, body=body, content_type="multipart/form-data; boundary=x")
        ask(port, body=b"x", content_type="image/png")
        assert counted(port, 'heatprint_guard_images_total{verdict="attacked"}') == 1
        assert counted(port, 'heatprint_guard_images_total{verdict="passed"}') == 1
        assert counted(port, 'heatprint_guard_requests_total{outcome="refused"}') == 1
        assert counted(port, 'heatprint_guard_requests_total{outcome="answered"}') >= 1
        assert counted(port, "heatprint_guard_batch_size_sum") == 2
        assert counted(port, "heatprint_guard_seconds_count") == 1
        assert counted(port, "heatprint_guard_queue_depth") == 0


def test_each_request_is_one_line_of_json_without_secrets(guard, images, caplog):
    caplog.set_level(logging.INFO, logger="heatprint.guard")
    with serving(guard, token="a secret of the guard") as port:
        ask(port, body=png(images[3]), content_type="image/png", authorization="Bearer a secret of the guard")
        ask(port, "GET", "/nothing%0Ahere?token=wrong")
    lines = [JsonLines().format(one) for one in caplog.records if one.getMessage() == "request"]
    assert all("\n" not in line and "secret" not in line and "wrong" not in line for line in lines)
    checked, refused = map(json.loads, lines)
    assert (checked["path"], checked["status"], checked["images"], checked["attacked"]) == ("/v1/check", 200, 1, 1)
    assert (refused["path"], refused["status"]) == ("/nothing\nhere", 401)
    assert checked["request"] != refused["request"]
    assert checked["milliseconds"] > 0


@pytest.mark.parametrize("url", ["file:///etc/passwd", "127.0.0.1:80", "ftp://127.0.0.1", "http://"])
def test_the_client_refuses_what_is_no_service(url):
    with pytest.raises(InvalidInput, match="http://HOST:PORT"):
        GuardClient(url)


def test_the_client_says_when_nobody_answers(port):
    with serving_nothing() as free, pytest.raises(GuardError, match="Is the guard running") as caught:
        GuardClient(f"http://127.0.0.1:{free}").check(b"x")
    assert caught.value.status == 0
    with pytest.raises(InvalidInput, match="no images"):
        GuardClient(f"http://127.0.0.1:{port}").check([])
    assert GuardClient(f"http://127.0.0.1:{port}").ready()
    with pytest.raises(GuardError, match=r"413.*bytes"):
        GuardClient(f"http://127.0.0.1:{port}").check(bytes(17 * 2**20))


@contextmanager
def serving_nothing():
    """A port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("heatprint.cli_guard.find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(MissingExtra, match=r"pip install 'heatprint\[web\]'"):
        check_installed()


def test_serving_needs_no_torch():
    told = "import sys, heatprint.web.guard.server, heatprint.web.guard.client; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], check=False).returncode == 0
    told = "import sys, heatprint.web.guard.client; sys.exit('fastapi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], check=False).returncode == 0


@contextmanager
def process(run, *more):
    """`heatprint guard` as a process, and its port."""
    command = "import typer; from heatprint.cli_guard import guard; typer.run(guard)"
    options = [str(run / "models/clear"), "--run", str(run), "--port", "0", *more]
    with subprocess.Popen(
        [sys.executable, "-c", command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as started:  # fmt: skip
        log: list[str] = []
        reader = threading.Thread(target=lambda: log.extend(started.stderr))  # or the pipe fills
        reader.start()
        try:
            port = int(re.search(r":(\d+)/v1/check", started.stdout.readline())[1])
            wait_for(lambda: reachable(port))
            yield started, port, log, reader
        finally:
            started.kill()
            reader.join()  # before its pipe is closed


def reachable(port):
    return GuardClient(f"http://127.0.0.1:{port}").ready()


def test_asked_to_stop_it_says_so_answers_what_it_has_and_ends(run, images):
    body = png(images[0])
    with process(run, "--batch", "1", "--grace", "1") as (started, port, log, reader):

        def asked(_):
            try:
                return ask(port, body=body, content_type="image/png")[0]
            except ConnectionRefusedError:  # came after the door was shut
                return "refused"

        with ThreadPoolExecutor(40) as pool:
            waiting = [pool.submit(asked, row) for row in range(40)]
            wait_for(lambda: counted(port, "heatprint_guard_queue_depth") > 0)
            started.send_signal(signal.SIGTERM)
            wait_for(lambda: ask(port, "GET", "/health/ready")[0] == 503)
            assert json.loads(ask(port, "GET", "/health/ready")[2]) == {"status": "draining"}
            assert ask(port, "GET", "/health/live")[0] == 200
            assert {one.result() for one in waiting} == {200}
        assert started.wait(30) == 0
        reader.join(10)
        assert asked(0) == "refused"
        lines = [json.loads(line) for line in log]
        assert sum(line.get("path") == "/v1/check" for line in lines) == 40


@pytest.mark.slow
def test_two_hundred_clients_for_a_minute(run, images):
    bodies = [png(image) for image in images]
    with process(run, "--queue", "96", "--batch", "16") as (started, port, _, _):

        def memory():
            pages = int(Path(f"/proc/{started.pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

        def burst(seconds):
            end = time.monotonic() + seconds
            gate = threading.Barrier(200)

            def client(row):
                gate.wait()
                seen = []
                while time.monotonic() < end:
                    status, headers, _ = ask(port, body=bodies[row % len(bodies)], content_type="image/png")
                    seen.append(status)
                    if status == 429:
                        time.sleep(float(headers["Retry-After"]))
                return seen

            with ThreadPoolExecutor(200) as pool:
                found = [status for seen in pool.map(client, range(200)) for status in seen]
            return {status: found.count(status) for status in set(found)}

        burst(5)
        time.sleep(5)
        before, seen = memory(), burst(60)
        high = memory()
        time.sleep(5)
        after = memory()
        print(f"200 clients, 60 s: {seen}; MiB before {before:.0f}, at the end {high:.0f}, 5 s later {after:.0f}")
        assert set(seen) == {200, 429}
        assert seen[200] > 1000
        assert after < before + 32
        assert reachable(port)
