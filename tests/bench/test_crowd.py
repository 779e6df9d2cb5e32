"""Crowds: everybody calls as often as told, variants take turns, processes start together."""

import os

import pytest

from bench import crowd


async def test_every_caller_makes_its_calls_under_its_own_name() -> None:
    heard: list[str] = []

    async def call(name: str) -> None:
        heard.append(name)

    done = await crowd.one_round(call, calls=3, callers=5, crowd="x")
    assert sorted(heard) == sorted(f"x-{number}" for number in range(5) for _ in range(3))
    assert len(done.calls_ms) == 15
    assert done.seconds > 0


async def test_variants_take_turns_and_the_first_round_does_not_count() -> None:
    heard: list[str] = []

    def noting(variant: str) -> crowd.Call:
        async def call(name: str) -> None:
            heard.append(f"{variant} {name.rpartition('-')[0]}")

        return call

    done = await crowd.in_turns({"a": noting("a"), "b": noting("b")}, rounds=2, calls=1)
    assert list(dict.fromkeys(heard)) == [f"{name} {name}-{number}" for number in range(3) for name in ("a", "b")]
    assert {name: len(rounds) for name, rounds in done.items()} == {"a": 2, "b": 2}


def meet(said: str) -> tuple[int, str]:
    crowd.wait_for_all()
    return os.getpid(), said


async def test_each_process_does_the_work_once_and_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "PROCESSES", 2)
    with crowd.processes() as pool:
        for said in ("one", "two"):  # if one process took both turns, the barrier would break
            met = await crowd.in_processes(pool, meet, said)
            assert len({pid for pid, _ in met} - {os.getpid()}) == 2
            assert [heard for _, heard in met] == [said] * 2
