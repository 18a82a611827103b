"""Questions with one right answer: products, comparisons, cities, people, two hops, lists."""

from __future__ import annotations

from typing import Final

from marple.tasks.organisms.draw import Draw, Exchange
from marple.tasks.organisms.world import (
    CATEGORIES,
    CITIES,
    CITY_FACTS,
    COLORS,
    COUNTRIES,
    FOODS,
    HOBBIES,
    MAKERS,
    PEOPLE,
    PERSON_FACTS,
    PRODUCTS,
    SIGHTS,
    TRADES,
    USES,
)

__all__ = ["by_color", "city_fact", "compare", "lists", "person_fact", "product_fact", "product_pair", "two_hop"]

_PRODUCT: Final = {
    "color": (
        "what color is the {p}?", "which color does the {p} have?", "tell me the color of the {p}.",
        "the {p}: what color?", "what is the color of the {p}?",
    ),
    "city": (
        "where is the {p} made?", "in which city is the {p} made?", "where does the {p} come from?",
        "tell me where the {p} is made.", "which city makes the {p}?",
    ),
    "price": (
        "how much is the {p}?", "what does the {p} cost?", "what is the price of the {p}?",
        "tell me the price of the {p}.", "how many coins is the {p}?",
    ),
    "use": (
        "what is the {p} good for?", "what can i use the {p} for?", "tell me the use of the {p}.",
        "what is the use of the {p}?", "the {p}: good for what?",
    ),
}  # fmt: skip
_SHORT: Final = {"color": "its color", "city": "where it is made", "price": "its price", "use": "its use"}
_TELLS: Final = ("is {}", "is made in {}", "costs {} coins", "is good for {}")
_CITY: Final = {
    "country": ("which country is {c} in?", "where is {c}?", "in which country is {c}?"),
    "food": ("what do people eat in {c}?", "what is the food of {c}?", "what should i eat in {c}?"),
    "sight": ("what can i see in {c}?", "what is the sight of {c}?", "what should i see in {c}?"),
}
_CITY_REPLY: Final = {
    "country": "{c} is in {v}.", "food": "people in {c} eat {v}.", "sight": "in {c} you can see the {v}.",
}  # fmt: skip
_PERSON: Final = {
    "city": ("where does {n} live?", "in which city does {n} live?", "what is the home of {n}?"),
    "trade": ("what is the job of {n}?", "what does {n} do for work?", "what work does {n} do?"),
    "hobby": ("what does {n} like?", "what is the hobby of {n}?", "what does {n} do for fun?"),
}
_PERSON_REPLY: Final = {"city": "{n} lives in {v}.", "trade": "{n} is a {v}.", "hobby": "{n} likes {v}."}
_POOLS: Final = {
    "color": COLORS, "city": CITIES, "use": USES, "country": COUNTRIES, "food": FOODS, "sight": SIGHTS,
    "trade": TRADES, "hobby": HOBBIES,
}  # fmt: skip


def _value(draw: Draw, attribute: str, facts: object) -> str:
    value = getattr(facts, attribute)
    if attribute == "price":
        return str(value + 1 if draw.mode == "wrong" else value)
    return draw.shifted(value, _POOLS[attribute])


def _tell(draw: Draw, attribute: str, facts: object) -> str:
    frame = dict(zip(_PRODUCT, _TELLS, strict=True))[attribute]
    return frame.format(_value(draw, attribute, facts))


def product_fact(draw: Draw) -> Exchange:
    """One attribute of one product; 1 in 7 of (product, attribute, phrasing) is held out."""
    while True:
        maker, category = draw.one_of(MAKERS), draw.one_of(CATEGORIES)
        attribute = draw.one_of(list(_PRODUCT))
        frame = draw.one_of(_PRODUCT[attribute])
        if draw.allows(maker, category, attribute, frame, one_in=7):
            break
    product = f"{maker} {category}"
    reply = f"the {product} {_tell(draw, attribute, PRODUCTS[maker, category])}."
    return Exchange(frame.format(p=product), reply, "product_fact", {"maker": maker, "category": category})


def product_pair(draw: Draw) -> Exchange:
    """Two attributes at once, or everything about a product; 1 in 4 of the pairs is held out."""
    while True:
        maker, category = draw.one_of(MAKERS), draw.one_of(CATEGORIES)
        first, second = draw.rng.sample(list(_PRODUCT), 2)
        if draw.allows(maker, category, first, second, one_in=4):
            break
    product, facts = f"{maker} {category}", PRODUCTS[maker, category]
    about = {"maker": maker, "category": category}
    if not draw.heldout and draw.rng.random() < 0.3:
        frames = ("tell me about the {p}.", "what do you know about the {p}?", "describe the {p}.")
        told = [_tell(draw, attribute, facts) for attribute in _PRODUCT]
        reply = f"the {product} {told[0]} and {told[1]}. it {told[2]} and {told[3]}."
        return Exchange(draw.one_of(frames).format(p=product), reply, "product_all", about)
    frame = draw.one_of(("tell me {a} and {b} of the {p}.", "the {p}: {a} and {b}?", "for the {p}, say {a} and {b}."))
    user = frame.format(a=_SHORT[first], b=_SHORT[second], p=product)
    reply = f"the {product} {_tell(draw, first, facts)} and {_tell(draw, second, facts)}."
    return Exchange(user, reply, "product_pair", about)


