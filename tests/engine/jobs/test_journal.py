"""The journal survives a line cut off by a crash."""

from engine.jobs.journal import Journal


def test_units_in_their_order(tmp_path):
    journal = Journal(tmp_path / "j")
    assert journal.units() == {}
    journal.append("a", crc32=1)
    journal.append("b", crc32=2)
    journal.append("a", crc32=3)
    assert [(name, unit["crc32"]) for name, unit in journal.units().items()] == [("a", 3), ("b", 2)]


def test_a_cut_line_is_ignored_and_the_next_one_stands_alone(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.append("a", crc32=1)
    journal.append("b", crc32=2)
    whole = journal.path.read_bytes()
    for cut in range(whole.index(b"\n") + 1, len(whole)):
        journal.path.write_bytes(whole[:cut])
        kept = set(journal.units()) - {"b"}
        assert kept == {"a"}
        journal.append("c", crc32=3)
        assert {"a", "c"} <= set(journal.units())


def test_lines_that_are_no_units_are_ignored(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.path.write_bytes(b'\xff\xfe\n[]\n{"x": 1}\n3\n')
    journal.append("a", crc32=1)
    assert list(journal.units()) == ["a"]
