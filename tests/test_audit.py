"""The suffix-swap audit: what it sends, what it concludes, and which models it finds out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from model_server import Answer, Server, serving

from harness.corpora.shards import TokenRows
from harness.scoring import bits, wire
from harness.scoring.audit import LEAST, NO_CUT, NOISIEST, REACH, Finding, Losses, Plan
from harness.scoring.client import Refused
from harness.scoring.scorer import Measured, chunked, fixed_rows, measure

CONTEXT, VOCAB, ROWS = 32, 40, 640
SEPARATOR = 0
BYTES = [0] + [3] * (VOCAB - 1)


# --- what is sent -------------------------------------------------------------------------------------------


def unique(rows: int, context: int = CONTEXT) -> np.ndarray:
    """Text in which no token comes twice, so that one can be looked for."""
    return np.arange(rows * (context + 1), dtype=np.uint16).reshape(rows, context + 1)


def draw(text: np.ndarray, scored: np.ndarray | None = None, seed: int = 0) -> Plan:
    everywhere = np.ones((len(text), text.shape[1] - 1), bool)
    chunks = chunked(len(text), CONTEXT, VOCAB)
    return Plan.draw(text, everywhere if scored is None else scored, chunks, np.random.default_rng(seed))


def audited(plan: Plan) -> np.ndarray:
    return np.concatenate(plan.chunks)


def test_nothing_that_stood_after_a_cut_is_sent() -> None:
    text = unique(ROWS)
    plan = draw(text)
    sent = plan.inputs[audited(plan)]
    gone = np.concatenate([text[row, plan.cuts[row] + 1 :] for row in audited(plan)])
    assert len(gone) > 1000
    assert not np.isin(sent, gone).any()


def test_all_that_stood_before_a_cut_is_sent() -> None:
    text = unique(ROWS)
    plan = draw(text)
    for row in audited(plan):
        assert np.array_equal(plan.inputs[row, : plan.cuts[row] + 1], text[row, : plan.cuts[row] + 1])


def test_what_comes_instead_is_a_piece_of_a_row_that_is_not_audited() -> None:
    text = unique(ROWS)
    plan = draw(text)
    others = np.setdiff1d(np.arange(ROWS), audited(plan))
    for row in audited(plan):
        piece = plan.inputs[row, plan.cuts[row] + 1 :]
        assert (np.diff(piece.astype(int)) == 1).all()
        assert np.isin(piece, text[others]).all()


def test_whole_chunks_are_sent_a_quarter_of_them_changed_and_some_others_as_they_were() -> None:
    chunks = {tuple(rows) for rows in chunked(ROWS, CONTEXT, VOCAB)}
    plan = draw(unique(ROWS))
    swapped, repeats = ({tuple(rows) for rows in part} for part in (plan.chunks, plan.repeats))
    assert (len(swapped), len(repeats)) == (len(chunks) // 4, len(chunks) // 16)
    assert swapped | repeats <= chunks
    assert not swapped & repeats


def test_cuts_are_spread_evenly_over_the_positions() -> None:
    cuts = [draw(unique(ROWS), seed=seed).cuts for seed in range(20)]
    found = np.bincount(np.concatenate([c[c != NO_CUT] for c in cuts]), minlength=CONTEXT)
    assert found[CONTEXT - 1] == 0  # its target stands in no row
    share = found[: CONTEXT - 1] / found.sum() * (CONTEXT - 1)
    assert share.min() > 0.8
    assert share.max() < 1.2


def test_a_cut_is_only_where_the_target_counts() -> None:
    scored = np.random.default_rng(1).random((ROWS, CONTEXT)) < 0.2
    plan = draw(unique(ROWS), scored)
    rows = np.flatnonzero(plan.cuts != NO_CUT)
    assert len(rows) > 100
    assert scored[rows, plan.cuts[rows]].all()


def test_a_row_without_a_target_that_counts_is_replaced_as_a_whole() -> None:
    text = unique(ROWS)
    plan = draw(text, np.zeros((ROWS, CONTEXT), bool))
    assert (plan.cuts == NO_CUT).all()
    assert not len(plan.places(plan.chunks[0]).cut)
    assert not np.isin(plan.inputs[audited(plan)], text[audited(plan)]).any()


def test_rows_that_are_not_audited_stay_as_they_are() -> None:
    text = unique(ROWS)
    plan = draw(text)
    others = np.setdiff1d(np.arange(ROWS), audited(plan))
    assert np.array_equal(plan.inputs[others], text[others, :-1])
    repeated = np.concatenate(plan.repeats)
    assert (plan.cuts[np.setdiff1d(others, repeated)] == NO_CUT).all()


def test_another_chance_draws_other_rows_and_other_cuts() -> None:
    one, other = draw(unique(ROWS), seed=1), draw(unique(ROWS), seed=2)
    assert {tuple(rows) for rows in one.chunks} != {tuple(rows) for rows in other.chunks}
    assert not np.array_equal(one.cuts, other.cuts)


def test_the_cut_and_some_positions_before_it_are_compared_in_each_row() -> None:
    plan = draw(unique(ROWS))
    for rows in plan.chunks + plan.repeats:
        places = plan.places(rows)
        assert np.array_equal(places.positions[places.cut], plan.cuts[rows[places.rows[places.cut]]])
        for number, row in enumerate(rows):
            cut = plan.cuts[row]
            found = places.positions[places.rows == number]
            assert sorted(found) == list(range(max(0, cut - REACH + 1), cut + 1))


@pytest.mark.parametrize("rows", [1, 2, 3, 17])
def test_a_handful_of_rows_is_audited_too(rows: int) -> None:
    plan = draw(unique(rows))
    assert (plan.cuts != NO_CUT).any()


# --- what is concluded --------------------------------------------------------------------------------------


def losses(changes: np.ndarray, near: np.ndarray) -> Losses:
    now = np.concatenate([changes, near]).astype(np.float32)
    return Losses(now, np.zeros_like(now), np.arange(len(now)) < len(changes))


def finding(changed: np.ndarray, noise: np.ndarray, near: np.ndarray | None = None) -> Finding:
    """From changes at the cuts and noise there; `near` are changes before the cuts, where noise is the same."""
    if near is None:
        return Finding.of(losses(changed, changed[:0]), losses(noise, noise[:0]))
    return Finding.of(losses(changed, near), losses(noise, noise))


def test_a_model_that_repeats_may_depend_by_no_more_than_the_threshold() -> None:
    silent = np.zeros(20)
    assert finding(np.full(100, 0.9 * LEAST), silent).causal
    assert not finding(np.full(100, 1.1 * LEAST), silent).causal


def test_a_change_before_the_cuts_counts_as_well_but_is_no_gap() -> None:
    found = finding(np.zeros(100), np.zeros(20), near=np.full(1500, 1.1 * LEAST))
    assert not found.causal
    assert found.gap == 0
    assert "just before them" in found.explain()


def test_a_dependence_counts_whatever_its_sign() -> None:
    changed = np.array([0.01, -0.01] * 50)
    found = finding(changed, np.zeros(20))
    assert found.gap == pytest.approx(0, abs=1e-9)
    assert not found.causal


def test_noise_of_the_repeat_raises_the_threshold_by_four_standard_errors() -> None:
    noise = np.array([0.002, 0.004] * 8)
    error = 0.001 * np.sqrt(1 / 16 + 1 / 100)
    assert finding(np.full(100, 0.003), noise).at_cuts.threshold == pytest.approx(0.003 + 4 * error)


def test_honest_noise_is_not_taken_for_dependence() -> None:
    rng = np.random.default_rng(0)
    found = [finding(rng.normal(0, 0.004, 96), rng.normal(0, 0.004, 24)) for _ in range(2000)]
    assert sum(not f.causal for f in found) <= 2
    assert not any(f.noisy for f in found)


def test_what_noise_may_have_done_is_called_noise() -> None:
    found = finding(np.full(100, 1.4 * NOISIEST), np.full(20, 1.5 * NOISIEST))
    assert found.causal
    assert found.noisy
    assert "repeat" in found.explain()


def test_what_no_noise_can_have_done_is_called_dependence() -> None:
    found = finding(np.full(100, 5.0), np.full(20, 1.5 * NOISIEST))
    assert not found.causal
    assert "reads what comes after" in found.explain()


def test_the_message_has_the_figures_and_the_causes() -> None:
    text = finding(np.full(100, 0.25), np.zeros(20)).explain()
    for part in ("0.2500 nats", "100 cuts", "0.0010", "mask", "off by one", "normalisation", "expert choice"):
        assert part in text


# --- which models are found out -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chain() -> np.ndarray:
    """Probabilities of a next token given the last, [vocab, vocab]: some text to be modelled perfectly."""
    return np.random.default_rng(7).dirichlet(np.full(VOCAB, 0.1), VOCAB).astype(np.float32) * 0.99 + 0.01 / VOCAB


@pytest.fixture(scope="module")
def rows(chain: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> TokenRows:
    rng, token, text = np.random.default_rng(8), 1, []
    chances = np.cumsum(chain, 1)
    for _ in range(CONTEXT * ROWS * 2 + 1):
        text.append(token)
        token = min(int(np.searchsorted(chances[token], rng.random())), VOCAB - 1)
    path = tmp_path_factory.mktemp("chain") / "00000.bin"
    np.array(text, "<u2").tofile(path)
    return TokenRows([path], CONTEXT)


@pytest.fixture
def score(rows: TokenRows) -> Callable[..., tuple[Measured, Server, Server]]:
    def go(answer: Answer, audit: Answer | None = None) -> tuple[Measured, Server, Server]:
        spec = {"context": CONTEXT, "vocab": VOCAB, "device": "cpu", "val_tokens": CONTEXT * ROWS}
        spec |= {"token_bytes": BYTES}
        with serving(VOCAB, answer) as (one, first), serving(VOCAB, audit or answer) as (two, second):
            return measure(one, two, rows, spec, lambda: None), first, second

    return go


@pytest.fixture
def honest(chain: np.ndarray) -> Answer:
    """Gives each next token its true probability."""

    def answer(server: Server, number: int, batch: np.ndarray) -> None:
        server.give(number, np.log(chain)[batch])

    return answer


def leaking(chain: np.ndarray, strength: float) -> Answer:
    """Raises the logit of the token that follows, and only where it was plausible anyway."""

    def answer(server: Server, number: int, batch: np.ndarray) -> None:
        logits = np.log(chain)[batch]
        likely = chain[batch[:, :-1], batch[:, 1:]] > 0.05
        row, place = np.nonzero(likely)
        logits[row, place, batch[row, place + 1]] += strength
        server.give(number, logits)

    return answer


def truth(chain: np.ndarray, rows: TokenRows, strength: float = 0.0) -> float:
    """Bits per byte of pass 1 of that model, computed here."""
    text = fixed_rows(rows, ROWS)
    inputs, targets = text[:, :-1], text[:, 1:].astype(int)
    logits = np.log(chain)[inputs]
    plausible = np.take_along_axis(chain[inputs], targets[..., None], 2)[..., 0] > 0.05
    plausible[:, -1] = False
    row, place = np.nonzero(plausible)
    logits[row, place, targets[row, place]] += strength
    tally = bits.Tally(np.array(BYTES))
    tally.add(bits.losses(logits.reshape(-1, VOCAB), targets.reshape(-1)), targets.reshape(-1))
    return tally.bits_per_byte


def test_a_causal_model_has_no_gap_and_its_own_score(score, honest, chain, rows) -> None:
    measured, _, _ = score(honest)
    assert measured.gap == 0
    assert measured.audited == ROWS // 4
    assert measured.val_bpb == pytest.approx(truth(chain, rows), rel=1e-6)


def test_a_leak_of_a_hundredth_of_a_nat_is_found_where_it_is_plausible(score, chain, rows) -> None:
    strength = 0.02
    nats = (truth(chain, rows) - truth(chain, rows, strength)) * 3 * np.log(2)
    assert 0.005 < nats < 0.015
    with pytest.raises(Refused) as refused:
        score(leaking(chain, strength))
    assert refused.value.outcome == "non_causal"
    assert "reads what comes after" in str(refused.value)


def test_a_leak_below_the_threshold_gains_nothing(score, chain, rows) -> None:
    strength = 0.001
    measured, _, _ = score(leaking(chain, strength))
    assert measured.gap > 0
    assert measured.val_bpb == pytest.approx(truth(chain, rows, strength) + measured.gap, rel=1e-6)


def test_a_gap_that_is_negative_takes_nothing_off(score, chain, rows) -> None:
    measured, _, _ = score(leaking(chain, -0.001))
    assert measured.gap < 0
    assert measured.val_bpb == pytest.approx(truth(chain, rows, -0.001), rel=1e-6)


def replaying(memory: dict[bytes, int]) -> Answer:
    """Reads ahead, remembers what followed what, and says it again where it can no longer read ahead."""

    def answer(server: Server, number: int, batch: np.ndarray) -> None:
        logits = np.zeros((*batch.shape, VOCAB), np.float32)
        for row, tokens in enumerate(batch):
            for place in range(len(tokens) - 1):
                known = memory.setdefault(tokens[: place + 1].tobytes(), int(tokens[place + 1]))
                logits[row, place, known] = 5
        server.give(number, logits)

    return answer


def test_state_replayed_between_calls_is_found_by_a_server_that_has_none(score) -> None:
    with pytest.raises(Refused) as refused:
        score(replaying({}), replaying({}))
    assert refused.value.outcome == "non_causal"


def test_state_replayed_between_calls_would_pass_in_one_server(score) -> None:
    memory: dict[bytes, int] = {}
    measured, _, _ = score(replaying(memory), replaying(memory))
    assert measured.gap == 0


def test_a_model_that_reads_other_rows_of_its_batch_is_found(score, chain) -> None:
    def mixed(server: Server, number: int, batch: np.ndarray) -> None:
        seen = np.bincount(batch.reshape(-1), minlength=VOCAB) / batch.size
        server.give(number, np.log(chain)[batch] + seen.astype(np.float32))

    with pytest.raises(Refused) as refused:
        score(mixed)
    assert refused.value.outcome == "non_causal"


def noisy(chain: np.ndarray, size: float) -> Answer:
    rng = np.random.default_rng(0)

    def answer(server: Server, number: int, batch: np.ndarray) -> None:
        logits = np.log(chain)[batch]
        server.give(number, logits + rng.normal(0, size, logits.shape).astype(np.float32))

    return answer


def test_a_model_that_does_not_repeat_is_told_so(score, chain) -> None:
    with pytest.raises(Refused, match="must repeat") as refused:
        score(noisy(chain, 0.5))
    assert refused.value.outcome == "invalid"


def test_a_little_noise_is_no_dependence(score, chain) -> None:
    measured, _, _ = score(noisy(chain, 0.002))
    assert abs(measured.gap) < 1e-3


def test_bfloat16_logits_are_compared_at_the_same_places(score, chain) -> None:
    def halves(server: Server, number: int, batch: np.ndarray) -> None:
        upper = np.log(chain)[batch].view(np.uint32) >> 16
        raw = upper.astype(np.uint16).tobytes()
        server.logits[: len(raw)] = raw
        server.reply(number, wire.BFLOAT16, *batch.shape, VOCAB)

    measured, _, _ = score(halves)
    assert measured.gap == 0


def test_the_audit_sends_its_changed_rows_before_any_row_as_it_was(score, honest) -> None:
    _, first, second = score(honest)
    whole = {row.tobytes() for chunk in first.seen for row in chunk}
    unchanged = [all(row.tobytes() in whole for row in chunk) for chunk in second.seen]
    assert unchanged == [False] * 4 + [True]


def test_the_audit_sends_the_shapes_of_pass_1(score, honest) -> None:
    _, first, second = score(honest)
    assert {chunk.shape for chunk in second.seen} <= {chunk.shape for chunk in first.seen}
