"""Lorary: passages of text into LoRA adapters, the encoder of Parametric RAG.

A folder is a stage, and imports only those before it: core, raw, data, base, adapters, plan, train, translate, answer,
serve, augment, report, upkeep.
"""
