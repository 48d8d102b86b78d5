"""What a run needs around its peers: processes, the origin, the load generator, and what /proc tells of them."""

import ctypes
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
PROXY_CPU, LOAD_CPU = 0, 1
DESCRIPTORS = 50000


def tree(root):
    """The processes from `root` down, each with its CPU seconds and those of its children that have ended."""
    children, cpu = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
            cpu[int(entry)] = sum(map(int, fields[11:15])) / TICK
    found, todo = {}, [root]
    while todo:
        pid = todo.pop()
        if pid in cpu:
            found[pid] = cpu[pid]
            todo += children.get(pid, [])
    return found


def proc_kib(path, *names):
    """The sum of fields of a file of /proc, in KiB."""
    try:
        text = Path("/proc", path).read_text()
    except OSError:
        return 0
    return sum(int(m.group(1)) for n in names if (m := re.search(rf"^{n}:\s+(\d+)", text, re.M)))


def kernel_kib():
    """What the kernel itself holds, all programs together: sockets, files, epoll entries, page tables."""
    return proc_kib("meminfo", "Slab", "KernelStack", "PageTables")


def threads_beyond(cpu, pids):
    """Names of threads that may run on other cores than this one: some programs choose cores for themselves."""
    return sorted({(t / "comm").read_text().strip() for pid in pids for t in Path(f"/proc/{pid}/task").iterdir()
                   if f"Cpus_allowed_list:\t{cpu}\n" not in (t / "status").read_text()})


def busy(cpu):
    """Seconds in which a core was busy."""
    line = next(l for l in open("/proc/stat") if l.startswith(f"cpu{cpu} "))
    v = list(map(int, line.split()[1:]))
    return (sum(v[:3]) + sum(v[5:7])) / TICK


class Stage:
    """A work folder with an origin at work in it. Everything that is started here is ended here, by pid."""

    def __init__(self, bin_dir, port_base):
        self.work = Path(tempfile.mkdtemp(prefix="bench."))
        self.work.chmod(0o755)
        self.started, self.port = [], port_base
        for folder in ("www", "tmp", "run", "ats/etc", "ats/var"):
            (self.work / folder).mkdir(parents=True)
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, max(DESCRIPTORS, soft)))
            self.descriptors = DESCRIPTORS
        except (ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
            self.descriptors = soft
        self.vars = {"work": self.work, "bin": bin_dir, "nofile": self.descriptors, "half": self.descriptors * 2 // 5, "body": "x" * 1024}
        self.libc = ctypes.CDLL(None)

    def next_port(self):
        while True:
            self.port += 1
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    s.bind(("127.0.0.1", self.port))
                    return self.port
                except OSError:
                    continue

    def fill(self, text, more=()):
        """Puts values into the `@name@` of a template or of an argument."""
        values = {**self.vars, **dict(more)}
        return re.sub(r"@(\w+)@", lambda m: str(values[m[1]]), text)

    def build(self):
        for name in ("load", "relay"):
            command = [os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-Werror", "-o", self.work / name, HERE / f"{name}.c"]
            subprocess.run(command, check=True)

    def start_origin(self):
        self.vars["origin"], self.vars["sink"] = self.next_port(), self.next_port()
        with open(self.work / "www/100m", "wb") as f:
            for _ in range(100):
                f.write(os.urandom(1 << 20))
        (self.work / "origin.conf").write_text(self.fill((HERE / "conf/origin.conf").read_text()))
        self.origin = self.spawn(["nginx", "-p", str(self.work), "-c", str(self.work / "origin.conf")], LOAD_CPU, "origin")
        sink = self.spawn([str(self.work / "load"), "--sink", str(self.vars["sink"])], LOAD_CPU, "sink")
        if not self.listening([self.vars["origin"], self.vars["sink"]], [self.origin, sink]):
            sys.exit("the origin did not start: " + self.said("origin"))

    def spawn(self, command, cpu, name, env=()):
        def bind():
            os.sched_setaffinity(0, {cpu})
            self.libc.prctl(1, signal.SIGKILL)  # it ends with us

        with open(self.work / f"{name}.err", "ab") as err:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=err, preexec_fn=bind,
                                       cwd=self.work, env={**os.environ, **dict(env)}, start_new_session=True)
        self.started.append(process)
        return process

    def said(self, name):
        return " | ".join((self.work / f"{name}.err").read_text(errors="replace")[-500:].split("\n"))

    def listening(self, ports, processes, secs=20):
        until = time.monotonic() + secs
        for port in ports:
            while True:
                if any(p.poll() is not None for p in processes) or time.monotonic() > until:
                    return False
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
        return True

    def end(self, processes):
        """Asks them to end, children included, and then no longer asks."""
        for process in processes:
            pids = list(tree(process.pid))
            for sig, secs in ((signal.SIGTERM, 3), (signal.SIGKILL, 5)):
                for pid in pids if sig == signal.SIGKILL else [process.pid]:
                    try:
                        os.kill(pid, sig)
                    except OSError:
                        pass
                until = time.monotonic() + secs
                while pids and time.monotonic() < until:
                    process.poll()
                    pids = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
                    time.sleep(0.01)
                if not pids:
                    break
            if process in self.started:
                self.started.remove(process)

    def load(self, arguments):
        """Starts the load generator; its line, and the process, which holds connections until its stdin ends."""
        process = subprocess.Popen([str(self.work / "load"), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                   preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CPU}))
        return json.loads(process.stdout.readline()), process

    def close(self, keep):
        self.end(list(self.started))
        if keep:
            print("kept", self.work, file=sys.stderr)
        else:
            shutil.rmtree(self.work, ignore_errors=True)
