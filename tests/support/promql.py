"""Which metrics and labels an expression of Prometheus asks for."""

import re

_WORDS = frozenset(
    {"by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool", "and", "or", "unless"}
)
_SELECTOR = re.compile(r"\{([^}]*)\}")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


def asked_for(expression: str) -> tuple[set[str], set[str]]:
    """The names of metrics, and those of labels."""
    labels: set[str] = set()
    for selector in _SELECTOR.findall(expression):
        labels |= set(re.findall(r"([A-Za-z_][A-Za-z0-9_]*)\s*(?:=~|!~|!=|=)", selector))
    rest = _SELECTOR.sub("", expression)
    for grouping in _GROUPING.findall(rest):
        labels |= {label.strip() for label in grouping.split(",") if label.strip()}
    rest = re.sub(r"\[[^\]]*\]|\"[^\"]*\"", "", _GROUPING.sub("", rest))
    names = set(re.findall(r"(?<![\w.])([A-Za-z_:][A-Za-z0-9_:]*)(?!\w)(?!\s*\()", rest))
    return names - _WORDS, labels
