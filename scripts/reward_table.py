"""The table of rewards in docs/rewards.md, written from what the files of rewards declare.

    python -m scripts.reward_table

Beside `NAMES` a file has `TABLE`: its names, divided by commas, -> the cells of their row, divided by " | ".
"""

from __future__ import annotations

from pathlib import Path

import rewards
from rewards.declared import literal

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs" / "rewards.md"
COMMAND = "python -m scripts.reward_table"
HEAD = (
    "name",
    *(
        "weights, by default from",
        "what it sees of the image",
        "of the prompt",
        "score",
        "gradient",
        "licence",
    ),
)
BEGIN, END = f"<!-- written by {COMMAND} -->\n", "<!-- end -->\n"


def main() -> None:
    """Write the table into the page."""
    DOCS.write_text(replaced(DOCS.read_text(encoding="utf-8"), table()), encoding="utf-8")
    print(f"wrote the table of {len(rewards.names())} rewards into {DOCS.relative_to(ROOT)}")


def table() -> str:
    """Markdown, a row for each entry of a file's `TABLE`, scorers first.

    Raises ValueError for a name without a row, and for a row with too few or too many cells.
    """
    modules = sorted(set(rewards.names().values()), key=lambda name: (".scorers." not in name, name))
    lines = [_line(HEAD), "|" + "---|" * len(HEAD)]
    for module in modules:
        file = ROOT / f"{module.replace('.', '/')}.py"
        rows = rows_of(file)
        _check(file, rows, {name for name, home in rewards.names().items() if home == module})
        lines += [_line((", ".join(f"`{name}`" for name in names), *cells)) for names, cells in rows]
    return "".join(f"{line}\n" for line in lines)


def rows_of(file: Path) -> list[tuple[list[str], list[str]]]:
    """Names and cells of each row that a file declares, read without importing it; [] without `TABLE`."""
    return [(names.split(", "), cells.split(" | ")) for names, cells in literal(file, "TABLE").items()]


def replaced(page: str, rows: str) -> str:
    """The page with these rows between its two marks. Raises ValueError for a page without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(
            f"got a page without {BEGIN.strip()} and {END.strip()}; expected both; put them back"
        )
    return before + begin + rows + end + after


def _check(file: Path, rows: list[tuple[list[str], list[str]]], declared: set[str]) -> None:
    if missing := sorted(declared - {name for names, _ in rows for name in names}):
        raise ValueError(
            f"got no row for {missing[0]} in TABLE of {file.relative_to(ROOT)}; expected one for each of "
            f'NAMES; add "{missing[0]}": "{" | ".join(HEAD[1:])}"'
        )
    for names, cells in rows:
        if len(cells) != len(HEAD) - 1:
            raise ValueError(
                f"got {len(cells)} cells for {names[0]} in TABLE of {file.relative_to(ROOT)}; expected "
                f"{' | '.join(HEAD[1:])}; correct the row"
            )


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
