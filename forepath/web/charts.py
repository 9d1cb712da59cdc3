"""What is drawn, as options of ECharts: pure functions of what page and API tell. Text takes the page's colour."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cpdb import MBIT, MIB
from forepath.web.layout import Spot, lay_out

Json = dict[str, Any]
# Okabe and Ito (2008), Color Universal Design: told apart also by those who see few colours.
SKY, ORANGE, VERMILLION, PURPLE, GREEN, BLUE, GREY = (
    "#56B4E9", "#E69F00", "#D55E00", "#CC79A7", "#009E73", "#0072B2", "#8a8f98",
)  # fmt: skip
# Share of capacity from which on, the word, colour and width: never colour alone.
LEVELS = (
    (1.0, "over", PURPLE, 9.0),
    (0.8, "tight", VERMILLION, 6.0),
    (0.5, "busy", ORANGE, 4.0),
    (0.0, "free", SKY, 2.5),
)
# More nodes than these side by side are drawn smaller.
ROOMY = 24
SYMBOLS = {"switch": "rect", "client": "circle", "host": "circle", "hypervisor": "roundRect", "vm": "diamond"}
SIZES = {"switch": (34, 20), "hypervisor": (34, 22), "vm": (16, 16)}
AXIS = {
    "axisLine": {"onZero": False, "lineStyle": {"color": GREY}},
    "splitLine": {"lineStyle": {"color": GREY, "opacity": 0.25}},
}
OUTER, INNER = ("0.1", "0.9"), ("0.25", "0.75")


def level_of(share: float | None) -> tuple[str, str, float]:
    """Word, colour and width of a share of capacity; None: nothing is known."""
    if share is None:
        return "not known", GREY, 1.5
    return next((word, colour, width) for least, word, colour, width in LEVELS if share >= least)


def draw_topology(told: Mapping[str, Any]) -> Json:
    """The network; a link's colour and width say how full its fuller direction is, its label says it in figures."""
    drawing = lay_out(_placed(told), ((one["from"], one["to"]) for one in told["links"]))
    shares = {one["name"]: _share_at(one, told) for one in told["nodes"]}
    shares |= {one["host"]: _share_at(one, told) for one in told["hosts"]}
    busy = {one["target"] for one in told["doing"] if one["outcome"] == "pending"}
    rows = Counter(round(one.place.y) for one in drawing.spots.values())
    shrink = min(1.0, ROOMY / max(rows.values(), default=1))
    series = {
        "type": "graph",
        "layout": "none",
        "roam": False,
        **({"labelLayout": {"hideOverlap": True}} if shrink < 1.0 else {}),
        "data": [_spot(one, shares.get(one.name), one.name in busy, shrink) for one in drawing.spots.values()],
        "links": [*_wires(told["links"], drawing.drawn_as, shrink), *_hung(drawing.spots.values(), told["links"])],
        "preserveAspect": True,
        "edgeSymbol": ["none", "none"],
        "left": 40, "right": 40, "top": 20, "bottom": 36,
    }  # fmt: skip
    return _options() | {"series": [series], "tooltip": {"confine": True}}


def _placed(told: Mapping[str, Any]) -> list[Json]:
    known = {one["name"] for one in told["nodes"]}
    bare = {end for one in told["links"] for end in (one["from"], one["to"])} - known
    return [*told["nodes"], *({"name": name, "kind": "host"} for name in sorted(bare))]


def _share_at(one: Mapping[str, Any], told: Mapping[str, Any]) -> float | None:
    ahead = one.get("share_q90") if told["ahead_s"] else None
    return one.get("share") if ahead is None else ahead


def _spot(one: Spot, share: float | None, acted_on: bool, shrink: float) -> Json:
    _, colour, _ = level_of(share)
    word = f" {share:.0%} CPU" if share is not None else ""
    name = f"{one.count} {one.name}" if one.count > 1 else one.name
    machine = one.kind in ("vm", "hypervisor")
    return {
        "name": one.name,
        "x": round(one.place.x, 1),
        "y": round(one.place.y, 1),
        "kind": one.kind,
        "symbol": SYMBOLS.get(one.kind, "circle"),
        "symbolSize": [max(5, round(shrink * size)) for size in SIZES.get(one.kind, (14, 14))],
        "itemStyle": {
            "color": colour if machine and share is not None else GREY,
            "borderColor": PURPLE if acted_on else "transparent",
            "borderWidth": 4 if acted_on else 0,
        },
        "label": {"show": True, "position": "bottom", "formatter": f"{name}{word}", "fontSize": 11},
        "tooltip": {"formatter": f"{one.kind} {name}{word}"},
    }


