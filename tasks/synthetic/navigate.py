"""Walks that do or do not return to their starting point, in the words of BIG-bench's `navigate`."""

from random import Random

QUESTION = "Q: If you follow these instructions, do you return to the starting point?"
FACING = {"forward": 1j, "backward": -1j, "left": -1 + 0j, "right": 1 + 0j}  # a move in the complex plane, facing up
TURNS = {"left": 1j, "right": -1j, "around": -1 + 0j}  # factors of the heading


class Navigate:
    """Walks with `answer = [sum of steps = 0]`, of 4 to 8 instructions of 1 to 10 steps.

    As in the original, half of the walks always face forward and step to any side; the others step ahead and turn.
    Style and length are independent of the answer, so that neither gives it away.
    """

    choices = ("True", "False")

    @staticmethod
    def draw(random: Random, answer: str) -> str:
        """Draw a walk to which `answer` is right."""
        walk = random.choice((_facing, _turning))
        length = random.randint(4, 8)  # too few walks of 3 instructions return by turning around
        while True:
            instructions, returns = walk(random, length)
            if str(returns) == answer:
                return f"{QUESTION} {' '.join(instructions)}\nA:"


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"


def _facing(random: Random, length: int) -> tuple[list[str], bool]:
    position, instructions = 0j, ["Always face forward."]
    for _ in range(length):
        count, side = random.randint(1, 10), random.choice(tuple(FACING))
        position += count * FACING[side]
        instructions.append(f"Take {_steps(count)} {side}.")
    return instructions, position == 0


def _turning(random: Random, length: int) -> tuple[list[str], bool]:
    # A walk with one step never returns, and one without any always does: both would be too easy.
    steps = random.sample(range(length), random.randint(2, length))
    position, heading, instructions = 0j, 1j, []
    for index in range(length):
        if index in steps:
            count = random.randint(1, 10)
            position += count * heading
            instructions.append(f"Take {_steps(count)}.")
        else:
            turn = random.choice(tuple(TURNS))
            heading *= TURNS[turn]
            instructions.append(f"Turn {turn}.")
    return instructions, position == 0
