"""The scenarios as data.

role    the listener of the peer that is used (peers.py)
via     how the load generator speaks to it: forward (HTTP), connect, socks5
load    further arguments of load.c
unit    what a unit of work is; CPU time is given for one
kind    rate, bulk, latency (an open loop at a fixed rate), or memory
needs   "http" if the peer must forward plain HTTP and not just tunnels, "connect" if it must do tunnels
"""

SMALL = ["--path", "/1k"]
BULK = ["--path", "/100m", "-c", "4"]
EACH = [*SMALL, "-c", "32", "--close"]
STEADY = [*SMALL, "-c", "32", "--rate", "2000"]

SCENARIOS = {
    "s1": dict(what="HTTP forward, keep-alive, 1 KiB, 64 connections", role="forward", via="forward", needs="http",
               load=[*SMALL, "-c", "64"], unit="req", kind="rate"),
    "s2": dict(what="HTTP forward, 1 KiB, a new client connection for each request", role="forward", via="forward",
               needs="http", load=EACH, unit="req", kind="rate"),
    "s3": dict(what="CONNECT, bulk: 4 tunnels, 100 MiB each time", role="forward", via="connect", needs="connect",
               load=BULK, unit="GB", kind="bulk"),
    "s4": dict(what="CONNECT, set-up: a tunnel, a 1 KiB request, close", role="forward", via="connect", needs="connect",
               load=EACH, unit="conn", kind="rate"),
    "s5a": dict(what="SOCKS5, set-up: a 1 KiB request, close", role="socks", via="socks5", load=EACH, unit="conn", kind="rate"),
    "s5b": dict(what="SOCKS5, bulk: 4 connections, 100 MiB each time", role="socks", via="socks5", load=BULK, unit="GB", kind="bulk"),
    "s10a": dict(what="memory of an idle CONNECT tunnel", role="forward", via="connect", needs="connect",
                 load=["--hold"], unit="tunnel", kind="memory"),
    "s10b": dict(what="memory of an idle client that keeps its connection after a request", role="forward", via="forward",
                 needs="http", load=[*SMALL, "--hold"], unit="client", kind="memory"),
    "s11a": dict(what="latency at 2000 requests/s, HTTP forward, keep-alive", role="forward", via="forward", needs="http",
                 load=STEADY, unit="req", kind="latency"),
    "s11b": dict(what="latency at 2000 requests/s inside CONNECT tunnels", role="forward", via="connect", needs="connect",
                 load=STEADY, unit="req", kind="latency"),
}
