#!/usr/bin/env bash
# Fills topics, and runs the two pipelines over them. Takes the program as its argument. It uses the broker that
# KAFKA_SERVERS names, or starts one of its own from the jars in the folder KAFKA_LIBS:
#
#     KAFKA_SERVERS=localhost:9092 examples/kafka/run.sh target/release/millstream
set -euo pipefail

millstream=$(realpath "${1:-target/release/millstream}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
broker=
trap '[ -z "$broker" ] || kill -9 "$broker" 2>/dev/null || true; rm -rf "$work"' EXIT

# Starts a broker with one node on a free port.
start_broker() {
  local libs=$1 port controller
  port=$((20000 + RANDOM % 5000 * 2))
  controller=$((port + 1))
  cat >"$work/server.properties" <<END
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$work/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
END
  java -cp "$libs/*" kafka.tools.StorageTool format --standalone -t 4L6g3nShT-eMCtK--X86sw \
    -c "$work/server.properties" >"$work/log" 2>&1
  java -Xmx256m -cp "$libs/*" kafka.Kafka "$work/server.properties" >>"$work/log" 2>&1 &
  broker=$!
  for _ in $(seq 600); do
    if { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null; then
      exec 3>&-
      KAFKA_SERVERS=127.0.0.1:$port
      return
    fi
    sleep 0.1
  done
  cat "$work/log" >&2
  exit 1
}

if [ -z "${KAFKA_SERVERS:-}" ]; then
  if [ -z "${KAFKA_LIBS:-}" ]; then
    echo 'skipped: neither KAFKA_SERVERS names a broker, nor KAFKA_LIBS the folder of its jars'
    exit 0
  fi
  start_broker "$KAFKA_LIBS"
fi

for script in feed word_count orders; do
  printf -- '-- examples/kafka/%s.sql\n' "$script"
  "$millstream" --data "$work/$script" run "examples/kafka/$script.sql" --set servers="$KAFKA_SERVERS" | tee "$work/$script.out"
done

# The same texts, counted from their files.
"$millstream" run examples/word_count.sql >"$work/files.out"
tail -n 4 "$work/files.out" >"$work/expected"
tail -n 4 "$work/word_count.out" | diff - "$work/expected"
echo 'the topics give the same counts as the files'
