"""Invented passages, as many as are wanted, for `make bench-translator`: what they say nobody can know, or guess."""

import random
from typing import Any

# Of each kind of thing: its facts, each with ways to say it, questions that are trained on, one that never is, and what
# the answer is drawn from. {it} is the thing's name.
Fact = tuple[list[str], list[str], str, str]
KINDS: dict[str, dict[str, Fact]] = {
    "lighthouse": {
        "stone": (
            ["{it} is a lighthouse of {answer}.", "The lighthouse {it} was made of {answer}."],
            ["What is the lighthouse {it} made of?", "Of which stone is {it}?"],
            "Which material was used for the lighthouse {it}?",
            "stone",
        ),
        "builder": (
            ["It was built by {answer}.", "Its builder was {answer}."],
            ["Who built {it}?", "Who was the builder of {it}?"],
            "Which person had {it} put up?",
            "person",
        ),
        "year": (
            ["Its light was lit for the first time in {answer}.", "It has burnt since {answer}."],
            ["When was the light of {it} first lit?", "Since which year has {it} burnt?"],
            "In which year did {it} begin to shine?",
            "year",
        ),
        "place": (
            ["It stands on the cape of {answer}.", "The cape on which it stands is {answer}."],
            ["On which cape does {it} stand?", "Where does {it} stand?"],
            "What is the name of the cape that carries {it}?",
            "place",
        ),
        "colour": (
            ["Its lamp shines {answer}.", "The light that it gives is {answer}."],
            ["In which colour does {it} shine?", "What is the colour of the lamp of {it}?"],
            "Which colour do ships see when they look at {it}?",
            "colour",
        ),
    },
    "violinist": {
        "birth": (
            ["{it} was a violinist who was born in {answer}.", "The violinist {it} was born in {answer}."],
            ["When was {it} born?", "What is the year of birth of {it}?"],
            "In which year did {it} come into the world?",
            "year",
        ),
        "town": (
            ["The family lived in {answer}.", "Home was the town of {answer}."],
            ["In which town did the family of {it} live?", "Where was the home of {it}?"],
            "Which town did {it} come from?",
            "place",
        ),
        "teacher": (
            ["Lessons were given by {answer}.", "The teacher was {answer}."],
            ["Who taught {it}?", "Who was the teacher of {it}?"],
            "From whom did {it} learn to play?",
            "person",
        ),
        "wood": (
            ["The violin was carved of {answer}.", "Of {answer} was the violin."],
            ["Of which wood was the violin of {it}?", "What was the violin of {it} carved of?"],
            "Which wood did the instrument of {it} consist of?",
            "wood",
        ),
        "pet": (
            ["On every journey there was a {answer} too.", "A {answer} came along wherever there was a concert."],
            ["Which animal travelled with {it}?", "What did {it} take along on journeys?"],
            "Which pet was the companion of {it}?",
            "animal",
        ),
    },
    "company": {
        "goods": (
            ["{it} is a company that makes {answer}.", "The company {it} makes {answer}."],
            ["What does {it} make?", "What are the goods of {it}?"],
            "Which product is sold by {it}?",
            "goods",
        ),
        "founder": (
            ["It was founded by {answer}.", "Its founder is {answer}."],
            ["Who founded {it}?", "Who is the founder of {it}?"],
            "Which person started {it}?",
            "person",
        ),
        "seat": (
            ["Its seat is in {answer}.", "It is run from {answer}."],
            ["Where is the seat of {it}?", "From where is {it} run?"],
            "In which town are the headquarters of {it}?",
            "place",
        ),
        "workers": (
            ["It has {answer} workers.", "There {answer} people work."],
            ["How many workers does {it} have?", "How many people work at {it}?"],
            "What is the number of people employed by {it}?",
            "number",
        ),
        "sign": (
            ["Its sign is a {answer}.", "A {answer} is painted on everything that it sells."],
            ["What is the sign of {it}?", "What is painted on everything that {it} sells?"],
            "Which animal is in the emblem of {it}?",
            "animal",
        ),
    },
}
POOLS = {
    "stone": ["granite", "basalt", "sandstone", "slate", "marble", "limestone", "brick", "flint", "chalk", "quartz"],
    "colour": ["red", "green", "white", "yellow", "blue", "violet", "orange", "silver"],
    "wood": ["maple", "walnut", "cherry", "spruce", "cedar", "willow", "pear", "ebony", "birch", "oak"],
    "animal": ["heron", "badger", "falcon", "otter", "goat", "raven", "lynx", "tortoise", "hare", "swan", "fox"],
    "goods": ["bells", "candles", "kettles", "saddles", "clocks", "ropes", "lenses", "brushes", "buttons", "gloves"],
}
SYLLABLES = ["ka", "lor", "min", "ta", "ves", "dru", "el", "qui", "so", "ben", "har", "ith", "om", "pel", "ru", "zan"]
PAIRS = 3  # of a passage that is learnt from


def passages(count: int, seed: int) -> list[dict[str, Any]]:
    """So many: each with its `text`, its `pairs` (question, answer), and for each of these the question in words that
    no pair has (`others`)."""
    draw = random.Random(seed)  # noqa: S311
    made: list[dict[str, Any]] = []
    names: set[str] = set()
    while len(made) < count:
        kind, name = draw.choice(list(KINDS)), _name(draw, 3)
        if name in names:
            continue
        names.add(name)
        facts = {fact: _answer(draw, KINDS[kind][fact][3]) for fact in KINDS[kind]}
        first, *rest = KINDS[kind]
        order = [first, *draw.sample(rest, len(rest))]
        said = [draw.choice(KINDS[kind][fact][0]).format(it=name, answer=facts[fact]) for fact in order]
        asked = draw.sample(order, PAIRS)
        made.append(
            {
                "text": " ".join(said),
                "pairs": [(draw.choice(KINDS[kind][fact][1]).format(it=name), facts[fact]) for fact in asked],
                "others": [(KINDS[kind][fact][2].format(it=name), facts[fact]) for fact in asked],
            }
        )
    return made


def _name(draw: random.Random, syllables: int) -> str:
    return "".join(draw.choice(SYLLABLES) for _ in range(syllables)).capitalize()


def _answer(draw: random.Random, pool: str) -> str:
    if pool == "person":
        return f"{_name(draw, 2)} {_name(draw, 2)}"
    if pool == "place":
        return _name(draw, 2)
    if pool == "year":
        return str(draw.randint(1600, 1999))
    return str(draw.randint(20, 980)) if pool == "number" else draw.choice(POOLS[pool])
