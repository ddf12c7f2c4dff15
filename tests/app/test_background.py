"""Work in the background: the newest answer counts, and a late one calls nothing that is gone."""

import threading

from app.background import Latest


def test_the_answer_comes_in_the_windows_thread(qtbot):
    latest, threads = Latest(), []
    latest.answered.connect(lambda answer: threads.append((answer, threading.get_ident())))
    latest.ask(threading.get_ident)
    assert latest.busy
    qtbot.waitUntil(lambda: bool(threads))
    worker, receiver = threads[0]
    assert receiver == threading.get_ident() != worker
    assert not latest.busy


def test_an_overtaken_answer_is_dropped(qtbot):
    latest, answers, held = Latest(), [], threading.Event()
    latest.answered.connect(answers.append)
    latest.ask(lambda: held.wait(30) and "old")
    latest.ask(lambda: "new")
    qtbot.waitUntil(lambda: answers == ["new"])
    arrived = []
    latest._mailbox.arrived.connect(lambda number, answer: arrived.append(answer))
    held.set()
    qtbot.waitUntil(lambda: arrived == ["old"])
    assert answers == ["new"]


def test_one_who_asked_may_be_gone(qtbot):
    held, done = threading.Event(), threading.Event()

    def work() -> str:
        held.wait(30)
        done.set()
        return "too late"

    latest = Latest()
    latest.ask(work)
    del latest
    held.set()
    qtbot.waitUntil(done.is_set)
