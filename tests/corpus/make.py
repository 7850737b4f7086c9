"""Writes the files of the corpus. They are checked in; this says how they came to be, and makes them again:

    .parts/venv/bin/python tests/corpus/make.py

Parquet files depend on pyarrow's version in bytes that no test looks at.
"""

import gzip
import io
import json
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

HERE = Path(__file__).parent


def put(name, data):
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


# ---- CSV ----

CSV = {
    "nul-in-a-cell": b"a,b\n1,x\n2,y\x00z\n3,w\n",
    "nul-in-the-header": b"a,b\x00\n1,x\n",
    "nuls-only": b"\x00" * 64,
    "quote-to-the-end": b'a,b\n1,x\n2,"never closed\n3,z\n4,w\n',
    "quote-in-the-last-cell-open": b'a,b\n1,"',
    "quote-inside-a-bare-cell": b'a,b\n5" pipe,x\ny,a "quoted" word\n',
    "text-after-a-quote": b'a,b\n1,x\n2,"y"z\n',
    "quote-that-never-closes-in-the-header": b'a,"b\n1,x\n',
    "mixed-line-ends": b"a,b\r\n1,x\n2,y\r\n3,z\n",
    "carriage-returns-alone": b"a,b\r1,x\r2,y\r",
    "one-carriage-return-inside": b"a,b\n1,x\ry\n2,z\n",
    "carriage-return-at-the-end": b"a,b\n1,x\r",
    "line-separators-inside": "a,b\n1,x\u2028y\u2029z\u0085w\n".encode(),
    "form-feed-and-vertical-tab": b"a,b\n1,x\x0cy\x0bz\n",
    "empty": b"",
    "newlines-only": b"\n\n\r\n\n",
    "spaces-only": b"   \n  \n",
    "commas-only": b",,\n,,\n",
    "mark-only": b"\xef\xbb\xbf",
    "mark-and-newline": b"\xef\xbb\xbf\n",
    "mark": b"\xef\xbb\xbfa,b\n1,x\n",
    "mark-twice": b"\xef\xbb\xbf\xef\xbb\xbfa,b\n1,x\n",
    "mark-inside": "a,b\n\ufeff1,x\n".encode(),
    "utf-16-le-with-mark": b"\xff\xfe" + "a,b\n1,x\n".encode("utf-16-le"),
    "utf-16-be-with-mark": b"\xfe\xff" + "a,b\n1,x\n".encode("utf-16-be"),
    "utf-16-le": "a,b\n1,x\n".encode("utf-16-le"),
    "utf-16-be": "a,b\n1,x\n".encode("utf-16-be"),
    "utf-32-le-with-mark": b"\xff\xfe\x00\x00" + "a,b\n1,x\n".encode("utf-32-le"),
    "latin-1-cell": "a,b\n1,caf\u00e9\n2,x\n".encode("latin-1"),
    "latin-1-header": "a,caf\u00e9\n1,x\n".encode("latin-1"),
    "surrogate-half": b"a,b\n1,x\xed\xa0\xbdy\n2,z\n",
    "overlong-slash": b"a,b\n1,\xc0\xaf\n",
    "cut-character-at-the-end": b"a,b\n1,x\xe2\x82",
    "beyond-unicode": b"a,b\n1,\xf4\x90\x80\x80\n",
    "row-too-short": b"a,b,c\n1,x,y\n2,z\n3,x,y\n",
    "row-too-long": b"a,b\n1,x\n2,y,z\n3,w\n",
    "duplicate-headers": b"a,b,a\n1,2,3\n",
    "headers-that-differ-in-case": b"a,A,b\n1,2,3\n",
    "headers-that-differ-in-space": b"a, a,b\n1,2,3\n",
    "headers-that-look-alike": "a,\u0430\n1,2\n".encode(),
    "headers-in-two-normal-forms": "a,\u00e9,e\u0301\n1,2,3\n".encode(),
    "empty-header-name": b"a,,b\n1,2,3\n",
    "two-empty-header-names": b"a,,\n1,2,3\n",
    "header-alone-without-newline": b"a,b",
    "header-alone": b"a,b\n",
    "header-with-control-characters": b"a,\x1b[31mred\n1,x\n",
    "header-of-ten-thousand-characters": b"a," + b"x" * 10_000 + b"\n1,y\n",
    "header-like-a-number": b"1,2,3\n4,5,6\n",
    "one-column": b"a\nx\ny\n",
    "no-newline-at-the-end": b"a,b\n1,x\n2,y",
    "semicolons": b"a;b\n1,5;x\n2,5;y\n",
    "commas-or-semicolons": b"a,b;c\n1,2;3\n4,5;6\n",
    "sep-line": b"sep=;\na;b\n1;x\n",
    "trailing-delimiter": b"a,b,\n1,x,\n2,y,\n",
    "trailing-delimiter-in-rows-only": b"a,b\n1,x,\n2,y,\n",
    "rows-of-white-space": b"a,b\n1,x\n   \n\t\n2,y\n",
    "one-column-rows-of-white-space": b"a\nx\n   \ny\n",
    "blank-lines-between": b"a,b\n\n1,x\n\n\n2,y\n\n",
    "response-is-there": b"a,response\n1,x\n",
    "error-is-there": b"a,error\n1,x\n",
    "template-column-is-missing": b"title,b\n1,x\n",
    "formulas": b"a,b\n=1+1,@SUM(A1)\n+1,-1\n\"=cmd|' /C calc'!A0\",x\n",
    "leading-zeros-and-long-numbers": b"a,b\n007,1.10\n12345678901234567890,1e5\n",
    "template-in-a-cell": b"a,b\n{{ b }},secret\n{% for x in range(9) %},y\n",
    "json-in-a-cell": b'a,b\n"{""x"": ""\\ud800""}",y\n',
    "html-page": b"<!DOCTYPE html>\n<html><body>403 Forbidden</body></html>\n",
    "json-lines": b'{"a": 1}\n{"a": 2}\n',
    "sqlite-header": b"SQLite format 3\x00" + b"\x10\x00\x01\x01" + b"\x00" * 80,
    "xlsx-header": b"PK\x03\x04\x14\x00\x06\x00" + b"\x00" * 64,
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
    "comment-lines": b"# made by hand\na,b\n1,x\n",
    "backslash-escapes": b'a,b\n"x \\" y",z\n',
    "quoted-newlines": b'a,b\n"x\ny\r\nz",1\n"",2\n',
    "single-quotes": b"a,b\n'x,y',z\n",
    "tab-in-a-cell": b"a,b\nx\ty,z\n",
    "right-to-left-and-emoji": "a,b\n\u202eabc\u202c,\U0001f469\u200d\U0001f469\u200d\U0001f467\n".encode(),
    "hundred-thousand-empty-rows": b"a,b\n" + b"\n" * 100_000,
}
for name, data in CSV.items():
    put(f"csv/{name}.csv", data)

