"""The one kind of error that users can mend themselves, and how faults are told."""

import errno

# What the file system may refuse, and what to do.
REFUSALS = {
    errno.ENOSPC: "Make room (`snakemake prune`, with the same --configfile, frees what no run refers to)",
    errno.EDQUOT: "Make room (`snakemake prune`, with the same --configfile, frees what no run refers to)",
    errno.EFBIG: "Raise the limit of a file's size",
    errno.EROFS: "Make that folder writable, or set adapter_dir and store_dir to others",
    errno.EACCES: "Give yourself permission, or set adapter_dir and store_dir to other folders",
    errno.EPERM: "Give yourself permission, or set adapter_dir and store_dir to other folders",
    errno.ENOENT: "It was there before: see who removed it, or whether its disk is still mounted",
    errno.ENOTDIR: "A file lies where a folder should be: move it away",
    errno.EISDIR: "A folder lies where a file should be: move it away",
    errno.ENAMETOOLONG: "Choose shorter names",
    errno.ELOOP: "Symbolic links lead in a circle there: mend them",
    errno.EIO: "The disk has a fault: see the system's log",
    errno.ESTALE: "The network file system has changed: see whether it is still mounted",
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
}


class LoraryError(Exception):
    """A mistake in config, data or surroundings. The message says where and what to do, and is all that is shown."""


def report(faults: list[str], title: str, most: int = 20) -> LoraryError:
    """One error out of many faults, cut after `most` lines."""
    lines = [f"  {fault}" for fault in faults[:most]]
    if len(faults) > most:
        lines.append(f"  ... and {len(faults) - most} more")
    return LoraryError("\n".join([title, *lines]))


def explain(error: OSError) -> str:
    """What the file system refused and what to do; empty where that is not for the user to mend."""
    if error.errno not in REFUSALS:
        return ""
    where = f"{error.filename2 or error.filename}: " if error.filename else ""
    return (
        f"{where}{error.strerror}. {REFUSALS[error.errno]}; then the same command goes on, with all that was finished."
    )


def damaged(path: object, error: Exception) -> LoraryError:
    """A file that an earlier job of ours wrote cannot be read any more."""
    reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
    return LoraryError(f"{path} is damaged ({reason}). Delete it, and the next call makes it again.")
