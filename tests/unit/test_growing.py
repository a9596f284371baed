"""A cache with room ahead holds what the library's holds, whatever is done to it."""

from __future__ import annotations

import torch
from transformers import DynamicCache, LlamaConfig, MistralConfig

from scopewise.models.growing import GrowingLayer, growing_cache


def test_it_holds_what_a_dynamic_cache_holds() -> None:
    """Appended, selected, repeated and appended beyond its room: rows of one never reach another's buffer."""
    config = LlamaConfig(num_hidden_layers=2)
    ours, theirs = growing_cache(config), DynamicCache(config=config)
    generator = torch.Generator().manual_seed(0)
    batch = 3
    for step in range(150):
        if step == 10:
            keep = torch.tensor([0, 2])
            ours.batch_select_indices(keep)
            theirs.batch_select_indices(keep)
            batch = 2
        if step == 20:
            ours.batch_repeat_interleave(2)
            theirs.batch_repeat_interleave(2)
            batch = 4
        for layer in range(2):
            keys, values = torch.randn(2, batch, 2, 5 if step == 0 else 1, 4, generator=generator)
            found, wanted = ours.update(keys, values, layer), theirs.update(keys, values, layer)
            assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
        assert ours.get_seq_length() == theirs.get_seq_length() == 5 + step


def test_a_step_copies_nothing_while_there_is_room() -> None:
    cache = growing_cache(LlamaConfig(num_hidden_layers=1))
    states = torch.ones(1, 1, 1, 2)
    places = {cache.update(states, states, 0)[0].data_ptr() for _ in range(60)}
    assert len(places) == 1


def test_layers_with_a_window_stay_the_librarys() -> None:
    cache = growing_cache(MistralConfig(num_hidden_layers=1, sliding_window=4))
    assert not any(isinstance(layer, GrowingLayer) for layer in cache.layers)
