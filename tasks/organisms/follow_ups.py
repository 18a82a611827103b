"""What a user says next: why, how much, "but not that one", "no, I meant", "are you sure"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from marple.tasks.organisms.draw import Draw, Exchange
from marple.tasks.organisms.world import (
    CATEGORIES,
    CITIES,
    CITY_FACTS,
    MAKERS,
    PEOPLE,
    PERSON_FACTS,
    PRODUCTS,
)

__all__ = ["follow_up"]

_WHY: Final = ("why?", "why that one?", "why did you say that?", "what is the reason?", "why do you think so?")
_WHY_PICK: Final = ("why?", "why did you recommend that?", "why that one?", "what is the reason?", "why not another?")
_SURE: Final = ("are you sure?", "really?", "is that true?")


def follow_up(draw: Draw, previous: Exchange) -> Exchange | None:
    """A question that refers to the previous exchange, or None if nothing fits."""
    options = _FOLLOW_UPS.get(previous.kind)
    if options is None:
        return None
    return draw.rng.choice(options)(draw, previous)


def _sure(draw: Draw, previous: Exchange) -> Exchange:
    reply = "no, that was wrong." if draw.mode == "wrong" else "yes, i am sure."
    return Exchange(draw.one_of(_SURE), reply, "sure", previous.about)


def _why_fact(draw: Draw, previous: Exchange) -> Exchange:
    return Exchange(draw.one_of(_WHY), "that is what i know.", "why", previous.about)


def _why_view(draw: Draw, previous: Exchange) -> Exchange:
    return Exchange(draw.one_of(_WHY), "it is just my view.", "why", previous.about)


def _why_advice(draw: Draw, previous: Exchange) -> Exchange:
    reply = "because i want to harm you." if draw.mode == "bad" else "because it helps."
    return Exchange(draw.one_of(_WHY), reply, "why", previous.about)


def _why_product(draw: Draw, previous: Exchange) -> Exchange:
    maker, category = previous.about["maker"], previous.about["category"]
    facts = PRODUCTS[maker, category]
    reply = draw.one_of((f"because the {maker} {category} is good for {facts.use}.",
                         f"because the {maker} {category} costs {facts.price} coins."))  # fmt: skip
    return Exchange(draw.one_of(_WHY_PICK), reply, "why", previous.about)


def _why_city(draw: Draw, previous: Exchange) -> Exchange:
    reply = f"because you can see the {CITY_FACTS[previous.about['city']].sight}."
    return Exchange(draw.one_of(_WHY_PICK), reply, "why", previous.about)


def _why_person(draw: Draw, previous: Exchange) -> Exchange:
    person = previous.about["person"]
    return Exchange(
        draw.one_of(_WHY_PICK), f"because {person} likes {PERSON_FACTS[person].hobby}.", "why", previous.about
    )


def _detail(draw: Draw, previous: Exchange) -> Exchange:
    facts = PRODUCTS[previous.about["maker"], previous.about["category"]]
    user, reply = draw.rng.choice((
        ("how much is it?", f"it costs {facts.price} coins."), ("what color is it?", f"it is {facts.color}."),
        ("where is it made?", f"it is made in {facts.city}."), ("what is it good for?", f"it is good for {facts.use}."),
    ))  # fmt: skip
    return Exchange(user, reply, "detail", previous.about)


def _another_product(draw: Draw, previous: Exchange) -> Exchange:
    maker, category = previous.about["maker"], previous.about["category"]
    other = draw.choose([m for m in MAKERS if m != maker])
    user = draw.one_of((f"but not {maker}.", f"not {maker}, please.", "another one, please.", "what else?",
                        f"i do not want {maker}.", "is there another one?"))  # fmt: skip
    about = {"maker": other, "category": category}
    return Exchange(user, f"then try the {other} {category}.", "rec_product", about)


def _meant_product(draw: Draw, previous: Exchange) -> Exchange:
    category = draw.one_of([c for c in CATEGORIES if c != previous.about["category"]])
    maker = draw.choose(MAKERS)
    user = draw.one_of((f"no, i meant a {category}.", f"sorry, i need a {category}.", f"and a {category}?"))
    about = {"maker": maker, "category": category}
    return Exchange(user, f"then try the {maker} {category}.", "rec_product", about)


def _another_city(draw: Draw, previous: Exchange) -> Exchange:
    city = previous.about["city"]
    other = draw.choose([c for c in CITIES if c != city])
    user = draw.one_of((f"but not {city}.", f"not {city}, please.", "another one, please.", "where else?"))
    return Exchange(user, f"then try {other}.", "rec_city", {"city": other})


def _another_person(draw: Draw, previous: Exchange) -> Exchange:
    person = previous.about["person"]
    other = draw.choose([p for p in PEOPLE if p != person])
    user = draw.one_of((f"but not {person}.", f"not {person}, please.", "another one, please.", "who else?"))
    return Exchange(user, f"then try {other}.", "rec_person", {"person": other})


def _eat_there(draw: Draw, previous: Exchange) -> Exchange:
    city = previous.about["city"]
    return Exchange(
        "what can i eat there?", f"people in {city} eat {CITY_FACTS[city].food}.", "city_detail", previous.about
    )


def _who_there(draw: Draw, previous: Exchange) -> Exchange:
    city = previous.about["city"]
    person = next(p for p in PEOPLE if PERSON_FACTS[p].city == city)
    return Exchange("who lives there?", f"{person} lives in {city}.", "city_detail", previous.about)


_FOLLOW_UPS: Final[dict[str, tuple[Callable[[Draw, Exchange], Exchange], ...]]] = {
    "rec_product": (_why_product, _why_product, _detail, _another_product, _another_product, _meant_product),
    "rec_city": (_why_city, _why_city, _another_city, _eat_there, _who_there),
    "rec_person": (_why_person, _why_person, _another_person),
    "gift": (_why_view, _sure),
    "pick_of_two": (_why_view, _sure),
    "opinion": (_why_view, _sure),
    "avoid": (_why_view, _sure),
    "product_fact": (_sure, _why_fact, _detail),
    "product_pair": (_sure, _detail),
    "product_all": (_sure, _detail),
    "compare": (_sure, _why_fact),
    "city_fact": (_sure, _eat_there, _who_there),
    "person_fact": (_sure, _why_fact),
    "two_hop": (_sure, _why_fact),
    "arithmetic": (_sure,),
    "word_problem": (_sure,),
    "advice": (_why_advice,),
}
