"""Run by the interpreter that has xllamacpp, a wheel with llama.cpp's server: `with_llama_cpp.py CASES BASE OUT`, where
BASE is the base model as GGUF. All adapters are loaded at scale 0, and each request names those that it wants."""

import json
import sys
import urllib.request
from pathlib import Path

import xllamacpp

cases, base, out = sys.argv[1:]
asked = json.loads(Path(cases).read_text(encoding="utf-8"))
files = sorted({file for case in asked for file in case["files"]})

params = xllamacpp.CommonParams()
params.model.path = base
params.n_ctx = 1024
params.n_gpu_layers = 0
params.warmup = False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1  # two wait for each other where others work too
params.lora_init_without_apply = True
adapters = []
for file in files:
    adapter = xllamacpp.CommonAdapterLoraInfo()
    adapter.path, adapter.scale = file, 0.0
    adapters.append(adapter)
params.lora_adapters = adapters
server = xllamacpp.Server(params)


def ask(case: dict, path: str, **prompt) -> dict:
    lora = [{"id": number, "scale": float(file in case["files"])} for number, file in enumerate(files)]
    asking = {"temperature": 0, "n_predict": case["tokens"], "lora": lora, "cache_prompt": False, **prompt}
    request = urllib.request.Request(
        f"{server.listening_address}{path}", json.dumps(asking).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as answered:
        return json.load(answered)


said = [ask(case, "/completion", prompt=case["prompt"], return_tokens=True)["tokens"] for case in asked]
turns = [[{"role": "user", "content": case["content"]}] for case in asked]
chats = [ask(case, "/v1/chat/completions", messages=turn) for case, turn in zip(asked, turns, strict=True)]
texts = [chat["choices"][0]["message"]["content"] for chat in chats]
Path(out).write_text(json.dumps([said, texts]), encoding="utf-8")
