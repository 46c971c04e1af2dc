"""Lorary: passages of text into LoRA adapters, the encoder of Parametric RAG.

The modules follow the data, and each imports only those before it:
errors, stop, folders, config, dataset, plan, request, plan_predict, model, prompts, passages, adapter, frozen,
attention, decoder, lora, loss, schedule, trainer, store, device, train, index, provenance, verify, prune; for the
answers generate, journal, predict, knowledge, score, evaluate, plots, page, merge, ask; summary, job, bench,
bench_answers.
"""
