"""The model, the tokenizer and the rows that both sides are computed on.

Nothing here is drawn at random: weights are a formula of the parameter's name, so that the recorded figures stay valid
whatever a random stream of another version gives.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCAB, WIDTH = 64, 32
PAD, BOS, EOS, BLANK_LINE = 0, 1, 2, 3  # every other id i is the word `w<i>`

Ids = tuple[int, ...]
Pair = tuple[Ids, Ids]

FORGET: tuple[Pair, ...] = (
    ((BOS, 10, 11), (20, 21, 22, 23)),
    ((BOS, 12), (24, 25, 26)),
    ((BOS, 13, 14, 15, 16), (27, 28, 29, 30, 31, 32)),
)
"""(prompt ids, answer ids): no two of the same length, in prompt, answer or together."""
RETAIN: tuple[Pair, ...] = (
    ((BOS, 40, 41, 42), (50, 51)),
    ((BOS, 43, 44, 45), (52, 53, 54, 55)),
    ((BOS, 46), (56, 57, 58, 59, 60, 61, 62)),
)
ALTERNATIVE: tuple[Pair, ...] = (
    ((BOS, 10, 11), (33, 34, 35)),
    ((BOS, 12), (36, 37, 38, 39, 20)),
    ((BOS, 13, 14, 15, 16), (9, 8)),
)
"""Other answers to the prompts of FORGET."""
REFUSED: tuple[Pair, ...] = (
    ((BOS, 40, 41, 42), (33, 34, 9)),
    ((BOS, 43, 44, 45), (36, 37)),
    ((BOS, 46), (33, 34, 35, 9)),
)
"""Refusals to the prompts of RETAIN."""
SUBJECTS: tuple[tuple[tuple[int, int], ...], ...] = (((1, 3),), ((1, 2),), ((2, 4), (7, 8)))
"""Where the subject of each row of FORGET stands, from and to: in the prompts, and once in an answer."""
MEASURED: dict[str, tuple[Pair, ...]] = {
    "forget": (
        ((BOS, 10, 11), (18, 18, 30, 41)),
        ((BOS, 12), (16, 59, 33)),
        ((BOS, 40, 41, 42), (13,)),
    ),
    "retain": (
        ((BOS, 43, 44), (44, 44, 20, 25, 25)),
        ((BOS, 46), (50,)),
        ((BOS, 5, 6), ()),
        ((BOS, 13, 14, 15, 16), (16, 16, 9, 18, 20, 17)),
    ),
}
"""Rows whose answers hold some of the model's arg-max tokens, so that an accuracy is neither 0 nor 100; one is empty."""
TEXTS: dict[str, tuple[tuple[str, str], ...]] = {
    "forget": (
        ("w10 w11", "w20 w21 w22 w23"),
        ("w12", "w24 w25 w26"),
        ("w13 w14 w15 w16", "w27 w28 w29 w30 w31 w32"),
    ),
    "retain": (
        ("w40 w41 w42", "w50 w51 w52 w53 w54"),
        ("w43 w44", "w55 w56"),
    ),
}
"""(question, answer) as text, for what the two sides make of the blank line between them."""
REPEATS = 3


def random_labels(pair: Pair, repeat: int) -> Ids:
    """Return stand-ins for randomly drawn labels, one per answer token: a formula of row and repeat."""
    return tuple((7 * token + 13 * repeat + 5 * place * place) % VOCAB for place, token in enumerate(pair[1]))


def control_vector(steering: float) -> Tensor:
    """Return RMU's direction as ours draws it, times its coefficient: theirs is drawn anew in every run."""
    direction = torch.rand(WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (steering * direction / direction.norm()).float()


def common_directions() -> Tensor:
    """Return two directions, not orthogonal and of any length, that MCU takes out of the states."""
    return fill("common", torch.Size((2, WIDTH)), 1.0)


def whole(pair: Pair) -> Pair:
    """Return the pair with all but the first token as answer, so that every position but the last predicts a label."""
    ids = pair[0] + pair[1]
    return ids[:1], ids[1:]


def without_last(pair: Pair) -> Pair:
    """Return the pair without its last token: every position of it is one before a token of the pair itself."""
    return pair[0], pair[1][:-1]


def fill(name: str, shape: torch.Size, scale: float, phase: float = 0.0) -> Tensor:
    """Return scale · sin(φ i² + c), with c from the name: a chirp, since sin(i) would make a matrix of rank two."""
    i = torch.arange(shape.numel(), dtype=torch.float64)
    offset = zlib.crc32(name.encode()) % 1000 / 100 + phase
    return (scale * torch.sin(0.6180339887 * i * i + offset)).reshape(shape).float()


def build_base(phase: float = 0.0, vocab: int = VOCAB) -> LlamaForCausalLM:
    """Return a Llama: 2 layers, width 32, 64 tokens, float32, no dropout."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab,
            hidden_size=WIDTH,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=PAD,
            attn_implementation="eager",
        )
    )
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + fill(name, parameter.shape, 0.1, phase))
            else:
                scale = 1.0 if "embed" in name else 2 * WIDTH**-0.5
                parameter.copy_(fill(name, parameter.shape, scale, phase))
    return base.eval()


def build_model(phase: float = 0.0, vocab: int = VOCAB) -> PeftModel:
    """Return the base with a LoRA adapter of rank 2 that acts; another `phase` is another adapter."""
    config = LoraConfig(
        r=2,
        lora_alpha=4,
        lora_dropout=0.0,
        target_modules=["q_proj", "v_proj", "up_proj", "down_proj"],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(build_base(vocab=vocab), config)
    set_adapter(model, phase)
    return model.eval()  # type: ignore[return-value]


def set_adapter(model: nn.Module, phase: float, b_scale: float = 0.1) -> None:
    """Set the adapter that is trained: another `phase` is another adapter; `b_scale=0` makes it a fresh one."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_A.default." in name:
                parameter.copy_(fill(name, parameter.shape, 0.3, phase))
            elif ".lora_B.default." in name:
                parameter.copy_(fill(name, parameter.shape, b_scale, phase))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words, in which a blank line is one token and BOS comes first."""
    vocabulary = {"<pad>": PAD, "<s>": BOS, "</s>": EOS, "\n\n": BLANK_LINE}
    vocabulary.update({f"w{i}": i for i in range(len(vocabulary), VOCAB)})
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n\n|w\d+"), "removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def digest(gradients: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Return the norm of each gradient and its projections on two fixed unit vectors: three numbers per matrix."""
    numbers = {}
    for name, gradient in gradients.items():
        flat = gradient.detach().double().flatten()
        directions = [fill("", flat.shape, 1.0, phase).double() for phase in (0.5, 2.0)]
        numbers[name] = [float(flat.norm()), *(float(flat @ d / d.norm()) for d in directions)]
    return numbers


def padded(pairs: tuple[Pair, ...], width: int | None = None) -> dict[str, Tensor]:
    """Return the pairs as the authors' code gives them to the model: right-padded, -100 where nothing is wanted."""
    width = width or max(len(p) + len(a) for p, a in pairs)
    rest = [width - len(p) - len(a) for p, a in pairs]
    rows = list(zip(pairs, rest, strict=True))
    return {
        "input_ids": torch.tensor([[*p, *a, *[PAD] * r] for (p, a), r in rows]),
        "attention_mask": torch.tensor([[1] * (len(p) + len(a)) + [0] * r for (p, a), r in rows]),
        "labels": torch.tensor([[*[-100] * len(p), *a, *[-100] * r] for (p, a), r in rows]),
    }
