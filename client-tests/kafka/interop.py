"""Kafka's own console programs, confluent-kafka and fastavro on one side of a real broker, Millstream on the other.

    interop.py PROGRAM FOLDER-OF-JARS

Messages of each client are read by Millstream's sources, and messages of its sinks by each client. The schema registry is a
small server of this test, which answers the part of Confluent's REST API that serializers use.
"""

import http.server
import io
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import fastavro
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

PROGRAM, JARS = os.path.realpath(sys.argv[1]), os.path.realpath(sys.argv[2])
WORK = tempfile.mkdtemp()
ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "item", "type": ["null", "string"], "default": None},
        {"name": "price", "type": "double"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}


class Registry(http.server.BaseHTTPRequestHandler):
    """Schemas by id, and the ids of each subject."""

    schemas, subjects = [], {}

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        posted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        subject = re.match(r"/subjects/([^/?]+)", self.path).group(1)
        schema = {"schema": posted["schema"], "schemaType": posted.get("schemaType", "AVRO")}
        if schema not in self.schemas:
            self.schemas.append(schema)
        ids = self.subjects.setdefault(subject, [])
        number = self.schemas.index(schema) + 1
        if number not in ids:
            ids.append(number)
        self.answer(200, {"subject": subject, "id": number, "version": ids.index(number) + 1, **schema})

    def do_GET(self):
        by_id = re.match(r"/schemas/ids/(\d+)", self.path)
        latest = re.match(r"/subjects/([^/?]+)/versions/latest", self.path)
        if by_id and int(by_id.group(1)) <= len(self.schemas):
            self.answer(200, self.schemas[int(by_id.group(1)) - 1])
        elif latest and latest.group(1) in self.subjects:
            ids = self.subjects[latest.group(1)]
            schema = self.schemas[ids[-1] - 1]
            self.answer(200, {"subject": latest.group(1), "id": ids[-1], "version": len(ids), **schema})
        else:
            self.answer(404, {"error_code": 40401, "message": "not found"})

    def log_message(self, *_):
        pass


def start_registry():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def java(main, *arguments, **options):
    return subprocess.Popen(["java", "-Xmx256m", "-cp", f"{JARS}/*", main, *arguments], **options)