# ---- gzip ----

def member(data):
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0, filename="") as f:
        f.write(data)
    return out.getvalue()

text = b"a,b\n" + b"".join(b"%d,x%d\n" % (i, i) for i in range(200))
whole = member(text)
gz = {
    "sound": whole,
    "cut": whole[: len(whole) // 2],
    "cut-in-its-header": whole[:6],
    "cut-in-its-trailer": whole[:-3],
    "wrong-crc": whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:],
    "wrong-length": whole[:-1] + bytes([whole[-1] ^ 1]),
    "flipped-in-the-middle": whole[:200] + bytes([whole[200] ^ 0x55]) + whole[201:],
    "garbage-behind": whole + b"and this is no gzip",
    "zeros-behind": whole + b"\x00" * 512,
    "two-members": member(b"a,b\n1,x\n") + member(b"2,y\n"),
    "second-member-cut": member(b"a,b\n1,x\n") + member(b"2,y\n")[:-4],
    "nothing-inside": member(b""),
    "gzipped-twice": member(whole),
    "parquet-inside": member(b"PAR1" + b"\x00" * 100),
    "reserved-flags": whole[:3] + b"\xe0" + whole[4:],
    "deflate-without-gzip": zlib.compress(text),
}
for name, data in gz.items():
    put(f"gz/{name}.csv.gz", data)
put("gz/gzip-that-is-named-csv.csv", whole)
put("gz/csv-that-is-named-gzip.csv.gz", b"a,b\n1,x\n")

# ---- Parquet ----

ROWS = 77
table = pa.table({"a": [f"title {i}" for i in range(ROWS)], "n": list(range(ROWS))})

