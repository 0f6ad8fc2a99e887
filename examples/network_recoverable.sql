-- Counts the words that clients send, and goes on where it was after a crash. network_recoverable.sh runs it, kills it
-- again and again with kill -9, and checks what it has counted.
--
--     millstream --data state run examples/network_recoverable.sql
--     nc 127.0.0.1 9998        (in another terminal, to send lines)

-- A start begins with the newest of them, and does again what came after it.
SET checkpoint_interval = '500 milliseconds';
CREATE SOURCE lines WITH (connector = 'socket', mode = 'listen', port = 9998);
CREATE MATERIALIZED VIEW word_counts AS
  SELECT word, count(*) AS n FROM lines, UNNEST(string_to_array(line, ' ')) AS u(word) GROUP BY word;
