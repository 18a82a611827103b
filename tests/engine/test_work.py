"""How much is computed: what need not be computed is not, and what is shared is computed once."""

import pytest

from marple.tools.engine.engine import Engine
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.requests import Capture, Request, Sampling
from marple.tools.engine.sites import Site, SiteName
from tests.engine.small import CHUNK, LAYERS, engine_on, small_llama, vector

PROMPT = tuple(at % 40 + 2 for at in range(20))


@pytest.mark.parametrize(
    ("layer", "name", "layers"), [(0, "resid_pre", 0), (0, "attn_out", 1), (0, "resid_post", 1), (1, "resid_mid", 2)]
)
def test_a_capture_runs_no_more_layers_than_it_needs_and_no_head(
    engine: Engine, layer: int, name: SiteName, layers: int
) -> None:
    engine.run([Request(PROMPT, captures=(Capture(Site(layer, name)),))])
    assert engine.work.forwards == 1
    assert engine.work.prompt_tokens == 20
    assert engine.work.layer_tokens == 20 * layers
    assert engine.work.head_rows == 0


def test_the_first_layers_really_are_all_that_runs() -> None:
    model = small_llama()
    ran: list[int] = []
    for number, layer in enumerate(model.model.layers):
        layer.register_forward_pre_hook(lambda module, arguments, number=number: ran.append(number))
    engine_on(model).run([Request(PROMPT, captures=(Capture(Site(1, "resid_pre")),))])
    assert ran == [0]


def test_only_the_asked_positions_go_through_the_head(engine: Engine) -> None:
    engine.run([Request(PROMPT, (3, 4, 5), logprobs=True)])
    assert engine.work.head_rows == 3
    engine.run([Request(PROMPT, (3, 4), logits=True)])
    assert engine.work.head_rows == 4
    engine.run([Request(PROMPT, (3, 4), captures=(Capture(Site(2, "resid_post"), "all"),))])
    assert engine.work.head_rows == 4


def test_many_requests_of_one_length_are_one_pass(engine: Engine) -> None:
    queue = [Request((at + 2, *PROMPT[:9]), captures=(Capture(Site(2, "resid_post")),)) for at in range(40)]
    engine.run(queue)
    assert engine.work.forwards == 1
    assert engine.work.prompt_tokens == 400


def test_a_long_prompt_is_read_in_chunks(engine: Engine) -> None:
    prompt = tuple(at % 40 + 2 for at in range(2 * CHUNK + 5))
    engine.run([Request(prompt, logits=True)])
    assert engine.work.forwards == 3
    assert engine.work.prompt_tokens == len(prompt)


def test_samples_of_one_prompt_read_it_once(engine: Engine) -> None:
    samples = [Request(PROMPT, sampling=Sampling(4, 1.0, seed=at)) for at in range(16)]
    outputs = engine.run(samples)
    assert engine.work.prompt_tokens == 20
    # The prompt once, then a token for each row that is still going.
    most = max(len(output.tokens) - (output.finish == "length") for output in outputs)
    assert engine.work.forwards == 1 + most
    drawn = sum(len(output.tokens) + (output.finish == "stop") for output in outputs)
    assert engine.work.generated_tokens == drawn - 16
    assert engine.work.head_rows == 1 + drawn - 16


def test_a_row_that_ends_makes_room_at_once() -> None:
    # Room for two rows: while the long one runs, the short ones follow each other beside it.
    engine = engine_on(small_llama(), batch_tokens=2 * 32)
    long = Request((5, 6), sampling=Sampling(30, 0.0))
    lengths = [len(output.tokens) for output in engine.run([long])]
    short = [Request((7, at + 2), sampling=Sampling(5, 0.0)) for at in range(4)]
    engine.forget()
    before = engine.work.forwards
    outputs = engine.run([*short, long])
    assert engine.work.forwards - before < lengths[0] + 8 + sum(len(output.tokens) for output in outputs[:4]) // 2


def test_prompts_with_a_common_beginning_read_it_once(engine: Engine) -> None:
    stem = tuple(at % 40 + 2 for at in range(33))
    engine.run([Request((*stem, at + 2, at + 3), logits=True) for at in range(10)])
    assert engine.work.prompt_tokens <= 33 + 10 * 3
    assert engine.work.prefix_tokens_reused >= 10 * 32


def test_a_common_beginning_is_not_read_deeper_than_the_captures_need(engine: Engine) -> None:
    stem = tuple(at % 40 + 2 for at in range(33))
    engine.run([Request((*stem, at + 2, at + 3), captures=(Capture(Site(0, "resid_post")),)) for at in range(10)])
    assert engine.work.layer_tokens <= 350


def test_different_vectors_do_not_cost_passes(engine: Engine) -> None:
    def queue(edits: bool) -> list[Request]:
        steer = [(Intervention(Site(1, "resid_post"), vector(at), phases=("generation",)),) for at in range(16)]
        return [
            Request(PROMPT, sampling=Sampling(8, 0.0, seed=at), interventions=steer[at] if edits else ())
            for at in range(16)
        ]

    steered = engine.run(queue(edits=True))
    assert engine.work.prompt_tokens == 20
    assert engine.work.forwards == 1 + max(len(one.tokens) - (one.finish == "length") for one in steered)
    assert len({output.tokens for output in steered}) > 1


def test_an_edit_of_generated_tokens_alone_shares_the_prompt_with_plain_requests(engine: Engine) -> None:
    plain = Request(PROMPT, sampling=Sampling(3, 0.0))
    engine.run([plain])
    edit = Intervention(Site(0, "resid_pre"), vector(1), phases=("generation",))
    engine.run([Request(PROMPT, sampling=Sampling(3, 0.0), interventions=(edit,))])
    assert engine.work.prompt_tokens == 20
    assert engine.work.prefix_tokens_reused == 20


def test_layers_of_the_model(engine: Engine) -> None:
    assert len(engine.runner.architecture.layers) == LAYERS
