"""A real Prometheus scrapes /metrics: prometheus.py PATH-TO-MILLSTREAM FOLDER-OF-PROMETHEUS-AND-PROMTOOL

Starts a server with sources, queries and sinks, some of them in trouble or with hostile names, lets Prometheus scrape it,
and compares each series with `SELECT * FROM millstream.metrics`. promtool checks the alert rules and runs their tests, and
Prometheus evaluates the rules and all expressions of the dashboard. (`promtool check metrics` reads the older text format
only, which has no type info.)
"""

import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

OPERATIONS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "operations"

# The last name has all that a label must escape: a quote, a backslash, a line feed.
SCRIPT = r"""
CREATE SOURCE clicks (n BIGINT) WITH (connector = 'datagen', rows = 1000, fields.n.kind = 'sequence');
CREATE MATERIALIZED VIEW per AS SELECT n % 7 AS k, count(*) AS c FROM clicks GROUP BY n % 7;
CREATE TABLE t (id BIGINT PRIMARY KEY);
CREATE MATERIALIZED VIEW broken AS SELECT 1 / id AS one FROM t;
CREATE MATERIALIZED VIEW "größe ""x\y
z" AS SELECT count(*) AS n FROM t;
CREATE SINK out FROM per WITH (connector = 'blackhole');
CREATE SINK held FROM t WITH (connector = 'blackhole');
INSERT INTO t VALUES (0), (1), (2);
PAUSE SINK held;
"""

# Values that differ between two moments.
MOVING = {
    "millstream_checkpoint_age_seconds",
    "millstream_epoch_total_delay_max_seconds",
    "millstream_statements",
    "process_resident_memory_bytes",
}

PATIENCE = 60


def fail(text):
    sys.exit(f"prometheus: {text}")


