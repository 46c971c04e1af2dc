"""Recipes: defaults that go together, by one key. What a config says of a key itself stands over them."""

from typing import Any

# The keys that a recipe sets stand in config.yaml as comments: a value there would win.
RECIPES: dict[str, dict[str, Any]] = {
    "reference": {},
    "know": {
        "objective": "answers",
        "num_train_epochs": 5,
        "keep_directions": 0.9,
        "keep_sequences": 18,
        "combine_adapters": ["routed"],
    },
    # The layers are those of the demo's model at four fifths of its depth.
    "memory": {
        "translator": "memory",
        "objective": "answers",
        "keep_sequences": 9,
        "lora_rank": 64,
        "lora_alpha": 64,
        "lora_target_modules": ["24.mlp.down_proj", "25.mlp.down_proj", "26.mlp.down_proj"],
    },
}


def told(config: dict[str, Any]) -> list[str]:
    """A line for each recipe of a checked config and its `runs`: what it sets, and what the config sets itself."""
    lines = []
    for override in config.get("runs") or [{}]:
        given = {**config, **override}
        name = given.get("recipe", "reference")
        if not RECIPES[name]:
            continue
        own = [key for key in RECIPES[name] if key in given]
        sets = [f"{key}: {value}" for key, value in RECIPES[name].items() if key not in given]
        line = f"recipe: {name} sets {', '.join(sets) or 'nothing'}"
        lines.append(line + (f"; the config itself sets {', '.join(own)}" if own else ""))
    return list(dict.fromkeys(lines))
