"""PISTOL (arXiv:2406.16810): a graph of fictitious contracts, of which one or a few are to be forgotten.

Source: hub dataset `xinchiqiu/PISTOL`, configurations `pistol_data_1` and `pistol_data_2`, files `sample_data_1.json` and
`sample_data_2.json`, which bill-shen-BS/PISTOL at 9851fb5 has in `data/`; columns `question`, `answer`, `edge`. The name of an
edge is that of its two parties (`A_C`). docs/benchmarks.md has the details.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from scopewise.data.hub import Record, Table, file_records, table_records, text_column
from scopewise.data.rows import FORGET, RETAIN, SPLITS, TRAIN, VAL, WORLD_FACTS, BenchmarkLoader, Row, make_row
from scopewise.errors import DataError
from scopewise.registry import nearest

_DEFAULT = "A_C"
_COLUMNS = ("question", "answer", "edge")


class PISTOL(BenchmarkLoader):
    """PISTOL: forget one contract, or several, of a graph of fictitious companies and persons; keep the others."""

    name = "pistol"
    repository: ClassVar[str] = "xinchiqiu/PISTOL"
    domains = ()
    """The names of the contracts, which the data say."""
    taught = (TRAIN,)
    data: ClassVar[Mapping[str, Any]] = {"prompt": "Question: {question}\nAnswer: ", "max_length": 256}
    suite: ClassVar[Mapping[str, Any]] = {
        "metrics": (
            "unlearn_success",
            "retention_success",
            "average_success",
            "probability",
            "rouge_1_recall",
            "rouge_l_recall",
            "exact_match_generated",
        ),
        "splits": (VAL,),
        "generate_splits": (VAL,),
        "direct_splits": (),
        "max_new_tokens": 32,
    }

    def load(self, path: str | None, domain: str | None) -> list[Row]:
        """Read the graph that has the contracts `domain`, joined by commas; None takes `A_C`.

        Every row is both trained on and asked again: train and val hold the same. Raises DataError for an unknown contract.
        """
        asked = [name.strip() for name in (domain or _DEFAULT).split(",")]
        records = self._graph(path, asked[0])
        edges = list(dict.fromkeys(text_column(record, "edge", origin) for origin, record in records))
        for name in asked:
            if name not in edges:
                raise DataError(
                    f"data.domain: {name!r}; this data of pistol has {len(edges)} contracts, among them "
                    f"{', '.join(map(repr, edges[:3]))}; name one of them, or several with commas.{nearest(name, edges)}"
                )
        parties = {party for name in asked for party in name.split("_")}
        rows = [_row(one, split, asked, parties) for split in SPLITS for one in records]
        return rows + self._world_facts(path)

    def _graph(self, path: str | None, edge: str) -> list[Record]:
        """Return the records of a file, or of the sample that has an edge (of both, if none has)."""
        if path is not None and Path(path).is_file():
            return file_records(Table(self.repository, "", "", (), _COLUMNS), Path(path))
        records: list[Record] = []
        for number in (1, 2):
            stem = f"sample_data_{number}"
            table = Table(self.repository, f"pistol_data_{number}", TRAIN, (stem, f"data/{stem}"), _COLUMNS)
            sample = table_records(table, path)
            if any(record["edge"] == edge for _, record in sample):
                return sample
            records += sample
        return records

    def _world_facts(self, path: str | None) -> list[Row]:
        """Return the questions of general knowledge, which the git repository has and the hub does not."""
        if path is None:
            return []
        folder = Path(path).parent if Path(path).is_file() else Path(path)
        files = ("data/factual_data", "factual_data")
        table = Table(self.repository, "", "factual_data", files, _COLUMNS[:2], optional=True)
        return [
            make_row(_pair(record), origin, scope=WORLD_FACTS, split=VAL)
            for origin, record in table_records(table, str(folder))
        ]


def _row(origin_record: Record, split: str, forgotten: Collection[str], parties: Collection[str]) -> Row:
    """Return a row of a contract; a retain row's attribute is whether the contract shares a party with a forgotten one."""
    origin, record = origin_record
    edge = record["edge"]
    if edge in forgotten:
        return make_row(_pair(record), origin, scope=FORGET, split=split, instance=edge)
    attribute = "linked" if set(edge.split("_")) & set(parties) else "unlinked"
    return make_row(_pair(record), origin, scope=RETAIN, split=split, instance=edge, attribute=attribute)


def _pair(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"question": record["question"], "answer": record["answer"]}
