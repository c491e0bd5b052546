"""What is wrong with a data set, one plain sentence each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """Something about a data set that a person should know before training on it.

    Attributes
    ----------
    severity
        `"error"`: what is learnt would be wrong, or nothing would; `"warning"`: it may be as it should be.
    kind
        A short word that problems of the same sort share, `"shape"`, `"empty"` ...
    what
        What is wrong, without a closing full stop.
    remedy
        What can be done about it, as an imperative clause; may be empty.
    case
        Name of the case it is about; empty where it is about all.
    """

    severity: Severity
    kind: str
    what: str
    remedy: str = ""
    case: str = ""

    def __str__(self) -> str:
        told = f"{self.case}: {self.what}" if self.case else self.what
        return f"{told}; {self.remedy}." if self.remedy else f"{told}."


def describe(problems: Iterable[Problem], *, most: int = 3) -> str:
    """Problems as text for a shell: errors first, and of each sort no more than `most`.

    Examples
    --------
    >>> print(describe([Problem("warning", "empty", "The mask is empty", "check that nothing is there", "a")]))
    Warning  a: The mask is empty; check that nothing is there.
    0 errors, 1 warning.
    """
    found = list(problems)
    if not found:
        return "No problem was found."
    sorts: dict[tuple[Severity, str], list[Problem]] = {}
    for problem in found:
        sorts.setdefault((problem.severity, problem.kind), []).append(problem)
    lines = []
    for (severity, _), alike in sorted(sorts.items(), key=lambda item: item[0][0] != "error"):
        lines += [f"{severity.capitalize():<8} {problem}" for problem in alike[:most]]
        if rest := [problem.case for problem in alike[most:]]:
            names = ", ".join(name for name in rest[:5] if name) + (" ..." if len(rest) > 5 else "")
            lines.append(f"{'':<8} and {len(rest)} more of this kind" + (f": {names}" if names.strip(" .") else ""))
    errors = sum(problem.severity == "error" for problem in found)
    return "\n".join([*lines, f"{_counted(errors, 'error')}, {_counted(len(found) - errors, 'warning')}."])


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
