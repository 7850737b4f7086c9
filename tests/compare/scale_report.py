"""The tables of `scale`, and what counts as growing too fast."""

from math import log2

MIB = 1 << 20
# what may be added for each doubling of the batches, over twice as much: a few listings have a page more
STEEP = 2.15
STRETCHES = ["split", "dispatch and collect", "merge"]


def figures(took):
    """One job's figures in one flat table."""
    requests, moved = took["store_requests"], took["store_bytes"]
    return {
        **{f"CPU s, {name}": took["stretches"][name]["cpu_seconds"] for name in STRETCHES},
        **{f"{name} requests": requests.get(name, 0) for name in ("put", "get", "head", "list", "delete")},
        "bytes read": moved.get("read", 0), "bytes written": moved.get("written", 0),
        "events": sum(took["events"].values()),
        "events handled": sum(room["handled"] for room in took["handlers"].values()),
        "objects": sum(folder["objects"] for folder in took["objects"].values()),
        "bytes of the plan": took["plan_bytes"],
    }


def pairs(small):
    """Jobs of which one has twice the batches of the other."""
    by_batches = {took["batches"]: took for took in small}
    return [(took, by_batches[2 * batches]) for batches, took in sorted(by_batches.items()) if 2 * batches in by_batches]


def too_steep(small):
    """(what, why not) for each figure that is counted and not timed: it may not more than double with the batches."""
    found = {}
    for one, two in pairs(small):
        before, after = figures(one), figures(two)
        for what in before:
            if what.startswith("CPU"):
                continue
            found.setdefault(what, "")
            if after[what] > STEEP * max(before[what], 1):
                found[what] = f"{before[what]:,} at {one['batches']:,} batches, {after[what]:,} at {two['batches']:,}"
    return sorted(found.items()) or [("nothing: no two sizes of which one is twice the other", "give such --batches")]


def tables(all_jobs):
    """What each job took."""
    if not all_jobs:
        return []
    lines = ["| rows | batches | wall s | CPU s | split | dispatch, collect | merge | peak MiB | objects | put | get | head | list "
             "| GB read | GB written | events | plan KB |", "|---" * 17 + "|"]
    for took in all_jobs:
        told, of = figures(took), took["stretches"]
        requests = " | ".join(f"{told[f'{name} requests']:,}" for name in ("put", "get", "head", "list"))
        parts = " | ".join(f"{of[name]['cpu_seconds']:.1f}" for name in STRETCHES)
        lines.append(f"| {took['rows']:,} | {took['batches']:,} | {took['seconds']:.1f} | {took['cpu_seconds']:.1f} | {parts} "
                     f"| {took['peak_bytes'] / MIB:.0f} | {told['objects']:,} | {requests} | {told['bytes read'] / 1e9:.2f} "
                     f"| {told['bytes written'] / 1e9:.2f} | {told['events']:,} | {took['plan_bytes'] / 1e3:.0f} |")
    return [*lines, "", "CPU seconds stand with their stage: of the splitter, of dispatcher and poller together, of the merger.", ""]


def growth(small):
    """What twice the batches make of each figure: 2.0 is in proportion, 4.0 is quadratic."""
    found = pairs(small)
    if not found:
        return []
    heads = " | ".join(f"{one['batches']:,} → {two['batches']:,}" for one, two in found)
    lines = [f"| growth | {heads} | power |", "|---" * (len(found) + 2) + "|"]
    for what in figures(small[0]):
        ratios = [figures(two)[what] / figures(one)[what] if figures(one)[what] else None for one, two in found]
        if all(ratio is None for ratio in ratios):
            continue
        cells = " | ".join("–" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
        power = f"{log2(ratios[-1]):.2f}" if ratios[-1] else "–"
        lines.append(f"| {what} | {cells} | {power} |")
    return [*lines, ""]
