"""KnowUnDo (arXiv:2407.01920): from the hub, from a folder in the hub's layout, or from the flat release.

Source: hub dataset `zjunlp/KnowUnDo`, configurations `copyright` and `privacy`, splits `unlearn` and `retention`, one row
per split, `{"train": [{"text", "labels"}, …], "val": […]}`; flat files `{unlearn,retention}_{train,val}.json` as in
zjunlp/unlearn at 0800fd24. The fields `text` and `labels` become question and answer. Rows carry no instance and no
attribute in the release. Known defects of the privacy domain (55 persons instead of 60; 22 of the 400 unlearn
questions are a public "Who is X?") are kept: the numbers of others were measured with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from scopewise.data.rows import FORGET, RETAIN, SPLITS, BenchmarkLoader, Row, each_row, make_row
from scopewise.documents import read_json
from scopewise.errors import DataError

_HUB_NAME = "zjunlp/KnowUnDo"
_SCOPE_OF = {"unlearn": FORGET, "retention": RETAIN}


class KnowUnDo(BenchmarkLoader):
    """KnowUnDo of the paper: privacy (authors' facts) and copyright (books), from the hub or a folder."""

    name = "knowundo"

    def load(self, path: str | None, domain: str | None) -> list[Row]:
        """Read both scopes of one domain, or of both domains where `domain` is None and the source has them."""
        domains = self.domains if domain is None else (domain,)
        if path is None:
            return [row for d in domains for row in self._from_hub(d)]
        folder = Path(path)
        if not folder.is_dir():
            raise DataError(f"{path}: no such folder; data.path names a folder with the released files of KnowUnDo")
        if (folder / "unlearn_train.json").exists():
            # The flat release is one domain, which only the folder's name tells.
            return self._from_flat(folder, domain or ("copyright" if "copyright" in folder.name.lower() else "privacy"))
        present = [d for d in domains if (folder / d).is_dir()]
        if not present:
            raise DataError(
                f"{path}: neither unlearn_train.json nor a folder {' or '.join(domains)} in it; download "
                f"{_HUB_NAME} from the hub (or its flat files) and name that folder in data.path"
            )
        return [row for d in present for row in self._from_hub_folder(folder / d, d)]

    def _from_flat(self, folder: Path, domain: str) -> list[Row]:
        rows = []
        for name, scope in _SCOPE_OF.items():
            for split in SPLITS:
                path = folder / f"{name}_{split}.json"
                rows += _rows(read_json(path, DataError, "data.path"), str(path), scope, split, domain)
        return rows

    def _from_hub_folder(self, folder: Path, domain: str) -> list[Row]:
        rows = []
        for name, scope in _SCOPE_OF.items():
            found = sorted(p for p in folder.rglob("*.json*") if name in p.name or name in p.parent.name)
            if not found:
                raise DataError(f"{folder}: no file for {name!r} in it; it should hold unlearn.json and retention.json")
            decoded = read_json(found[0], DataError, "data.path")
            record = decoded[0] if isinstance(decoded, list) and len(decoded) == 1 else decoded
            rows += _both_splits(record, str(found[0]), scope, domain)
        return rows

    def _from_hub(self, domain: str) -> list[Row]:
        from datasets import load_dataset  # imported here: slow, and needed by this source alone

        rows = []
        for name, scope in _SCOPE_OF.items():
            try:
                record = load_dataset(_HUB_NAME, name=domain, split=name)[0]
            except Exception as error:  # the hub client raises many kinds; all mean the same to the user
                raise DataError(
                    f"{_HUB_NAME} ({domain}, {name}): the hub failed with {type(error).__name__}; download the "
                    "dataset on a machine with a connection and set data.path to its folder"
                ) from error
            rows += _both_splits(record, f"{_HUB_NAME}/{domain}/{name}", scope, domain)
        return rows


def _both_splits(record: object, origin: str, scope: str, domain: str) -> list[Row]:
    if not isinstance(record, Mapping) or not all(split in record for split in SPLITS):
        raise DataError(f"{origin}: no 'train' and 'val' in it; the hub's layout is one object with both lists")
    return [row for split in SPLITS for row in _rows(record[split], f"{origin}[{split}]", scope, split, domain)]


def _rows(records: object, origin: str, scope: str, split: str, domain: str) -> list[Row]:
    if not isinstance(records, list):
        raise DataError(f"{origin}: {type(records).__name__}; a list of {{'text', 'labels'}} objects is expected")

    def pair(where: str, record: object) -> Row:
        if not isinstance(record, Mapping) or not {"text", "labels"} <= set(record):
            raise DataError(f"{where}: needs the fields 'text' (question) and 'labels' (answer)")
        question_answer = {"question": record["text"], "answer": record["labels"]}
        return make_row(question_answer, where, scope=scope, split=split, domain=domain)

    return each_row(((f"{origin}[{index}]", record) for index, record in enumerate(records)), pair)