def start_broker():
    """Starts a broker with one node, and returns its process and its address."""
    port = 20000 + random.randrange(5000) * 2
    settings = f"{WORK}/server.properties"
    with open(settings, "w") as file:
        file.write(
            f"""process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{port + 1}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{port + 1}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={WORK}/broker
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""
        )
    log = open(f"{WORK}/broker.log", "w")
    form = ["format", "--standalone", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", settings]
    formatted = java("kafka.tools.StorageTool", *form, stdout=log, stderr=log)
    assert formatted.wait() == 0, "the broker's log isn't formatted"
    broker = java("kafka.Kafka", settings, stdout=log, stderr=log)
    for _ in range(600):
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return broker, f"127.0.0.1:{port}"
        assert broker.poll() is None, "the broker ended"
        time.sleep(0.1)
    raise SystemExit("the broker doesn't listen")


def millstream(script, data=None):
    """Runs a script and returns the rows of its results, without their headings."""
    path = f"{WORK}/script.sql"
    with open(path, "w") as file:
        file.write(script)
    command = [PROGRAM] + (["--data", f"{WORK}/{data}"] if data else []) + ["run", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    lines = done.stdout.splitlines()
    rules = [at for at, line in enumerate(lines) if re.fullmatch(r"[-+]+", line)]
    headings = {at - 1 for at in rules} | set(rules)
    rows = [line for at, line in enumerate(lines) if at not in headings and not re.fullmatch(r"\(\d+ rows?\)", line)]
    return [tuple(cell.strip() for cell in row.split("|")) for row in rows if row.strip()]


def expect(what, found, expected):
    assert found == expected, f"{what}: found {found}, expected {expected}"
    print(f"kafka: {what}")


def console_producer(servers):
    """Keys and values of Kafka's own console producer."""
    options = ["--bootstrap-server", servers, "--topic", "words", "--property", "parse.key=true"]
    options += ["--property", "key.separator=:"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = java("org.apache.kafka.tools.ConsoleProducer", *options, **pipes)
    printed, _ = done.communicate("a:one\nb:two\na:three\n")
    assert done.returncode == 0, printed
    rows = millstream(
        f"""CREATE TABLE words (line TEXT) INCLUDE key AS k WITH (connector = 'kafka', topic = 'words', bounded = true,
          properties.bootstrap.servers = '{servers}') FORMAT PLAIN ENCODE TEXT;
        FLUSH; SELECT convert_from(k, 'UTF8'), line FROM words ORDER BY line;"""
    )
    expect("a source reads what kafka-console-producer wrote", rows, [("a", "one"), ("a", "three"), ("b", "two")])


def transactions(servers):
    """Committed and aborted transactions of confluent-kafka."""
    producer = Producer({"bootstrap.servers": servers, "transactional.id": "interop"})
    producer.init_transactions()
    for batch, commit in enumerate([True, False, True]):
        producer.begin_transaction()
        for row in range(3):
            producer.produce("events", json.dumps({"batch": batch, "row": row}), headers=[("n", str(row).encode())])
        producer.commit_transaction() if commit else producer.abort_transaction()
    rows = millstream(
        f"""CREATE TABLE events (batch INT, row INT) WITH (connector = 'kafka', topic = 'events', bounded = true,
          format = 'json', properties.bootstrap.servers = '{servers}');
        FLUSH; SELECT batch, count(*), sum(row) FROM events GROUP BY batch ORDER BY batch;"""
    )
    expect("a source reads confluent-kafka's committed transactions alone", rows, [("0", "3", "3"), ("2", "3", "3")])


def avro_in(servers, registry):
    """Avro of confluent-kafka's serializer, and of fastavro under the same id."""
    client = SchemaRegistryClient({"url": registry})
    encode = AvroSerializer(client, json.dumps(ORDER))
    producer = Producer({"bootstrap.servers": servers})
    first = {"id": 1, "item": "pen", "price": 1.5, "at": 1767225600123}
    producer.produce("orders", encode(first, SerializationContext("orders", MessageField.VALUE)))
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(ORDER), {"id": 2, "item": None, "price": -0.25, "at": 0})
    number = Registry.subjects["orders-value"][-1]
    producer.produce("orders", b"\x00" + number.to_bytes(4, "big") + body.getvalue())
    producer.flush()
    rows = millstream(
        f"""CREATE TABLE orders WITH (connector = 'kafka', topic = 'orders', bounded = true,
          properties.bootstrap.servers = '{servers}') FORMAT PLAIN ENCODE AVRO (schema.registry = '{registry}');
        FLUSH; SELECT id, item, price, at FROM orders ORDER BY id;"""
    )
    expected = [("1", "pen", "1.5", "2026-01-01 00:00:00.123+00"), ("2", "NULL", "-0.25", "1970-01-01 00:00:00+00")]
    expect("a source reads Avro of confluent-kafka and of fastavro", rows, expected)


def json_schema(servers, registry):
    """JSON behind the id of its schema, both ways."""
    client = SchemaRegistryClient({"url": registry})
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Reading",
        "type": "object",
        "properties": {"sensor": {"type": "string"}, "value": {"type": "number"}},
        "required": ["sensor"],
    }
    encode = JSONSerializer(json.dumps(schema), client)
    producer = Producer({"bootstrap.servers": servers})
    for value in [{"sensor": "a", "value": 1.5}, {"sensor": "b"}]:
        producer.produce("readings", encode(value, SerializationContext("readings", MessageField.VALUE)))
    producer.flush()
    rows = millstream(
        f"""CREATE TABLE readings WITH (connector = 'kafka', topic = 'readings', bounded = true, format = 'json',
          schema.registry = '{registry}', properties.bootstrap.servers = '{servers}');
        CREATE SINK out FROM readings WITH (connector = 'kafka', topic = 'readings_out', format = 'json',
          schema.registry = '{registry}', properties.bootstrap.servers = '{servers}');
        FLUSH; SELECT sensor, value FROM readings ORDER BY sensor;""",
        "json_schema",
    )
    expect("a source reads JSON of confluent-kafka behind the id of its schema", rows, [("a", "1.5"), ("b", "NULL")])
    decode = JSONDeserializer(Registry.schemas[Registry.subjects["readings_out-value"][-1] - 1]["schema"])
    messages = [
        decode(message.value(), SerializationContext("readings_out", MessageField.VALUE))
        for message in consumed(servers, "readings_out", 2)
    ]
    messages.sort(key=lambda message: message["sensor"])
    expected = [{"sensor": "a", "value": 1.5}, {"sensor": "b", "value": None}]
    expect("confluent-kafka reads JSON and checks it by the schema that a sink registered", messages, expected)


