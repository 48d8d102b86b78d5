"""The results as Markdown tables."""

from peers import PEERS, PROJECT
from scenarios import SCENARIOS


def number(x):
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def span(stats, key, scale=1.0):
    """Median, and the range of all rounds."""
    if key not in stats:
        return "-"
    m = stats[key]
    return f"{number(m['median'] * scale)} ({number(m['min'] * scale)}-{number(m['max'] * scale)})"


def median(stats, key):
    return stats[key]["median"] if key in stats else None


def ratio(results, name, key):
    """What the project's median is, measured by that of `name`."""
    ours, theirs = median(results.get(PROJECT, {}), key), median(results[name], key)
    return f"{ours / theirs:.2f}" if ours is not None and theirs and name != PROJECT else "-"


def rows(name, result):
    scenario, results = SCENARIOS[name], result["peers"]
    unit, scale = ("ms/GB", 1e3) if scenario["unit"] == "GB" else (f"us/{scenario['unit']}", 1e6)
    ordered = lambda key: sorted(results.items(), key=lambda r: (median(r[1], key) is None, median(r[1], key) or 0))
    mark = lambda n: f"**{n}**" if n == PROJECT else f"*{n}*" if PEERS[n].get("limit") else n
    if scenario["kind"] == "memory":
        none = median(results.get("direct", {}), "kernel_kib") or 0
        yield ["peer", f"user KiB/{scenario['unit']} (PSS)", "RSS", "kernel KiB, above direct", "sluice / it", "held", "before, MiB", "idle CPU %", "errors"]
        for n, r in ordered("user_kib"):
            kernel = median(r, "kernel_kib")
            yield [mark(n), span(r, "user_kib"), number(median(r, "rss_kib") or 0), number(kernel - none) if kernel is not None else "-",
                   ratio(results, n, "user_kib"), number(median(r, "held") or 0), number(median(r, "base_mib") or 0),
                   number((median(r, "idle_cpu") or 0) * 100), r["errors"]]
    elif scenario["kind"] == "latency":
        yield ["peer", "p50 us", "p99 us", "sluice / it, p50", "p99", f"CPU {unit}", "errors"]
        for n, r in ordered("p50_us"):
            yield [mark(n), span(r, "p50_us"), span(r, "p99_us"), ratio(results, n, "p50_us"), ratio(results, n, "p99_us"), span(r, "cpu", scale), r["errors"]]
    else:
        yield ["peer", f"CPU {unit}", "sluice / it", f"{scenario['unit']}/s", "p99 ms", "peak RSS MiB", "core 0 / 1 busy", "errors"]
        for n, r in ordered("cpu"):
            p99 = number(median(r, "p99_us") / 1e3) if scenario["kind"] == "rate" else "-"
            cores = " / ".join(f"{median(r, key) * 100:.0f}%" for key in ("core", "load_core"))
            yield [mark(n), span(r, "cpu", scale), ratio(results, n, "cpu"), span(r, "rate"), p99, number(r["peak_mib"] or 0), cores, r["errors"]]


def table(data):
    versions = ", ".join(f"{n} {v}" for n, v in sorted(data["versions"].items()))
    out = [f"{data['date']}, {data['cores']} x {data['cpu']}, Linux {data['kernel']}. {versions}."]
    for name in SCENARIOS:
        if name not in data["scenarios"]:
            continue
        result = data["scenarios"][name]
        out += ["", f"### {name}: {SCENARIOS[name]['what']}", ""]
        for i, row in enumerate(rows(name, result)):
            out.append("| " + " | ".join(map(str, row)) + " |")
            if i == 0:
                out.append("|---" * len(row) + "|")
        out += [f"\n{n} is left out: {why[:200]}" for n, why in result["skipped"].items()]
        disturbed = [f"{n} {r['disturbed']} of {r['samples']}" for n, r in result["peers"].items() if r["disturbed"]]
        if disturbed:
            out.append("\nSamples that others disturbed: " + ", ".join(disturbed) + ".")
    return "\n".join(out)
