"""What a method is: a loss, a teacher, the batch fields it needs and what it carries along."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from errors import UserError
from losses import distillation
from models.embeddings import Embeddings
from options import Options, definition, modules_that_define
from training.teacher import Policies, ema, external, frozen, none

Batch = dict[str, jax.Array]
Carry = Any  # a pytree of arrays
Metrics = dict[str, jax.Array]
MethodLoss = Callable[
    [Embeddings, Embeddings | None, Batch, Carry], tuple[jax.Array, Metrics, Carry]
]

WITH_NEGATIVES = ("image", "text", "negatives", "negatives_valid")


def clamp_logit_scale(params: dict) -> dict:
    """Clips params['logit_scale'], a logarithm, to [0, ln 100] (CLIP, arXiv 2103.00020, 2.5).

    One that does not learn is left as it is.
    """
    if "logit_scale" not in params:
        return params
    return {**params, "logit_scale": jnp.clip(params["logit_scale"], 0.0, math.log(100.0))}


def logit_scale(student: Embeddings) -> Metrics:
    """The temperature of a CLIP, for the log."""
    return {"logit_scale": student.logit_scale}


class Texts(NamedTuple):
    """Further texts of a sample that a method asks for, see data/roles.py.

    Attributes:
      role: what they are; "captions" are other captions of the same image.
      count: M, drawn for each sample.
      group: G, texts that belong together, such as a unit and its foil.
    """

    role: str
    count: int = 1
    group: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample's texts: (M,), or (M, G) where G > 1."""
        return (self.count, self.group) if self.group > 1 else (self.count,)


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """One paper's way to train.

    Attributes:
      loss: (student, teacher, batch, carry) -> (loss [], each term by name, next carry);
        global arrays, teacher is None where the policy keeps none.
      teacher: how the teacher follows the student; by name where the student has several, and loss
        gets them by name, too.
      batch_fields: what the batch must hold, beside what `texts` says.
      texts: further texts of each sample: batch["texts:role"] are their ids, batch["valid:role"]
        bool [N, M] says which there are, and student.texts[role] are their embeddings.
      needs: what the models hand out beside pooled embeddings, student and teacher alike:
        "image_tokens" of patches, "text_tokens" of captions and negatives (models/embeddings.py).
      init_carry: () -> what the method hands from one step to the next, with explicit dtypes.
      project: the parameters that learn, after each update and after the teacher has seen them ->
        those to go on with.
      observe: student's output -> what is logged of it, whatever the loss.

    The defaults of project and observe are for a CLIP; a method of another model gives its own.
    """

    loss: MethodLoss
    teacher: Policies = none()
    batch_fields: tuple[str, ...] = ("image", "text")
    texts: tuple[Texts, ...] = ()
    needs: tuple[str, ...] = ()
    init_carry: Callable[[], Carry] = lambda: ()
    project: Callable[[dict], dict] = clamp_logit_scale
    observe: Callable[[Embeddings], Metrics] = logit_scale

    @property
    def fields(self) -> tuple[str, ...]:
        """All that the batch must hold."""
        of_texts = (f"{kind}:{texts.role}" for texts in self.texts for kind in ("texts", "valid"))
        return (*self.batch_fields, *of_texts)


