"""A small language model of Python's own documentation, from the tokenizer on, recorded by FlightlogCallback.

    python examples/transformers_text.py            # trains, evaluates, and says how well
    python examples/transformers_text.py            # after an interruption: goes on where it was, in the same run
    flightlog verify                                # shows what was recorded

Everything it needs is there: the texts are those of `help()`, which come with Python. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from pydoc_data.topics import topics

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    DataCollatorForLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from flightlog_transformers import FlightlogCallback

WINDOW = 64


def made_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Learn 1,000 pieces of words from the texts."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    pieces.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=1000, special_tokens=["<end>"], show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="<end>", pad_token="<end>")


def windows(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[dict[str, list[int]]]:
    """Cut the texts, one behind the other, into pieces of the model's length."""
    tokens = [token for text in texts for token in tokenizer.encode(text + "<end>")]
    return [{"input_ids": tokens[at : at + WINDOW]} for at in range(0, len(tokens) - WINDOW + 1, WINDOW)]


def main() -> None:
    """Train, going on from the last checkpoint if there is one, and evaluate."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--width", type=int, default=64, help="of the model, a multiple of 4")
    options.add_argument("--output", type=Path, default=Path("text-model"))
    chosen = options.parse_args()

    texts = [text for _, text in sorted(topics.items())]
    tokenizer = made_tokenizer(texts)
    known, unseen = windows(tokenizer, texts[:-4]), windows(tokenizer, texts[-4:])
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=WINDOW,
        n_embd=chosen.width,
        n_layer=2,
        n_head=4,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    arguments = TrainingArguments(
        str(chosen.output),
        max_steps=chosen.steps,
        per_device_train_batch_size=16,
        learning_rate=3e-3,
        warmup_steps=10,
        logging_steps=5,
        eval_strategy="steps",
        eval_steps=max(1, chosen.steps // 4),
        save_steps=max(1, chosen.steps // 4),
        save_total_limit=2,
        load_best_model_at_end=True,
        include_num_input_tokens_seen="all",
        dataloader_pin_memory=False,
        report_to="none",
    )
    trainer = Trainer(
        GPT2LMHeadModel(config),
        arguments,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        train_dataset=known,  # type: ignore[arg-type]  # a list is enough
        eval_dataset=unseen,  # type: ignore[arg-type]
        processing_class=tokenizer,
        callbacks=[FlightlogCallback(project="python-docs", tags=["example"])],
    )
    last = get_last_checkpoint(str(chosen.output)) if chosen.output.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    loss = trainer.evaluate()["eval_loss"]
    print(f"unseen texts: loss {loss:.2f}, perplexity {math.exp(loss):.0f} of {len(tokenizer)}")


if __name__ == "__main__":
    main()
