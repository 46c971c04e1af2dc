"""A base model comes from a Hugging Face hub, or one line says why not."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

import tiny
from lorary.base.fetch import fingerprint, get_model
from lorary.core.errors import LoraryError

ID, SHA = "someone/tiny", "a1" * 20


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as a download needs; `server.refuse` is (part of path, status, error code)."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        part, status, code = self.server.refuse or ("nothing", 0, "")
        name = self.path.rsplit("/", 1)[1]
        if part in self.path and not status:
            self.close_connection = True
        elif part in self.path:
            self.answer(status, headers={"X-Error-Code": code})
        elif self.path.startswith(f"/api/models/{ID}/revision/"):
            self.answer(200, json.dumps({"id": ID, "sha": SHA}).encode())
        elif self.path.startswith(f"/api/models/{ID}/tree/{SHA}"):
            paths = self.server.folder.iterdir()
            files = [{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": p.name} for p in paths]
            self.answer(200, json.dumps(files).encode())
        elif self.path.startswith(f"/{ID}/resolve/{SHA}/"):
            content = (self.server.folder / name).read_bytes()
            self.answer(200, content, {"ETag": f'"{name}"', "X-Repo-Commit": SHA})
        else:
            self.answer(404)

    do_HEAD = do_GET

    def answer(self, status, content=b"", headers=()):
        self.send_response(status)
        for key, value in {**dict(headers), "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tiny_llama, tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.refuse, server.asked = shutil.copytree(tiny_llama, tmp_path / "remote"), None, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def download(hub, tmp_path):
    """As the rule's script does, in a process of its own: the hub's address is read at import."""
    code = """import sys
from lorary.core.job import job
from lorary.base.fetch import get_model
with job(sys.argv[1], "get_model", network=True):
    get_model(*sys.argv[2:])
"""
    command = [sys.executable, "-c", code, tmp_path / "log", ID, "v1.0", tmp_path / "out"]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    env |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    env |= {"PYTHONPATH": str(tiny.ROOT / "workflow")}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def test_hub_repository_at_a_revision(hub, tmp_path):
    (hub.folder / "pytorch_model.bin").write_bytes(b"never fetched")
    weights = (hub.folder / "model.safetensors").read_bytes()
    done = download(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"/api/models/{ID}/revision/v1.0" in hub.asked
    assert not [path for path in hub.asked if path.endswith(".bin")]
    assert (tmp_path / "out" / "model.safetensors").resolve().read_bytes() == weights
    get_model(str(hub.folder), None, str(tmp_path / "local"))
    about, local = fingerprint(tmp_path / "out"), fingerprint(tmp_path / "local")
    assert about == {**local, "name": ID, "source": ID, "revision": "v1.0", "commit": SHA}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, f"model_path: {ID} is quantized (gptq)"),
        ({"num_experts": 4}, f"model_path: {ID} is a mixture of experts (num_experts: 4)"),
        ({"model_type": "mistral3"}, f"model_path: {ID} is a mistral3, which transformers offers as no causal"),
    ],
)
def test_model_that_is_refused_is_not_downloaded(hub, tmp_path, config, message):
    file = hub.folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    done = download(hub, tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert {path for path in hub.asked if "/resolve/" in path} == {f"/{ID}/resolve/{SHA}/config.json"}


GATED = f"model_path: {ID} is gated: accept its licence at https://huggingface.co/{ID}, then set HF_TOKEN"


@pytest.mark.parametrize(
    ("refuse", "message"),
    [
        (("/resolve/", 403, "GatedRepo"), GATED),
        (("/api/models/", 403, "GatedRepo"), GATED),
        (("/api/models/", 401, "RepoNotFound"), f"model_path: {ID} is neither a directory here nor a repository"),
        (("/api/models/", 404, "RepoNotFound"), f"model_path: {ID} is neither a directory here nor a repository"),
        (("/api/models/", 404, "RevisionNotFound"), f"model_revision: {ID} has no revision v1.0."),
        (("/api/models/", 500, ""), f"model_path: {ID} could not be downloaded: "),
        (("/api/models/", None, ""), f"model_path: {ID} could not be downloaded: "),  # hangs up
    ],
)
def test_hub_that_refuses_gives_one_clear_line(hub, tmp_path, refuse, message):
    hub.refuse = refuse
    done = download(hub, tmp_path)
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("Fetching")]
    assert done.returncode == 1
    assert len(lines) == 2, done.stderr  # that it downloads, and why it cannot
    assert lines[1].startswith(f"[get_model] {message}")


def test_path_that_is_nothing_is_refused_without_asking_a_hub(tmp_path):
    with pytest.raises(LoraryError, match="models/of/mine is neither a directory here nor a repository"):
        get_model("models/of/mine", None, str(tmp_path / "out"))
