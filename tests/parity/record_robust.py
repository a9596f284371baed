"""Run loss functions of the repositories of robust unlearning on the tiny model and write what they return.

    python tests/parity/record_robust.py FOLDER

FOLDER holds unchanged clones named as in `COMMITS`; only the files that are run have to be there and unchanged.
"""

from __future__ import annotations

import argparse
import ast
import copy
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional, Union

import torch
from checkout import executed, gradients, instance, load, origin, tree, verified, write
from tiny import (
    ALTERNATIVE,
    FORGET,
    PAD,
    REFUSED,
    RETAIN,
    SUBJECTS,
    VOCAB,
    Pair,
    build_model,
    common_directions,
    control_vector,
    digest,
    padded,
    whole,
    without_last,
)  # fmt: skip
from torch import Tensor

COMMITS = {
    "JensUn-Unlearning": "9d0cfd5101cb15b24c777618cd29a538d913c9ac",
    "closer-look-LLM-unlearning": "b622294965f8b40feb5383c9e93dbdb26a76b6b3",
    "efficient-llm-unlearning": "272484aabc7ba970ed357dc9212fde4f4d62bb5a",
    "distillation-robustify-unlearning": "edbf11189155c6bae81f5942df928c6ec2c5ac34",
    "Unlearn-Smooth": "fc655ba453c50c2503915669a2e1f3b66bbf94ec",
    "MCU": "bb615bbdf5f3ccef4b66e8b48f42b2b7c2a4b8e1",
    "UGBench": "a7ef86445ce889f65f57a8d5f8cceb72369fff19",
}
TEXT = (5, 6)
"""Tokens that JensUn repeats."""
RHO = 0.5
OUTPUT = Path(__file__).with_name("robust.json")


def main() -> None:
    """Record everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.set_num_threads(1)

    def checkout(name: str, path: str) -> Path:
        return verified(folder / name, COMMITS[name], path)

    recorded = {
        **origin(__file__, COMMITS),
        "jens_un": record_jens_un(checkout("JensUn-Unlearning", "src/trainer/utils.py")),
        **record_closer_look(checkout("closer-look-LLM-unlearning", "trainer/losses.py")),
        "ihl": record_ihl(checkout("efficient-llm-unlearning", "TOFU/dataloader.py")),
        "max_ent": record_max_ent(
            checkout("distillation-robustify-unlearning", "src/tools/unlearn_langarith/maxent.py")
        ),
        "mcu": record_mcu(checkout("MCU", "src/utils")),
        "per_mu": record_per_mu(checkout("UGBench", "dataloader.py"), checkout("UGBench", "modeling_llama.py")),
        "sam": record_sam(checkout("Unlearn-Smooth", "MUSE/baselines/baselines/sam_iterative.py")),
    }
    write(OUTPUT, recorded)


def figures(loss: Tensor, model: torch.nn.Module) -> dict[str, Any]:
    """Return the loss and, after its backward, the gradients of the adapter."""
    loss.backward()
    return {"loss": loss.item(), "gradients": digest(gradients(model))}


def triple(pairs: tuple[Pair, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, labels and mask, in the order of the TOFU family of code."""
    batch = padded(pairs)
    return batch["input_ids"], batch["labels"], batch["attention_mask"]


def record_jens_un(checkout: Path) -> dict[str, Any]:
    """`jensun_multitok_loss` and `jensun_retain_loss`, each on a padded batch."""
    source = tree(checkout, "src/trainer/utils.py")
    namespace = executed(
        source, "jensun_multitok_loss", "jensun_retain_loss", torch=torch, F=torch.nn.functional, math=math
    )
    model = build_model(1.0)
    forget = figures(namespace["jensun_multitok_loss"](model, padded(FORGET), list(TEXT))[0], model)
    model = build_model(1.0)
    kept = figures(namespace["jensun_retain_loss"](model, build_model(0.0), padded(RETAIN))[0], model)
    return {"forget": forget, "retain": kept}


