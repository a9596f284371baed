"""A region as text: where what stands, and what is marked."""

from __future__ import annotations

from scopewise.region import Entry, Region
from scopewise.report.regions import grid, region_table


def entry(name: str, chosen: bool, selected: int | None = None, **values: float) -> Entry:
    return Entry(f"{name}.weight", 10, chosen, name, selected, **values)


REGION = Region(
    "gradient",
    {},
    (
        entry("model.layers.0.self_attn.q_proj", True, cosine=0.5, magnitude=2e-4),
        entry("model.layers.0.mlp.down_proj", False, cosine=-0.25, magnitude=1e-5),
        entry("model.layers.1.self_attn.q_proj", True, 4, magnitude=3e-4),
    ),
)


def test_layers_down_modules_across() -> None:
    table = grid(REGION)
    assert list(table) == ["0", "1"]
    assert list(table["0"]) == ["self_attn.q_proj", "mlp.down_proj"]
    assert table["1"]["self_attn.q_proj"].chosen_fraction == 0.4


def test_text_marks_what_may_change() -> None:
    text = region_table(REGION)
    assert text.splitlines()[0] == "gradient: 14 of 30 parameters (46.7 %) in 2 of 3 matrices, 0.0 s"
    lines = [line.split() for line in text.splitlines()]
    assert lines[3] == ["layer", "q_proj", "down_proj"]
    assert lines[4] == ["0", "0.500*", "-0.250"]
    assert lines[5] == ["1", "-+"]  # no cosine, in part
    assert ["1", "3.00e-04+"] in lines


def test_lora_matrices_of_a_module_are_one_cell() -> None:
    module = "model.layers.0.mlp.up_proj"
    a = Entry(f"{module}.lora_A.weight", 30, False, module, score=1.0)
    b = Entry(f"{module}.lora_B.weight", 10, True, module, score=5.0)
    cell = grid(Region("x", {}, (a, b)))["0"]["mlp.up_proj"]
    assert cell.chosen_fraction == 0.25
    assert cell.values == {"score": 2.0}


def test_without_measures_the_share_is_shown() -> None:
    assert "100 %*" in region_table(Region("all", {}, (entry("model.layers.0.q", True),)))
