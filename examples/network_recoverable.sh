#!/usr/bin/env bash
# Sends words to network_recoverable.sql, kills it with kill -9 in between, and compares what was counted with sort and
# uniq. Takes the program as its argument:
#
#     examples/network_recoverable.sh target/release/millstream
set -euo pipefail

millstream=$(realpath "${1:-target/release/millstream}")
cd "$(dirname "${BASH_SOURCE[0]}")"
work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true; rm -rf "$work"' EXIT

# Starts it, or lets it go on, and connects to it.
start() {
  "$millstream" --data "$work/state" -q run network_recoverable.sql &
  pid=$!
  for _ in $(seq 600); do
    if { exec 3<>/dev/tcp/127.0.0.1/9998; } 2>/dev/null; then return; fi
    sleep 0.1
  done
  echo 'it takes no connection' >&2
  exit 1
}

for line in 'to be or not to be' 'that is the question' 'whether it is nobler' 'to be sure'; do
  start
  echo "$line" | tee -a "$work/sent" >&3
  # What was read and is in no epoch yet would be lost with the process: it is in one by then.
  sleep 1
  kill -9 "$pid"
  { wait "$pid" || true; } 2>/dev/null
  exec 3>&-
done

counted=$("$millstream" --data "$work/state" -q -c '.mode csv' -c 'SELECT word, n FROM word_counts ORDER BY word' | tail -n +2)
expected=$(tr ' ' '\n' <"$work/sent" | LC_ALL=C sort | uniq -c | awk '{ print $2 "," $1 }')
printf '%s\n' "$counted"
[ "$counted" = "$expected" ] || { printf 'expected:\n%s\n' "$expected" >&2; exit 1; }
echo 'killed four times, and counted right'
