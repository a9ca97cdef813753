"""The error-correcting code of the imperceptible mark: a convolutional code, decoded softly (Viterbi 1967).

A word has 64 bits: 48 of the payload and 16 free ones, spread evenly among them, that the embedder chooses so that the
codeword is near to what a picture shows already (dirty-paper coding: Costa 1983; Miller, Doërr and Cox 2004). Eight
zeros bring the encoder back to its first state. Constraint length 9, rate 1/4, generators 463, 535, 733 and 745 in
octal, free distance 24 (Larsen 1973).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

PAYLOAD = 48
FREE = 16
WORD = PAYLOAD + FREE
GENERATORS = (0o463, 0o535, 0o733, 0o745)
MEMORY = 8
STEPS = WORD + MEMORY
LENGTH = STEPS * len(GENERATORS)
"""Bits of a codeword."""
IS_FREE = np.arange(WORD) % (WORD // FREE) == WORD // FREE - 1
ANY = -1
"""A bit that decoding may choose."""


def encode(bits: np.ndarray) -> np.ndarray:
    """The codeword of a word.

    Args:
        bits: (64,) of 0 and 1.

    Returns:
        (288,) float32 of +1 (bit 0) and -1 (bit 1).
    """
    signs, _ = _trellis()
    padded = np.concatenate([np.zeros(MEMORY, np.int64), bits.astype(np.int64), np.zeros(MEMORY, np.int64)])
    registers = sum(padded[MEMORY - age : MEMORY - age + STEPS] << age for age in range(MEMORY + 1))
    return signs[registers].ravel()


def decode(soft: np.ndarray, payload: int | None = None) -> np.ndarray:
    """The words whose codewords correlate best with soft values.

    Args:
        soft: (N, 288), positive for bit 0, the larger the surer; any scale.
        payload: choose among the words that carry this payload only.

    Returns:
        (N, 64) of 0 and 1.
    """
    signs, ways = _trellis()
    wanted = np.full(WORD, ANY) if payload is None else _with_payload(payload)
    wanted = np.concatenate([wanted, np.zeros(MEMORY, np.int64)])
    steps = soft.reshape(len(soft), STEPS, len(GENERATORS)).astype(np.float32)
    metric = np.full((len(soft), 1 << MEMORY), -np.inf, np.float32)
    metric[:, 0] = 0
    older = np.empty((STEPS, len(soft), 1 << MEMORY), bool)
    for k in range(STEPS):
        gain = steps[:, k] @ signs.T
        low, high = (metric[:, before] + gain[:, registers] for before, registers in ways)
        older[k], metric = high > low, np.maximum(low, high)
        if wanted[k] != ANY:
            metric[:, 1 - wanted[k] :: 2] = -np.inf  # a state's lowest bit is the last that came in
    return _traced(older)[:, :WORD]


def payload_of(bits: np.ndarray) -> int:
    """The payload that a word of 64 bits carries."""
    return int("".join(map(str, bits[~IS_FREE])), 2)


def correlation(soft: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """(N,) cosines between soft values (N, 288) and the codewords of the words (N, 64)."""
    codewords = np.stack([encode(word) for word in bits])
    return (soft * codewords).sum(1) / np.maximum(np.linalg.norm(soft, axis=1), 1e-12) / math.sqrt(LENGTH)


def threshold(trials: int, false_positives: float) -> float:
    """The correlation that unmarked values reach with any codeword, in any of `trials`, at most so often.

    Unmarked values point in any direction of 288 dimensions alike. A given codeword is then nearer than the cosine c
    with a probability below (1 - c^2)^((288 - 1) / 2) / 2, the share of a spherical cap; there are 2^64 codewords.

    Args:
        trials: sets of values that are decoded before "no mark" is said.
        false_positives: probability, above 0.
    """
    cap = math.log(2 * false_positives / trials) - WORD * math.log(2)
    return math.sqrt(1 - math.exp(2 * cap / (LENGTH - 1)))


def chance(correlation: float, trials: int) -> float:
    """The bound behind `threshold`: how often unmarked values would correlate so well, at most 1."""
    inside = math.log(max(1 - correlation**2, 1e-300)) * (LENGTH - 1) / 2
    return math.exp(min(0.0, math.log(trials / 2) + WORD * math.log(2) + inside))


def _with_payload(payload: int) -> np.ndarray:
    if not 0 <= payload < 1 << PAYLOAD:
        raise ValueError(f"payload must have {PAYLOAD} bits; got {payload}.")
    bits = np.full(WORD, ANY)
    bits[~IS_FREE] = [int(digit) for digit in f"{payload:0{PAYLOAD}b}"]
    return bits


def _traced(older: np.ndarray) -> np.ndarray:
    """(N, steps) bits on the best path to state 0; `older` (steps, N, states): the bit that left the register was 1."""
    steps, count, _ = older.shape
    state, rows, bits = np.zeros(count, np.int64), np.arange(count), np.zeros((count, steps), np.int64)
    for k in reversed(range(steps)):
        bits[:, k] = state & 1
        state = state >> 1 | older[k, rows, state].astype(np.int64) << (MEMORY - 1)
    return bits


@cache
def _trellis() -> tuple[np.ndarray, tuple[tuple[np.ndarray, np.ndarray], ...]]:
    """Signs that each 9-bit register sends, (512, 4); and twice, for either oldest bit: for every state, the state
    before and the register."""
    registers = np.arange(1 << MEMORY + 1)
    signs = np.stack([1 - 2 * _parity(registers & generator) for generator in GENERATORS], 1).astype(np.float32)
    states = np.arange(1 << MEMORY)
    before = [states >> 1 | oldest << (MEMORY - 1) for oldest in (0, 1)]
    return signs, tuple((b, b << 1 | states & 1) for b in before)


def _parity(values: np.ndarray) -> np.ndarray:
    for shift in (8, 4, 2, 1):
        values = values ^ values >> shift
    return values & 1
