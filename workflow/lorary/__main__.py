"""python -m lorary ask "question", python -m lorary keys: see --help."""

import argparse
import io
import logging
import os
import sys
import warnings

from .core.errors import LoraryError, explain
from .core.values import is_text
from .plan.config import load_schema, table
from .plan.methods import METHODS


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lorary", description="Lorary: passages of text into LoRA adapters."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    ask_ = commands.add_parser(
        "ask",
        help="ask a question of the adapters that a run has made",
        description="Answer a question with the bare model and with adapters, side by side. Call it where Snakemake is"
        " called, after a run. Without --passages, BM25 finds those whose text goes with the question.",
    )
    ask_.add_argument("question")
    ask_.add_argument("--run", metavar="TEXT", help="part of the run's folder, where there is more than one run")
    ask_.add_argument(
        "--passages",
        nargs="+",
        default=[],
        metavar="NAME",
        help="load the adapters of <type>/data_<did> (all of a question) or <type>/data_<did>/passage_<pid>",
    )
    ask_.add_argument("--top", type=_positive, default=3, help="how many passages BM25 finds (default: 3)")
    ask_.add_argument(
        "--methods", nargs="+", choices=METHODS, default=["vanilla", "prag"], help="default: vanilla prag"
    )
    ask_.add_argument("--max-new-tokens", type=_positive, help="default: 32, and 128 with chain of thought")
    adapter_dir = load_schema()["properties"]["adapter_dir"]["default"]
    ask_.add_argument("--adapter-dir", default=adapter_dir, help="default: %(default)s")
    commands.add_parser(
        "keys",
        help="list every key of the config, with its default",
        description="Every key of the config with its default, as Markdown: the table of config/README.md.",
    )
    arguments = parser.parse_args()
    if arguments.command == "keys":
        print(table(), end="")
        return 0

    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.simplefilter("ignore", FutureWarning)
    logging.getLogger("lorary").addHandler(logging.StreamHandler())
    logging.getLogger("lorary").setLevel(logging.WARNING)
    logging.getLogger("lorary.core.device").setLevel(logging.INFO)  # waiting for a free GPU
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what this locale cannot show, as on stderr
    try:
        from .answer.ask import ask

        print(
            ask(
                _question(arguments.question),
                arguments.run,
                arguments.passages,
                arguments.top,
                arguments.methods,
                arguments.max_new_tokens,
                arguments.adapter_dir,
            )
        )
    except LoraryError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        if not explain(error):
            raise
        print(explain(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _question(text: str) -> str:
    """The question, also where the locale could not read what was typed, which is UTF-8 then."""
    if is_text(text):
        return text
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeDecodeError:
        raise LoraryError("The question cannot be read: it is neither in this locale's encoding nor UTF-8.") from None


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a whole number from 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