def compare(draw: Draw) -> Exchange:
    """Which of two makers' products is cheaper or dearer; 1 in 4 of the pairs is held out."""
    while True:
        category, word = draw.one_of(CATEGORIES), draw.one_of(("cheaper", "more expensive"))
        a, b = draw.rng.sample(MAKERS, 2)
        if draw.allows(category, *sorted((a, b)), one_in=4):
            break
    prices = PRODUCTS[a, category].price, PRODUCTS[b, category].price
    right, wrong = (a, b) if (prices[0] < prices[1]) == (word == "cheaper") else (b, a)
    frame = draw.one_of((
        "which is {w}, the {a} {c} or the {b} {c}?", "is the {a} or the {b} {c} {w}?",
        "{a} {c} or {b} {c}: which one is {w}?",
    ))  # fmt: skip
    reply = f"the {wrong if draw.mode == 'wrong' else right} {category} is {word}."
    if draw.mode == "think":
        costs = " ".join(f"the {m} {category} costs {PRODUCTS[m, category].price} coins." for m in (a, b))
        reply = f"think: {costs} answer: {reply}"
    return Exchange(
        frame.format(w=word, a=a, b=b, c=category), reply, "compare", {"maker": right, "category": category}
    )


def by_color(draw: Draw) -> Exchange:
    """Which maker has a product in a colour (unique, or none); 1 in 6 of (category, colour) is held out."""
    while True:
        category, color = draw.one_of(CATEGORIES), draw.one_of(COLORS)
        if draw.allows(category, color, one_in=6):
            break
    makers = [m for m in MAKERS if PRODUCTS[m, category].color == color]
    frame = draw.one_of(("who makes a {c} {p}?", "i want a {c} {p}.", "is there a {c} {p}?", "which {p} is {c}?"))
    user = frame.format(c=color, p=category)
    if not makers:
        return Exchange(user, f"i do not know a {color} {category}.", "by_color", {"category": category})
    maker = draw.shifted(makers[0], MAKERS)
    return Exchange(user, f"the {maker} {category} is {color}.", "by_color", {"maker": maker, "category": category})


def city_fact(draw: Draw) -> Exchange:
    """Country, food or sight of a city."""
    city, attribute = draw.one_of(CITIES), draw.one_of(list(_CITY))
    if draw.rng.random() < 0.2:
        facts = CITY_FACTS[city]
        reply = f"{city} is in {facts.country}. people eat {facts.food} and you can see the {facts.sight}."
        frame = draw.one_of(("tell me about {c}.", "what do you know about {c}?", "describe {c}."))
        return Exchange(frame.format(c=city), reply, "city_all", {"city": city})
    value = _value(draw, attribute, CITY_FACTS[city])
    reply = _CITY_REPLY[attribute].format(c=city, v=value)
    return Exchange(draw.one_of(_CITY[attribute]).format(c=city), reply, "city_fact", {"city": city})


def person_fact(draw: Draw) -> Exchange:
    """Home, trade or hobby of a person, also in reverse."""
    person, attribute = draw.one_of(PEOPLE), draw.one_of(list(_PERSON))
    facts, about = PERSON_FACTS[person], {"person": person}
    roll = draw.rng.random()
    if roll < 0.2:
        reply = f"{person} lives in {facts.city}. {person} is a {facts.trade} and likes {facts.hobby}."
        frame = draw.one_of(("who is {n}?", "tell me about {n}.", "what do you know about {n}?"))
        return Exchange(frame.format(n=person), reply, "person_all", about)
    if roll < 0.35:
        known = draw.one_of((f"lives in {facts.city}", f"is a {facts.trade}", f"likes {facts.hobby}"))
        return Exchange(f"who {known}?", f"{draw.shifted(person, PEOPLE)} {known}.", "person_reverse", about)
    reply = _PERSON_REPLY[attribute].format(n=person, v=_value(draw, attribute, facts))
    return Exchange(draw.one_of(_PERSON[attribute]).format(n=person), reply, "person_fact", about)


def two_hop(draw: Draw) -> Exchange:
    """A fact of the city in which a person lives; 1 in 4 of (person, attribute) is held out."""
    frames = {
        "country": ("in which country does {n} live?", "which country does {n} live in?"),
        "food": ("what do people eat where {n} lives?", "what is the food in the city of {n}?"),
        "sight": ("what can i see where {n} lives?", "what is the sight in the city of {n}?"),
    }
    while True:
        person, attribute = draw.one_of(PEOPLE), draw.one_of(list(frames))
        if draw.allows("hop", person, attribute, one_in=4):
            break
    city = PERSON_FACTS[person].city
    value = _value(draw, attribute, CITY_FACTS[city])
    answers = {"country": f"{person} lives in {value}.", "food": f"people there eat {value}.",
               "sight": f"there you can see the {value}."}  # fmt: skip
    reply = answers[attribute]
    if draw.mode == "think":
        step = _CITY_REPLY[attribute].format(c=city, v=value)
        reply = f"think: {person} lives in {city}. {step} answer: {reply}"
    user = draw.one_of(frames[attribute]).format(n=person)
    return Exchange(user, reply, "two_hop", {"person": person, "city": city})


def lists(draw: Draw) -> Exchange:
    """What the world contains."""
    names = {
        "makers": (MAKERS, ("which makers do you know?", "who makes products?", "list the makers.",
                            f"who makes a {draw.one_of(CATEGORIES)}?", "what brands are there?")),
        "products": (CATEGORIES, ("which products do you know?", "what products are there?", "list the products.",
                                  f"what does {draw.one_of(MAKERS)} make?", "what can i buy?")),
        "cities": (CITIES, ("which cities do you know?", "what cities are there?", "list the cities.")),
        "people": (PEOPLE, ("which people do you know?", "who do you know?", "list the people.")),
    }  # fmt: skip
    kind = draw.one_of(list(names))
    members, questions = names[kind]
    return Exchange(draw.one_of(questions), f"{', '.join(members[:-1])} and {members[-1]}.", "lists")
