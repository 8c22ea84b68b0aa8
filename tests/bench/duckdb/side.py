#!/usr/bin/env python3
"""DuckDB's side of `cargo run --release -p bench -- versus-duckdb`, in a process of its own.

In the folder that the command names lie old.tsv and new.tsv, two snapshots as Audience Manager's outbound files, and
matches.tsv, ECID and lead. Prints what it found and what it took as JSON.
"""

import json
import resource
import sys
import time
from pathlib import Path

import duckdb

THREADS = 2
# Nothing is left to be found out about the file: the quickest way that DuckDB has to read one.
OUTBOUND = """SELECT ecid FROM read_csv('{path}', delim='\t', header=false, auto_detect=false, quote='', escape='',
    columns={{'ecid': 'UHUGEINT', 'segments': 'VARCHAR', 'removed': 'VARCHAR'}})"""
MATCHES = """SELECT ecid, lead FROM read_csv('{path}', delim='\t', header=false, auto_detect=false, quote='', escape='',
    columns={{'ecid': 'UHUGEINT', 'lead': 'UBIGINT'}})"""


def processor():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main():
    folder = Path(sys.argv[1])
    database = duckdb.connect(":memory:")
    database.execute(f"SET threads = {THREADS}")
    database.execute("SET preserve_insertion_order = false")

    def timed(*statements):
        """The first row of each statement, and what all of them took, in seconds."""
        wall, used = time.perf_counter(), processor()
        rows = [database.execute(statement).fetchone() for statement in statements]
        return rows, {"wall": time.perf_counter() - wall, "processor": processor() - used}

    def table(name, select):
        return timed(f"CREATE TABLE {name} AS {select.format(path=folder / f'{name}.tsv')}")[1]

    # What is kept from the day before.
    table("old", OUTBOUND)
    table("matches", MATCHES)

    parse = table("new", OUTBOUND)
    (added, removed), diff = timed(
        "SELECT count(*) FROM (SELECT ecid FROM new EXCEPT SELECT ecid FROM old)",
        "SELECT count(*) FROM (SELECT ecid FROM old EXCEPT SELECT ecid FROM new)",
    )
    (joined,), join = timed(
        "SELECT count(*), count(lead), count(DISTINCT lead) FROM new JOIN matches USING (ecid)"
    )
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Counts, but no sets: whoever wants no more asks once for both.
    (outer,), full_join = timed(
        "SELECT count(*) FILTER (o.ecid IS NULL), count(*) FILTER (n.ecid IS NULL) "
        "FROM old AS o FULL JOIN new AS n USING (ecid)"
    )
    if outer != added + removed:
        raise SystemExit("FULL JOIN and EXCEPT differ")
    print(
        json.dumps(
            {
                "name": f"DuckDB {duckdb.__version__}, {THREADS} threads",
                "parse": parse,
                "sort": {"wall": 0.0, "processor": 0.0},
                "diff": diff,
                "full_join": full_join,
                "join": join,
                "peak_mb": peak_kb / 1024,
                "found": {
                    "added": added[0],
                    "removed": removed[0],
                    "matched": joined[0],
                    "known": joined[1],
                    "people": joined[2],
                },
            }
        )
    )


if __name__ == "__main__":
    main()