def _wires(found: Iterable[Mapping[str, Any]], drawn_as: Mapping[str, str], shrink: float) -> Iterable[Json]:
    """One line for both directions, the fuller one; the fullest of all come last and lie on top."""
    fullest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for one in found:
        a, b = sorted((drawn_as.get(one["from"], one["from"]), drawn_as.get(one["to"], one["to"])))
        if a != b and ((a, b) not in fullest or (one["share"] or -1) > (fullest[a, b]["share"] or -1)):
            fullest[a, b] = one
    for (a, b), one in sorted(fullest.items(), key=lambda item: item[1]["share"] or 0.0):
        word, colour, width = level_of(one["share"])
        width = width if word not in ("free", "not known") else max(0.5, shrink * width)
        share = one["share"]
        label = "" if share is None or share < LEVELS[-2][0] else f"{share:.0%}"
        told = f"{one['from']} to {one['to']}: " + (word if share is None else f"{share:.0%}, {word}")
        yield {
            "source": a,
            "target": b,
            "from": one["from"],
            "to": one["to"],
            "lineStyle": {
                "color": colour,
                "width": width,
                "type": "dashed" if share is None else "solid",
                "opacity": 1,
            },
            # Where labels are moved out of each other's way, those of lines stay where lines were before a resize.
            "label": {"show": bool(label) and shrink == 1.0, "formatter": label, "fontSize": 12, "fontWeight": "bold"},
            "tooltip": {"formatter": told},
        }


def _hung(spots: Iterable[Spot], wires: Iterable[Mapping[str, Any]]) -> Iterable[Json]:
    """Machines hang on their hosts by a thin line that is no link."""
    linked = {frozenset((one["from"], one["to"])) for one in wires}
    for one in spots:
        if one.parent and frozenset((one.name, one.parent)) not in linked:
            style = {"color": GREY, "width": 1, "type": "dotted", "opacity": 0.8}
            yield {"source": one.parent, "target": one.name, "lineStyle": style, "label": {"show": False}}


def _options() -> Json:
    return {"animation": False, "backgroundColor": "transparent", "aria": {"enabled": True}}


def draw_rates(told: Mapping[str, Any]) -> Json:
    """History, what had been foreseen of it, and the fan ahead of a pair or a link, in Mbit/s."""
    trusted_s = (told.get("trust") or {}).get("fast", {}).get("horizon_s", 0)
    past = [(row["t"] if isinstance(row, Mapping) else row[0], _rate(row)) for row in told["history"]]
    limit = told.get("capacity_bytes_per_s")
    lines = [("capacity", limit / MBIT)] if limit else []
    chart = _fan_chart(told["now"], past, told["fans"].get("fast", []), MBIT, "Mbit/s")
    if foreseen := told.get("foreseen"):
        earlier = _earlier(told["now"], foreseen)
        chart["series"] += earlier
        chart["legend"]["data"] += [one["name"] for one in earlier]
    return _marked(chart, lines, [("trusted", trusted_s)] if trusted_s else [])


def _rate(row: Any) -> float:
    return float(row["bytes_per_s"] if isinstance(row, Mapping) else row[1]) / MBIT


def draw_cpu(told: Mapping[str, Any]) -> Json:
    """CPU of a machine against its limit, or of a host against its capacity, in cores."""
    past = [(row["t"], row["cpu_cores_used"]) for row in told["history"]]
    chart = _fan_chart(told["now"], past, told["cpu"].get("fast", []), 1.0, "cores")
    return _limited(chart, told, "cpu_cores_limit", "cpu_cores_capacity", 1.0)


def draw_memory(told: Mapping[str, Any]) -> Json:
    """Memory of a machine against its limit, or of a host against its capacity, in MiB."""
    past = [(row["t"], row["memory_bytes_used"] / MIB) for row in told["history"]]
    chart = _fan_chart(told["now"], past, told["memory"].get("fast", []), float(MIB), "MiB")
    return _limited(chart, told, "memory_bytes_limit", "memory_bytes_capacity", float(MIB))


