"""The one kind of error that users can mend themselves."""


class LoraryError(Exception):
    """A mistake in config, data or surroundings. The message says where and what to do, and is all that is shown."""


def report(faults: list[str], title: str, most: int = 20) -> LoraryError:
    """One error out of many faults, cut after `most` lines."""
    lines = [f"  {fault}" for fault in faults[:most]]
    if len(faults) > most:
        lines.append(f"  ... and {len(faults) - most} more")
    return LoraryError("\n".join([title, *lines]))
