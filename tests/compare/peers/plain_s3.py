#!/usr/bin/env python3
"""What a plain copy to or from S3 takes: prints bytes, seconds and CPU seconds of the transfer as JSON.

    plain_s3.py http|pyarrow put|get ENDPOINT BUCKET KEY FILE

`http` is one PUT or one GET by Python's http.client, signed without a digest of the body: nothing can be plainer. `pyarrow` is
Arrow's S3 file system, the AWS SDK for C++: uploads in parts that are on their way side by side, reads of one stream.
"""

import datetime
import hashlib
import hmac
import http.client
import json
import os
import shutil
import sys
import time
import urllib.parse
from pathlib import Path

PIECE = 1 << 20


def signed(method, host, path):
    """The headers of a request by AWS Signature Version 4; the body is not signed."""
    now = datetime.datetime.now(datetime.timezone.utc)
    stamp, day, region = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d"), os.environ["AWS_REGION"]
    headers = {"host": host, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": stamp}
    names = ";".join(sorted(headers))
    canonical = "\n".join([method, urllib.parse.quote(path), "", *(f"{name}:{headers[name]}" for name in sorted(headers)),
                           "", names, "UNSIGNED-PAYLOAD"])
    scope = f"{day}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{os.environ['AWS_SECRET_ACCESS_KEY']}".encode()
    for part in [day, region, "s3", "aws4_request"]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    credential = f"{os.environ['AWS_ACCESS_KEY_ID']}/{scope}"
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return headers


class Http:
    """One request, one connection."""

    def __init__(self, endpoint, bucket):
        self.host, self.bucket = urllib.parse.urlsplit(endpoint).netloc, bucket

    def request(self, method, key, body=None, **headers):
        """The reply, which must be a success."""
        path = f"/{self.bucket}/{key}"
        connection = http.client.HTTPConnection(self.host, timeout=120, blocksize=PIECE)
        connection.request(method, urllib.parse.quote(path), body, {**signed(method, self.host, path), **headers})
        reply = connection.getresponse()
        if reply.status != 200:
            raise SystemExit(f"{method} {path}: {reply.status} {reply.read(500)}")
        return reply

    def put(self, key, file):
        """One PUT."""
        with open(file, "rb") as source:
            self.request("PUT", key, source, **{"content-length": str(file.stat().st_size)}).read()

    def get(self, key, file):
        """One GET."""
        with open(file, "wb") as out:
            shutil.copyfileobj(self.request("GET", key), out, PIECE)


class Arrow:
    """pyarrow.fs."""

    def __init__(self, endpoint, bucket):
        from pyarrow import fs
        parts = urllib.parse.urlsplit(endpoint)
        self.files, self.bucket = fs.S3FileSystem(scheme=parts.scheme, endpoint_override=parts.netloc,
                                                  region=os.environ["AWS_REGION"]), bucket

    def put(self, key, file):
        """Parts of its own size, in the background."""
        with open(file, "rb") as source, self.files.open_output_stream(f"{self.bucket}/{key}", compression=None) as out:
            shutil.copyfileobj(source, out, PIECE)

    def get(self, key, file):
        """One stream."""
        with self.files.open_input_stream(f"{self.bucket}/{key}", compression=None) as source, open(file, "wb") as out:
            shutil.copyfileobj(source, out, PIECE)


def main(how, way, endpoint, bucket, key, file):
    """The command."""
    client = {"http": Http, "pyarrow": Arrow}[how](endpoint, bucket)
    began, used = time.perf_counter(), time.process_time()
    {"put": client.put, "get": client.get}[way](key, Path(file))
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    print(json.dumps({"bytes": Path(file).stat().st_size, "seconds": seconds, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main(*sys.argv[1:])
