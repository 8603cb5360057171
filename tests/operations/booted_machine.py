"""A Debian machine that boots a real systemd on a copy of this machine's files, in namespaces of its own.

The copy is an overlay in memory: what the machine writes is gone when it ends. Its network is loopback only. Needs
root, and leave to mount; where that is missing, the test is skipped.
"""

import contextlib
import ctypes
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until

SYSTEMD = "/lib/systemd/systemd"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CLONE_NEWNET = 0x40000000
SECONDS = 300  # for a command; a busy machine needs 40 for the longest
# $1: an empty folder; $2: a folder that the machine gets as /srv; $3: this process's group in cgroup's version 2
BOOT = """
set -e
echo $$ > "$3/cgroup.procs"
exec unshare --pid --fork --kill-child --mount --uts --ipc --cgroup --net sh -ec '
mount --make-rprivate /
mount -t tmpfs -o mode=755 machine "$1"
cd "$1"
mkdir upper work root
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" machine root
cp -r "$2/." root/srv
cd root
rm -rf etc/systemd/system/*.wants etc/rc?.d etc/fstab
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for folder in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs $folder; done
chmod 1777 tmp
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
mkdir old
pivot_root . old
cd /
umount --lazy old
rmdir old
mount --make-rshared /
exec env -i container=test /lib/systemd/systemd
' sh "$1" "$2"
"""


class Machine:
    """A booted machine; `pid` is its systemd's."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        namespaces = "--mount --uts --ipc --net --pid --cgroup --root --wd".split()
        self.enter = ["nsenter", f"--target={pid}", *namespaces, "--", "env", "-i", f"PATH={PATH}", "HOME=/root"]

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """In the block, sockets of this thread, and of threads that it starts, are in the machine's network."""
        with Path(f"/proc/{self.pid}/ns/net").open() as there, Path("/proc/thread-self/ns/net").open() as here:
            enter_network(there.fileno())
            try:
                yield
            finally:
                enter_network(here.fileno())

    def run(self, script: str) -> str:
        """The output of a bash script. Asserts that it succeeds."""
        command = [*self.enter, "bash", "-ec", f"cd /\n{script}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout


def enter_network(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def booted_machine(folder: Path, files: Path) -> Iterator[Machine]:
    """A machine that has copies of `files` in /srv. `folder` is made for it."""
    folder.mkdir()
    log = folder.with_suffix(".log")
    with own_group() as group, log.open("wb") as output:
        process = subprocess.Popen(["sh", "-c", BOOT, "sh", folder, files, group], stdout=output, stderr=output)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            wait_until(lambda: process.poll() is not None or is_systemd(children.read_text()), SECONDS)
            if process.poll() is not None:
                pytest.skip(f"no systemd can be booted here: {log.read_text().strip()}")
            machine = Machine(int(children.read_text()))
            wait_until(
                lambda: machine.run("systemctl is-system-running || true") in ("running\n", "degraded\n"), SECONDS
            )
            yield machine
        finally:
            (group / "cgroup.kill").write_text("1")
            process.wait(SECONDS)


def is_systemd(pid: str) -> bool:
    with contextlib.suppress(OSError):  # it has just ended
        return bool(pid) and Path(f"/proc/{pid.strip()}/comm").read_text() == "systemd\n"
    return False


@contextlib.contextmanager
def own_group() -> Iterator[Path]:
    """A control group for the machine's processes. Skips the test where none can be made."""
    if os.geteuid() or not Path(SYSTEMD).exists():
        pytest.skip("to boot systemd takes root, and systemd")
    found = re.search(r"^\S+ (\S+) cgroup2 ", Path("/proc/mounts").read_text(), re.MULTILINE)
    group = Path(found[1] if found else "/sys/fs/cgroup", f"machine-{os.getpid()}")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        yield group
    finally:
        wait_until(lambda: "populated 0" in (group / "cgroup.events").read_text())
        for inner in sorted(group.rglob("*/"), reverse=True):
            inner.rmdir()
        group.rmdir()