def record_closer_look(checkout: Path) -> dict[str, Any]:
    """`get_loss` of ME+GD and of IDK+AP: both terms of each apart."""
    losses = load(checkout, "trainer/losses.py")
    inputs = [triple(pairs) for pairs in (FORGET, RETAIN, ALTERNATIVE, REFUSED)]

    def run(loss_type: str, term: int) -> dict[str, Any]:
        model = build_model(1.0)
        return figures(losses.get_loss(model, None, inputs, loss_type, beta=0.1)[term], model)

    return {
        name: {"forget": run(loss_type, 0), "retain": run(loss_type, 1)}
        for name, loss_type in (("me_gd", "ME+GD"), ("idk_ap", "IDK+AP"))
    }


def record_ihl(checkout: Path) -> dict[str, Any]:
    """`_custom_multiclass_hinge_loss_update` on the rows' answer positions, selected as their `compute_loss` does."""
    namespace = executed(
        tree(checkout, "TOFU/dataloader.py"),
        "_custom_multiclass_hinge_loss_update",
        torch=torch,
        tensor=torch.tensor,
        to_onehot=torch.nn.functional.one_hot,
    )
    model, batch = build_model(1.0), padded(FORGET)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].flatten(0, 1)
    labels = batch["labels"][:, 1:].flatten()
    wanted = labels != -100
    measures, total = namespace["_custom_multiclass_hinge_loss_update"](logits[wanted], labels[wanted], 1.0, False)
    assert logits.shape[-1] == VOCAB
    return figures(measures / total, model)


def record_max_ent(checkout: Path) -> dict[str, Any]:
    """`uniform_forget_loss_fn` on rows that are all answer but for their first token."""
    path = "src/tools/unlearn_langarith/maxent.py"
    loss = executed(tree(checkout, path), "uniform_forget_loss_fn", torch=torch)["uniform_forget_loss_fn"]
    model, batch = build_model(1.0), padded(tuple(whole(pair) for pair in FORGET))
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return figures(loss(logits, batch["input_ids"], PAD), model)


def record_mcu(checkout: Path) -> list[float]:
    """`rmu_mcu` on the states of the first block at the answer tokens of each row alone, without given directions."""
    project = executed(tree(checkout, "src/utils/common_cir.py"), "project_out", pt=torch)["project_out"]
    source = tree(checkout, "src/utils/loss_fns.py")
    loss = executed(source, "rmu_mcu", pt=torch, project_out=project)["rmu_mcu"]
    cfg = SimpleNamespace(cut_off_tokens=1, layer_range=(1, 2))
    model, found = build_model(1.0), []
    for pair in FORGET:
        batch = padded((pair,))
        output = model(input_ids=batch["input_ids"], output_hidden_states=True)
        given = {"rmu_control_vec": control_vector(1.0).unsqueeze(0)}
        wanted = (batch["labels"] != -100).long()
        found.append(loss(output, given, cfg, {1: common_directions()}, wanted).item())
    return found


def of_class(source: ast.Module, name: str) -> ast.Module:
    """Return the definition of one class alone."""
    return ast.Module([node for node in source.body if isinstance(node, ast.ClassDef) and node.name == name], [])