def get(url):
    """The JSON of an answer. An error of Prometheus has one, too."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def until(what, attempt):
    """Repeats an attempt until it returns a value; None or an error is tried again."""
    end = time.monotonic() + PATIENCE
    last = None
    while time.monotonic() < end:
        try:
            found = attempt()
            if found is not None:
                return found
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            last = error
        time.sleep(0.25)
    fail(f"{what} takes longer than {PATIENCE} s; last error: {last}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def sql(page, text):
    """The rows of a statement, by the page."""
    request = urllib.request.Request(
        f"http://{page}/api/sql",
        data=json.dumps({"sql": text}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer = json.load(answer)
    if answer["error"]:
        fail(f"{text}: {answer['error']}")
    return answer["results"][-1].get("rows", [])


def run(*command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        fail(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


class Prometheus:
    def __init__(self, folder, work, target):
        self.address = f"127.0.0.1:{free_port()}"
        config = work / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            f"rule_files: ['{OPERATIONS / 'alerts.yml'}']\n"
            "scrape_configs:\n"
            "  - job_name: millstream\n"
            f"    static_configs: [{{targets: ['{target}']}}]\n"
            "  - job_name: itself\n"
            f"    static_configs: [{{targets: ['{self.address}']}}]\n"
        )
        run(folder / "promtool", "check", "config", config)
        self.log = open(work / "prometheus.log", "w+")
        self.process = subprocess.Popen(
            [folder / "prometheus", f"--config.file={config}", f"--storage.tsdb.path={work / 'data'}",
             f"--web.listen-address={self.address}"],
            stdout=self.log, stderr=self.log,
        )

    def ask(self, path, **parameters):
        answer = get(f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        if answer["status"] != "success":
            fail(f"{path} {parameters}: {answer}")
        return answer["data"]

    def series(self, expression):
        """The values of an instant query by names and labels."""
        found = {}
        for entry in self.ask("query", query=expression)["result"]:
            labels = {name: value for name, value in entry["metric"].items() if name not in ("instance", "job")}
            found[(labels.pop("__name__", ""), tuple(sorted(labels.items())))] = float(entry["value"][1])
        return found

    def target(self):
        targets = self.ask("targets")["activeTargets"]
        return next((target for target in targets if target["labels"]["job"] == "millstream"), None)


def of_sql(page):
    rows = sql(page, "SELECT name, labels, value FROM millstream.metrics")
    return {(name, tuple(sorted(json.loads(labels).items()))): float(value) for name, labels, value in rows}


def without(series, names):
    return {key: value for key, value in series.items() if key[0] not in names}


def compare(page, prometheus):
    """Compares all series at a moment at which nothing changes."""
    ours = '{__name__=~"millstream_.*|process_resident_memory_bytes", job="millstream"}'
    before, scraped, after = of_sql(page), prometheus.series(ours), of_sql(page)
    if without(before, MOVING) != without(after, MOVING):
        return None
    # Only the page knows if the engine answers.
    if scraped.pop(("millstream_ready", ()), None) != 1.0:
        return None
    if without(scraped, MOVING) != without(after, MOVING):
        missing = sorted(set(without(after, MOVING).items()) ^ set(without(scraped, MOVING).items()), key=str)
        raise ValueError(f"series differ: {missing[:6]}")
    return scraped


def check_scrapes(page, prometheus):
    def is_up():
        target = prometheus.target()
        return target if target["health"] == "up" else None

    target = until("the target's first scrape", is_up)
    scraped = until("an equal scrape", lambda: compare(page, prometheus))
    target = prometheus.target()
    if target["lastError"]:
        fail(f"the scrape has an error: {target['lastError']}")
    names = {name for name, _ in scraped}
    for name, labels in [
        ("millstream_query_status", (("query", 'größe "x\\y\nz'), ("status", "running"))),
        ("millstream_query_errors", (("query", "broken"),)),
        ("millstream_source_rows_total", (("source", "clicks"),)),
        ("millstream_epoch_processing_seconds_bucket", (("le", "+Inf"),)),
        ("millstream_checkpoint_ok", ()),
    ]:
        if (name, labels) not in scraped:
            fail(f"{name} {labels} isn't scraped: {sorted(scraped, key=str)}")
    if scraped[("millstream_source_rows_total", (("source", "clicks"),))] != 1000:
        fail(f"the rows of a source: {scraped}")
    types = {
        entry["metric"]: entry
        for entry in prometheus.ask("targets/metadata", match_target='{job="millstream"}')
        if entry["metric"].startswith("millstream_")
    }
    for name, kind, unit in [
        ("millstream_epochs", "counter", ""),
        ("millstream_build", "info", ""),
        ("millstream_epoch_processing_seconds", "histogram", "seconds"),
        ("millstream_state_bytes", "gauge", "bytes"),
    ]:
        found = types.get(name, {})
        if (found.get("type"), found.get("unit")) != (kind, unit) or not found.get("help"):
            fail(f"the type of {name}: {found}")
    for problem in ["sample_duplicate_timestamp", "sample_out_of_order", "sample_out_of_bounds"]:
        for key, value in prometheus.series(f"prometheus_target_scrapes_{problem}_total").items():
            if value:
                fail(f"{key} is {value}")
    return len(names), len(scraped)


def check_rules(prometheus):
    def groups():
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        return None if not rules or any(rule["health"] == "unknown" for rule in rules) else rules

    rules = until("the rules' first evaluation", groups)
    for rule in rules:
        if rule["health"] != "ok":
            fail(f"rule {rule['name']}: {rule.get('lastError')}")
    return len(rules)


def check_dashboard(prometheus):
    dashboard = json.loads((OPERATIONS / "grafana.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    found = 0
    for expression in expressions:
        expression = expression.replace("$instance", ".*").replace("$__rate_interval", "1m")
        found += bool(prometheus.ask("query", query=expression)["result"])
    # Some have no data here: there is no watermark, no lag, no memory_limit.
    if found * 2 < len(expressions):
        fail(f"only {found} of {len(expressions)} expressions of the dashboard have data")
    return len(expressions)


def check_down(page, prometheus, server):
    """A server that ends is down for Prometheus, and a rule says so."""
    server.terminate()
    server.wait(PATIENCE)
    until("the target's failure", lambda: prometheus.target() if prometheus.target()["health"] == "down" else None)

    def pending():
        alerts = {alert["labels"]["alertname"]: alert["state"] for alert in prometheus.ask("alerts")["alerts"]}
        return alerts.get("MillstreamDown")

    until("the alert", pending)


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    run(folder / "promtool", "check", "rules", OPERATIONS / "alerts.yml")
    run(folder / "promtool", "test", "rules", OPERATIONS / "alerts_test.yml")
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        (work / "app.sql").write_text(SCRIPT)
        log = open(work / "server.log", "w+")
        server = subprocess.Popen(
            [program, "--data", work / "state", "--log-format", "json", "server", "--listen", "127.0.0.1:0", "--ui",
             "127.0.0.1:0", work / "app.sql"],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )
        prometheus = None
        try:
            def served():
                text = (work / "server.log").read_text()
                if server.poll() is not None:
                    fail(f"the server has ended:\n{text}")
                page = re.search(r"page is at http://([0-9.:]+)/", text)
                return page[1] if page and "listening on" in text else None

            page = until("the server's start", served)
            for line in (work / "server.log").read_text().splitlines():
                json.loads(line)
            sql(page, "CHECKPOINT")
            prometheus = Prometheus(folder, work, page)
            metrics, series = check_scrapes(page, prometheus)
            rules = check_rules(prometheus)
            expressions = check_dashboard(prometheus)
            check_down(page, prometheus, server)
        except BaseException:
            print((work / "server.log").read_text(), file=sys.stderr)
            if prometheus:
                print((work / "prometheus.log").read_text()[-4000:], file=sys.stderr)
            raise
        finally:
            for process in [server, prometheus and prometheus.process]:
                if process and process.poll() is None:
                    process.kill()
                    process.wait()
    print(
        f"prometheus: {series} series of {metrics} metrics, {rules} alert rules, {expressions} expressions of the dashboard"
    )


main()
