"""A Prometheus that looks at a live test every second, and the questions to its series."""

import json
import time
from pathlib import Path

from checks import expect
from promql import ask, series
from servers import PARTS, Process, free_port, http_ok, wait_until


class Watch:
    """Starts Prometheus; processes may come and go."""

    def __init__(self, folder):
        self.folder, self.port = Path(folder), free_port()
        self.folder.mkdir(parents=True)
        self.url = f"http://127.0.0.1:{self.port}"
        self.targets = []
        self._write()
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "900ms"},
                  "scrape_configs": [{"job_name": "batchmill", "file_sd_configs": [
                      {"files": [str(self.folder / "targets.json")], "refresh_interval": "1s"}]}]}
        (self.folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
        self.process = Process("prometheus", [
            PARTS / "prometheus" / "usr" / "bin" / "prometheus", f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}"],
            self.folder / "prometheus.log")
        wait_until(lambda: http_ok(f"{self.url}/-/ready"), "Prometheus is not ready", 30, alive=self.process)

    def _write(self):
        fresh = self.folder / "targets.new"
        fresh.write_text(json.dumps(self.targets), encoding="utf-8")
        fresh.rename(self.folder / "targets.json")

    def add(self, fleet, service):
        """Looks at one more process."""
        self.targets.append({"targets": [f"127.0.0.1:{service.port}"],
                             "labels": {"fleet": fleet, "service": service.room, "name": service.name}})
        self._write()

    def sees(self, fleet, names):
        """Waits until it has looked at each of these processes."""
        def all_up():
            found = ask(self.url, "query", query=f'up{{fleet="{fleet}"}} == 1')["result"]
            return set(names) <= {one["metric"]["name"] for one in found}
        wait_until(all_up, f"Prometheus does not see {names}", 30, every=0.25)

    def points(self, query, start, end=None):
        """The points of the one series that a query finds in a time."""
        found = series(self.url, query, start, time.time() if end is None else end)
        expect(len(found) == 1, f"{len(found)} series for {query}")
        return found[0][1]

    def most(self, query, start, end=None):
        """The largest value of all series that a query finds in a time."""
        found = series(self.url, query, start, time.time() if end is None else end)
        expect(found, f"no series for {query}")
        return max(value for _, points in found for _, value in points)

    def close(self):
        """Ends it; the data stays."""
        self.process.ask_to_stop()
        self.process.stopped(20)
