"""The colours of figures and pages: one table, a light and a dark value for each name.

Figures are drawn with the light values; in a page each becomes `var(--name)`, so that one SVG suits both schemes.
Data colours are those of Okabe and Ito (2008, https://jfly.uni-koeln.de/color/), lightened for the dark scheme.
"""

INK: dict[str, tuple[str, str]] = {
    "ink": ("#1b2229", "#e6e9ec"),
    "muted": ("#57616b", "#a3adb7"),
    "rule": ("#d9dee3", "#39424b"),
    "paper": ("#fefefe", "#14181d"),
}

DATA: dict[str, tuple[str, str]] = {
    "blue": ("#0072b2", "#56a8dc"),
    "vermillion": ("#d55e00", "#f08747"),
    "green": ("#009e73", "#35c79d"),
    "purple": ("#cc79a7", "#dd9dc1"),
    "orange": ("#e69f00", "#f0b63c"),
    "sky": ("#56b4e9", "#8fd0f5"),
    "yellow": ("#f0e442", "#f4ec7c"),
}

# Few to many: lightness alone carries the order, away from the paper in either scheme.
RAMP: dict[str, tuple[str, str]] = {
    "ramp-1": ("#e6f0f7", "#1d2c38"),
    "ramp-2": ("#c3dcec", "#1f4159"),
    "ramp-3": ("#98c4df", "#20587c"),
    "ramp-4": ("#66a8cf", "#2272a1"),
    "ramp-5": ("#3389bc", "#3d94c6"),
    "ramp-6": ("#0d659c", "#76b9e0"),
    "ramp-7": ("#03406b", "#bfe1f6"),
}

COLOURS: dict[str, tuple[str, str]] = INK | DATA | RAMP
LIGHT: dict[str, str] = {name: light for name, (light, _) in COLOURS.items()}