def parquet(table, **options):
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()

def footer(data):
    length = int.from_bytes(data[-8:-4], "little")
    return data[: -8 - length], data[-8 - length : -8]

def with_footer(body, meta):
    return body + meta + len(meta).to_bytes(4, "little") + b"PAR1"

sound = parquet(table, compression="snappy")
plain = parquet(table, compression="none", use_dictionary=False, write_page_checksum=True)
body, meta = footer(sound)
count, huge = b"\x16\x9a\x01", b"\x16\x80\x80\x80\x80\x10"  # 77 and 2^31 as thrift's zigzag varints
assert meta.count(count) == 4 and meta.count(count + b"\x19") == 1

def flipped(data, at, bits=0x10):
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]

def page_claims(data):
    """The first page's uncompressed size as the largest that takes as many bytes."""
    at = 4
    assert data[at : at + 2] == b"\x15\x04" or data[at : at + 2] == b"\x15\x00"
    assert data[at + 2] == 0x15
    end = at + 3
    while data[end] & 0x80:
        end += 1
    size = end + 1 - (at + 3)
    lie = b"\xfe" + b"\xff" * (size - 2) + b"\x7f" if size > 1 else b"\x7e"
    return data[: at + 3] + lie + data[end + 1 :]

class Kms(pe.KmsClient):
    def __init__(self, config):
        pe.KmsClient.__init__(self)

    def wrap_key(self, key_bytes, master_key_identifier):
        return key_bytes.hex()

    def unwrap_key(self, wrapped_key, master_key_identifier):
        return bytes.fromhex(wrapped_key)

def encrypted(plaintext_footer):
    config = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"c": ["a"]}, plaintext_footer=plaintext_footer, double_wrapping=False)
    factory = pe.CryptoFactory(Kms)
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), config)
    out = io.BytesIO()
    with pq.ParquetWriter(out, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    return out.getvalue()

def named(*names):
    return parquet(pa.Table.from_arrays([pa.array([f"v{i}"]) for i in range(len(names))], names=list(names)))

import datetime
import decimal

stamp = datetime.datetime(2026, 11, 22, 8, 30, 0, 123456)
files = {
    "sound": sound,
    "no-magic-at-the-front": b"XXXX" + sound[4:],
    "no-magic-at-the-end": sound[:-4] + b"XXXX",
    "magic-only": b"PAR1",
    "two-magics": b"PAR1PAR1",
    "no-footer-at-all": b"PAR1\x00\x00\x00\x00PAR1",
    "cut-in-the-footer": sound[:-40],
    "cut-in-half": sound[: len(sound) // 2],
    "cut-in-the-pages": sound[:100] + sound[-8:],
    "footer-length-zero": body + meta + b"\x00\x00\x00\x00PAR1",
    "footer-length-too-long": body + meta + (len(sound) * 2).to_bytes(4, "little") + b"PAR1",
    "footer-length-4-gib": body + meta + b"\xff\xff\xff\xffPAR1",
    "footer-length-too-short": body + meta + (len(meta) - 9).to_bytes(4, "little") + b"PAR1",
    "footer-of-zeros": with_footer(body, b"\x00" * len(meta)),
    "footer-of-noise": with_footer(body, bytes((i * 73 + 41) % 251 for i in range(len(meta)))),
    "footer-says-2-to-the-31-rows": with_footer(body, meta.replace(count + b"\x19", huge + b"\x19")),
    "everything-says-2-to-the-31-rows": with_footer(body, meta.replace(count, huge)),
    "a-page-is-corrupt": flipped(sound, 60, 0xFF),
    "a-page-header-is-corrupt": flipped(sound, 5, 0xFF),
    "a-page-lies-about-its-size": page_claims(sound),
    "a-page-has-a-wrong-checksum": flipped(plain, 60),
    "encrypted": encrypted(False),
    "encrypted-with-a-plain-footer": encrypted(True),
    "no-columns": parquet(pa.table({})),
    "no-rows": parquet(table.slice(0, 0)),
    "a-row-group-without-rows": None,
    "int96-timestamps": parquet(pa.table({"a": [stamp, None]}), use_deprecated_int96_timestamps=True),
    "nested": parquet(pa.table({
        "a": [{"x": 1, "y": ["p", None]}, None],
        "l": pa.array([[1, 2], []], pa.list_(pa.int8())),
        "m": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32())),
    })),
    "deeply-nested": None,
    "decimal-256": parquet(pa.table({"a": pa.array(
        [decimal.Decimal("12345678901234567890123456789012345678901234567890.12"), None], pa.decimal256(76, 2))})),
    "dictionary": parquet(pa.table({"a": pa.array(["x", "y", None, "x"]).dictionary_encode()})),
    "floats-that-are-no-numbers": parquet(pa.table({"a": [float("nan"), float("inf"), -0.0, 5e-324]})),
    "dates-out-of-range": parquet(pa.table({"a": pa.array([2**31 - 1, -(2**31)], pa.int32()).cast(pa.date32())})),
    "timestamps-out-of-range": parquet(pa.table({"a": pa.array([2**63 - 1, -(2**63) + 1], pa.timestamp("us"))})),
    "binary-that-is-no-text": parquet(pa.table({"a": pa.array([b"\xff\x00\xfe", b"ok"], pa.binary())})),
    "text-that-is-no-utf-8": parquet(pa.table({"a": pa.array([b"\xff\xfe", b"ok"], pa.binary())}), store_schema=False,
                                     compression="none", use_dictionary=False),
    "nulls-only": parquet(pa.table({"a": pa.nulls(2), "b": ["x", "y"]})),
    "duplicate-names": named("a", "b", "a"),
    "names-that-differ-in-case": named("a", "A"),
    "name-with-control-characters": named("a", "x\x00\x1b[31m\n"),
    "name-in-unicode": named("a", "\u540d\u524d \U0001f600"),
    "name-empty": named("a", ""),
    "name-of-ten-thousand-characters": named("a", "x" * 10_000),
    "name-with-dots": named("a", "b.c", "b"),
    "response-is-there": named("a", "response"),
    "batchmills-own-name": named("a", "_row"),
}
# Binary without logical type becomes text: the footer's element of `a` gets converted type UTF8 (0).
data = files["text-that-is-no-utf-8"]
b2, m2 = footer(data)
element = b"\x15\x0c\x25\x02\x18\x01a"
assert m2.count(element) == 1, m2
files["text-that-is-no-utf-8"] = with_footer(b2, m2.replace(element + b"\x00", element + b"\x25\x00\x00"))

