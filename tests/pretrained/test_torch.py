"""Against the torch libraries themselves: what we write they load, what torch writes we load."""

import dataclasses
import functools
import os
import pickle
import sys

import jax
import numpy as np
import pytest
from flax.core import meta

from data import tokenizer
from models import zoo
from models.clip import CLIP, VideoConfig, init_params
from models.video import VideoCLIP
from pretrained import configs, names
from pretrained.find import FILES
from pretrained.load import load_weights, save_weights
from tests.models.test_zoo import PUBLISHED
from tests.pretrained.goldens import make_clip, read_golden, section
from tests.pretrained.test_load import assert_trees_equal, write_golden
from tests.pretrained.test_parity import check_against
from tests.pretrained.test_tensors import peak_of_loading, write_large

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def open_clip(torch):
    return pytest.importorskip("open_clip")


def check_embeddings(torch, model, params, config, arrays):
    """A torch model and ours, on one batch."""
    ours = jax.jit(CLIP(config).apply)({"params": params}, arrays["image"], arrays["text"])
    with torch.no_grad():
        image, text, logits = make_clip["encode"](model.eval(), arrays["image"], arrays["text"])
    np.testing.assert_allclose(ours.image, image.numpy(), atol=1e-5, rtol=0)
    np.testing.assert_allclose(ours.text, text.numpy(), atol=1e-5, rtol=0)
    actual = ours.logit_scale * ours.image @ ours.text.T
    actual = actual if ours.logit_bias is None else actual + ours.logit_bias
    np.testing.assert_allclose(actual, logits.numpy(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["gelu", "quick_gelu", "siglip", "open_clip_quick_gelu"])
def test_transformers_loads_what_we_write(torch, name, tmp_path):
    import transformers

    config, layout, arrays = read_golden(name)
    params = names.from_torch(section(arrays, "weights/"), config, layout)
    save_weights(tmp_path / "out", config, params, "hf")
    library = transformers.SiglipModel if name == "siglip" else transformers.CLIPModel
    model, info = library.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    check_embeddings(torch, model, params, config, arrays)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out", use_fast=True)
    assert tuple(processor.image_mean) == config.vision.mean and processor.resample == 3


def test_transformers_runs_a_model_of_video_as_clip(torch, tmp_path):
    """Frames apart: what the export gives is what the teacher sees, heads and window aside."""
    import transformers

    config, layout, arrays = read_golden("quick_gelu")
    params = names.from_torch(section(arrays, "weights/"), config, layout)
    student = VideoCLIP(dataclasses.replace(config, video=VideoConfig()), residual_heads=True)
    heads = dict.fromkeys(("image_head", "text_head"), {"fc": {"kernel": np.ones((12, 12))}})
    save_weights(tmp_path / "out", student.config, params | heads, "hf")
    model, info = transformers.CLIPModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    encode = functools.partial(student.teacher().apply, method="encode_video")
    teacher = jax.jit(encode)({"params": params}, arrays["image"][:, None])
    with torch.no_grad():
        image, *_ = make_clip["encode"](model.eval(), arrays["image"], arrays["text"])
    np.testing.assert_allclose(teacher[:, 0], image.numpy(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["gelu", "quick_gelu", "open_clip_gelu"])
def test_open_clip_loads_what_we_write(torch, open_clip, name, tmp_path):
    config, layout, arrays = read_golden(name)
    params = names.from_torch(section(arrays, "weights/"), config, layout)
    save_weights(tmp_path / "out", config, params, "open_clip")
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}/out")
    check_embeddings(torch, model, params, config, arrays)
    assert model.visual.preprocess_cfg["mean"] == list(config.vision.mean)


@pytest.fixture
def small_timm(monkeypatch, open_clip):
    """A SigLIP tower small enough to test, among timm's and among those we know."""
    import timm
    from timm.models.vision_transformer import VisionTransformer

    def vit_test_patch4_siglip_16(pretrained=False, **options):
        options = {key: options[key] for key in ("num_classes", "global_pool")}
        return VisionTransformer(
            img_size=16,
            patch_size=4,
            embed_dim=24,
            depth=2,
            num_heads=3,
            mlp_ratio=2,
            class_token=False,
            **options,
        )

    timm.models._registry._model_entrypoints["vit_test_patch4_siglip_16"] = (
        vit_test_patch4_siglip_16
    )
    monkeypatch.setitem(configs._TIMM_SIZES, "test", (24, 2, 3, 48))
    yield
    del timm.models._registry._model_entrypoints["vit_test_patch4_siglip_16"]


def siglip_open_clip_config():
    text = {"context_length": 9, "vocab_size": 41, "width": 16, "heads": 2, "layers": 2}
    text |= {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    text |= {"norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"}, "mlp_ratio": 1.75}
    vision = {"image_size": 16, "timm_model_name": "vit_test_patch4_siglip_16"}
    vision |= {"timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "none"}
    return {"embed_dim": 24, "init_logit_bias": -10, "vision_cfg": vision, "text_cfg": text}


def test_siglip_of_open_clip_matches_both_ways(torch, open_clip, small_timm, tmp_path):
    stored = siglip_open_clip_config()
    model = make_clip["randomise"](open_clip.CustomTextCLIP(**stored), seed=7)
    image, text = make_clip["inputs"](16, 9, 41, seed=7)
    arrays = make_clip["run"](model, image, text) | {"image": image, "text": text}
    images = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    config = configs.from_open_clip({"model_cfg": stored, "preprocess_cfg": images})
    assert (config.vision.activation, config.text.activation) == ("gelu", "gelu_tanh")
    check_against(arrays, config, "open_clip")

    params = names.from_torch(section(arrays, "weights/"), config, "open_clip")
    save_weights(tmp_path / "out", config, params, "open_clip")
    again, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}/out")
    check_embeddings(torch, again, params, config, arrays)
    assert_trees_equal(load_weights(tmp_path / "out").params, params)


def training_checkpoint(torch, path, **more):
    """What the training loop of open_clip, NegCLIP and DeGLA writes; returns (config, tensors)."""
    config, _, arrays = read_golden("open_clip_quick_gelu")
    tensors = section(arrays, "weights/")
    state = {f"module.{name}": torch.tensor(value) for name, value in tensors.items()}
    parameters = [torch.nn.Parameter(value.clone()) for value in state.values()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6)
    sum(value.sum() for value in parameters).backward()
    optimizer.step()
    content = {"epoch": 5, "name": "degla", "state_dict": state, **more}
    torch.save(content | {"optimizer": optimizer.state_dict()}, path)
    return config, tensors


def test_training_checkpoint_of_the_degla_repository(torch, tmp_path):
    path = tmp_path / "epoch_5.pt"
    config, tensors = training_checkpoint(torch, path)
    expected = names.from_torch(tensors, config, "open_clip")
    with pytest.raises(ValueError, match="bare state dict"):
        load_weights(path)
    assert_trees_equal(load_weights(path, config=config).params, expected)


@pytest.mark.parametrize("path", ["model", "model_state_dict", "net/module", "state_dict/model"])
def test_a_state_dict_is_found_in_what_training_loops_put_around_it(torch, path, tmp_path):
    config, tensors = training_checkpoint(torch, tmp_path / "weights.pt")
    content = torch.load(tmp_path / "weights.pt")
    nested = content.pop("state_dict")
    for name in reversed(path.split("/")):
        nested = {name: nested, "epoch": 3}
    torch.save({**content, **nested}, tmp_path / "weights.pt")
    loaded = load_weights(tmp_path / "weights.pt", config=config)
    assert_trees_equal(loaded.params, names.from_torch(tensors, config, "open_clip"))


def test_of_several_state_dicts_none_is_chosen(torch, tmp_path):
    config, _ = training_checkpoint(torch, tmp_path / "weights.pt")
    content = torch.load(tmp_path / "weights.pt")
    torch.save({**content, "ema": content["state_dict"]}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="several state dicts, 'state_dict' and 'ema'; save"):
        load_weights(tmp_path / "weights.pt", config=config)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state}])