def _limited(chart: Json, told: Mapping[str, Any], of_vm: str, of_host: str, unit: float) -> Json:
    name = of_vm if told["kind"] == "machine" else of_host
    limits = [[row["t"] - told["now"], row[name] / unit] for row in told["history"]]
    style = {"color": VERMILLION, "type": "dashed"}
    chart["series"].append(_line("limit", limits, style) | {"step": "end"})
    return chart


def _fan_chart(now: float, past: Iterable[tuple[float, float]], fan: Sequence[Json], unit: float, name: str) -> Json:
    measured = [[t - now, value] for t, value in past]
    series = [_line("measured", measured, {"color": BLUE, "width": 2})]
    for label, (low, high), opacity in (("8 of 10", OUTER, 0.25), ("5 of 10", INNER, 0.35)):
        series += _band(label, _levels(fan, low, high), unit, opacity)
    middle = [[one["horizon_s"], value / unit] for one in fan if (value := _at(one, "0.5")) is not None]
    series.append(_line("expected, middle", middle, {"color": ORANGE, "width": 2}))
    axes = {
        "xAxis": {"type": "value", "name": "seconds from now", "nameLocation": "middle", "nameGap": 28, **AXIS,
                  "min": min([-30.0, *(t for t, _ in measured)]), "max": max([15, *(one["horizon_s"] for one in fan)])},
        "yAxis": {"type": "value", "name": name, "min": 0, **AXIS},
        "grid": {"left": 60, "right": 60, "top": 52, "bottom": 46},
    }  # fmt: skip
    legend = {"top": 0, "type": "scroll", "data": ["measured", "expected, middle", "8 of 10", "5 of 10"]}
    return _options() | axes | {"series": series, "legend": legend, "tooltip": {"trigger": "axis", "confine": True}}


def _at(one: Mapping[str, Any], level: str) -> float | None:
    return next((value for known, value in one["quantiles"].items() if abs(float(known) - float(level)) < 1e-9), None)


def _levels(fan: Sequence[Json], low: str, high: str) -> list[tuple[float, float, float]]:
    rows = ((one["horizon_s"], _at(one, low), _at(one, high)) for one in fan)
    return [(x, below, above) for x, below, above in rows if below is not None and above is not None]


def _band(name: str, rows: Iterable[tuple[float, float, float]], unit: float, opacity: float) -> list[Json]:
    """An area between two lines: ECharts stacks the difference on a line that is not seen."""
    rows = list(rows)
    hidden = {"lineStyle": {"opacity": 0}, "symbol": "none", "stack": name, "type": "line", "silent": True}
    low = {"data": [[x, below / unit] for x, below, _ in rows], "name": f"{name}, from", **hidden}
    area = {"color": ORANGE, "opacity": opacity}
    high = {
        "data": [[x, (above - below) / unit] for x, below, above in rows],
        "name": name,
        "areaStyle": area,
        **hidden,
    }
    return [low, high | {"itemStyle": {"color": ORANGE}}]


def _earlier(now: float, foreseen: Sequence[Json]) -> list[Json]:
    """What had been expected of what is measured by now: the middle and the upper end."""
    styles = (("q50", "had been expected, middle", {"color": GREEN, "width": 1.5}),
              ("q90", "had been expected, 9 of 10 below", {"color": GREEN, "width": 1, "type": "dotted"}))  # fmt: skip
    return [_line(name, [[one["t"] - now, one[key] / MBIT] for one in foreseen], style) for key, name, style in styles]


def _line(name: str, data: list[list[float]], style: Json) -> Json:
    colour = {"itemStyle": {"color": style["color"]}}
    return {"type": "line", "name": name, "data": data, "symbol": "none", "lineStyle": style, **colour}


def _marked(chart: Json, limits: Iterable[tuple[str, float]], moments: Iterable[tuple[str, float]]) -> Json:
    marks = [{"yAxis": value, "label": {"formatter": name}} for name, value in limits]
    marks += [{"xAxis": value, "label": {"formatter": f"{name} {value:.0f} s"}} for name, value in moments]
    marks.append({"xAxis": 0, "label": {"formatter": "now"}})
    style = {"color": GREY, "type": "solid"}
    chart["series"][0]["markLine"] = {"symbol": "none", "data": marks, "lineStyle": style, "animation": False}
    return chart