def consumed(servers, topic, count):
    """Returns the committed messages of a topic, by confluent-kafka."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"read-{topic}",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([topic])
    messages, until = [], time.monotonic() + 60
    while len(messages) < count and time.monotonic() < until:
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            messages.append(message)
    extra = consumer.poll(2.0)
    consumer.close()
    assert extra is None or extra.error(), f"{topic} has more than {count} messages"
    return messages


def sinks(servers, registry):
    """Exactly-once sinks of JSON, upserts and Avro, read by the console consumer and by confluent-kafka."""
    kafka = f"properties.bootstrap.servers = '{servers}'"
    millstream(
        f"""CREATE TABLE sales (id BIGINT PRIMARY KEY, item TEXT, price DOUBLE PRECISION NOT NULL, at TIMESTAMPTZ);
        CREATE TABLE log (id BIGINT, item TEXT) APPEND ONLY;
        CREATE SINK log_out FROM log WITH (connector = 'kafka', topic = 'log', format = 'json', key = 'item', {kafka});
        CREATE SINK sales_out FROM sales WITH (connector = 'kafka', topic = 'sales', {kafka})
          FORMAT UPSERT ENCODE AVRO (schema.registry = '{registry}');
        INSERT INTO log VALUES (1, 'pen'), (2, NULL);
        INSERT INTO sales VALUES (1, 'pen', 1.5, '2026-01-01 00:00:00.5+00'), (2, NULL, 2, NULL);
        DELETE FROM sales WHERE id = 1;
        FLUSH;""",
        "sinks",
    )
    options = ["--bootstrap-server", servers, "--topic", "log", "--from-beginning", "--timeout-ms", "5000"]
    options += ["--isolation-level", "read_committed", "--property", "print.key=true"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    console = java("org.apache.kafka.tools.consumer.ConsoleConsumer", *options, **pipes)
    lines = sorted(line for line in console.communicate()[0].splitlines() if "\t" in line)
    expected = ['{"item":"pen"}\t{"id":1,"item":"pen"}', '{"item":null}\t{"id":2,"item":null}']
    expect("kafka-console-consumer reads a sink of JSON", lines, expected)
    decode = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    messages = []
    for message in consumed(servers, "sales", 3):
        key = decode(message.key(), SerializationContext("sales", MessageField.KEY))
        value = message.value() and decode(message.value(), SerializationContext("sales", MessageField.VALUE))
        messages.append((key["id"], value and (value["item"], value["price"])))
    messages.sort(key=lambda message: (message[0], message[1] is None))
    expect("confluent-kafka reads upserts and a tombstone in Avro", messages, [(1, ("pen", 1.5)), (1, None), (2, (None, 2.0))])


def main():
    registry = start_registry()
    broker, servers = start_broker()
    try:
        topics = [NewTopic(name, 2, 1) for name in ["words", "events", "orders", "log", "sales", "readings", "readings_out"]]
        admin = AdminClient({"bootstrap.servers": servers})
        for made in admin.create_topics(topics).values():
            made.result(60)
        console_producer(servers)
        transactions(servers)
        avro_in(servers, registry)
        json_schema(servers, registry)
        sinks(servers, registry)
    except BaseException:
        print(f"kafka: the broker's log is {WORK}/broker.log", file=sys.stderr)
        raise
    finally:
        broker.kill()
        broker.wait()
    shutil.rmtree(WORK)


main()