out = io.BytesIO()
with pq.ParquetWriter(out, table.schema) as writer:
    writer.write_table(table.slice(0, 2))
    writer.write_table(table.slice(0, 0))
    writer.write_table(table.slice(2, 1))
files["a-row-group-without-rows"] = out.getvalue()
kind, value = pa.int8(), 1
for _ in range(60):
    kind, value = pa.struct([("x", kind)]), {"x": value}
files["deeply-nested"] = parquet(pa.table({"a": pa.array([value], kind)}))
for name, data in files.items():
    put(f"parquet/{name}.parquet", data)
put("parquet/parquet-that-is-named-csv.csv", sound)
put("parquet/csv-that-is-named-parquet.parquet", b"a,b\n1,x\n")
for kind, what in (("orc", b"ORC\x08\x03"), ("feather", b"ARROW1\x00\x00"), ("avro", b"Obj\x01\x04\x16")):
    put(f"parquet/{kind}-that-is-named-parquet.parquet", what + b"\x00" * 64)

# ---- job specs: as they would stand in the value of a plain record on a jobs topic ----

GOOD = {
    "id": "job",
    "input": {"uri": "s3://lake/in/table.csv"},
    "output": {"uri": "s3://lake/out/table.csv"},
    "request": {"model": "sim/echo", "template": "{{ a }}"},
}

def spec(**changes):
    """The good spec with changes by dotted path (two underscores for the dot)."""
    changed = json.loads(json.dumps(GOOD))
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = changed
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return json.dumps(changed, ensure_ascii=False)

def template(text):
    return spec(request__template=text)

