"""The journal survives a line cut off by a crash."""

from engine.jobs.journal import Journal, Unit


def unit(name: str, crc32: int) -> Unit:
    return Unit(unit=name, offset=0, bytes=1, crc32=crc32)


def test_units_in_their_order(tmp_path):
    journal = Journal(tmp_path / "j")
    assert journal.units() == {}
    journal.append([unit("a", 1)])
    journal.append([unit("b", 2)])
    journal.append([unit("a", 3)])
    assert [(name, found.crc32) for name, found in journal.units().items()] == [("a", 3), ("b", 2)]


def test_a_cut_line_is_ignored_and_the_next_one_stands_alone(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.append([unit("a", 1)])
    journal.append([unit("b", 2)])
    whole = journal.path.read_bytes()
    for cut in range(whole.index(b"\n") + 1, len(whole)):
        journal.path.write_bytes(whole[:cut])
        kept = set(journal.units()) - {"b"}
        assert kept == {"a"}
        journal.append([unit("c", 3)])
        assert {"a", "c"} <= set(journal.units())


def test_lines_that_are_no_units_are_ignored(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.path.write_bytes(b'\xff\xfe\n[]\n{"x": 1}\n3\n{"unit": "header"}\n')
    journal.append([unit("a", 1)])
    assert list(journal.units()) == ["a"]
