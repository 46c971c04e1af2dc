"""python -m lorary ask "question", serve, unpack NAME, gguf ADAPTER FILE, pairs FILE, keys and others: see --help."""

import argparse
import io
import logging
import os
import sys
import warnings
from typing import Any

from .core.errors import LoraryError, explain
from .core.job import look_for_garbage_seldom
from .core.values import is_text
from .plan.config import SAMPLE, load_schema, table
from .plan.methods import SUM, TOGETHER, named


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
    _add_run(ask_)
    ask_.add_argument(
        "--passages",
        nargs="+",
        default=[],
        metavar="NAME",
        help="load the adapters of <type>/data_<did> (all of a question) or <type>/data_<did>/passage_<pid>",
    )
    ask_.add_argument("--top", type=_positive, default=3, help="how many passages BM25 finds (default: 3)")
    ask_.add_argument(
        "--methods", nargs="+", choices=named(), default=["vanilla", "prag"], help="default: vanilla prag"
    )
    ways = "; ".join(f"{way}: {what}" for way, what in TOGETHER.items())
    ask_.add_argument("--combine", choices=TOGETHER, default=SUM, help=f"how several adapters work together ({ways})")
    ask_.add_argument("--max-new-tokens", type=_positive, help="default: 32, and 128 with chain of thought")
    _add_serve(commands)
    unpack_ = commands.add_parser(
        "unpack",
        help="give adapters of a run with pack: true directories",
        description="Give adapters that are in packs directories, as a run without packs makes them; they stay in their"
        " packs too. Call it where Snakemake is called, after a run.",
    )
    unpack_.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="<type>/data_<did>/passage_<pid>, <type>/data_<did> (all of a question) or <type>; none: all of the run",
    )
    _add_run(unpack_)
    commands.add_parser(
        "keys",
        help="list every key of the config, with its default",
        description="Every key of the config with its default, as Markdown: the table of config/README.md.",
    )
    gguf = commands.add_parser(
        "gguf",
        help="write an adapter as a GGUF file, for llama.cpp",
        description="Write an adapter of a run, or what `snakemake export` has merged, as llama.cpp reads it.",
    )
    gguf.add_argument("adapter", help="its directory, or its path in adapters.tsv")
    gguf.add_argument("file", help="where to, as my_adapter.gguf")
    gguf.add_argument("--model", metavar="FOLDER", help="the base model (default: where the adapter's config says)")
    pairs = commands.add_parser(
        "pairs",
        help="see how good the pairs of augmented data are",
        description="Put the pairs and rewrites of augmented data to the checks that those made here stand.",
    )
    pairs.add_argument("file", nargs="+", help="<type>.json; several are counted together")
    pairs.add_argument("--augment-model", required=True, help="whose they are: the beginning of <augment_model>_qa")
    warm = commands.add_parser(
        "warm-up",
        help="make the data of a warm-up out of questions",
        description="Write questions, without passages, as augmented data that one adapter is made of: the base weight"
        " that others start from. docs/warm_up.md has the rest.",
    )
    warm.add_argument("questions", nargs="+", metavar="FILE", help="a set of questions with answers, each")
    warm.add_argument(
        "--after",
        type=_natural,
        default=SAMPLE,
        metavar="N",
        help="leave the first N of each type for testing: what `sample` is in the runs (default: %(default)s)",
    )
    warm.add_argument("--take", type=_positive, metavar="N", help="N of each file at most (default: all)")
    warm.add_argument("--out", required=True, metavar="FOLDER", help="the data_dir")
    warm.add_argument("--dataset", required=True, metavar="NAME")
    warm.add_argument("--augment-model", required=True, metavar="NAME", help="the folder in it, as in the config")
    arguments = parser.parse_args()
    if arguments.command == "keys":
        print(table(), end="")
        return 0

    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.simplefilter("ignore", FutureWarning)
    told = logging.StreamHandler()
    logging.getLogger("lorary").addHandler(told)
    logging.getLogger("lorary").setLevel(logging.WARNING)
    if arguments.command == "serve":
        told.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logging.getLogger("lorary.serve").setLevel(logging.INFO)
    else:
        look_for_garbage_seldom()
    logging.getLogger("lorary.core.device").setLevel(logging.INFO)  # waiting for a free GPU
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what this locale cannot show, as on stderr
    try:
        if arguments.command == "pairs":
            from .augment.quality import describe

            print(describe(arguments.file, arguments.augment_model))
            return 0
        if arguments.command == "gguf":
            from .adapters.gguf import write_gguf

            print(write_gguf(arguments.adapter, arguments.file, arguments.model))
            return 0
        if arguments.command == "warm-up":
            from .data import warm_up

            where = arguments.out, arguments.dataset, arguments.augment_model
            print(warm_up.write(arguments.questions, arguments.after, arguments.take, *where))
            return 0
        if arguments.command == "serve":
            from .serve.server import Limits, serve

            limits = Limits(arguments.max_tokens, arguments.waiting, arguments.timeout)
            run = arguments.adapter_dir, arguments.run, arguments.top
            return serve(*run, arguments.host, arguments.port, limits)
        if arguments.command == "unpack":
            from .upkeep.unpack import unpack

            print(unpack(arguments.names, arguments.run, arguments.adapter_dir))
            return 0
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
                arguments.combine,
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


