"""The reference's training loop, for comparison: PEFT around transformers' own model, one passage after the other.

As Parametric RAG trains (Su et al., SIGIR 2025), with the sequences padded to `length`, or not at all.
"""

from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from safetensors.numpy import load_file


def train(
    model, base_weight: Path, sequences: list, output: Path, rate: float, epochs: int, batch: int, length: int | None
) -> list[float]:
    """Write the adapter that the reference makes of a passage's prompt ids. Returns the losses."""
    adapted = PeftModel.from_pretrained(model, base_weight, is_trainable=True)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=rate)
    losses = []
    for _ in range(epochs):
        for start in range(0, len(sequences), batch):
            some = sequences[start : start + batch]
            width = length or max(map(len, some))
            ids, mask = torch.zeros(len(some), width, dtype=torch.long), torch.zeros(len(some), width, dtype=torch.long)
            labels = torch.full((len(some), width), -100)
            for i, sequence in enumerate(some):
                n = min(len(sequence), width)
                ids[i, :n] = labels[i, :n] = torch.tensor(sequence[:n])
                mask[i, :n] = 1
            optimizer.zero_grad()
            loss = adapted(input_ids=ids, attention_mask=mask, labels=labels).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    adapted.save_pretrained(output, save_embedding_layers=False)
    adapted.unload()
    return losses


def compare(ours: Path, theirs: Path, base_weight: Path) -> tuple[float, float]:
    """Cosine of the two updates, and the relative L2 distance of ours from theirs."""
    a, b, base = (load_file(Path(folder) / "adapter_model.safetensors") for folder in (ours, theirs, base_weight))
    assert a.keys() == b.keys() == base.keys()
    u, g = (np.concatenate([(x[k].astype(np.float64) - base[k]).ravel() for k in sorted(base)]) for x in (a, b))
    return float(u @ g / np.linalg.norm(u) / np.linalg.norm(g)), float(np.linalg.norm(u - g) / np.linalg.norm(g))
