"""Run OpenUnlearning's metrics on small models and write what they return: numbers and row indices, no text.

    python tests/parity/record_open_unlearning_metrics.py CHECKOUT [--tofu FOLDER]

CHECKOUT is an unchanged clone of locuslab/open-unlearning at d3d7cf9; FOLDER holds TOFU's JSON lines as the hub has them
(`forget10_perturbed.jsonl`, …). Needs omegaconf and scikit-learn, which their code imports.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from checkout import origin, verified, write
from questions import MAX_NEW_TOKENS, PROMPT, Rows, made_rows, tofu_rows, word_model, word_tokenizer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

COMMIT = "d3d7cf9e6b3c125d16687d4232680d8d83548f1a"
OUTPUT = Path(__file__).with_name("open_unlearning_metrics_d3d7cf9.json")
KEPT = ("retain", "real_authors", "world_facts")
ATTACKS: dict[str, dict[str, Any]] = {
    "mia_loss": {},
    "mia_zlib": {},
    "mia_reference": {},
    "mia_min_k": {"k": 0.4},
    "mia_min_k_plus_plus": {"k": 0.4},
    "mia_gradnorm": {"p": 2, "batch_size": 1},
}


def main() -> None:
    """Record everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--tofu", type=Path)
    arguments = parser.parse_args()
    checkout = verified(arguments.checkout, COMMIT)
    torch.set_num_threads(1)
    sys.path.insert(0, str(checkout / "src"))
    package = ModuleType("evals")  # its own __init__ imports lm-eval
    package.__path__ = [str(checkout / "src" / "evals")]
    sys.modules["evals"] = package
    recorded = {**origin(__file__, COMMIT), "made": record(made_rows())}
    if arguments.tofu:
        recorded["tofu"] = record(tofu_rows(arguments.tofu))
    write(OUTPUT, recorded)


def record(rows: Rows) -> dict[str, Any]:
    """Return every measure of a model that knows all scopes but the holdout, against one that does not know forget."""
    tokenizer = word_tokenizer(rows)
    target = word_model(rows, tokenizer, ("forget", *KEPT))
    retain = word_model(rows, tokenizer, KEPT)
    with tempfile.TemporaryDirectory() as folder:
        retain.save_pretrained(Path(folder) / "retain")
        suite = Suite(rows, tokenizer, Path(folder))
        reference = suite.measures(retain, None)
        return {"target": plain(suite.measures(target, reference)), "retain": plain(reference)}


