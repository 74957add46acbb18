"""Writes tokenizer.json: what OpenAI's tokenizer makes of hard strings.

    python tests/golden/make_tokenizer.py        (needs open_clip)

open_clip's SimpleTokenizer is OpenAI's simple_tokenizer.py with the special tokens renamed; the
names are put back, so that a literal '<|endoftext|>' is treated as OpenAI treats it.
"""

import json
from pathlib import Path

import regex
from open_clip.tokenizer import SimpleTokenizer

TEXTS = [
    "",
    " ",
    "!",
    "A child holding a flowered umbrella and petting a yak.",
    "a photo of a dog 🐕, two flags 🇫🇷🇯🇵, a family 👨‍👩‍👧‍👦 and thumbs 👍🏽!",
    "Crème brûlée à la façon d’Évreux; naïve coöperation",
    "Cre\u0300me bru\u0302le\u0301e decomposed",
    "<b> e&#769; o&#776; decomposed after unescaping",
    "fish &amp; chips &amp;amp; peas &lt;b&gt;bold&lt;/b&gt; &quot;quoted&quot; &nbsp; &eacute;",
    "<p> &amp;amp;lt; nested</p> &#x1F600; &notanentity; &",
    "itâ€™s mojibake: cafÃ© â€œquotedâ€\x9d schÃ¶n",
    "I'm sure they're here, we've seen it, he'll go, she'd stay, don't, it's ROCK'N'ROLL y'all",
    "I’m using curly quotes, it’s “fine”",
    "'s 't 're 've 'm 'll 'd ''s '''ll",
    "the long s: '\u017f and \u017fame",
    "0 1 23 456 7,890.12 3/4 ½ ² ① Ⅷ ٣ 1st 2nd B-52 mp3 4x4",
    "一只猫坐在椅子上。 日本語のテキスト、한국어 텍스트",
    "Кошка сидит на стуле; ΟΔΥΣΣΕΥΣ ΣΑΣ; İstanbul ISPARTA; STRASSE straße",
    "שלום עולם مرحبا بالعالم नमस्ते สวัสดี",
    "repeated   spaces\t\ttabs\n\nnew lines\r\nand \u00a0 no-break \u3000 ideographic\u2028line",
    "control \x00 \x01 \x07 \x1b[31mred\x1b[0m \x1c\x1d\x1e\x1f \x7f \x85 \u200b zero",
    "zero\u200dwidth \ufeff",
    "soft\u00adhyphen, figure\u2007space, mongolian\u180espace, object \ufffc, bad \ufffd",
    "<|endoftext|>",
    "before <|endoftext|> after <|startoftext|> end",
    "glued!<|endoftext|>!and<|ENDOFTEXT|>word ((<|startoftext|>",
    "<start_of_text> <end_of_text> <|end|>",
    "ﬁne ﬂoor ﬃ ligatures Ａ　Ｆｕｌｌ ｗｉｄｔｈ １２３",
    "K (kelvin) Å (angstrom) Ω (ohm) µ μ ǅ ẞ ŉ",
    "snake_case camelCase kebab-case C++ C# #hashtag @user user@example.com https://a.b/c?d=e&f=g",
    "!!! ??? ... --- *** ~~~ $$$ %%% ^^^ ((())) [[]] {{}} \\\\ // || `` \"\" ''",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
    "mathematics 𝓐𝓑𝓒 𝟘𝟙𝟚 ∑∫√ ≤≥ → ← 𐍈 𠜎",
    "combining a\u0300\u0301\u0302\u0303 zalgo h̷e̷l̷l̷o̷",
    " ".join(["seventy-five"] + ["word"] * 72),
    " ".join(["word"] * 75),
    " ".join(["word"] * 76),
    "a very long caption about a dog 🐕 and a cat, " * 60,
    "𓀀" * 200,
]


def openai_tokenizer():
    tokenizer = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    for renamed, name in names.items():
        tokenizer.encoder[name] = tokenizer.encoder.pop(renamed)
    tokenizer.cache = {name: name for name in names.values()}
    tokenizer.pat = regex.compile(
        r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""",  # noqa: E501
        regex.IGNORECASE,
    )
    return tokenizer


def main():
    ids = openai_tokenizer()(TEXTS).tolist()
    cases = [{"text": text, "ids": row} for text, row in zip(TEXTS, ids, strict=True)]
    for case in cases:
        while case["ids"][-1] == 0:
            case["ids"].pop()
    lines = ",\n".join(json.dumps(case) for case in cases)
    Path(__file__).with_name("tokenizer.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