class OldLlama:
    """The tiny model behind the interface that their `LlamaModel.forward` has: layers that return tuples, a mask."""

    training = gradient_checkpointing = False

    def __init__(self, model: torch.nn.Module, forward: Any) -> None:
        whole = model.base_model.model  # type: ignore[union-attr]
        inner: Any = whole.model  # type: ignore[union-attr]
        self.head, self.forward = whole.lm_head, forward  # type: ignore[union-attr]
        self.embed_tokens, self.norm = inner.embed_tokens, inner.norm
        self.config = SimpleNamespace(
            output_attentions=False, output_hidden_states=False, use_cache=False, use_return_dict=True
        )

        def layer(block: Any) -> Any:
            def run(states: Tensor, attention_mask: Tensor, position_ids: Tensor, **_: Any) -> tuple[Tensor]:
                around = inner.rotary_emb(states, position_ids)
                return (block(states, attention_mask=attention_mask, position_embeddings=around),)

            return run

        self.layers = [layer(block) for block in inner.layers]

    def _update_causal_mask(self, attention_mask: Tensor, states: Tensor, *_: Any) -> Tensor:
        seen = torch.ones(states.shape[1], states.shape[1]).tril().bool() & attention_mask[:, None, None].bool()
        return torch.where(seen, 0.0, torch.finfo(torch.float32).min)

    def __call__(self, input_ids: Tensor, labels: Tensor | None = None, **given: Any) -> Any:
        output = self.forward(self, input_ids, **given)
        if given.get("output_hidden_states"):
            return SimpleNamespace(logits=[self.head(states) for states in output.hidden_states])
        return SimpleNamespace(logits=self.head(output.last_hidden_state), loss=torch.zeros(()))


def record_per_mu(trainer_of: Path, model_of: Path) -> dict[str, Any]:
    """`compute_loss` of PerMU, with the noise of their Llama, on rows without their last token: it is predicted too."""
    source = of_class(tree(model_of, "modeling_llama.py"), "LlamaModel")
    forward = executed(
        source, "forward", torch=torch, List=list, Optional=Optional, Tuple=tuple, Union=Union,
        add_start_docstrings_to_model_forward=lambda _: lambda function: function, LLAMA_INPUTS_DOCSTRING="",
        BaseModelOutputWithPast=SimpleNamespace, StaticCache=(),
    )["forward"]  # fmt: skip
    source = tree(trainer_of, "dataloader.py")
    divergence = executed(source, "calc_ce_loss", torch=torch, nn=torch.nn, F=torch.nn.functional)["calc_ce_loss"]
    compute_loss = executed(
        of_class(source, "CustomTrainerForgetting"), "compute_loss", torch=torch, copy=copy, calc_ce_loss=divergence
    )["compute_loss"]
    pairs = tuple(without_last(pair) for pair in FORGET)
    batch, lengths = padded(pairs), [[(len(prompt), len(prompt) + len(answer))] for prompt, answer in pairs]
    forget = (batch["input_ids"], batch["labels"], batch["attention_mask"], SUBJECTS, lengths)
    trainer, model = SimpleNamespace(loss_type="PerMU", retain_weight=0, C=0.1, P=0.4), build_model(1.0)
    return figures(compute_loss(trainer, OldLlama(model, forward), (forget, triple(RETAIN))), model)


def record_sam(checkout: Path) -> dict[str, Any]:
    """`SAMIterativeUnlearner.training_step` of ascent and descent, on a forget and a retain row: the final gradients."""
    path = "MUSE/baselines/baselines/sam_iterative.py"
    names = (
        "training_step", "forget_step", "after_forget_step", "pre_forget_step_perturbed", "forget_step_perturbed",
        "after_forget_step_perturbed", "retain_step", "combine_and_update", "_compute_forget_loss", "_compute_retain_loss",
    )  # fmt: skip
    namespace = executed(
        tree(checkout, path), *names, torch=torch, nn=torch.nn, F=torch.nn.functional, print=lambda *a: None
    )
    cls = type("Unlearner", (), {name: namespace[name] for name in names})
    model = build_model(1.0)
    trainer = instance(
        cls,
        loss_type="ga_gdr",
        ref_model=None,
        coeff=2.0,
        npo_coeff=1.0,
        gamma=0.0,
        sam_rho=RHO,
        args=SimpleNamespace(device="cpu", gradient_accumulation_steps=1),
        accelerator=SimpleNamespace(backward=lambda loss: loss.backward()),
        _prepare_inputs=lambda inputs: inputs,
    )
    trainer.training_step(model, (padded(FORGET[:1]), padded(RETAIN[:1])))
    return {"gradients": digest(gradients(model))}


if __name__ == "__main__":
    main()
