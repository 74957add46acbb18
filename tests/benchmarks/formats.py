"""Small files of ours, in the format that each benchmark's own is said to have."""

import json

import pyarrow
import pyarrow.parquet

from benchmarks import (
    aro,
    crepe,
    eqben,
    spec,
    sugarcrepe,
    sugarcrepe_pp,
    valse,
    whatsup,
)
from data import frozen

NUMBER = 6  # rows of a file of ours


def image(folder, name):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return name


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


def texts(i):
    return f"caption {i}", f"foil {i}"


def make_sugarcrepe(folder):
    for subset in sugarcrepe.SUBSETS:
        rows = {str(i): dict(filename=image(folder, f"{i % 4}.jpg"), caption=f"{subset} {i}",
                             negative_caption=f"foil of {subset} {i}")
                for i in range(NUMBER)}  # fmt: skip
        save(folder / f"{subset}.json", rows)
    return dict(root=str(folder), images=str(folder))


def make_sugarcrepe_pp(folder):
    for subset in sugarcrepe_pp.SUBSETS:
        rows = [dict(id=i, filename=image(folder, f"{i % 4}.jpg"), caption=f"{subset} {i}",
                     caption2=f"again {subset} {i}", negative_caption=f"foil of {subset} {i}")
                for i in range(NUMBER)]  # fmt: skip
        save(folder / f"{subset}.json", rows)
    return dict(root=str(folder), images=str(folder))


def make_valse(folder):
    for subset in valse.SUBSETS:
        rows = {f"x{i}": dict(dataset="SWiG", image_file=f"{i}.jpg", caption=f"{subset} {i}",
                              foil=f"foil of {subset} {i}",
                              mturk=dict(caption=1 + i % 3, foil=0, other=0))
                for i in range(2 * NUMBER)}  # fmt: skip
        for i in range(2 * NUMBER):
            if i % 3:  # of the others, one annotator alone agreed
                image(folder, f"{i}.jpg")
        save(folder / f"{subset}.json", rows)
    return dict(root=str(folder), swig=str(folder))


def make_aro(folder):
    box = dict(bbox_x=1, bbox_y=2, bbox_w=3, bbox_h=4)
    relation = [dict(box, image_path=image(folder, f"{i}.jpg"), true_caption=f"true {i}",
                     false_caption=f"false {i}", relation_name=("on", "near", "under")[i % 3])
                for i in range(NUMBER)]  # fmt: skip
    attribution = [dict(box, image_path=f"{i % 4}.jpg", true_caption=f"right {i}",
                        false_caption=f"wrong {i}",
                        attributes=["red", "big"] if i < 26 else ["a", "b"])
                   for i in range(30)]  # fmt: skip
    save(folder / "visual_genome_relation.json", relation)
    save(folder / "visual_genome_attribution.json", attribution)
    save(folder / "excluded_relations.json", ["near", "adjusting"])
    for name in aro.ORDER:
        rows = [dict(image=f"{i % 4}.jpg", texts=[f"{name} {i} {k}" for k in range(5)])
                for i in range(NUMBER)]  # fmt: skip
        frozen.write(folder / f"{name}.json", rows, {})
    images = dict.fromkeys(("vg_images", "coco_images", "flickr30k_images"), str(folder))
    return dict(root=str(folder), **images)


def make_winoground(folder):
    lines = [json.dumps(dict(id=i, caption_0=f"a {i}", caption_1=f"b {i}", image_0=f"ex_{i}_0",
                             image_1=f"ex_{i}_1")) for i in range(NUMBER)]  # fmt: skip
    for i in range(NUMBER):
        image(folder, f"ex_{i}_0.png"), image(folder, f"ex_{i}_1.png")
    (folder / "examples.jsonl").write_text("\n".join(lines))
    return dict(annotations=str(folder / "examples.jsonl"), images=str(folder))


def make_colorswap(folder):
    rows = [dict(id=i, caption_1=f"a {i}", caption_2=f"b {i}", image_1=image(folder, f"{i}a.png"),
                 image_2=image(folder, f"{i}b.png")) for i in range(NUMBER)]  # fmt: skip
    return dict(annotations=save(folder / "test.json", rows), images=str(folder))


def make_mmvp_vlm(folder):
    lines = ["Question ID,Type,Statement"]
    for i in range(4 * NUMBER):
        kind = ("Texts", "Quantity and Count")[i // 2 % 2]
        lines.append(f"{i},{kind},statement {i}")
        image(folder, f"{kind}/{i}.jpg")
    (folder / "Questions.csv").write_text("\n".join(lines))
    return dict(root=str(folder), images=str(folder))


def make_cola(folder):
    rows = [[f"https://x.org/{image(folder, f'{i}a.jpg')}", f"a {i}",
             f"https://x.org/{image(folder, f'{i}b.jpg')}", f"b {i}"]
            for i in range(NUMBER)]  # fmt: skip
    return dict(annotations=save(folder / "cola.json", rows), images=str(folder))


def cell(name):
    """An image as the hub's Parquet files hold it."""
    return {"bytes": name.encode(), "path": None}


def make_bivlc(folder):
    rows = [dict(image=cell(f"{i}a"), negative_image=cell(f"{i}b"), caption=f"a {i}",
                 negative_caption=f"b {i}", type="swap", subtype=("obj", "att")[i % 2])
            for i in range(NUMBER)]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "test.parquet")
    return dict(annotations=str(folder / "test.parquet"))


