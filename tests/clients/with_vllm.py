"""Run by vLLM's own interpreter: `with_vllm.py CASES MODEL OUT`. In one batch, each request with its own adapter; the
prompt as ids, then as text."""

import json
import sys
from pathlib import Path


def main() -> None:  # guarded: the engine is a process that imports this file again
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    cases, model, out = sys.argv[1:]
    asked = json.loads(Path(cases).read_text(encoding="utf-8"))
    llm = LLM(
        model,
        enable_lora=True,
        max_lora_rank=8,
        max_loras=4,
        max_cpu_loras=32,
        dtype="float32",  # as the adapters were trained
        enforce_eager=True,
        max_model_len=1024,
        gpu_memory_utilization=0.3,  # of the processor's memory, where there is no GPU
    )
    greedy = SamplingParams(temperature=0, max_tokens=asked[0]["tokens"])
    # Not together with the others: on a processor, a request without an adapter that is in a batch with some that have
    # one gets the last of these (vllm-project/vllm, pull request 48421).
    batches = [[case for case in asked if not case["path"]], [case for case in asked if case["path"]]]
    said: list[list[list[int]]] = [[], []]
    for batch in batches:
        paths = [case["path"] for case in batch]
        adapters = {path: LoRARequest(path, i, path) for i, path in enumerate(filter(None, paths), start=1)}
        requests = [adapters[path] if path else None for path in paths]
        for answers, form in zip(said, ("prompt_token_ids", "prompt"), strict=True):
            prompts = [{form: case["prompt" if form == "prompt_token_ids" else "text"]} for case in batch]
            for answer in llm.generate(prompts, greedy, lora_request=requests, use_tqdm=False):
                answers.append(list(answer.outputs[0].token_ids))
    Path(out).write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main()
