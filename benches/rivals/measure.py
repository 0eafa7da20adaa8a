"""One measurement: a command as a fresh process, with wall time, CPU time and memory of its whole process tree.

Does not warm, repeat or judge anything. CPU time is user + system as wait4 reports it, so descendants count once they
have been waited for. Memory is sampled from /proc, since ru_maxrss also counts the page cache that a process maps.
"""

import os
import signal
import threading
import time

SAMPLE_SECONDS = 0.02


class Sample:
    """What one command cost. Times in seconds, memory in bytes; `anon` is RssAnon + RssShmem, 0 when not sampled."""

    def __init__(self, wall=0.0, user=0.0, system=0.0, maxrss=0, anon=0, code=0):
        self.wall, self.user, self.system = wall, user, system
        self.maxrss, self.anon, self.code = maxrss, anon, code

    @property
    def cpu(self):
        return self.user + self.system

    def then(self, other):
        """Both commands, one after the other."""
        return Sample(self.wall + other.wall, self.user + other.user, self.system + other.system,
                      max(self.maxrss, other.maxrss), max(self.anon, other.anon), self.code or other.code)

    def as_dict(self):
        return {"wall": round(self.wall, 4), "user": round(self.user, 4), "system": round(self.system, 4),
                "cpu": round(self.cpu, 4), "maxrss": self.maxrss, "anon": self.anon}


def _tree(pid):
    """The process and its descendants that live now."""
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as children:
                    todo.extend(int(child) for child in children.read().split())
        except OSError:
            pass
    return found


def _anon(pid):
    total = 0
    for member in _tree(pid):
        try:
            with open(f"/proc/{member}/status") as status:
                for line in status:
                    if line.startswith(("RssAnon:", "RssShmem:")):
                        total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


def run(argv, log, sample=True, env=None, seconds_max=3600):
    """Runs `argv` to its end, its output appended to the file `log`. Never raises for a failing command: see `code`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
               (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o644), (os.POSIX_SPAWN_DUP2, 1, 2)]
    peak, done = [0], threading.Event()
    start = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, env or os.environ, file_actions=actions, setpgroup=0)

    def watch():
        while not done.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], _anon(pid))

    timer = threading.Timer(seconds_max, lambda: os.killpg(pid, signal.SIGKILL))
    timer.daemon = True
    watcher = threading.Thread(target=watch, daemon=True)
    if sample:
        timer.start()
        watcher.start()
    try:
        _, status, usage = os.wait4(pid, 0)
    except BaseException:
        # Interrupted: what was started in a group of its own must not outlive this.
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        done.set()
        timer.cancel()
    wall = time.perf_counter() - start
    if sample:
        watcher.join()
    return Sample(wall, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * 1024, peak[0],
                  os.waitstatus_to_exitcode(status))
