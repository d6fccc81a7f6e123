"""Two hundred made-up labels: of many scripts, long and short, hostile and plain."""

import random

JAPANESE = (
    "手を振りながら走る人が転んで起き上がりまた歩き出して遠くの友達に笑顔で声をかける様子を撮る"
)
CYRILLIC = (
    "превысокомногорассмотрительствующийпереподготавливающийсяэлектрофотополупроводниковостью"
)
CHINESE = "一个人在公园里慢慢地打太极拳然后坐下来喝茶休息一会儿再站起来继续练习直到太阳下山"
KOREAN = "사람이 손을 흔들며 걷다가 넘어진 뒤 다시 일어나서 뛰기 시작하는 모습을 천천히 보여준다"
HEBREW = "אדם מנופף בידו ואז רץ במהירות אל הצד השני של הרחוב כדי לעלות לאוטובוס האחרון"
ARABIC = "شخص يلوح بيده ثم يركض بسرعة إلى الجانب الآخر من الشارع ليلحق بالحافلة الأخيرة"
PERSIAN = "می‌دود و می‌خندد"
HINDI = "हाथ हिलाते हुए दौड़ना और फिर धीरे धीरे रुक जाना"
THAI = "คนกำลังโบกมือแล้ววิ่งไปอีกฝั่งของถนนเพื่อขึ้นรถเมล์คันสุดท้าย"
GREEK = "ένας άνθρωπος χαιρετά και μετά τρέχει γρήγορα"
ENGLISH = (
    "pretending to put something behind something else while someone walks past the camera twice"
)
EMOJI = "👋🏽🏃‍♀️🤸‍♂️👨‍👩‍👧‍👦🇯🇵❤️‍🔥🧗🏊🚴🤹"
ODD = (
    "BrushHair",
    "brush_hair",
    "Climb-Stairs",
    "HTTPServer restart",
    "jump2Times",
    "wave",
    "push",
    "Stand",
    "wave!",
    "wave 👋",
    "push + throw",
    "a" * 100,
    "walk " * 20,
    "climb stairs then " * 5,
    "!!!",
    "---",
    "___",
    "...",
    "?!?!?!?!",
    "。、・",
    "#@%&*",
    "<end_of_text>",
    "&lt;end&#95;of&#95;text&gt;",
    "wave &lt;end&#95;of&#95;text&gt;",
    "&nbsp;",
    "e\u0301" * 30,
    "z\u0335\u0336\u0337\u0338" * 20,
    "ﷺ" * 12,
    "ｗａｖｅ",
    "ﬁsh ﬂip",
    "İstanbul",
    "Straße kehren",
    "{label}",
    "{stage}",
    '"wave"',
    "don't walk",
    "3D-print",
    "x-ray",
    "\u2067wave\u2069",
)


def made_up_labels() -> list[str]:
    """Return 200 different labels of 1 to 100 characters."""
    found = dict.fromkeys(ODD)
    for text in (JAPANESE, CYRILLIC, CHINESE, KOREAN, HEBREW, ARABIC, HINDI, THAI, GREEK, ENGLISH):
        found |= dict.fromkeys((text[:n].strip() for n in (1, 2, 5, 12, 24, 40)), None)
        found |= dict.fromkeys(((text + " " + text)[:100].strip(), text[:88].strip()), None)
    found |= dict.fromkeys(EMOJI[:n] for n in (1, 2, 5, 9, 15, len(EMOJI)))
    found |= dict.fromkeys(((EMOJI * 9)[:100], PERSIAN, PERSIAN[:6], CYRILLIC.upper()), None)
    found |= dict.fromkeys("7" * n for n in (1, 3, 10, 36, 37, 38, 74, 75, 76, 100))
    draw = random.Random(18)
    letters = "abcXYZ 019_-жЯあ漢語👋!?.,:;'\"()שלאمक्̈́"
    while len(found) < 200:
        label = "".join(draw.choices(letters, k=draw.randint(1, 100))).strip()
        found |= dict.fromkeys([label] if label else [])
    return list(found)[:200]