def optional_teacher(make: Callable[..., Method]) -> Callable[..., Method]:
    """Gives a make() four more options, which put its method under DeGLA's self-distillation.

    teacher: 'none', 'ema' or 'frozen', the initial weights or config.teacher's; distill_weight, of
    the summed squared error of images, captions and hard negatives to the teacher's
    (arXiv 2504.16801); distill_negatives, whether hard negatives are among them; ema_decay a step.
    A method whose teacher is another model, config.teacher's, keeps that one beside it.
    """

    @functools.wraps(make)
    def with_teacher(
        *args,
        teacher: str = "none",
        distill_weight: float = 0.005,
        distill_negatives: bool = True,
        ema_decay: float = 0.9996,
        **options,
    ):
        method = make(*args, **options)
        policies = {"none": none, "ema": functools.partial(ema, ema_decay), "frozen": frozen}
        if teacher not in policies:
            raise UserError(f"unknown teacher {teacher!r}; give 'none', 'ema' or 'frozen'")
        if teacher == "none":
            return method

        has_another, policy = method.teacher.external, policies[teacher]()

        def loss(student, teacher, batch, carry):
            another, teacher = (
                (teacher["teacher"], teacher["self"]) if has_another else (None, teacher)
            )
            total, metrics, carry = method.loss(student, another, batch, carry)
            distill = distillation.squared_error(
                student.toward("self" if has_another else "teacher"),
                jax.lax.stop_gradient(teacher),
                batch.get("negatives_valid") if distill_negatives else None,
            )
            return total + distill_weight * distill, {**metrics, "distill": distill}, carry

        both = {"teacher": method.teacher, "self": policy} if has_another else policy
        return dataclasses.replace(method, loss=loss, teacher=both)

    signature, more = inspect.signature(make), inspect.signature(with_teacher, follow_wrapped=False)
    added = [p for p in more.parameters.values() if p.kind is p.KEYWORD_ONLY]
    parameters = [*signature.parameters.values(), *added]
    with_teacher.__signature__ = signature.replace(parameters=parameters)
    return with_teacher


def language_model(
    loss: MethodLoss, batch_fields: tuple[str, ...], teacher: Policies | None = None
) -> Method:
    """A method of a language model, whose output is the log-probability of each token."""
    return Method(
        loss,
        none() if teacher is None else teacher,
        batch_fields,
        project=lambda params: params,
        observe=lambda log_probabilities: {},
    )


def available() -> list[str]:
    """Names of the methods: the modules beside this one."""
    return modules_that_define("make", Path(__file__).parent)


def find(name: str) -> tuple[Callable[..., Method], Options]:
    """make() of methods/<name>.py, and the options that it takes.

    Raises:
      UserError: no such method; says which there are and the nearest.
    """
    return definition("make", "methods", name, "method", section="config.method.options")


def load(name: str, options: Mapping[str, Any]) -> Method:
    """The method in methods/<name>.py, made with these options.

    Raises:
      UserError: no such method or no such option; says which there are and the nearest.
    """
    make, takes = find(name)
    return make(**takes.arguments(options))


def with_external_teachers(method: Method, names: Collection[str]) -> Method:
    """The method with these teachers of config.teacher and config.teachers.

    Raises:
      UserError: it has no place for a teacher, or none was named for it.
    """
    policies = method.teacher
    if isinstance(policies, Mapping):
        needed = {name for name, policy in policies.items() if policy.external}
        if needed != set(names):
            raise UserError(
                f"the method compares with the teachers {', '.join(sorted(needed))}, and the config"
                f" names {', '.join(sorted(names)) or 'none'}: set config.teachers.<name>.from"
            )
        return method
    if not names:
        if policies.external:
            raise UserError("the method needs a teacher: set config.teacher.from")
        return method
    if policies.moves:
        raise UserError(
            "the method's teacher is a moving average of the student, so config.teacher.from "
            "cannot take its place: choose a frozen one (config.method.options.teacher=frozen)"
        )
    if set(names) != {"teacher"}:
        raise UserError(
            f"the method has one teacher, and the config names {', '.join(sorted(names))}: set "
            "config.teacher alone, or choose another method"
        )
    if not policies.external and policies.init(()) is None:
        raise UserError(
            "the method has no teacher, so config.teacher.from is of no use: choose another, or "
            "set config.method.options.teacher=frozen where it has that option"
        )
    return dataclasses.replace(method, teacher=external())


def check_batch(method: Method, fields: Iterable[str]) -> None:
    """Raises a UserError if a field that the method needs is not among the batch's."""
    fields = set(fields)
    missing = [field for field in method.fields if field not in fields]
    if missing:
        raise UserError(
            f"the method needs {', '.join(missing)} and a batch holds only"
            f" {', '.join(sorted(fields))}: choose data that has them, or another method"
        )
