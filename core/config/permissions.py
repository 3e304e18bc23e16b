"""Access to DATA_DIR: conversations and keys are for the user of the process alone."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

OTHERS = stat.S_IRWXG | stat.S_IRWXO
UMASK = OTHERS
"""For the whole process: files are created 0600, folders 0700."""

_NO_MODES = frozenset({errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""Errors of network and FUSE file systems that store no modes, or refuse changes even by the owner."""


def restrict_access(directory: Path) -> None:
    """Takes the rights of the group and of others from a directory and the files in it.

    Left as they are: files of another user (a volume of Kubernetes with a group, for example), links, and a
    directory that many users share, such as /tmp.
    """
    status = directory.stat()
    if status.st_mode & stat.S_ISVTX:
        return
    _restrict(directory, status)
    with os.scandir(directory) as entries:
        for entry in entries:
            # A file may vanish meanwhile, as those of SQLite do.
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    _restrict(Path(entry.path), status)


def _restrict(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if mode & OTHERS and status.st_uid == os.geteuid():
        try:
            path.chmod(mode & ~OTHERS)
        except OSError as error:
            if error.errno not in _NO_MODES:
                raise
