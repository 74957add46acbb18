"""Writes dpo.npz: what TRL's DPOTrainer makes of a small language model and three preferences.

Run with torch and TRL 1.16 installed, from the repository's root:
    PYTHONPATH=. python tests/golden/make_dpo.py
The file: config (config.json), records (json), beta, weights/* of the policy, reference/* of the
reference, input_ids and completion_mask as TRL's collator makes them, loss and gradients/* of the
sigmoid loss, and loss_with_nll, with 0.5 of TRL's 'sft' loss added.
"""

import json
import tempfile
from pathlib import Path

import numpy as np

from tests.golden import make_llama
from tests.language.small import letter_tokenizer

BETA, NLL_WEIGHT = 0.3, 0.5
RECORDS = [
    {"prompt": "a red bus:", "chosen": " a blue bus", "rejected": " a red bus"},
    {"prompt": "two dogs run", "chosen": " far", "rejected": " and the two dogs run again"},
    {"prompt": "yes or no?", "chosen": " yes, of course", "rejected": " no"},
]


def make_trainer(policy, reference, tokenizer, folder, loss_types, loss_weights):
    import datasets
    import pyarrow
    from trl import DPOConfig, DPOTrainer

    # Named, for datasets would pickle the table to find a name, and cannot.
    table = datasets.table.InMemoryTable(pyarrow.Table.from_pylist(RECORDS))
    records = datasets.Dataset(table, fingerprint="preferences").to_iterable_dataset()
    options = DPOConfig(
        output_dir=folder,
        beta=BETA,
        loss_type=loss_types,
        loss_weights=loss_weights,
        per_device_train_batch_size=len(RECORDS),
        gradient_checkpointing=False,
        disable_dropout=True,
        bf16=False,
        use_cpu=True,
        report_to="none",
        max_steps=1,
    )
    return DPOTrainer(
        policy,
        reference,
        args=options,
        train_dataset=records,
        processing_class=tokenizer,
    )


def main():
    import transformers

    config = make_llama.config_of("untied") | {"vocab_size": 97, "eos_token_id": 96}
    policy, reference = (make_llama.make_model(config, seed) for seed in (20, 21))
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        letter_tokenizer().write(Path(folder, "tokenizer"))
        tokenizer = transformers.AutoTokenizer.from_pretrained(f"{folder}/tokenizer")
        tokenizer.pad_token = tokenizer.eos_token
        for name, types, weights in (
            ("loss", ["sigmoid"], None),
            ("loss_with_nll", ["sigmoid", "sft"], [1.0, NLL_WEIGHT]),
        ):
            trainer = make_trainer(policy, reference, tokenizer, folder, types, weights)
            batch = trainer.data_collator(list(trainer.train_dataset))
            policy.train()  # nothing in these models drops out
            policy.zero_grad()
            loss = trainer.compute_loss(policy, batch)
            loss.backward()
            arrays[name] = loss.detach().numpy()
            if name == "loss":
                arrays |= {
                    f"gradients/{key}": value.grad.numpy().copy()
                    for key, value in policy.named_parameters()
                }
                arrays |= {key: batch[key].numpy() for key in ("input_ids", "completion_mask")}
    for section, model in (("weights", policy), ("reference", reference)):
        values = model.named_parameters()
        arrays |= {f"{section}/{key}": value.detach().numpy() for key, value in values}
    path = Path(__file__).with_name("dpo.npz")
    about = {"config": json.dumps(config), "records": json.dumps(RECORDS)}
    np.savez_compressed(path, **about, beta=BETA, nll_weight=NLL_WEIGHT, **arrays)
    print(path, path.stat().st_size, arrays["loss"], arrays["loss_with_nll"])


if __name__ == "__main__":
    main()
