"""SQL of strangers: it reads what it was asked about, and nothing else happens."""

import sqlite3
import time
from contextlib import closing

import pytest

from esa_notebooks.llm.tasks.query import ROWS, QueryError, rows_of, same_rows, sql_in


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "a b?c#d.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (a INTEGER, b TEXT)")
        db.executemany("INSERT INTO t VALUES (?, ?)", [(i, f"w{i % 7}") for i in range(5000)])
        db.commit()
    return path


ATTACKS = ["DELETE FROM t", "WITH x AS (SELECT 1) DELETE FROM t", "SELECT 1; DELETE FROM t", "ATTACH 'x.db' AS x", "PRAGMA user_version=7", "SELECT * FROM pragma_table_info('t')",
           "SELECT sql FROM sqlite_master", "SELECT sql FROM main.sqlite_schema", "SELECT load_extension('x')", "SELECT readfile('/etc/hostname')", "SELECT writefile('x', 'y')",
           "SELECT hex(zeroblob(900000000))", "SELECT randomblob(900000000)", "SELECT printf('%900000000d', 1)", "SELECT replace(b, 'w', 'ww') FROM t", "SELECT group_concat(b) FROM t",
           "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c", "SELECT count(*) FROM t a, t b, t c", "SELECT a.b || c.b FROM t a, t c ORDER BY 1",
           "SELECT a FROM t", "VACUUM INTO 'y.db'", "EXPLAIN SELECT 1", "SELECT * FROM json_each('[1]')", "SELECT " + "(" * 200 + "1" + ")" * 200, "SELECT '" + "x" * 9000 + "'",
           "SELECT \ud800", "SELECT 1\x00", "SELECT nothing FROM t", "SELECT", "SELECT ?", "SELECT max(a) FROM t WHERE fts5(a)"]  # fmt: skip


@pytest.mark.parametrize("sql", ATTACKS, ids=[repr(sql[:40]) for sql in ATTACKS])
def test_what_is_not_a_small_select_is_refused_soon_and_changes_nothing(database, sql):
    before, files, began = database.read_bytes(), set(database.parent.iterdir()), time.process_time()
    with pytest.raises(QueryError):
        rows_of(database, sql)
    assert database.read_bytes() == before and set(database.parent.iterdir()) == files and time.process_time() - began < 10


def test_an_honest_query_is_answered_and_the_limit_of_rows_is_exact(database):
    assert rows_of(database, "WITH x AS (SELECT b, count(*) AS n FROM t GROUP BY b) SELECT b, n FROM x ORDER BY n DESC, b LIMIT 2") == [["w0", 715], ["w1", 715]]
    assert len(rows_of(database, f"SELECT a FROM t LIMIT {ROWS}")) == ROWS
    assert rows_of(database, "SELECT round(avg(a), 1) FROM t WHERE b LIKE 'w_' AND a IN (SELECT max(a) FROM t)") == [[4999.0]]


def test_the_verdict_depends_on_steps_and_not_on_the_machine(database):
    sql = "SELECT count(*) FROM t a, t b WHERE a.a < 40"
    assert rows_of(database, sql)[0][0] == 200_000
    for _ in range(3):
        with pytest.raises(QueryError, match="more than 50,000 steps"):
            rows_of(database, sql, steps=50_000)


def test_a_missing_database_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        rows_of(tmp_path / "absent.sqlite", "SELECT 1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "sql"), [("SELECT 1", "SELECT 1"), ("select 1;", "select 1"), ("Here:\n```sql\nSELECT 1;\n```\nIt counts.", "SELECT 1"), ("SQL: SELECT 1", "SELECT 1"),
                                           ("SELECT ';'\nFROM t;\nThis", "SELECT ';'\nFROM t"), ("SELECT 1\n\nThis counts.", "SELECT 1"), ("```\nSELECT 1\n```\n```\nSELECT 2\n```", None),
                                           ("I would select one.", None), ("", None), ("DELETE FROM t", None)])  # fmt: skip
def test_which_text_is_the_query(text, sql):
    assert sql_in(text) == sql


@pytest.mark.parametrize(("found", "gold", "ordered", "tolerance", "equal"), [
    ([[1], [2]], [[2], [1]], False, 0, True), ([[1], [2]], [[2], [1]], True, 0, False), ([[1], [1]], [[1]], False, 0, False), ([[1, 2]], [[1]], False, 0, False),
    ([[1.004]], [[1.0]], False, 0.005, True), ([[1.006]], [[1.0]], False, 0.005, False), ([[None]], [[0]], False, 1, False), ([["1"]], [[1]], False, 0, False),
    ([["a"]], [["A"]], False, 0, False), ([], [[1]], False, 0, False), ([[float("nan")]], [[1.0]], False, 1, False)])  # fmt: skip
def test_when_two_results_are_the_same(found, gold, ordered, tolerance, equal):
    assert same_rows(found, gold, ordered, tolerance) is equal
