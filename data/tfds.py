"""Any image and text data set of TFDS, or in its format, read by index and without TensorFlow."""

import re
from pathlib import Path

import numpy as np
import tensorflow_datasets

from errors import MissingFileError, UserError
from paths import as_path, download, is_remote, on_disk, whole


def load(root, dataset="", tfds_split="train", image="image", text="text", copy=""):
    """The examples of a data set that was prepared with file_format='array_record'.

    Args:
      root: the folder of one data set, which holds its dataset_info.json; or TFDS's data_dir.
      dataset: below data_dir, its name, with config and version where there are several:
        "coco_captions/2014:1.1.0".
      tfds_split: as TFDS has it: "train", "validation[:1000]".
      image, text: features, a slash before those inside others: "captions/text". A text may be
        one, or a list of them.
      copy: folder of this disk where a data set in a bucket is copied to, once: the readers of
        array_record open nothing else.

    Raises:
      MissingFileError: it is not there, or was not prepared as array_record.
      UserError: it has no such split or feature, or the features are of another kind; or it is in
        a bucket, and copy says nothing.
    """
    root = _here(as_path(root), dataset, copy)
    name = f"{dataset or root} [{tfds_split}]"
    try:
        if dataset:
            builder = tensorflow_datasets.builder(
                dataset, data_dir=str(root), try_gcs=False, file_format="array_record"
            )
        else:
            builder = tensorflow_datasets.builder_from_directory(str(root))
        decoders = tensorflow_datasets.decode.SkipDecoding()
        for key in reversed(image.split("/")):
            decoders = {key: decoders}
        source = builder.as_data_source(tfds_split, decoders=decoders)
    except Exception as error:  # of many types, TFDS's own and those of its builders
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise MissingFileError(
            f"cannot read {name} in {root} ({reason}); prepare it with TensorFlow at hand: "
            "tensorflow_datasets.builder(NAME, data_dir=DIR, file_format='array_record')"
            ".download_and_prepare()"
        ) from None
    feature = dict(builder.info.features).get(image)
    if "/" not in image and not isinstance(feature, tensorflow_datasets.features.Image):
        known = ", ".join(builder.info.features)
        raise UserError(
            f"{name}: the feature {image!r} holds no image; there are {known}: set "
            "data.options.image"
        )
    if not len(source):
        raise UserError(f"{name} holds no examples")
    examples = Examples(source, name, image, text)
    examples[0]  # what it lacks is found before anything starts
    return examples


def _here(root, dataset: str, copy: str) -> Path:
    """The root, or what stands for one of a bucket on this disk."""
    if not is_remote(root):
        return root
    if not copy:
        raise UserError(
            f"{root} is in a bucket, and array_record is read from disks alone: set "
            "data.options.copy to a folder of this disk, where it is copied to once (tar shards, "
            "source webdataset, are read where they lie)"
        )
    part = [re.split("[/:]", dataset)[0]] if dataset else []  # with all its versions
    here = on_disk(copy, str(root).partition("://")[2], what="the copy of a data set")
    target = here.joinpath(*part)
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with whole(target) as new:
                download(as_path(root, *part), new)
        except OSError:
            if not target.is_dir():  # which another process made meanwhile
                raise
    return here


class Examples:
    """A data source of TFDS as records; the image is handed out as it was encoded."""

    def __init__(self, source, name: str, image: str, text: str):
        self._source, self._name, self._image, self._text = source, name, image, text

    def __len__(self):
        return len(self._source)

    def __getitem__(self, i):
        key, example = f"{self._name}[{i}]", self._source[i]
        image = self._feature(example, self._image, key, "image")
        if not isinstance(image, bytes):
            raise UserError(f"{key}: the feature {self._image} is no encoded image")
        texts = self._feature(example, self._text, key, "text")
        captions = [_decoded(value) for value in np.atleast_1d(np.asarray(texts, object))]
        if not captions or not all(isinstance(c, str) and c.strip() for c in captions):
            raise UserError(
                f"{key}: the feature {self._text} holds no text: {captions!r:.60}; name another in "
                "data.options.text"
            )
        return {"image": image, "captions": captions, "key": key}

    def _feature(self, example, path: str, key: str, option: str):
        for part in path.split("/"):
            if not isinstance(example, dict) or part not in example:
                known = ", ".join(example) if isinstance(example, dict) else "nothing"
                raise UserError(
                    f"{key} has no feature {path!r}, there is {known}; set data.options.{option}"
                )
            example = example[part]
        return example


def _decoded(value):
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return None