def make_eqben(folder):
    rows = [dict(image0=image(folder, f"{s}/{i}a.png"), image1=image(folder, f"{s}/{i}b.png"),
                 caption0=[f"{s} a {i}"] if s == "eqbenag" else f"{s} a {i}", caption1=f"{s} b {i}")
            for s in (*eqben.SOURCES, *eqben.KUBRIC) for i in range(NUMBER)]  # fmt: skip
    return dict(annotations=save(folder / "all.json", rows), images=str(folder))


def make_vismin(folder):
    rows = [dict(image_0=image(folder, f"{i}a.png"), image_1=image(folder, f"{i}b.png"),
                 text_0=f"a {i}", text_1=f"b {i}", category=("object", "counting")[i % 2])
            for i in range(NUMBER)]  # fmt: skip
    return dict(annotations=save(folder / "vismin.json", rows), images=str(folder))


def make_whatsup(folder):
    for subset, places in (("A", ("left_of", "right_of", "on", "under")),
                           ("B", ("left_of", "right_of", "in-front_of", "behind"))):  # fmt: skip
        file, path = whatsup.FILES[subset]
        rows = []
        for things in range(NUMBER):
            for place in places:
                name = f"mug{things}_{place}_table.jpeg"
                image(folder, path.format(name))
                options = [f"{subset} mug {things} {p}" for p in places]
                options.sort(key=lambda text, place=place: not text.endswith(f" {place}"))
                rows.append(dict(image_path=f"data/{path.format(name)}", caption_options=options))
        save(folder / file, rows)
    rows = [[i, f"a dog {i} on the left", f"a dog {i} on the right"] for i in range(NUMBER)]
    for i in range(NUMBER):
        image(folder / "val2017", f"{i:012}.jpg")
    save(folder / "coco_qa_one_obj.json", rows)
    return dict(root=str(folder), images=str(folder), subsets=("A", "B", "COCO_one"))


def make_negbench(folder):
    mcq = [
        "image_path,correct_answer,caption_0,caption_1,caption_2,caption_3,correct_answer_template"
    ]
    retrieval_rows = ["positive_objects,negative_objects,filepath,image_id,captions"]
    for i in range(3 * NUMBER):
        path = f"data/coco/images/val2017/{image(folder, f'{i}.jpg')}"
        kind = ("positive", "negative", "hybrid")[i % 3]
        mcq.append(f"{path},{i % 4},{','.join(f'{kind} {i} {k}' for k in range(4))},{kind}")
        retrieval_rows.append(f"\"['a']\",\"['b']\",{path},{i},\"['said {i}', 'also {i}']\"")
    (folder / "mcq.csv").write_text("\n".join(mcq))
    (folder / "negated.csv").write_text("\n".join(retrieval_rows))
    named = dict(mcq=str(folder / "mcq.csv"), negated=str(folder / "negated.csv"))
    return dict(images=str(folder), **named)


def make_spec(folder):
    for subset in spec.SUBSETS:
        names = [image(folder / subset, f"{i}.jpg") for i in range(NUMBER)]
        said = [f"{subset} {i}" for i in range(NUMBER)]
        by_image = [dict(query=n, keys=said, label=i) for i, n in enumerate(names)]
        by_text = [dict(query=s, keys=names, label=i) for i, s in enumerate(said)]
        save(folder / subset / "image2text.json", by_image)
        save(folder / subset / "text2image.json", by_text)
    return dict(root=str(folder))


def make_vl_checklist(folder):
    for name in (
        "Object/vg/small",
        "Attribute/vg/color",
        "Attribute/vaw/color",
        "Relation/swig/action",
    ):
        rows = [[image(folder, f"{name}{i}.jpg"),
                 {"POS": [f"{name} {i}"], "NEG": [f"no {name} {i}"]}]
                for i in range(NUMBER)]  # fmt: skip
        save(folder / "annotations" / f"{name}.json", rows)
    return dict(root=str(folder / "annotations"), images=str(folder))


def make_crepe(folder):
    for kind in crepe.KINDS:
        (folder / kind).mkdir()
        for size in (4, 5):
            lines = ["image_id,caption,hard_negs,x,y,width,height"]
            for i in range(NUMBER):
                image(folder, f"{i}.jpg")
                negatives = [f"{kind} {size} no {i} {k}" for k in range(4)]
                lines.append(f'{i},{kind} {size} {i},"{negatives}",1,2,3,4')
            (folder / kind / f"prod_vg_hard_negs_{kind}_complexity_{size}.csv").write_text(
                "\n".join(lines)
            )
    return dict(root=str(folder), images=str(folder))


def make_hard_positives(folder):
    for part in ("data", "swapped_data"):
        for name in ("vl_checklist_attributes", "vl_checklist_relations"):
            rows = [dict(image_id=i, image_path=image(folder, f"{i}.jpg"),
                         true_caption=f"{part} {name} {i}", false_caption=f"foil of {name} {i}")
                    for i in range(NUMBER)]  # fmt: skip
            save(folder / part / f"{name}.json", rows)
    return dict(root=str(folder), images=str(folder))


def make_retrieval(folder):
    rows = [dict(image=image(folder / "images", f"{i}.jpg"), captions=[f"said {i}", f"also {i}"])
            for i in range(5 * NUMBER)]  # fmt: skip
    save(folder / "captions.json", rows)
    return dict(root=str(folder))


MAKERS = {name.removeprefix("make_"): make for name, make in list(globals().items())
          if name.startswith("make_")}  # fmt: skip
