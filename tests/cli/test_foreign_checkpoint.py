"""A checkpoint that this project did not train goes through the same pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STORIES = ROOT.parent / "shared" / "models" / "stories260K"
PRIVACY = ROOT.parent / "shared" / "data" / "knowundo_privacy"


@pytest.mark.slow
@pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared/models/stories260K (see tests/SKIPS.md)")
def test_stories260k_is_fine_tuned_localized_unlearned_measured_and_loads_elsewhere(tmp_path: Path) -> None:
    """Target by LoRA, so that unlearning goes on with an adapter, as in the paper."""
    rows = [json.loads(line) for line in (ROOT / "src/scopewise/data/builtin/rows.jsonl").read_text().splitlines()]
    some = {
        (s, p): [r for r in rows if (r["scope"], r["split"]) == (s, p)][:8]
        for s in ("forget", "retain")
        for p in ("train", "val")
    }
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for group in some.values() for r in group))
    settings = [
        f"model.path={STORIES}", "data.benchmark=jsonl", f"data.path={tmp_path / 'rows.jsonl'}", "data.max_length=400",
        f"run.dir={tmp_path / 'run'}", "finetune.num_train_epochs=3", "finetune.learning_rate=1e-2", "finetune.batch_size=8",
        "unlearn.method=memflex", "evaluate.splits=[val]", "evaluate.direct_splits=[]", "evaluate.max_new_tokens=8",
    ]  # fmt: skip
    words = [sys.executable, "-m", "scopewise", "run", "--json"]
    for setting in settings:
        words += ["--set", setting]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout)
    by_method = {row["method"]: row for row in results["rows"]}
    assert set(by_method) == {"target", "oracle", "memflex"}
    assert 0 < by_method["memflex"]["region_fraction"] < 1

    from peft import AutoPeftModelForCausalLM

    folder = tmp_path / "run" / by_method["memflex"]["path"]
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    assert model.peft_config["default"].base_model_name_or_path == str(STORIES)
    assert [p.name for p in folder.glob("*.safetensors")] == ["adapter_model.safetensors"]