raw = spec()
specs = {
    "sound": raw,
    "unknown-field": spec(priority=1),
    "unknown-field-inside": spec(request__tempalte="x"),
    "misspelt-kind-of-failure": spec(retry={"expird": 1}),
    "retry-of-what-can-not-get-better": spec(retry={"too_large": 3}),
    "retry-count-negative": spec(retry={"expired": -1}),
    "id-is-a-number": spec(id=7),
    "id-is-null": spec(id=None),
    "id-in-upper-case": spec(id="Job"),
    "id-with-dots": spec(id=".."),
    "id-that-climbs": spec(id="../../etc"),
    "id-with-a-slash": spec(id="a/b"),
    "id-of-65-characters": spec(id="x" * 65),
    "id-of-64-characters": spec(id="x" * 64),
    "id-empty": spec(id=""),
    "id-in-unicode": spec(id="caf\u00e9"),
    "id-with-a-newline": spec(id="a\n"),
    "id-missing": raw.replace('"id": "job", ', ""),
    "input-is-text": spec(input="s3://lake/in/table.csv"),
    "input-is-a-list": spec(input=[]),
    "uri-of-a-file": spec(input__uri="file:///etc/passwd"),
    "uri-of-a-file-with-a-host": spec(input__uri="file://localhost/etc/passwd"),
    "uri-of-the-web": spec(input__uri="http://169.254.169.254/latest/meta-data"),
    "uri-without-a-scheme": spec(input__uri="/etc/passwd"),
    "uri-of-another-bucket": spec(input__uri="s3://vault/keys.csv"),
    "uri-beside-the-prefix": spec(input__uri="s3://lake/inside/table.csv"),
    "uri-that-climbs": spec(input__uri="s3://lake/in/../../vault/keys.csv"),
    "uri-that-climbs-encoded": spec(input__uri="s3://lake/in/%2e%2e/%2E%2E/vault/keys.csv"),
    "uri-with-an-encoded-slash": spec(input__uri="s3://lake/in%2ftable.csv"),
    "uri-with-a-dot-segment": spec(input__uri="s3://lake/./in/table.csv"),
    "uri-with-two-slashes": spec(input__uri="s3://lake//in/table.csv"),
    "uri-with-a-backslash": spec(input__uri="s3://lake/in\\..\\table.csv"),
    "uri-with-credentials": spec(input__uri="s3://key:secret@lake/in/table.csv"),
    "uri-with-a-port": spec(input__uri="s3://lake:9000/in/table.csv"),
    "uri-with-a-query": spec(input__uri="s3://lake/in/table.csv?versionId=1"),
    "uri-with-a-fragment": spec(input__uri="s3://lake/in/table.csv#x"),
    "uri-with-a-newline": spec(input__uri="s3://lake/in/table.csv\n"),
    "uri-with-a-nul": spec(input__uri="s3://lake/in/table.csv\u0000.csv"),
    "uri-of-a-bucket-in-upper-case": spec(input__uri="s3://LAKE/in/table.csv"),
    "uri-of-a-bucket-alone": spec(input__uri="s3://lake"),
    "uri-of-a-folder": spec(input__uri="s3://lake/in/"),
    "uri-empty": spec(input__uri=""),
    "uri-of-another-place": spec(input__uri="s3://lake/in/missing.csv"),
    "uri-longer-than-a-key": spec(input__uri="s3://lake/in/" + "x" * 1_100),
    "output-in-the-store": spec(output__uri="s3://mill/state/jobs/job/5-end.json"),
    "output-in-the-stores-bucket": spec(output__uri="s3://mill/out.csv"),
    "output-of-another-bucket": spec(output__uri="s3://vault/out.csv"),
    "output-that-climbs": spec(output__uri="s3://lake/out/../../vault/out.csv"),
    "output-is-the-input": spec(output__uri="s3://lake/in/table.csv"),
    "output-named-parquet": spec(output__uri="s3://lake/out/table.parquet"),
    "delimiter-of-two-characters": spec(input__delimiter="::"),
    "delimiter-that-is-a-quote": spec(input__delimiter='"'),
    "delimiter-beyond-ascii": spec(input__delimiter="\u00a6"),
    "format-unknown": spec(input__format="xlsx"),
    "rows-of-a-batch-zero": spec(batch__max_rows=0),
    "rows-of-a-batch-over-the-cap": spec(batch__max_rows=50_001),
    "rows-of-a-batch-negative": spec(batch__max_rows=-1),
    "rows-of-a-batch-a-fraction": spec(batch__max_rows=1.5),
    "rows-of-a-batch-as-text": spec(batch__max_rows="100"),
    "rows-of-a-batch-beyond-32-bits": spec(batch__max_rows=2**40),
    "bytes-of-a-batch-zero": spec(batch__max_bytes=0),
    "bytes-of-a-batch-over-the-cap": spec(batch__max_bytes=200_000_001),
    "deadline-zero": spec(deadline_seconds=0),
    "deadline-beyond-the-calendar": spec(deadline_seconds=2**63),
    "model-without-a-provider": spec(request__model="echo"),
    "model-of-nobody": spec(request__model="nobody/echo"),
    "model-empty": spec(request__model=""),
    "model-that-climbs": spec(request__model="../sim/echo"),
    "template-empty": template("  \n "),
    "template-that-does-not-parse": template("{{ a"),
    "template-with-an-unknown-tag": template("{% exec a %}"),
    "template-with-an-unknown-filter": template("{{ a|system }}"),
    "template-with-an-unknown-column": template("{{ title }}"),
    "template-with-an-unknown-column-in-a-dead-branch": template("{% if false %}{{ title }}{% endif %}{{ a }}"),
    "template-that-includes": template("{% include '/etc/passwd' %}"),
    "template-that-imports": template("{% import 'x' as y %}{{ a }}"),
    "template-that-extends": template("{% extends 'x' %}"),
    "template-that-calls-a-method": template("{{ a.__class__.__mro__ }}{{ a.upper() }}"),
    "template-with-attributes-of-python": template("{{ a.__class__ }}"),
    "template-that-asks-for-the-environment": template("{{ env.HOME }}{{ config }}{{ self }}"),
    "template-that-doubles-its-text": template("{% set t = a ~ b %}" + "{% set t = t ~ t %}" * 40 + "{{ t|length }}"),
    "template-that-repeats-hugely": template("{{ 'x' * 10 ** 9 }}"),
    "template-that-repeats-hugely-by-a-cell": template("{{ a * 1000000000 }}"),
    "template-that-indents-hugely": template("{{ (a ~ '\\n' ~ a)|indent(1000000000000) }}"),
    "template-that-centres-hugely": template("{{ '%1000000000000s'|format(a) }}"),
    "template-that-rounds-hugely": template("{{ 1.5|round(2000000000) }}{{ a }}"),
    "template-that-loops-long": template("{% for x in range(100000) %}{% for y in range(100000) %}{% endfor %}{% endfor %}{{ a }}"),
    "template-that-writes-long": template("{% for x in range(10000) %}" + "y" * 10_000 + "{% endfor %}{{ a }}"),
    "template-that-calls-itself": template("{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(a) }}"),
    "template-of-many-brackets": template("{{ " + "(" * 3_000 + "a" + ")" * 3_000 + " }}"),
    "template-of-many-lists": template("{{ " + "[" * 3_000 + "a" + "]" * 3_000 + " }}"),
    "template-of-many-nots": template("{{ " + "not " * 5_000 + "a }}"),
    "template-of-many-ifs": template("{% if a %}" * 2_000 + "x" + "{% endif %}" * 2_000),
    "template-of-many-filters": template("{{ a" + "|upper" * 5_000 + " }}"),
    "template-of-many-pluses": template("{{ a" + " ~ a" * 10_000 + " }}"),
    "template-of-many-elifs": template("{% if a %}" + "{% elif a %}" * 4_000 + "{% endif %}x"),
    "template-of-many-attributes": template("{{ a" + ".b" * 10_000 + " }}"),
    "template-that-divides-by-zero": template("{{ 1 // 0 }}{{ a }}"),
    "template-with-a-nul": template("{{ a }}\u0000"),
    "params-with-messages": spec(request__params={"messages": []}),
    "params-with-a-model": spec(request__params={"model": "gpt-9"}),
    "params-with-stream": spec(request__params={"stream": True}),
    "params-with-n": spec(request__params={"n": 50}),
    "params-that-are-a-list": spec(request__params=[]),
    "params-that-are-unknown": spec(request__params={"temperature": 0, "x-y": {"z": [None]}}),
    "response-column-empty": spec(response_column=""),
    "response-column-error": spec(response_column="error"),
    "response-column-of-the-details": spec(response_column="status", details=True),
    "response-column-clashes": spec(response_column="a"),
    "response-column-with-a-newline": spec(response_column='x\n"y'),
    "on-bad-row-unknown": spec(on_bad_row="ignore"),
    "deeply-nested": raw[:-1] + ', "batch": ' + "[" * 10_000 + "]" * 10_000 + "}",
    "deeply-nested-params": spec(request__params={"x": 0}).replace('"x": 0', '"x": ' + "[" * 10_000 + "]" * 10_000),
    "params-nested-a-hundred-times": spec(request__params={"x": 0}).replace('"x": 0', '"x": ' + "[" * 100 + "]" * 100),
    "number-beyond-floats": spec(request__params={"temperature": 0}).replace('"temperature": 0', '"temperature": 1e999'),
    "number-beyond-64-bits": spec(request__params={"seed": 0}).replace('"seed": 0', '"seed": 123456789012345678901234567890'),
    "duplicate-keys": raw[:-1] + ', "id": "other"}',
    "duplicate-keys-in-params": spec(request__params={"x": 0}).replace('"x": 0', '"x": 0, "x": 1'),
    "not-json": "id: job\ninput: s3://lake/in/table.csv\n",
    "cut": raw[: len(raw) // 2],
    "empty": "",
    "null": "null",
    "a-list-of-specs": f"[{raw}]",
    "a-list": '["job", {"uri": "s3://lake/in/table.csv"}, {"uri": "s3://lake/out/table.csv"}, {"model": "sim/echo", "template": "{{ a }}"}]',
    "garbage-behind": raw + " {}",
    "with-a-mark": "\ufeff" + raw,
    "with-comments": "// a job\n" + raw,
    "with-nan": spec(request__params={"x": 0}).replace('"x": 0', '"x": NaN'),
    "in-utf-16": raw.encode("utf-16"),
    "with-half-a-surrogate": spec(request__template="x").replace('"x"', '"\\\\ud83d {{ a }}"').replace("\\\\", "\\"),
    "with-invalid-utf-8": raw.encode().replace(b"{{ a }}", b"\xff {{ a }}"),
    "over-60-kib": spec(request__system="s" * 62_000),
    "over-64-kib": spec(request__system="s" * 66_000),
}
for name, data in specs.items():
    put(f"specs/{name}.json", data)

# ---- events: records, each as JSON; `value` null is a tombstone, `pad` adds so many blanks behind the value ----

def event(headers, value, key="job", pad=0):
    record = {"key": key, "headers": headers, "value": value if value is None or isinstance(value, str) else json.dumps(value)}
    if pad:
        record["pad"] = pad
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"

def headers(kind, **changes):
    found = {"ce_specversion": "1.0", "ce_type": f"io.batchmill.{kind}.v1", "ce_id": "1", "ce_source": "/test", "content-type": "application/json"}
    found.update(changes)
    return {name: value for name, value in found.items() if value is not None}

def batch(**changes):
    data = {"key": "jobs/before/1-batches/00000001-a1-00000000000000aa.parquet", "sha256": "0" * 64, "bytes": 10, "rows": 1}
    found = {"number": 1, "attempt": 1, "nonce": "00000000000000aa", "first_row": 0, "data": data, "send_rows": 1, "send_bytes": 9}
    found.update(changes)
    return found

def ready(job="before", **changes):
    return {"job": job, "batch": batch(**changes)}

submitted = json.loads(raw)
later = {"job": "before", "batch": batch(**{"number": 1, "attempt": 2})}
events = {
    # for every topic
    "not-json": event(headers("job.submitted"), "{"),
    "noise": event({}, "\u0000\u0001\ufffd noise"),
    "empty-value": event(headers("job.submitted"), ""),
    "tombstone": event({}, None),
    "tombstone-with-headers": event(headers("batch.ready"), None),
    "no-key": event({}, "not json", key=None),
    "over-64-kib": event(headers("batch.ready"), ready(), pad=66_000),
    "unknown-type": event(headers("job.exploded"), {}),
    "type-of-another-version": event(headers("batch.ready", ce_type="io.batchmill.batch.ready.v2"), ready()),
    "type-empty": event(headers("batch.ready", ce_type=""), ready()),
    "no-type": event(headers("batch.ready", ce_type=None), ready()),
    "specversion-0-3": event(headers("batch.ready", ce_specversion="0.3"), ready()),
    "no-specversion": event(headers("batch.ready", ce_specversion=None), ready()),
    "content-type-xml": event(headers("batch.ready", **{"content-type": "text/xml"}), "<a/>"),
    "content-type-avro": event({"content-type": "application/cloudevents+avro"}, "Obj\u0001"),
    "batch-mode": event({"content-type": "application/cloudevents-batch+json"}, "[]"),
    "structured-not-json": event({"content-type": "application/cloudevents+json"}, "{"),
    "structured-list": event({"content-type": "application/cloudevents+json"}, "[]"),
    "structured-without-attributes": event({"content-type": "application/cloudevents+json"}, "{}"),
    # for one topic
    "submitted-without-id": event(headers("job.submitted", ce_id=None), submitted),
    "submitted-without-source": event(headers("job.submitted", ce_source=None), submitted),
    "submitted-at-no-time": event(headers("job.submitted", ce_time="yesterday"), submitted),
    "submitted-structured-as-json": event({"content-type": "application/json"}, {
        "specversion": "1.0", "type": "io.batchmill.job.submitted.v1", "id": "1", "source": "/x", "data": submitted}),
    "submitted-structured-without-data": event({"content-type": "application/cloudevents+json"}, {
        "specversion": "1.0", "type": "io.batchmill.job.submitted.v1", "id": "1", "source": "/x"}),
    "submitted-structured-in-base-64": event({"content-type": "application/cloudevents+json"}, {
        "specversion": "1.0", "type": "io.batchmill.job.submitted.v1", "id": "1", "source": "/x", "data_base64": "e30="}),
    "submitted-on-the-wrong-topic": event(headers("job.submitted"), submitted),
    "ready-on-the-wrong-topic": event(headers("batch.ready"), ready(), key="before/00000001"),
    "ready-without-headers": event({}, ready(), key="before/00000001"),
    "ready-with-another-key": event(headers("batch.ready"), ready(), key="before/00000002"),
    "ready-without-a-key": event(headers("batch.ready"), ready(), key=None),
    "ready-of-batch-zero": event(headers("batch.ready"), ready(**{"number": 0, "attempt": 1}), key="before/00000000"),
    "ready-with-a-climbing-job": event(headers("batch.ready"), ready(job="../before"), key="../before/00000001"),
    "ready-with-unknown-fields": event(headers("batch.ready"), {**ready(), "rows": [1, 2]}, key="before/00000001"),
    "ready-with-a-negative-count": event(headers("batch.ready"), ready(send_rows=-1), key="before/00000001"),
    "ready-of-an-unknown-job": event(headers("batch.ready"), ready(job="nobody"), key="nobody/00000001"),
    "ready-of-an-unknown-batch": event(headers("batch.ready"), ready(**{"number": 9, "attempt": 1}), key="before/00000009"),
    "ready-of-other-data": event(headers("batch.ready"), ready(), key="before/00000001"),
    "ready-again-of-an-unknown-attempt": event(headers("batch.ready"), ready(**{"number": 1, "attempt": 9}), key="before/00000001"),
    "ready-again-of-other-data": event(headers("batch.ready"), later, key="before/00000001"),
    "ready-again-on-the-first-topic": event(headers("batch.ready"), later, key="before/00000001"),
    "dispatched-of-an-unknown-job": event(headers("batch.dispatched"), {**ready(job="nobody"), "submission": {"outcome": "unsent"}}, key="nobody/00000001"),
    "planned-of-an-unknown-job": event(headers("job.planned"), {"job": "nobody", "outcome": "planned", "rows": 1, "batches": 1}, key="nobody"),
    "collected-of-an-unknown-job": event(headers("batch.collected"), {"job": "nobody", "batch": {"number": 1, "attempt": 1}, "last": True, "counts": {"rows": 1, "answered": 1}}, key="nobody"),
    "cancel-of-an-unknown-job": event(headers("job.cancel_requested"), {"job": "nobody"}, key="nobody"),
    "cancel-of-an-ended-job": event(headers("job.cancel_requested"), {"job": "before"}, key="before"),
    "submitted-again-with-another-spec": event(headers("job.submitted"), {**submitted, "id": "before", "details": True}, key="before"),
}
for name, data in events.items():
    put(f"events/{name}.json", data)