def _add_serve(commands: Any) -> None:
    serve = commands.add_parser(
        "serve",
        help="answer questions over HTTP with the adapters that a run has made",
        description="A page to ask at, and an endpoint that OpenAI's clients know (/v1/chat/completions; what they call"
        " a model is a method: prag, combine, prag_routed ...). BM25 finds the passages of each question; questions"
        " that wait are answered together. Call it where Snakemake is called, after a run. Ctrl-C or SIGTERM ends it,"
        " after what was accepted is answered. docs/server.md has the rest.",
    )
    _add_run(serve)
    serve.add_argument("--top", type=_positive, default=3, help="how many passages BM25 finds (default: 3)")
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen at (default: %(default)s, which only this machine reaches; 0.0.0.0: all of this"
        " machine's addresses. There is no password, so whoever reaches it can ask and read the passages)",
    )
    serve.add_argument("--port", type=_port, default=8000, help="default: %(default)s; 0: a free one")
    serve.add_argument(
        "--max-tokens",
        type=_positive,
        default=512,
        help="the most that a request may ask for (default: %(default)s; where it does not say, it gets 32, and 128"
        " with chain of thought)",
    )
    serve.add_argument(
        "--waiting",
        type=_positive,
        default=256,
        help="questions that may wait, before more are sent away with 503 (default: %(default)s)",
    )
    serve.add_argument(
        "--timeout",
        type=_positive,
        default=120,
        help="seconds that a request may take, before it is ended with 504 (default: %(default)s)",
    )


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--run", metavar="TEXT", help="part of the run's folder, where there is more than one run")
    adapter_dir = load_schema()["properties"]["adapter_dir"]["default"]
    command.add_argument("--adapter-dir", default=adapter_dir, help="default: %(default)s")


def _question(text: str) -> str:
    """The question, also where the locale could not read what was typed, which is UTF-8 then."""
    if is_text(text):
        return text
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeDecodeError:
        raise LoraryError("The question cannot be read: it is neither in this locale's encoding nor UTF-8.") from None


def _positive(text: str) -> int:
    return _from(1, text)


def _natural(text: str) -> int:
    return _from(0, text)


def _port(text: str) -> int:
    if (number := _natural(text)) > 65535:
        raise argparse.ArgumentTypeError("a port is a number up to 65535")
    return number


def _from(least: int, text: str) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"a whole number from {least}")
    return number


if __name__ == "__main__":
    sys.exit(main())
