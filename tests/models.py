"""Small language models of many families with random weights, in folders as the hub has them."""

from functools import cache
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

TEXTS = ["red mug", "a dimmable led desk lamp with a usb port", "女士跑鞋", "x " * 50, "mug"]
_SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
_MARKS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
CONFIGS = {
    "bert": lambda: transformers.BertConfig(**_SIZES),
    "roberta": lambda: transformers.RobertaConfig(**_SIZES, **_MARKS),
    "mpnet": lambda: transformers.MPNetConfig(**_SIZES, **_MARKS),
    "modernbert": lambda: transformers.ModernBertConfig(**_SIZES, **_MARKS, cls_token_id=2, sep_token_id=3),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=320, n_embd=32, n_layer=3, n_head=4, bos_token_id=3, eos_token_id=3
    ),
    "qwen3": lambda: transformers.Qwen3Config(**_SIZES, num_key_value_heads=2, head_dim=8),
}
DECODERS = ("gpt2", "qwen3")


def write_model(family: str, folder: Path) -> str:
    """The folder of a model of that family, which it makes."""
    torch.manual_seed(0)
    transformers.AutoModel.from_config(CONFIGS[family]()).save_pretrained(folder)
    special = {} if family in DECODERS else {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    letters = Tokenizer.from_str(_letters(family in DECODERS))
    transformers.PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="[SEP]", **special).save_pretrained(folder)
    return str(folder)


@cache
def _letters(causal: bool) -> str:
    """A tokenizer that knows the letters and some pairs of them; those of encoders put signs around a text."""
    letters = Tokenizer(models.BPE(unk_token="[UNK]"))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel()
    signs = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    letters.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=signs, initial_alphabet=alphabet, show_progress=False)
    )
    if not causal:
        letters.post_processor = processors.TemplateProcessing(
            "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", [("[CLS]", 2), ("[SEP]", 3)]
        )
    return letters.to_str()
