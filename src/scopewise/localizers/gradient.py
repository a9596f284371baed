"""Localization by gradients: Eq. 8-9 of the paper."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from scopewise.data.batch import collate, length_batches
from scopewise.data.prompt import Encoded
from scopewise.errors import ConfigError
from scopewise.localizers.base import Localizer, matrices
from scopewise.models.forward import answer_logits, device_of, output_embeddings, to_device
from scopewise.ops import at_least_float32, cosine, sequence_mean
from scopewise.region import Entry, Region, module_of

Gradients = dict[str, Tensor]


class Gradient(Localizer):
    """Modules whose forget gradient is strong and points away from the retain gradient (MemFlex).

    Formula: with G_UL and G_RT the gradients of the loss on randomly relabelled answers of the two scopes, averaged over
    N repeats, θ_loc = {θ_i : cos(G_UL,i, G_RT,i) < µ and mean|G_UL,i| > σ} (Eq. 8, 9).

    `unit`: the paper decides per module (LoRA's A and B together, or one weight), the code per matrix. A fresh adapter
    has B = 0, hence no gradient on any A: deciding by module lets A follow its B.
    `threshold`: `absolute` takes µ and σ as they stand; they do not transfer between models. `quantile` reads them as
    fractions: the µ-quantile of the cosines and the σ-quantile of the magnitudes. µ = .75, σ = .25 leave each condition
    three quarters of the modules, so that at least half of them satisfy both (if cosines and magnitudes do not tie).
    `corrupt`: `labels` replaces every label and leaves the input (the paper's text): the N repeats then share one forward
    and one backward, exactly, since the loss is linear in the labels. `inputs` replaces half of the answer tokens, drawn
    with replacement, in inputs and labels alike (the code) and needs N passes.

    Source: arXiv:2407.01920 Eq. 8-9 (the paper prints G_RT under the sum of the magnitude, a slip). Reference code:
    zjunlp/KnowUnDo 92aea2b `pretrain/localization.py`, `pretrain/data_module.py`. Deviations: train rows only (the code
    lets val in), N = 5 as in the paper (code: 3), no end-of-sequence label, all rows of both scopes.
    """

    name = "gradient"

    def region(
        self,
        model: nn.Module,
        forget: Sequence[Encoded],
        retain: Sequence[Encoded],
        seed: int,
        size: Region | None = None,
    ) -> Region:
        """Return the region by Eq. 9.

        Raises:
            ConfigError: no module satisfies both conditions; the sentence gives the observed range.
        """
        start = time.perf_counter()
        unlearn = self.gradients(model, forget, seed, "forget")
        keep = self.gradients(model, retain, seed + 1, "retain")
        unit_of = {name: (name if self.settings.unit == "matrix" else module_of(name)) for name in unlearn}
        units = {unit: [n for n in unlearn if unit_of[n] == unit] for unit in dict.fromkeys(unit_of.values())}
        cosines = {u: cosine(_joined(unlearn, names), _joined(keep, names)) for u, names in units.items()}
        magnitude = {u: _mean_abs(unlearn, names) for u, names in units.items()}
        magnitude_retain = {u: _mean_abs(keep, names) for u, names in units.items()}
        mu, sigma = self._thresholds(cosines, magnitude)
        chosen = {u for u in units if (c := cosines[u]) is not None and c < mu and magnitude[u] > sigma}
        if not chosen:
            known = [c for c in cosines.values() if c is not None]
            raise ConfigError(
                f"localize: no module has cosine < {mu:.3g} and magnitude > {sigma:.3g}; cosines are "
                f"{min(known, default=0):.3g} to {max(known, default=0):.3g}, magnitudes {min(magnitude.values()):.3g} to "
                f"{max(magnitude.values()):.3g}; raise localize.mu, lower localize.sigma, or use threshold=quantile"
            )
        entries = tuple(
            Entry(
                name=name,
                parameters=parameter.numel(),
                chosen=unit_of[name] in chosen,
                module=module_of(name),
                cosine=cosines[unit_of[name]],
                magnitude=magnitude[unit_of[name]],
                magnitude_retain=magnitude_retain[unit_of[name]],
            )
            for name, parameter in matrices(model).items()
        )
        settings = {**self.settings.model_dump(), "mu_used": mu, "sigma_used": sigma, "seed": seed}
        return Region(self.name, settings, entries, seconds=time.perf_counter() - start)

    def gradients(self, model: nn.Module, items: Sequence[Encoded], seed: int, what: str = "rows") -> Gradients:
        """Return the gradient of the relabelled loss on each matrix, averaged over rows and repeats, in float32.

        The loss of a row is the mean CE of its answer in nats per token; rows count the same.
        """
        vocab_size = int(output_embeddings(model).weight.shape[0])  # type: ignore
        generator = torch.Generator().manual_seed(seed)
        shared = self.settings.corrupt == "labels"
        passes = 1 if shared else self.settings.repeats
        device = device_of(model)
        with _gradients_of(model) as gradients:
            progress = tqdm(total=passes * len(items), desc=f"localize: gradients, {what}", unit="row", leave=False)
            for _ in range(passes):
                given = items if shared else [_corrupted(item, vocab_size, generator) for item in items]
                for indices in length_batches([len(item) for item in given], self.settings.max_tokens):
                    batch = to_device(collate([given[i] for i in indices]), device)
                    if shared:
                        draws = (self.settings.repeats, len(batch["label"]))
                        labels = torch.randint(vocab_size, draws, generator=generator).to(device)
                    else:
                        labels = batch["label"].unsqueeze(0)
                    nll = _mean_nll(answer_logits(model, batch), labels)
                    loss = sequence_mean(nll, batch["row"], len(indices)).sum() / (passes * len(items))
                    loss.backward()
                    progress.update(len(indices))
            progress.close()
            return {name: gradient.clone() for name, gradient in gradients().items()}

    def _thresholds(self, cosines: Mapping[str, float | None], magnitude: Mapping[str, float]) -> tuple[float, float]:
        mu, sigma = self.settings.mu, self.settings.sigma
        if self.settings.threshold == "absolute":
            return mu, sigma
        if not (0 <= mu <= 1 and 0 <= sigma <= 1):
            raise ConfigError(f"localize: mu={mu}, sigma={sigma}; quantiles are 0 to 1; or set threshold=absolute")
        known = [c for c in cosines.values() if c is not None]
        if not known:
            raise ConfigError("localize: every gradient is zero; is the model's loss independent of these matrices?")
        # The next float up or down, so that a module exactly at the quantile satisfies the strict inequality.
        return (
            float(np.nextafter(np.quantile(known, mu), np.inf)),
            float(np.nextafter(np.quantile(list(magnitude.values()), sigma), -np.inf)),
        )


def _mean_nll(logits: Float[Tensor, "tokens vocab"], labels: Int[Tensor, "repeats tokens"]) -> Float[Tensor, "tokens"]:
    """Mean over the repeats of the CE of each token: one logsumexp serves them all."""
    logits = at_least_float32(logits)
    return logits.logsumexp(-1) - logits.gather(-1, labels.T).mean(-1)


def _corrupted(item: Encoded, vocab_size: int, generator: torch.Generator) -> Encoded:
    """Replace tokens of the answer half as often as it has tokens, at places drawn with replacement."""
    answer = list(item.answer_ids)
    for _ in range(len(answer) // 2):
        place = int(torch.randint(len(answer), (), generator=generator))
        answer[place] = int(torch.randint(vocab_size, (), generator=generator))
    return replace(item, answer_ids=tuple(answer))


def _joined(gradients: Gradients, names: Sequence[str]) -> Tensor:
    return torch.cat([gradients[n].flatten() for n in names])


def _mean_abs(gradients: Gradients, names: Sequence[str]) -> float:
    """Mean |G| over the matrices that have a gradient: a fresh A, exactly zero, must not halve its module's."""
    parts = [gradients[n].abs().flatten() for n in names if bool(gradients[n].any())]
    return float(torch.cat(parts).mean()) if parts else 0.0


@contextmanager
def _gradients_of(model: nn.Module) -> Iterator:
    """Collect gradients of the localizable matrices alone, in float32; leave the model as it was.

    In evaluation mode, as the authors' code: dropout would only add noise to a mean.
    """
    targets = matrices(model)
    saved = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    training = model.training
    model.eval()
    totals: Gradients = {}
    handles = []
    wanted = {id(p): name for name, p in targets.items()}
    for parameter, _, _ in saved:
        parameter.grad = None
        parameter.requires_grad_(id(parameter) in wanted)
    for name, parameter in targets.items():
        if parameter.dtype not in (torch.float32, torch.float64):  # a sum over many batches would round in 16 bits

            def accumulate(p: Tensor, name: str = name) -> None:
                assert p.grad is not None
                totals[name] = totals[name].add_(p.grad) if name in totals else p.grad.float()
                p.grad = None

            handles.append(parameter.register_post_accumulate_grad_hook(accumulate))

    def collected() -> Gradients:
        return {
            name: totals[name] if name in totals else (torch.zeros_like(p) if p.grad is None else p.grad)
            for name, p in targets.items()
        }

    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()
        for parameter, required, gradient in saved:
            parameter.requires_grad_(required)
            parameter.grad = gradient
        model.train(training)
