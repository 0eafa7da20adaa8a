"""The plot: store bytes per CPU-second on a log scale, a panel a job, one thread. SVG by hand, readable on a light and on
a dark page: the reader's page chooses, and colours of middle lightness carry on both.
"""

import math
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 880, 244, 86
BAR, GAP, HEAD, FOOT, PANEL_GAP = 20, 8, 84, 64, 30

STYLE = """
text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif; fill: #24292f }
.title { font-size: 17px; font-weight: 600 } .job { font-weight: 600 } .small { font-size: 12px; fill: #57606a }
.grid { stroke: #8c959f; stroke-opacity: .35 } .bound { stroke: #bf5b04; stroke-width: 1.5; stroke-dasharray: 5 4 }
.bound-words { font-size: 12px; fill: #bf5b04 } .ours { fill: #1f7a8c } .theirs { fill: #8d99a6 } .copy { fill: #c08a2b }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9da7b3 } .grid { stroke: #6e7681 } .bound { stroke: #f0883e }
.bound-words { fill: #f0883e } .ours { fill: #39a9bd } .theirs { fill: #76818d } .copy { fill: #d29f3f } }
"""


def _ticks(low, high):
    """Powers of ten, low and high included."""
    return [10.0 ** power for power in range(int(math.log10(low)), int(math.log10(high)) + 1)]


def _words(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def render(title, subtitle, panels, bound, bound_words):
    """`panels`: [(job title, [(label, GB per CPU-second, class)])], bars in the order to show. `bound` in the same unit."""
    values = [value for _, bars in panels for _, value, _ in bars] + [bound]
    low = 10.0 ** math.floor(math.log10(min(values) * 0.999))
    high = 10.0 ** math.ceil(math.log10(max(values) * 1.001))
    span = WIDTH - LEFT - RIGHT
    x = lambda value: LEFT + span * (math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low))
    out, y = [], HEAD
    for job, bars in panels:
        top = y + 24
        bottom = top + len(bars) * (BAR + GAP)
        out.append(f'<text class="job" x="{LEFT}" y="{y + 13}">{escape(job)}</text>')
        for tick in _ticks(low, high):
            out.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top - 3}" y2="{bottom}"/>')
        for number, (label, value, kind) in enumerate(bars):
            at = top + number * (BAR + GAP)
            out.append(f'<text x="{LEFT - 10}" y="{at + 15}" text-anchor="end">{escape(label)}</text>')
            out.append(f'<rect class="{kind}" x="{LEFT}" y="{at}" width="{max(x(value) - LEFT, 1):.1f}" height="{BAR}" rx="2"/>')
        out.append(f'<line class="bound" x1="{x(bound):.1f}" x2="{x(bound):.1f}" y1="{top - 3}" y2="{bottom}"/>')
        for number, (_, value, _) in enumerate(bars):
            # The number stands right of the bar, and of the bound where it would touch it.
            at, place = top + number * (BAR + GAP), x(value) + 7
            width = 8 * len(_words(value))
            if place - 3 < x(bound) < place + width + 3:
                place = x(bound) + 7
            out.append(f'<text x="{place:.1f}" y="{at + 15}">{_words(value)}</text>')
        y = bottom + PANEL_GAP
    axis = y - PANEL_GAP + 18
    for tick in _ticks(low, high):
        words = f"{tick:,.0f}" if tick >= 1 else f"{tick:g}"
        out.append(f'<text class="small" x="{x(tick):.1f}" y="{axis}" text-anchor="middle">{words}</text>')
    out.append(f'<text class="small" x="{LEFT + span / 2:.0f}" y="{axis + 20}" text-anchor="middle">'
               "GB of store for each second of CPU time, log scale (longer is better)</text>")
    height = axis + FOOT - 30
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>",
        f'<text class="title" x="20" y="30">{escape(title)}</text>',
        f'<text class="small" x="20" y="50">{escape(subtitle)}</text>',
        f'<line class="bound" x1="20" x2="48" y1="64" y2="64"/>',
        f'<text class="bound-words" x="56" y="68">{escape(bound_words)}</text>',
    ]
    return "\n".join(head + out + ["</svg>"]) + "\n"


def of_run(run, kit, bounds):
    """The plot of a run: rows on one thread, fastest first; None when there is nothing to compare."""
    from table import GB, order, rate
    panels = []
    for job in kit.jobs:
        bars = []
        rows = [row for row in kit.rows if row.job == job.name and row.threads == min(kit.options.threads)
                and row.counts and row.mode not in ("start", "cp, synced", "warm, synced") and "from disk" not in row.mode]
        for row in order(rows):
            kind = {"outpour": "ours", "cp": "copy"}.get(row.engine, "theirs")
            label = {"outpour": f"outpour, {row.mode}", "cp": "cp of its files"}.get(
                row.engine, row.engine.replace(" (chdb)", "") + (", loaded before" if row.mode == "loaded" else ""))
            bars.append((label, rate(row, kit), kind))
        if bars:
            panels.append((job.title.replace("`", ""), bars))
    if not panels or not bounds.get("read"):
        return None
    box = run["machine"]
    return render("Export of a Group: store bytes for each second of CPU time",
                  f"{kit.store.bytes / GB:.2g} GB of Synthea records, one thread, {box['cpu']}, {run['date']}; same answers, "
                  "compared line by line", panels, 1 / (bounds["read"] * GB),
                  f"reading every byte of the store once (memchr): {1 / (bounds['read'] * GB):.1f} GB/s")
