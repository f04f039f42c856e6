"""The result of scoring: the table of `rewards.Scores`, with errors and a conversion to pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rewards.scores import Scores
from t2ialign.scoring import output

if TYPE_CHECKING:
    import pyarrow as pa


class ScoreTable(Scores):
    """A table of scores: `scores["pickscore"]` is a column (B,), NaN where an image could not be scored."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        """The same as an Arrow table: file, prompt, shard, row, one column a reward, error."""
        columns = {
            name: torch.from_numpy(table[name].to_numpy().copy()).float() for name in output.rewards_of(table)
        }
        texts = [text or "" for text in table["prompt"].to_pylist()]
        super().__init__(table["file"].to_pylist(), texts, columns)

    @property
    def errors(self) -> list[str]:
        """Why images could not be scored, one line each; none if all were."""
        return [text for text in self.table["error"].to_pylist() if text is not None]

    def __repr__(self) -> str:
        lines = [f"errors: {len(self.errors)}, the first: {self.errors[0]}"] if self.errors else []
        return "\n".join([super().__repr__(), *lines])

    def to_pandas(self) -> Any:
        """The table as a pandas DataFrame."""
        return self.table.to_pandas()
