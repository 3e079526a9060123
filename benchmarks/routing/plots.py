"""Bar charts as SVG, without a library: a title, groups of bars, their values, and a legend."""

from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#9aa5b1", "#c5b39a", "#7ba3cc", "#b7a6d6", "#8fbf9f", "#d1495b")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 760, 320, 20, 70, 40


def draw_bars(title: str, groups: Sequence[str], bars: Mapping[str, Sequence[float]]) -> str:
    """One group of bars for each name in `groups`, one bar in it for each entry of `bars`."""
    highest = max((value for values in bars.values() for value in values), default=0.0) or 1.0
    group_width = (_WIDTH - 2 * _LEFT) / len(groups)
    bar_width = group_width * 0.84 / len(bars)
    floor = _HEIGHT - _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    legend_x = float(_LEFT)
    for index, name in enumerate(bars):
        colour = COLOURS[-1] if len(bars) == 1 else COLOURS[index % len(COLOURS)]
        if len(bars) > 1:
            parts.append(f'<rect x="{legend_x:.0f}" y="36" width="10" height="10" fill="{colour}"/>')
            parts.append(f'<text x="{legend_x + 14:.0f}" y="45">{escape(name)}</text>')
            legend_x += 30 + 7.0 * len(name)
        for group, value in enumerate(bars[name]):
            x = _LEFT + group * group_width + group_width * 0.08 + index * bar_width
            height = (floor - _TOP) * value / highest
            middle, above = f"{x + bar_width * 0.45:.1f}", f"{floor - height - 4:.1f}"
            parts.append(
                f'<rect x="{x:.1f}" y="{floor - height:.1f}" width="{bar_width * 0.9:.1f}" height="{height:.1f}" fill="{colour}"/>'
            )
            parts.append(f'<text x="{middle}" y="{above}" text-anchor="middle" font-size="11">{value:.0f}</text>')
    for group, name in enumerate(groups):
        x = _LEFT + (group + 0.5) * group_width
        parts.append(f'<text x="{x:.1f}" y="{floor + 20}" text-anchor="middle">{escape(name)}</text>')
    parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _LEFT}" y1="{floor}" y2="{floor}" stroke="#333"/>')
    return "\n".join([*parts, "</svg>", ""])
