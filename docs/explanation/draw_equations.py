"""Draw equations.svg, a step of the layer in both reset modes: python docs/explanation/draw_equations.py"""

from pathlib import Path

WIDTH, AFTER, BEFORE = 640, 470, 560  # upright: scaled to the width of a phone, letters can still be read
INK, STATE, INPUT, GATE, CANDIDATE = "#222", "#087f5b", "#1864ab", "#b35900", "#862e9c"
FILL = {STATE: "#e6fcf5", INPUT: "#e7f5ff", GATE: "#fff4e6", CANDIDATE: "#f8f0fc"}
BAR = "h&#772;"  # the candidate
TIMES = "&#215;"


def text(x, y, words, size=23, **style):
    rest = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in style.items())
    return f'<text x="{x}" y="{y}" font-size="{size}"{rest}>{words}</text>'


def low(letter):
    """An index."""
    return f'<tspan dy="6" font-size="16">{letter}</tspan><tspan dy="-6">&#8203;</tspan>'


def box(x, y, words, colour, width=92):
    frame = f'x="{x - width / 2}" y="{y - 26}" width="{width}" height="52" rx="8"'
    return f'<rect {frame} fill="{FILL[colour]}" stroke="{colour}" stroke-width="2.5"/>' + text(
        x, y + 8, words, fill=colour
    )


def reset(x, y):
    """Where r multiplies."""
    circle = f'<circle cx="{x}" cy="{y}" r="19" fill="{GATE}"/>'
    return circle + text(x, y + 9, TIMES, 28, fill="white", font_weight="bold")


def arrow(*points):
    path = " L ".join(f"{x} {y}" for x, y in points)
    return f'<path d="M {path}" fill="none" stroke="{INK}" stroke-width="2" marker-end="url(#head)"/>'


def step(top, name, remark, reset_after):
    sources, gates = top + 115, top + 230
    candidate = gates + (95 if reset_after else 185)
    blend = candidate + 95
    parts = [
        text(20, top + 36, name, 26, text_anchor="start", font_weight="bold"),
        text(20, top + 66, remark, 20, text_anchor="start"),
    ]
    for x, letter in ((110, "z"), (310, "r")):
        parts += [
            box(x - 49, sources, f"x&#183;W{low(letter)}", INPUT),
            box(x + 49, sources, f"h&#183;U{low(letter)}", STATE),
            arrow((x - 40, sources + 26), (x - 15, gates - 28)),
            arrow((x + 40, sources + 26), (x + 15, gates - 28)),
            box(x, gates, f"{letter} = f(+)", GATE, 116),
        ]
    parts += [
        arrow((368, gates), (447, gates)),
        reset(468, gates),
        box(578, sources, f"x&#183;W{low('h')}", INPUT),
        arrow((578, sources + 26), (560, candidate - 28)),
        box(528, candidate, f"{BAR} = g(+)", CANDIDATE, 124),
    ]
    if reset_after:
        parts += [
            box(468, sources, f"h&#183;U{low('h')} + c", STATE, 116),
            arrow((468, sources + 26), (468, gates - 21)),
            arrow((475, gates + 18), (502, candidate - 28)),
        ]
    else:
        product = gates + 90
        parts += [
            box(468, sources, "h", STATE, 60),
            arrow((468, sources + 26), (468, gates - 21)),
            arrow((468, gates + 19), (468, product - 28)),
            box(468, product, f"(r {TIMES} h)&#183;U{low('h')}", STATE, 132),
            arrow((478, product + 26), (502, candidate - 28)),
        ]
    parts += [
        arrow((110, gates + 26), (110, blend - 28)),
        box(310, candidate, "h", STATE, 60),
        arrow((310, candidate + 26), (310, blend - 28)),
        arrow((528, candidate + 26), (528, blend - 28)),
        box(320, blend, f"h&#8242; = z {TIMES} h + (1 &#8722; z) {TIMES} {BAR}", STATE, 560),
    ]
    return parts


def main():
    height = AFTER + BEFORE
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="Helvetica, Arial, sans-serif" text-anchor="middle" fill="{INK}">',
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M 0 0 L 10 5 L 0 10 z" fill="{INK}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        *step(0, "reset_after=True", "r after the product with U", True),
        *step(AFTER, "reset_after=False", "r before the product with U", False),
        "</svg>",
    ]
    Path(__file__).with_name("equations.svg").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
