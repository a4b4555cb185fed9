from pathlib import Path

from bench.spawning import Command, run, run_together

SHELL = Path("/bin/sh")


def shell(script: str) -> Command:
    """A program that reads its script from standard input."""
    return Command(program=SHELL, environment={"WORD": "said"}, stdin=script.encode())


def test_a_program_gets_environment_and_input_and_its_output_is_kept() -> None:
    finished = run(shell("echo $WORD; exit 3"))
    assert (finished.code, finished.stdout) == (3, b"said\n")
    assert finished.seconds > 0


def test_cpu_counts_children_that_were_waited_for() -> None:
    busy = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"
    alone = run(shell(f"sh -c '{busy}'; true"))
    assert alone.cpu_seconds > run(shell("true")).cpu_seconds


def test_programs_that_run_together_are_told_apart() -> None:
    commands = [shell(f"echo {number}; exit {number}") for number in range(20)]
    finished, took = run_together(commands)
    assert [process.code for process in finished] == list(range(20))
    assert [process.stdout for process in finished] == [b"%d\n" % n for n in range(20)]
    assert max(process.seconds for process in finished) <= took
