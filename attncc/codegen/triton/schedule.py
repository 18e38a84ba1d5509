"""Which tile shapes, warps and stages to use: a table by target, element size and head dimension.

Every entry was compiled offline for its targets and its registers, spills and shared memory read back
(`tests/codegen/test_offline.py` does so again for all examples).
"""

from __future__ import annotations

from attncc.codegen.options import Launch, Options, Schedule

# Bytes of shared memory one program may use, from the vendors' programming guides.
SHARED_MEMORY_LIMIT = {
    "cuda:75": 64 * 1024,
    "cuda:80": 163 * 1024,
    "cuda:86": 99 * 1024,
    "cuda:89": 99 * 1024,
    "cuda:90": 227 * 1024,
    "cuda:100": 227 * 1024,
    "cuda:120": 99 * 1024,
    "hip:gfx942": 64 * 1024,
    "hip:gfx950": 160 * 1024,
}
_SMALLEST_LIMIT = 64 * 1024
HEAVY = 28


def width_of(dim: int) -> int:
    """Columns of the tile that holds rows of `dim` elements: a power of two, at least 16 as matrix units want."""
    return max(16, 1 << (dim - 1).bit_length())


def shared_memory_limit(target: str) -> int:
    """Bytes of shared memory a program may use; the smallest known limit for a target not in the table."""
    return SHARED_MEMORY_LIMIT.get(target, _SMALLEST_LIMIT)


def choose_schedule(options: Options, operations: int) -> Schedule:
    """The schedule for these options: the one asked for, else from the table.

    `operations` is how many a pair costs beside the products; above `HEAVY`, their registers want smaller tiles.
    """
    if options.schedule is not None:
        return options.schedule
    if options.target.backend == "interpreter":
        # Small tiles: tests then cross many of them.
        small = Launch(32, 16, 4, 1)
        return Schedule(small, small, Launch(16, 32, 4, 1))
    width = max(width_of(options.dim), width_of(options.dim_v))
    if options.dtype == "float32":
        return _float32(width, options)
    return _half(width, options, operations)


def _half(width: int, options: Options, operations: int) -> Schedule:
    if options.target.backend == "hip":
        return _half_hip(width)
    if operations > HEAVY and width <= 128:
        return Schedule(Launch(64, 64, 8, 2), Launch(64, 32, 8, 2), Launch(32, 32, 8, 2))
    if width <= 64:
        return Schedule(Launch(128, 64, 8, 3), Launch(64, 32, 4, 2), Launch(32, 64, 8, 2))
    if width <= 128:
        if _is_small(options):
            return Schedule(Launch(128, 64, 8, 2), Launch(64, 32, 8, 1), Launch(32, 64, 8, 1))
        # What spills differs by generation: each of these is the largest tile tried that does not.
        dkeyvalue = {"80": Launch(32, 64, 8, 2), "90": Launch(32, 128, 8, 2)}
        return Schedule(
            Launch(128, 64, 8, 3), Launch(64, 64, 8, 2), dkeyvalue.get(options.target.arch, Launch(32, 32, 4, 2))
        )
    if width <= 256 and not _is_small(options):
        return Schedule(Launch(64, 64, 8, 2), Launch(32, 32, 8, 1), Launch(32, 32, 8, 1))
    return Schedule(Launch(32, 16, 8, 1), Launch(16, 16, 8, 1), Launch(16, 16, 8, 1))


def _half_hip(width: int) -> Schedule:
    if width <= 64:
        return Schedule(Launch(128, 64, 4, 1), Launch(64, 64, 4, 1), Launch(64, 64, 4, 1))
    if width <= 128:
        return Schedule(Launch(128, 32, 4, 1), Launch(64, 32, 4, 1), Launch(32, 64, 4, 1))
    return Schedule(Launch(64, 32, 8, 1), Launch(32, 32, 8, 1), Launch(32, 32, 8, 1))


def _float32(width: int, options: Options) -> Schedule:
    if width <= 64:
        return Schedule(Launch(64, 32, 8, 1), Launch(32, 32, 4, 1), Launch(32, 32, 4, 1))
    if width <= 128:
        return Schedule(Launch(32, 32, 8, 1), Launch(32, 16, 8, 1), Launch(16, 32, 4, 1))
    return Schedule(Launch(16, 16, 4, 1), Launch(16, 16, 4, 1), Launch(16, 16, 4, 1))


def _is_small(options: Options) -> bool:
    return shared_memory_limit(str(options.target)) < 128 * 1024


def smaller(schedule: Schedule) -> Schedule | None:
    """The next schedule to try where one does not fit: fewer stages, then smaller tiles. None when there is none."""
    launches = [schedule.forward, schedule.dquery, schedule.dkeyvalue]
    if all((x.block_q, x.block_k, x.num_stages) == (16, 16, 1) for x in launches):
        return None
    return Schedule(*(_smaller_launch(x) for x in launches))


def _smaller_launch(launch: Launch) -> Launch:
    if launch.num_stages > 1:
        return Launch(launch.block_q, launch.block_k, launch.num_warps, launch.num_stages - 1)
    if launch.block_q >= launch.block_k and launch.block_q > 16:
        return Launch(launch.block_q // 2, launch.block_k, launch.num_warps, 1)
    return Launch(launch.block_q, max(16, launch.block_k // 2), launch.num_warps, 1)
