"""Ctrl-C while work is done that must be kept whole."""

import os
import signal

import pytest

from aftersales.core.interrupts import held_interrupts


def test_a_press_is_held_and_a_second_one_ends(ctrl_c):
    with pytest.raises(KeyboardInterrupt), held_interrupts() as pressed:
        os.kill(os.getpid(), signal.SIGINT)
        assert pressed()
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_interrupts_are_ignored_they_stay_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_interrupts() as pressed:
            os.kill(os.getpid(), signal.SIGINT)
            assert not pressed()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
