"""Which of a question's passages go best with it: the job that puts them in order."""

from ..raw import index
from . import layout
from .encode import Type
from .job import Job

# Goes up with a change that puts a question's passages in another order.
ROUTES = 1


def routes(kind: Type, by: str, made: dict[str, Job]) -> str:
    """The file that puts the passages of each question in order; its job is among those `made`."""
    table = kind.prompts.inputs["table"]
    params = {"by": by, "version": [ROUTES, index.VERSION]}
    name = layout.table_name(kind.run, kind.folder.kind, {"table": table, **params})
    job = Job("route", name, {"table": table}, {"routes": layout.ROUTES.format(routes=name)}, params)
    return made.setdefault(name, job).outputs["routes"]