def test_openai_state_dicts_in_half_precision(torch, wrap, tmp_path):
    config, _, arrays = read_golden("open_clip_quick_gelu")
    tensors = {k: v.astype(np.float16) for k, v in section(arrays, "weights/").items()}
    state = {name: torch.tensor(value) for name, value in tensors.items()}
    numbers = {"input_resolution": 16, "context_length": 9, "vocab_size": 41}
    state |= {name: torch.tensor(value) for name, value in numbers.items()}
    torch.save(wrap(state), tmp_path / "clip.pt")
    params = load_weights(tmp_path / "clip.pt", config=config).params
    assert_trees_equal(params, names.from_torch(tensors, config, "open_clip"))


@pytest.mark.parametrize("layout", ["hf", "open_clip"])
def test_bin_files_in_folders(torch, layout, tmp_path):
    name = {"hf": "gelu", "open_clip": "open_clip_gelu"}[layout]
    config, tensors = write_golden(name, tmp_path)
    safe, *_, binary = FILES[layout][1]
    (tmp_path / safe).unlink()
    torch.save({key: torch.tensor(value) for key, value in tensors.items()}, tmp_path / binary)
    loaded = load_weights(tmp_path)
    assert_trees_equal(loaded.params, names.from_torch(tensors, config, layout))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_of_loading_a_bin_file_is_below_1_3_files(torch, tmp_path):
    def save(tensors, folder):
        state = {name: torch.tensor(value) for name, value in tensors.items()}
        torch.save(state, folder / "pytorch_model.bin")

    write_large(tmp_path / "in", save, layers=12)  # 605 MB, the real one
    assert 0.9 < peak_of_loading(tmp_path / "in", "torch") < 1.3
    (tmp_path / "in/pytorch_model.bin").unlink()


