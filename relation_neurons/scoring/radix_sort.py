"""An exact radix sort of each neuron's prompts by activation, the highest first.

A block of neurons is read once and transposed, so that what is sorted is adjacent in cache:

1. The bits of a float32 become an unsigned integer that falls as the activation rises; -0.0 and 0.0
   become the same integer. Half precision is looked up as float32, which holds it exactly.
2. That key, minus the neuron's smallest, fills the high half of 64 bits; a label that the prompt
   carries along (its class, or its number) fills the low half.
3. A radix sort takes the 22 highest bits that vary in two passes; the few keys that are still out of
   order are inserted. If many are (values that differ in the last bits only, beside one far away), all
   bits are sorted in three passes, so the time is linear whatever the values.

Compiled by numba, without the GIL: callers give each thread its own neurons.
"""

from __future__ import annotations

import numpy as np

from relation_neurons.scoring.jit import compiled

__all__ = ["BLOCK", "BUCKETS", "column_stride", "read_block", "sort_block", "sort_column"]

BLOCK = 64  # neurons read at once: four cache lines of float32 a prompt
_DIGIT = 11
BUCKETS = 1 << _DIGIT
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_SIGN = np.uint32(1 << 31)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_INFINITE = np.uint32(0x7F800000)


@compiled
def column_stride(prompts):
    """Returns a column's length: more than its prompts, and an odd number of cache lines (other sets)."""
    return 16 * ((prompts // 16 + 1) | 1)


@compiled
def read_block(bits, table, values, start, stop, labels, keys, origins, sums, squares):
    """Reads neurons start to stop of every prompt, once, into keys that fall as the activation rises.

    If `sums` has rows, `origins` gets the first value of each label, and `sums` and `squares` collect
    the distances to it: squares of the values themselves cancel where a mean is far above its spread.

    Returns:
        Whether all values are finite.
    """
    width = stop - start
    gather = len(sums) > 0
    begun = np.zeros(len(sums), dtype=np.bool_)
    raw = np.empty(width, dtype=np.uint32)
    floats = raw.view(np.float32)
    touched = np.uint32(0)
    for i in range(bits.shape[0]):  # few instructions per row, so that rows are fetched in parallel
        line = bits[i, start:stop]
        for j in range(0, width, 16):
            touched |= np.uint32(line[j])
    keys[0, bits.shape[0]] = (
        touched  # not needed by a key; without a use, the loop would be optimised away
    )
    largest = np.uint32(0)
    for i in range(bits.shape[0]):
        line = bits[i, start:stop]
        for j in range(width):
            raw[j] = line[j] if table is None else table[line[j]]
        for j in range(width):
            largest = max(largest, raw[j] & _MAGNITUDE)
        if gather:
            label = np.intp(labels[i])
            origin, total, square = origins[label], sums[label], squares[label]
            if not begun[label]:
                begun[label] = True
                for j in range(width):
                    origin[j] = np.float64(floats[j]) if values is None else values[i, start + j]
            for j in range(width):
                value = np.float64(floats[j]) if values is None else values[i, start + j]
                distance = value - origin[j]
                total[j] += distance
                square[j] += distance * distance
        for j in range(width):
            bit = raw[j]
            if bit & _MAGNITUDE == 0:
                bit = np.uint32(0)
            flip = np.uint32(np.int32(bit) >> np.int32(31)) | _SIGN
            keys[j, i] = ~(bit ^ flip)
    return largest < _INFINITE


@compiled
def _offsets(counts):
    at = np.int32(0)
    for v in range(len(counts)):
        count = counts[v]
        counts[v] = at
        at += count


@compiled
def _insert(keys, most):
    """Moves keys that are out of order to their place; returns False if that takes over `most` moves."""
    last = keys[0] >> _HALF
    moves = 0
    for i in range(1, len(keys)):
        packed = keys[i]
        key = packed >> _HALF
        if key >= last:
            last = key
            continue
        j = i
        while j > 0 and keys[j - 1] >> _HALF > key:
            keys[j] = keys[j - 1]
            j -= 1
        keys[j] = packed
        moves += i - j
        if moves > most:
            return False
    return True


@compiled
def _radix(keys, least, shift, width, passes, labels, one, other, counts):
    """Sorts by `passes` digits of `width` bits, from bit `shift` up; returns `one` or `other`."""
    n = len(keys)
    size = 1 << width
    mask = np.uint32(size - 1)
    low = np.uint32(shift)
    counts[:passes, :size] = 0
    for i in range(n):
        key = (keys[i] - least) >> low
        for digit in range(passes):
            counts[digit, np.intp(key & mask)] += 1
            key >>= np.uint32(width)
    for digit in range(passes):
        _offsets(counts[digit, :size])
    places = counts[0]
    for i in range(n):
        key = keys[i] - least
        v = np.intp((key >> low) & mask)
        at = places[v]
        places[v] = at + 1
        one[at] = (np.uint64(key) << _HALF) | labels[i]
    for digit in range(1, passes):
        places = counts[digit]
        by = np.uint64(32 + shift + digit * width)
        for i in range(n):
            packed = one[i]
            v = np.intp((packed >> by) & np.uint64(mask))
            at = places[v]
            places[v] = at + 1
            other[at] = packed
        one, other = other, one
    return one


@compiled
def sort_column(keys, labels, one, other, counts):
    """Sorts one neuron's keys, smallest first, each with its label in the low half.

    Args:
        keys: uint32, from `read_block`.
        labels: uint64, below 2^32.
        one: a uint64 buffer as long as the prompts.
        other: another such buffer.
        counts: an int32 buffer of 3 x 2048.

    Returns:
        `one` or `other`: (key - smallest key) << 32 | label.
    """
    least, largest = keys[0], keys[0]
    for i in range(len(keys)):
        least = min(least, keys[i])
        largest = max(largest, keys[i])
    bits = 0
    while bits < 32 and (np.uint64(largest - least) >> np.uint64(bits)) != 0:
        bits += 1
    passes, shift = 2, max(bits - 2 * _DIGIT, 0)
    if bits <= _DIGIT:
        passes = 1
    width = (max(bits, 1) - shift + passes - 1) // passes
    ordered = _radix(keys, least, shift, width, passes, labels, one, other, counts)
    if shift > 0 and not _insert(ordered, 2 * len(keys)):
        shift, width, passes = (
            0,
            _DIGIT,
            3,
        )  # variables: each combination of constants would be compiled again
        ordered = _radix(keys, least, shift, width, passes, labels, one, other, counts)
    return ordered


@compiled
def sort_block(bits, table, start, stop, labels, found):
    """Sorts the prompts of neurons start to stop into the rows of `found`; returns whether all are finite."""
    prompts = bits.shape[0]
    keys = np.empty((BLOCK, column_stride(prompts)), dtype=np.uint32)
    one, other = np.empty(prompts, dtype=np.uint64), np.empty(prompts, dtype=np.uint64)
    counts = np.empty((3, BUCKETS), dtype=np.int32)
    none = np.empty((0, 0))
    finite = True
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        finite &= read_block(bits, table, None, first, last, labels, keys, none, none, none)
        for j in range(last - first):
            column = sort_column(keys[j, :prompts], labels, one, other, counts)
            for i in range(prompts):  # a slice's check of lengths takes seconds to compile
                found[first - start + j, i] = column[i]
    return finite
