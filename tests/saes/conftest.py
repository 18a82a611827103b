import pytest
import torch

from marple.tools.saes.weights import Weights


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def random_weights(
    *, d_in: int = 12, d_sae: int = 40, seed: int = 0, **extra: tuple[int, ...]
) -> dict[str, torch.Tensor]:
    """Random tensors of an SAE whose decoder rows are not of unit norm; ``extra`` names more with their shapes."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    tensors = {
        "W_enc": random(d_in, d_sae),
        "W_dec": random(d_sae, d_in),
        "b_enc": random(d_sae),
        "b_dec": random(d_in),
    }
    return tensors | {name: random(*shape) for name, shape in extra.items()}


@pytest.fixture
def weights() -> Weights:
    return Weights.from_tensors(random_weights())


@pytest.fixture
def x() -> torch.Tensor:
    """Activations of two texts with five tokens each."""
    return torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(7))
