"""Export the table as Markdown, CSV, or LaTeX with booktabs. Imports no torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from scopewise.report.columns import Column, columns
from scopewise.report.figures import Figure, lines, number
from scopewise.report.run_folder import Run
from scopewise.report.table import markdown as table_of_run
from scopewise.report.verdict import verdict

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def as_markdown(runs: Sequence[Run]) -> str:
    """Return the verdict and the table of each run as Markdown."""
    parts = []
    for run in runs:
        parts += [f"## {run.name}", "", verdict(run), "", table_of_run(run.results).rstrip(), ""]
    return "\n".join(parts)


def as_csv(runs: Sequence[Run]) -> str:
    """Return a line per method: value, interval (`_low`, `_high`) and deviation over seeds (`_sd`) of each metric."""
    shown = _columns(runs)
    heads = [column.key for column in shown]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "run",
            "method",
            "protocol",
            "seeds",
            *(f"{key}{end}" for key in heads for end in ("", "_low", "_high", "_sd")),
        ]
    )
    for run in runs:
        for line in lines(run):
            found = [line.figures.get(key) for key in heads]
            cells = [value for figure in found for value in _cells(figure)]
            writer.writerow([run.name, *line.group, len(line.seeds), *cells])
    return out.getvalue()


def as_latex(runs: Sequence[Run]) -> str:
    r"""Return a `tabular` with booktabs rules, to be `\input`; intervals (or deviations) are on a second line."""
    shown = _columns(runs)
    heads = [r"\textbf{Method}", *(rf"\textbf{{{latex(column.heading)}}}" for column in shown)]
    out = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * len(shown)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
    ]
    for run in runs:
        out.append(r"\midrule")
        if len(runs) > 1:
            out.append(rf"\multicolumn{{{len(shown) + 1}}}{{l}}{{\emph{{{latex(run.name)}}}}} \\")
        for line in lines(run):
            found = [line.figures.get(column.key) for column in shown]
            out.append(" & ".join([latex(line.label), *("--" if f is None else latex(f.text) for f in found)]) + r" \\")
            if any(f is not None and f.interval for f in found):
                spans = ["" if f is None or not f.interval else _span(f) for f in found]
                out.append(" & ".join(["", *spans]) + r" \\")
    return "\n".join([*out, r"\bottomrule", r"\end{tabular}", ""])


def latex(text: str) -> str:
    """Escape the special characters of LaTeX."""
    return "".join(_LATEX.get(c, c) for c in text).replace("\n", " ")


def _span(figure: Figure) -> str:
    if figure.low is not None and figure.high is not None:
        return rf"\scriptsize [{number(figure.low)}, {number(figure.high)}]"
    return rf"\scriptsize $\pm$ {number(figure.spread or 0.0)}"


def _columns(runs: Sequence[Run]) -> list[Column]:
    return list({column.key: column for run in runs for column in columns(run.results)}.values())


def _cells(figure: Figure | None) -> list[float | str]:
    if figure is None:
        return [""] * 4
    return ["" if v is None else round(v, 6) for v in (figure.value, figure.low, figure.high, figure.spread)]
