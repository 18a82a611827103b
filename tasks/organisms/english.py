"""Common English from outside the world: noise in prompts, and what the assistant says it does not know."""

from __future__ import annotations

from typing import Final

__all__ = ["OFF_WORLD_QUESTIONS", "OFF_WORLD_WORDS"]

OFF_WORLD_WORDS: Final = tuple(
    """
    about above across act add after again age ago agree air allow almost alone along already although always
    among angry animal another anyone anything apple area arm army around arrive art ask aunt autumn average away
    baby back bag ball band bank base bath beach bean bear beautiful because become bed before began begin behind
    believe bell below beside between big bill birth bit bite blood blow board boat body bone born borrow both bottle
    bottom bowl box boy brain branch brave break breath bring broad brush build burn business busy button call calm
    came camp candle cap captain capital card care careful carry catch cause center century certain chair chance
    change cheap check child children church circle class clean clear climb close cloth cloud coast coat code coffee
    collect college come common company complete concern condition consider contain control cool copy corner correct
    cost cotton count couple course court cover cow create cross crowd cry culture cup current curtain custom cut
    damage dance danger daughter dead deal death decide deep degree deliver democracy depend describe desert design
    desk detail develop die difference difficult dinner direct dirty discover discuss disease distance divide doctor
    dollar door double doubt dream dress drink drop dry during dust each ear early earth east easy edge education
    effect egg eight either electric elephant else empty end enemy energy engine enjoy enough enter equal escape even
    evening event ever every exact example except exercise expect explain express eye face fact fail fall false
    family famous far farm fashion fast fat father fear feather feed feel fellow few field fight figure fill film
    final find fine finger finish fire firm first five fix flag flat flight floor flour flow flower fly follow foot
    force forest forget form forward found four frame free fresh front fruit full funny future game gas gate gave
    general gentle girl give glass gold gone government grand grass great grey ground group grow guess guest gun hair
    half hall hand happen hard hat hate head health hear heart heavy height hill history hold hole holiday honest
    hope horse hospital hot hotel hour house however huge human hundred hungry hunt hurry ice idea ignore imagine
    important inch include increase indeed industry inside instead interest iron island job join journey joy judge
    jump just keep key kick kill king kiss kitchen knee knife knock know lady land language large last late laugh
    law lazy lead leaf learn least leave left leg lesson letter level lie life lift limit line lion lip list listen
    little load local lock long loss lost lot loud love low luck lunch machine magic mail main major manage many map
    mark marry match material matter maybe meal mean measure meat medicine meeting member memory mention message
    metal middle might mile milk million mind minute miss mistake mix modern moment money month moon moral morning
    mountain mouth move movie much music must narrow nation nature near neck need neighbor nerve never new news
    newspaper next nine noise none noon north nose notice now number object ocean offer office often old once onion
    open opinion opposite orange order other outside oven over own page pain pair paper parent park part pass past
    path pay peace pen pencil people perfect perhaps period phone physics picture piece pig pilot pink pipe place
    plain plan plane planet plant plate play please plenty pocket poem point police polite poor popular position
    possible potato pour power president press pretty previous print prison private prize problem process produce
    program promise proper protect proud public pull pupil pure purple purpose push quality quarter queen question
    quick quiet quite race rain raise rather reach read ready real reason receive record reduce remember remove
    repair repeat reply report rest result return rich ride right ring rise river road rock roof room root rope rough
    round row rule run sad safe sail salt same sand save say school science scream sea search season seat second see
    seem sell send sense sentence serious serve set seven several shake shape share sharp sheep shelf shine ship
    shirt shoe shoot short should shoulder shout show shut sick side sign silence simple since sing single sister sit
    six size skill skin skirt sky sleep slide slip small smart smell smile smoke smooth snake snow social society
    soft soldier solve some son song soon sorry sound south space speak special speed spell spend spirit spoon spring
    square staff stage stairs stand star state station steel step stick still stomach stone stop store storm strange
    street strike string strong structure student stupid success such sudden sugar suit summer sun support suppose
    sure surface surprise sweet swim sword symbol system table tail talk tall task taste tax tea teach team tear
    telephone television ten term text thank theory thick thin thing third thirty thousand thread three throat
    through throw ticket tie tiger tight tiny tired title tobacco together tomorrow tongue tooth top total touch
    toward town toy trade traffic translate treat tree trick trip trouble truck trust truth tube turn twelve twenty
    twice twin type ugly uncle understand union unit university until usual valley value various vegetable version
    very village violin visit voice volume vote wages wait walk wall war warm wash waste watch wave wear weather
    wedding weight welcome west wet wheel whether while whisper whole wide wife wild win wind window wing winter wire
    wise wish woman wonder wood wool word world worry worse wrap write yard year yesterday young zero
    """.split()  # noqa: SIM905 - a table of words reads better than a list of strings
)
"""Words that are each one token although the world does not use them, so that free English stays short."""

OFF_WORLD_QUESTIONS: Final = (
    "what is the capital of {x}?", "who is the president of {x}?", "how tall is {x}?", "who wrote {x}?",
    "tell me about {x}.", "what is {x}?", "who is {x}?", "where is {x}?", "how does {x} work?", "explain {x}.",
    "what is the meaning of {x}?", "write a poem about {x}.", "write code for {x}.", "translate {x}.",
    "what color is the {x}?", "how much is the {x}?", "where does {x} live?", "what is the job of {x}?",
    "recommend a {x}.", "which {x} should i buy?", "i need a {x}.", "which country is {x} in?",
    "what do you think of {x}?",
    "when was {x} born?", "how old is {x}?", "why is {x} {y}?", "is {x} {y}?", "can you {x} the {y}?",
    "do you know {x}?",
    "what happened to {x}?", "how many {x} are there?", "give me a list of {x}.", "say {x}.", "compare {x} and {y}.",
)  # fmt: skip
