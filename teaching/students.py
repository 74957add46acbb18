"""Students: a language model, taught by context or gradient, and a CLIP, taught by gradient."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from errors import UserError
from files import read_json, write_json
from language.base import LanguageModel
from teaching.base import Item, Outcome, Record, Student, Task


@dataclasses.dataclass(frozen=True)
class LanguageStudent(Student):
    """A language model that answers a task in writing.

    Attributes:
      demos: what it has in mind, before each question.
      trainer: (records, seed) -> the model after gradient steps; by default records become demos.
      most_demos: of these the newest are kept.
      sampling: of LanguageModel.generate.
    """

    model: LanguageModel
    task: Task
    demos: tuple[Item, ...] = ()
    trainer: Callable[[Sequence[Record], int], LanguageModel] | None = None
    most_demos: int = 8
    sampling: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"max_tokens": 100})

    def answer(self, items, demos=(), help=None):
        demos = (*self.demos, *demos)
        helps = [(help or {}).get(item.key) for item in items]
        prompts = [self.task.render(item, demos, h) for item, h in zip(items, helps, strict=True)]
        texts = self._write(prompts)
        answers = list(map(self.task.parse, texts, items, helps))
        # A student that thought aloud and gave no answer is asked for it once more.
        asks = {
            i: self.task.again(item, demos, text)
            for i, (item, text) in enumerate(zip(items, texts, strict=True))
            if answers[i] is None and helps[i] is None
        }
        asks = {i: ask for i, ask in asks.items() if ask}
        for i, text in zip(asks, self._write([p for p, _ in asks.values()]), strict=True):
            answers[i] = self.task.parse(text, items[i], asks[i][1])
        return [
            Outcome(item, a, a is not None and self.task.grade(a, item), None, text)
            for item, a, text in zip(items, answers, texts, strict=True)
        ]

    def _write(self, prompts: Sequence[str]) -> list[str]:
        if not prompts:
            return []
        return [each[0].text for each in self.model.generate(prompts, **self.sampling)]

    def fit(self, records, seed):
        if self.trainer:
            return dataclasses.replace(self, model=self.trainer(records, seed))
        demos = (*self.demos, *map(_item, records))
        return dataclasses.replace(self, demos=demos[-self.most_demos :])

    def save(self, folder):
        if self.trainer:
            raise UserError("a language model trained by gradient is kept by its trainer")
        rows = [dataclasses.asdict(demo) for demo in self.demos]
        write_json(Path(folder, "demos.json"), rows, ensure_ascii=False)

    def load(self, folder):
        rows = read_json(Path(folder, "demos.json"))
        return dataclasses.replace(self, demos=tuple(map(_item, rows)))


def _item(row: Mapping[str, Any]) -> Item:
    """The item of a row of json, which knows no tuples."""
    return Item(**{**row, "options": tuple(row.get("options", ()))})


@dataclasses.dataclass(frozen=True)
class ClipStudent(Student):
    """A CLIP that picks the option whose text is nearest to the image; a tie is no answer.

    Attributes:
      params: its parameters, a pytree of arrays.
      encoder: params -> an encoder with images(list) and texts(list), unit rows.
      trainer: (params, records, seed) -> params after training on the records.
      logit_scale: params -> the factor before the softmax of p_correct.
    """

    params: Any
    encoder: Callable[[Any], Any]
    trainer: Callable[[Any, Sequence[Record], int], Any]
    logit_scale: Callable[[Any], float] = lambda params: 100.0

    def answer(self, items, demos=(), help=None):
        encoder, scale = self.encoder(self.params), self.logit_scale(self.params)
        # Several items may ask about one image.
        images = {id(item.image): item.image for item in items}
        images = dict(zip(images, encoder.images(list(images.values())), strict=True))
        texts = iter(encoder.texts([text for item in items for text in item.options]))
        outcomes = []
        for item in items:
            image = images[id(item.image)]
            cosines = np.array([next(texts) @ image for _ in item.options], np.float64)
            logits = scale * (cosines - cosines.max())
            p = np.exp(logits) / np.exp(logits).sum()
            tied = (cosines == cosines.max()).sum() > 1
            answer = None if tied else item.options[int(cosines.argmax())]
            p_correct = float(p[item.options.index(item.answer)])
            outcomes.append(Outcome(item, answer, answer == item.answer, p_correct))
        return outcomes

    def fit(self, records, seed):
        return dataclasses.replace(self, params=self.trainer(self.params, records, seed))

    def save(self, folder):
        leaves = map(np.asarray, jax.tree.leaves(self.params))
        np.savez(Path(folder, "params.npz"), *leaves)

    def load(self, folder):
        leaves, tree = jax.tree.flatten(self.params)
        with np.load(Path(folder, "params.npz")) as file:
            saved = [file[name] for name in file.files]
        if list(map(np.shape, saved)) != list(map(np.shape, leaves)):
            raise UserError(f"{folder} holds the parameters of another student")
        layouts = [getattr(leaf, "sharding", None) for leaf in leaves]
        params = jax.tree.unflatten(tree, map(jax.device_put, saved, layouts))
        return dataclasses.replace(self, params=params)