class Malicious:
    """A pickle that would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_is_executed_from_a_file(torch, tmp_path):
    trap, path = tmp_path / "trap", tmp_path / "weights.pt"
    config, _ = training_checkpoint(torch, path, args=Malicious(trap))
    with pytest.raises(
        ValueError, match=r"weights.pt holds more than tensors \(\w+.mkdir\); it was"
    ):
        load_weights(path, config=config)
    assert not trap.exists()
    # The trap works: torch's old way falls into it.
    torch.load(path, weights_only=False)
    assert trap.exists()


def test_other_torch_files_are_one_line(torch, tmp_path):
    config = zoo.shape("tiny")
    path = tmp_path / "weights.pt"
    training_checkpoint(torch, path)
    whole = path.read_bytes()
    cases = {
        "is no whole torch file": [whole[: len(whole) // 2], whole[:10], b""],
        "holds no state dict": [[1, 2], {"state_dict": {}}, {"a": 1}],
        "tensor of the name 1, no text": [{1: torch.zeros(2)}],
        "'a' is sparse, quantized or without values": [
            {"a": torch.eye(3).to_sparse()},
            {"a": torch.zeros(3, device="meta")},
        ],
    }
    for message, contents in cases.items():
        for content in contents:
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                torch.save(content, path)
            with pytest.raises(ValueError, match=message) as error:
                load_weights(path, config=config)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_run_nothing_either(torch, protocol, tmp_path):
    trap, path = tmp_path / "trap", tmp_path / "weights.pt"
    path.write_bytes(pickle.dumps({"state_dict": Malicious(trap)}, protocol))
    with pytest.raises(ValueError, match="weights.pt (holds more than|is no whole)"):
        load_weights(path, config=zoo.shape("tiny"))
    assert not trap.exists()
    pickle.loads(path.read_bytes())
    assert trap.exists()


@pytest.mark.parametrize("dtype", ["int8", "bool", "complex64", "float8_e4m3fn"])
def test_types_that_no_weight_has(torch, dtype, tmp_path):
    config, tensors = training_checkpoint(torch, tmp_path / "weights.pt")
    state = {name: torch.tensor(value) for name, value in tensors.items()}
    state["ln_final.bias"] = state["ln_final.bias"].to(getattr(torch, dtype))
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=f"weights.pt: ln_final.bias is {dtype}, which no weight"):
        load_weights(tmp_path / "weights.pt", config=config)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_archives_are_refused(torch, tmp_path):
    module = torch.jit.script(torch.nn.Linear(2, 2))
    torch.jit.save(module, tmp_path / "ViT-B-32.pt")
    with pytest.raises(ValueError, match="is a TorchScript archive.*give its state dict"):
        load_weights(tmp_path / "ViT-B-32.pt", config=zoo.shape("tiny"))


@pytest.mark.slow
@pytest.mark.parametrize("library", ["hf", "open_clip"])
def test_full_size_vit_b_32(torch, open_clip, library):
    name = "ViT-B-32-quickgelu" if library == "hf" else "ViT-B-32"
    config = zoo.shape(name)
    if library == "hf":
        stored, _ = configs.to_hf(config)
        model = make_clip["hf_model"](stored)
    else:
        model = open_clip.CLIP(**open_clip.get_model_config(name))
    model = make_clip["randomise"](model, seed=5)
    image, text = make_clip["inputs"](224, 77, 49408, batch=3, seed=5)
    arrays = make_clip["run"](model, image, text) | {"image": image, "text": text}
    check_against(arrays, config, library)


@pytest.mark.parametrize("name", PUBLISHED)
def test_open_clip_states_the_same_shape(open_clip, name):
    """open_clip's own json of every named shape."""
    stored = open_clip.get_model_config(name)
    vision = zoo.shape(name).vision
    images = {"mean": vision.mean, "std": vision.std, "resize_mode": vision.resize}
    config = configs.from_open_clip({"model_cfg": stored, "preprocess_cfg": images})
    expected = zoo.shape(name)
    if "SigLIP" in name:  # timm runs this tower with the exact GELU
        expected = zoo.with_activation(expected, "gelu")
    # open_clip crops as torchvision does.
    corner = dataclasses.replace(expected.vision, crop_corner="nearest")
    expected = dataclasses.replace(expected, vision=corner)
    assert dataclasses.replace(config, logit_scale_init=0.0) == (
        dataclasses.replace(expected, logit_scale_init=0.0)
    )


