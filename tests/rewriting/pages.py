"""What a reader gets of a page: its words, and the files that it links."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote


class Page(HTMLParser):
    """The elements, attributes and words of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        """Text between elements, but for that of the stylesheet and the script."""
        if self.tags[-1:] not in (["style"], ["script"]):
            self.words += data.split()


def words_of(file: Path) -> str:
    """The text of a page with single blanks."""
    return " ".join(Page(file).words)


def links(file: Path) -> list[Path]:
    """The files of the images of a page."""
    return [file.parent / unquote(value) for name, value in Page(file).attributes if name == "src"]