# Outcome -> colour and symbol: told apart by shape as well.
OUTCOMES = {
    "done": (BLUE, "circle"), "pending": (ORANGE, "roundRect"), "advised": (GREY, "diamond"),
    "skipped": (PURPLE, "triangle"), "failed": (VERMILLION, "triangle"), "reverted": (GREEN, "arrow"),
    "not_reverted": (VERMILLION, "pin"),
}  # fmt: skip


def draw_timeline(told: Mapping[str, Any]) -> Json:
    """The journal: a row a kind, a mark an action, by its outcome."""
    kinds = sorted({one["kind"] for one in told["timeline"]})
    series = []
    for outcome, (colour, symbol) in OUTCOMES.items():
        own = [one for one in told["timeline"] if one["outcome"] == outcome]
        points = [
            {"value": [1000 * one["issued_at"], one["kind"]], "number": one["id"], "tooltip": {"formatter": _mark(one)}}
            for one in own
        ]
        style = {"color": colour, "opacity": 0.85}
        series.append({"type": "scatter", "name": outcome, "data": points, "symbol": symbol, "symbolSize": 13,
                       "itemStyle": style})  # fmt: skip
    axes = {
        "xAxis": {"type": "time", "min": 1000 * _began(told), "max": 1000 * told["now"], **AXIS},
        "yAxis": {"type": "category", "data": kinds, **AXIS},
        "grid": {"left": 8, "right": 24, "top": 34, "bottom": 8, "containLabel": True},
    }
    legend = {"top": 0, "type": "scroll", "data": [one["name"] for one in series if one["data"]]}
    return _options() | axes | {"series": series, "legend": legend, "tooltip": {"confine": True}}


def _began(told: Mapping[str, Any]) -> float:
    """From when on there is something, a little before it."""
    first = min((one["issued_at"] for one in told["timeline"]), default=told["now"] - told["since_s"])
    return float(max(told["now"] - told["since_s"], first - 0.05 * (told["now"] - first) - 1.0))


def _mark(one: Mapping[str, Any]) -> str:
    what = str(one["what"]).replace("<", "&lt;")
    return f"#{one['id']} {what}: {one['outcome']}"


def draw_errors(told: Mapping[str, Any]) -> Json:
    """By horizon: WAPE of what was said, and the share of windows below the 0.9 quantile, which should be 0.9."""
    horizons = [f"{one['horizon_s']} s" for one in told["errors"]]
    bars = (("WAPE", "wape", SKY), ("below the 0.9 quantile", "covered_q90", ORANGE))
    series: list[Json] = [
        {"type": "bar", "name": name, "data": [one[key] for one in told["errors"]], "itemStyle": {"color": colour}}
        for name, key, colour in bars
    ]
    wanted = {"symbol": "none", "data": [{"yAxis": 0.9}], "lineStyle": {"color": ORANGE, "type": "dashed"}}
    series[1]["markLine"] = wanted | {"animation": False, "label": {"formatter": "0.9 wanted"}}
    axes = {
        "xAxis": {"type": "category", "data": horizons, "name": "horizon", **AXIS},
        "yAxis": {"type": "value", "min": 0, **AXIS},
        "grid": {"left": 50, "right": 70, "top": 34, "bottom": 30},
    }
    return _options() | axes | {"series": series, "legend": {"top": 0}, "tooltip": {"trigger": "axis", "confine": True}}


def draw_shares(told: Mapping[str, Any]) -> Json:
    """How much say each model has in what is forecast."""
    known = sorted(told["shares"].items(), key=lambda item: item[1])
    series = {
        "type": "bar",
        "data": [round(share, 4) for _, share in known],
        "itemStyle": {"color": SKY},
        "label": {"show": True, "position": "right"},
    }
    axes = {
        "xAxis": {"type": "value", "min": 0, "max": 1, **AXIS},
        "yAxis": {"type": "category", "data": [name for name, _ in known], **AXIS},
        "grid": {"left": 8, "right": 50, "top": 8, "bottom": 8, "containLabel": True},
    }
    return _options() | axes | {"series": [series]}
