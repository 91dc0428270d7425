"""Put a run through the gate and make it the champion of its task. Launch: python training/promote.py RUN"""

import sys

from aftersales.tracking.gate import Verdict, promote


def main(run: str, changed_test: bool = False) -> Verdict:
    """Judge ``run`` (an id or unique name) and print the gate's report; a refused run raises ``GateRefused``."""
    verdict = promote(run, changed_test)
    print(verdict.report())
    return verdict


if __name__ == "__main__":
    main(sys.argv[1], "--changed-test" in sys.argv[2:])
