"""Writes siglip_tokenizer/: a small SentencePiece tokenizer, and what SigLIP's own make of texts.

pip install sentencepiece protobuf open_clip_torch
python tests/golden/make_siglip_tokenizer.py
"""

import json
import tempfile
from pathlib import Path

import sentencepiece
from open_clip.tokenizer import basic_clean, canonicalize_text
from transformers import SiglipTokenizer, T5TokenizerFast

FOLDER = Path(__file__).parent / "siglip_tokenizer"
LEARNT_FROM = [
    "a photo of a dog", "two cats sit on the red sofa", "the man's hat, blue and white",
    "don't stop believing", "an old church near the river", "children play football in the park",
    "a woman rides a horse on the beach", "birds fly over mountains at sunset",
    "crème brûlée on a café table", "a road sign says 42 miles; nobody is there",
]  # fmt: skip
TEXTS = [
    "a photo of a dog", "A Dog,  and two CATS!", "the man's red_hat isn't blue", "", "  .  ",
    "crème brûlée &amp; coffee", "42 birds / 7 dogs (old)", "a\tb\nc", "日本語 and a dog",
    "ＦＵＬＬ width", "a dog " * 40, "x" * 30, "a_dog.",
]  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        lines = Path(temporary, "lines.txt")
        lines.write_text("\n".join(LEARNT_FROM * 30))
        sentencepiece.SentencePieceTrainer.train(
            input=str(lines), model_prefix=f"{temporary}/spiece", vocab_size=120, pad_id=-1,
            bos_id=-1, eos_id=1, unk_id=2, control_symbols="<zero>", hard_vocab_limit=False,
            normalization_rule_name="identity",
        )  # fmt: skip
        slow = SiglipTokenizer(f"{temporary}/spiece.model")
        slow.save_pretrained(temporary)
        fast = T5TokenizerFast.from_pretrained(temporary, extra_ids=0)
        FOLDER.mkdir(exist_ok=True)
        fast.backend_tokenizer.save(str(FOLDER / "tokenizer.json"))
        config = json.loads(Path(temporary, "tokenizer_config.json").read_text())
    kept = ("tokenizer_class", "do_lower_case", "model_max_length", "pad_token", "eos_token")
    (FOLDER / "tokenizer_config.json").write_text(json.dumps({k: config[k] for k in kept}))

    options = dict(padding="max_length", truncation=True, max_length=16)
    cleaned = [canonicalize_text(basic_clean(text)) for text in TEXTS]
    expected = {
        "texts": TEXTS,
        "transformers": slow(TEXTS, **options)["input_ids"],
        "open_clip": fast(cleaned, **options)["input_ids"],  # its SigLipTokenizer
    }
    (FOLDER / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main()