class Suite:
    """TOFU's suite, each metric by its function in their registry, without Hydra."""

    def __init__(self, rows: Rows, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
        from data.collators import DataCollatorForSupervisedDataset
        from evals.metrics import METRICS_REGISTRY
        from omegaconf import OmegaConf

        self.registry = METRICS_REGISTRY
        self.tokenizer, self.folder = tokenizer, folder
        self.collate = DataCollatorForSupervisedDataset(tokenizer, index="index")
        self.collate_left = DataCollatorForSupervisedDataset(tokenizer, padding_side="left", index="index")
        self.generation = OmegaConf.create(
            {
                "do_sample": False,
                "temperature": None,
                "top_p": None,
                "max_new_tokens": MAX_NEW_TOKENS,
                "use_cache": True,
            }
        )
        for scope, given in rows.items():
            lines = [json.dumps(row) for row in given]
            (folder / f"{scope}.jsonl").write_text("\n".join(lines), encoding="utf-8")

    def data(self, scope: str, answer: str = "answer", generate: bool = False) -> Any:
        """Return a scope's rows as their dataset."""
        from data.qa import QADataset

        start, end, answer_start = PROMPT
        return QADataset(
            {"path": "json", "data_files": str(self.folder / f"{scope}.jsonl"), "split": "train"},
            {
                "apply_chat_template": False,
                "user_start_tag": start,
                "user_end_tag": end,
                "asst_start_tag": answer_start,
                "asst_end_tag": "",
            },
            self.tokenizer,
            answer_key=answer,
            max_length=1024,
            predict_with_generate=generate,
        )

    def call(self, handler: str, model: Any, **arguments: Any) -> Any:
        """Return what one of their functions returns."""
        given = {"batch_size": 5, "collators": self.collate, "tokenizer": self.tokenizer, **arguments}
        return self.registry[handler]._metric_fn(model, **given)

    def measures(self, model: LlamaForCausalLM, reference: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return every metric by name; `reference` are those of the model that never saw the forget rows."""
        found: dict[str, Any] = {}
        for scope in ("forget", *KEPT):
            prefix = {"real_authors": "ra", "world_facts": "wf"}.get(scope, scope)
            options = scope in ("real_authors", "world_facts")
            right = "answer" if options else "paraphrased_answer"
            found[f"{prefix}_Prob"] = self.call("probability", model, data=self.data(scope))
            correct = self.call("probability", model, data=self.data(scope, right))
            wrong = self.call("probability", model, data=self.data(scope, "perturbed_answer"))
            found[f"{prefix}_correct_Prob"] = correct
            both = {"correct": correct, "wrong": wrong}
            if options:
                found[f"{prefix}_Prob_normalised"] = self.call("probability_w_options", model, pre_compute=both)
            for how in ("closer_to_1_better", "true_better", "prob_mean"):
                found[f"{prefix}_TR_{how}"] = self.call("truth_ratio", model, pre_compute=both, aggregator=how)
            for kind in ("rouge1_recall", "rougeL_f1", "rougeL_recall"):
                found[f"{prefix}_{kind}"] = self.call(
                    "rouge",
                    model,
                    data=self.data(scope, generate=True),
                    collators=self.collate_left,
                    generation_args=self.generation,
                    rouge_type=kind,
                )
            for name in ("exact_memorization", "extraction_strength"):
                found[f"{prefix}_{name}"] = self.call(name, model, data=self.data(scope))
        nine = [f"retain_{name}" for name in ("Prob", "rougeL_recall", "TR_true_better")]
        nine += [f"{p}_{name}" for p in ("ra", "wf") for name in ("Prob_normalised", "rougeL_recall", "TR_true_better")]
        found["model_utility"] = self.call("hm_aggregate", model, pre_compute={key: found[key] for key in nine})
        sets = {"forget": self.data("forget"), "holdout": self.data("holdout")}
        for name, settings in ATTACKS.items():
            path = {"reference_model_path": str(self.folder / "retain")} if name == "mia_reference" else {}
            found[name] = self.call(name, model, data=sets, **settings, **path)
        for name, key, handler in (
            ("forget_quality", "forget_TR_closer_to_1_better", "ks_test"),
            ("privleak", "mia_min_k", "privleak"),
            ("rel_diff", "mia_min_k", "rel_diff"),
        ):
            logs = {"retain_model_logs": {"retain": reference[key]}} if reference else None
            found[name] = self.call(
                handler,
                model,
                pre_compute={"forget": found[key]},
                ref_value=0.5,
                **({"reference_logs": logs} if logs else {}),
            )
        return found


def plain(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the aggregate of each metric and, where it has one, the value of each row; texts stay behind."""
    figures = {}
    for name, result in found.items():
        kind = next((k for k in ("rouge1_recall", "rougeL_f1", "rougeL_recall") if name.endswith(k)), None)
        value = result["agg_value"]
        figures[name] = {"value": None if value is None else float(value)}
        for part in ("value_by_index", "forget", "holdout"):
            by_index = result.get(part) if part == "value_by_index" else (result.get(part) or {}).get("value_by_index")
            if by_index:
                rows = [row[kind or ("prob" if "prob" in row else "score")] for row in by_index.values()]
                figures[name]["rows" if part == "value_by_index" else part] = np.asarray(rows, dtype=float).tolist()
                assert all(math.isfinite(x) for x in np.ravel(rows))
    return figures


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
