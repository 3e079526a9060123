"""How the platform's processes are launched: bound to the supervisor's life, and never as root where the server refuses that.

`setpriv` (util-linux, on every Debian and Ubuntu) does both. With `--pdeathsig` the kernel itself signals a child when the
supervisor is gone, however it went. PostgreSQL does not run as root; it gets the `postgres` user, or `nobody`, with one
capability left: to read and enter directories (root's home is closed to others, and both the programs and the data may lie
there). `no_setuid_fixup` lets that capability count for `access(2)` too, by which PostgreSQL looks for its own files.
"""

import os
import pwd
import shutil
from pathlib import Path

from ias.local.errors import PlatformError

_ACCOUNTS = ("postgres", "nobody")


def bind_to_parent(arguments: list[str], signal_name: str) -> list[str]:
    """The same command, sent a signal by the kernel when the process that started it dies. Needs `setpriv`, else unchanged."""
    setpriv = shutil.which("setpriv")
    return [setpriv, f"--pdeathsig={signal_name}", "--", *arguments] if setpriv else arguments


def as_unprivileged(arguments: list[str], *, signal_name: str) -> list[str]:
    """The command for a server that refuses to run as root, bound to the parent as `bind_to_parent` does.

    Raises:
        PlatformError: this is root and there is no way to run as anyone else.
    """
    account = find_unprivileged_account()
    if account is None:
        return bind_to_parent(arguments, signal_name)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise PlatformError(
            "PostgreSQL does not run as root, and `setpriv` to run it as another user is missing",
            "install util-linux, or start as an ordinary user",
        )
    return [
        setpriv,
        f"--reuid={account.pw_uid}",
        f"--regid={account.pw_gid}",
        "--clear-groups",
        "--securebits=+no_setuid_fixup",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        f"--pdeathsig={signal_name}",
        "--",
        *arguments,
    ]


def give_to_unprivileged(path: Path) -> None:
    """Let the account that `as_unprivileged` runs as own a directory; nothing to do when this is not root."""
    account = find_unprivileged_account()
    if account is not None:
        os.chown(path, account.pw_uid, account.pw_gid)


def find_unprivileged_account() -> pwd.struct_passwd | None:
    """The account that stands in for root; None when this is not root, and none is needed.

    Raises:
        PlatformError: this is root, and neither account exists.
    """
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PlatformError(
        "PostgreSQL does not run as root, and there is neither a `postgres` nor a `nobody` user",
        "start as an ordinary user",
    )
