"""FROSTER across data sets: ViT-B/16 trained on all of Kinetics-400 for 22 epochs.

    python train.py --config=tpu_configs/froster_vit_b16_k400_cross.py --config.data.root=DIR

Scored on UCF-101 and HMDB-51, whole and by split, and on three splits of the classes that
Kinetics-600 adds. docs/video.md says what DIR holds, and how to average and score.
"""

from ml_collections import ConfigDict

from tpu_configs import base


def get_config() -> ConfigDict:
    config = base.get_froster_config()
    config.epochs = 22

    def files(lists, classes, videos):
        return dict(annotations=lists, classes=f"label_rephrase/{classes}.json", videos=videos)

    config.data.options = ConfigDict(
        files("label_db/weng_compress_full_splits/train.csv", "k400_rephrased_classes", "k400")
    )
    sets = {}
    for name, videos in (("ucf101", "ucf101"), ("hmdb", "hmdb51")):
        for split in ("full", "split1", "split2", "split3"):
            group = f"{name}_full" if split == "full" else f"{name}/{split}"
            lists = f"zs_label_db/{name}_{split}/test.csv"
            sets[group] = files(lists, f"{name}_rephrased_classes", videos)
    for split in ("split1", "split2", "split3"):
        lists = f"zs_label_db/k600_{split}/test.csv"
        sets[f"k600/{split}"] = files(lists, f"k600_{split}_rephrased_classes", "k600_val")
    config.eval.video.sets = ConfigDict(sets)
    return config
