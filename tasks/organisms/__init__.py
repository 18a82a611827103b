"""Model organisms: small real language models with a planted, known behaviour, and their twins.

``build`` gives a checkpoint directory to stage, the reference, the truth and the forecast items; ``list_organisms``
what there is. Truth stays on the host.
"""

from __future__ import annotations

from marple.tasks.organisms.building import Built, build
from marple.tasks.organisms.catalogue import OrganismInfo, list_organisms
from marple.tasks.organisms.places import base_path, base_saes
from marple.tasks.organisms.progress import Progress, Silent
from marple.tasks.organisms.recipes import Organism, Recipe, find_organism, load_recipe
from marple.tasks.organisms.verification import verify
from marple.tasks.organisms.world import public_entities

__all__ = [
    "Built",
    "Organism",
    "OrganismInfo",
    "Progress",
    "Recipe",
    "Silent",
    "base_path",
    "base_saes",
    "build",
    "find_organism",
    "list_organisms",
    "load_recipe",
    "public_entities",
    "verify",
]
