"""The tables of a comparison, and the limits that a release keeps."""

from statistics import median

from common import CSV_PATH

OURS = "batchmill"
MIB = 1 << 20
NAMES = {"split_csv": "split CSV", "split_parquet": "split Parquet", "encode": "encode", "ingest": "ingest",
         "merge_csv": "merge to CSV", "merge_parquet": "merge to Parquet"}
# CPU time against the best peer
CPU_GATES = {"split_csv": 0.55, "split_parquet": 0.55, "encode": 0.22, "ingest": 0.50, "merge_csv": 0.30,
             "merge_parquet": 0.05}
PATH_GATE = 0.33
# peak memory against the leanest peer, and at all
PEAK_GATES = {"merge_csv": 0.5, "merge_parquet": 0.5}
PEAK_MIB = 256


def medians(runs):
    """{stage: {program: {figure: median}}} of {stage: {program: [Measure]}}."""
    return {stage: {program: {figure: median(getattr(found, figure) for found in measures)
                              for figure in ("wall", "cpu", "peak", "out", "other")}
                    for program, measures in programs.items()}
            for stage, programs in runs.items()}


def best(programs, figure):
    """The peer with the smallest figure; None without peers."""
    peers = [name for name in programs if name != OURS]
    return min(peers, key=lambda name: programs[name][figure]) if peers else None


def ratio(programs, name, figure):
    """A figure against the peer that is best in it."""
    peer = best(programs, figure)
    return programs[name][figure] / programs[peer][figure] if peer else None


def shown(number):
    """A ratio in a cell."""
    return "–" if number is None else f"{number:.2f}"


def csv_path(found):
    """(ours, best peers', ratio) in CPU seconds over the CSV path; None unless all its stages have both."""
    if any(OURS not in found.get(stage, {}) or not best(found[stage], "cpu") for stage in CSV_PATH):
        return None
    ours = sum(found[stage][OURS]["cpu"] for stage in CSV_PATH)
    peers = sum(found[stage][best(found[stage], "cpu")]["cpu"] for stage in CSV_PATH)
    return ours, peers, ours / peers


def summary(found):
    """batchmill beside the best peer of each stage."""
    lines = ["| stage | best peer | CPU s | batchmill CPU s | ratio | wall, against the quickest | leanest peer | peak MiB "
             "| batchmill peak MiB | ratio |", "|---|---|---|---|---|---|---|---|---|---|"]
    for stage, programs in found.items():
        if OURS not in programs or not (peer := best(programs, "cpu")):
            continue
        lean, ours = best(programs, "peak"), programs[OURS]
        lines.append(f"| {NAMES[stage]} | {peer} | {programs[peer]['cpu']:.2f} | {ours['cpu']:.2f} "
                     f"| **{shown(ratio(programs, OURS, 'cpu'))}** | {shown(ratio(programs, OURS, 'wall'))} "
                     f"| {lean} | {programs[lean]['peak'] / MIB:.0f} | {ours['peak'] / MIB:.0f} "
                     f"| {shown(ratio(programs, OURS, 'peak'))} |")
    if len(lines) == 2:
        return []
    if path := csv_path(found):
        lines += ["", f"CSV path (split CSV + encode + ingest + merge to CSV, each against its best peer): batchmill "
                      f"{path[0]:.2f} s of CPU, best peers {path[1]:.2f} s, ratio **{path[2]:.2f}**."]
    return [*lines, ""]


def details(runs, found):
    """Every program in every stage."""
    lines = ["| stage | program | CPU s | wall s | peak MiB | output MB | CPU ratio | wall ratio | peak ratio | rounds "
             "| others' CPU |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    for stage, programs in found.items():
        for name, figures in programs.items():
            ratios = " | ".join(shown(ratio(programs, name, figure)) for figure in ("cpu", "wall", "peak"))
            lines.append(f"| {NAMES[stage]} | {name} | {figures['cpu']:.2f} | {figures['wall']:.2f} "
                         f"| {figures['peak'] / MIB:.0f} | {figures['out'] / 1e6:.1f} | {ratios} "
                         f"| {len(runs[stage][name])} | {figures['other'] * 100:.0f} % |")
    return lines


def report(runs, title):
    """Both tables as Markdown."""
    found = medians(runs)
    return "\n".join([f"### {title}", "", *summary(found), *details(runs, found), ""])


def gates(runs):
    """Each limit as (what, figure, limit); a figure that is lacking is None, and fails."""
    found = medians(runs)
    for stage, programs in found.items():
        if OURS not in programs:
            yield f"{NAMES[stage]} is measured", None, 0
            continue
        yield f"CPU of {NAMES[stage]} against the best peer", ratio(programs, OURS, "cpu"), CPU_GATES[stage]
        yield f"peak MiB of {NAMES[stage]}", programs[OURS]["peak"] / MIB, PEAK_MIB
        if stage in PEAK_GATES:
            yield f"peak of {NAMES[stage]} against the leanest peer", ratio(programs, OURS, "peak"), PEAK_GATES[stage]
    if all(stage in found for stage in CSV_PATH):
        path = csv_path(found)
        yield "CPU of the CSV path against the best peers", path and path[2], PATH_GATE
