"""A Kerberos KDC of our own, for a test: MIT's krb5kdc on a free port, with its database and keys in a folder."""

import asyncio
import os
import socket
import subprocess
from pathlib import Path

from monitor.sandbox.process import Child, spawn

REALM = "SANDBOX.TEST"
PROGRAMS = ("krb5kdc", "kdb5_util", "kadmin.local")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


class Kdc:
    """A KDC. ``configuration`` is the krb5.conf of its clients."""

    def __init__(self, folder: Path) -> None:
        self.configuration = folder / "krb5.conf"
        self.log = folder / "kdc.log"
        self._folder = folder
        self._port = free_port()
        self._process: Child | None = None
        self._environment = {
            **os.environ,
            "PATH": PATH,
            "KRB5_CONFIG": str(self.configuration),
            "KRB5_KDC_PROFILE": str(folder / "kdc.conf"),
        }

    async def start(self) -> None:
        """Make the database, start, and wait until it listens."""
        self.configuration.write_text(
            f"[libdefaults]\ndefault_realm={REALM}\ndns_lookup_kdc=false\ndns_lookup_realm=false\nrdns=false\n"
            f"dns_canonicalize_hostname=false\nudp_preference_limit=1\n"
            f"[realms]\n{REALM}={{\nkdc=127.0.0.1:{self._port}\n}}\n[domain_realm]\n.sandbox={REALM}\n"
        )
        (self._folder / "kdc.conf").write_text(
            f"[kdcdefaults]\nkdc_listen=127.0.0.1:{self._port}\nkdc_tcp_listen=127.0.0.1:{self._port}\n"
            f"[realms]\n{REALM}={{\ndatabase_name={self._folder}/principal\nkey_stash_file={self._folder}/stash\n"
            f"acl_file={self._folder}/acl\n}}\n"
        )
        self._run("kdb5_util", "create", "-s", "-P", "master", "-r", REALM)
        self._process = spawn(["krb5kdc", "-n", "-r", REALM], log=self.log, env=self._environment)
        async with asyncio.timeout(30):
            while not listens(self._port):
                assert self._process.running, self.log.read_text()
                await asyncio.sleep(0.05)

    def key(self, principal: str) -> Path:
        """Make a principal and return a file with its key."""
        keytab = self._folder / f"{principal.replace('/', '-')}.keytab"
        self._run("kadmin.local", "-r", REALM, "-q", f"addprinc -randkey {principal}")
        self._run("kadmin.local", "-r", REALM, "-q", f"ktadd -k {keytab} {principal}")
        return keytab

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stderr


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def listens(port: int) -> bool:
    """Say whether somebody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