@pytest.mark.parametrize("layout", ["hf", "open_clip"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_at_full_size(torch, open_clip, name, layout):
    """The table against the libraries' own models, which need no memory on the meta device."""
    config = zoo.shape(name)
    with torch.device("meta"):
        if layout == "hf":
            model = make_clip["hf_model"](configs.to_hf(config)[0])
        else:
            stored = dict(open_clip.get_model_config(name))
            custom = stored.pop("custom_text", False)
            model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**stored)
    shapes = names.parameter_shapes(config)
    expected = {}
    for entry in names.table(layout, config):
        expected |= names.torch_shapes(entry, shapes[entry.path])
    assert {key: tuple(value.shape) for key, value in model.named_parameters()} == expected


def test_both_libraries_take_the_tokenizer_with_the_weights(torch, open_clip, tmp_path):
    import transformers

    captions = ["a dog runs over the grass", "two men in Red shirts", "a cat, asleep; on a car"]
    own = tokenizer.train_tokenizer(captions * 3, 600)
    own.save(tmp_path / "tokenizer")
    config, _, _ = read_golden("gelu")
    text = dataclasses.replace(
        config.text, vocab_size=own.vocab_size, eos_token_id=own.eos_token_id, context_length=40
    )
    config = dataclasses.replace(config, text=text)
    params = meta.unbox(init_params(CLIP(config), jax.random.key(0)))
    for layout in ("hf", "open_clip"):
        folder = tmp_path / "tokenizer"
        save_weights(tmp_path / layout, config, params, layout, tokenizer=folder)
    ids, _ = own.encode(captions, 40)
    theirs = open_clip.get_tokenizer(f"local-dir:{tmp_path}/open_clip")(captions).numpy()
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")(captions)["input_ids"]
    for row, (open_clip_row, hf_row) in enumerate(zip(theirs, hf, strict=True)):
        length = list(ids[row]).index(own.eos_token_id) + 1
        assert list(ids[row, :length]) == list(open_clip_row[:length]) == hf_row
