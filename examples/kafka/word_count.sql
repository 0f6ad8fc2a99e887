-- Counts the words of a topic, and keeps each count in another topic under its word.
-- Run it in the repository: millstream run examples/kafka/word_count.sql --set servers=localhost:9092
-- feed.sql fills the topic.

-- One message is one row. `bounded` ends the source where the topic ends now; without it the counts go on.
CREATE SOURCE lines
WITH (connector = 'kafka', topic = 'lines', format = 'text', bounded = true, properties.bootstrap.servers = :'servers');

CREATE VIEW words AS
SELECT btrim(w, '''') AS word
FROM lines, UNNEST(string_to_array(regexp_replace(lower(line), '[^a-z'']+', ' ', 'g'), ' ')) AS u(w)
WHERE btrim(w, '''') <> '';

CREATE MATERIALIZED VIEW counts AS
SELECT word, count(*) AS n FROM words GROUP BY word;

-- The last message of a key is its count. With a data directory (--data DIR) each change arrives exactly once.
CREATE SINK counts_out FROM counts
WITH (connector = 'kafka', topic = 'word-counts', create = true, key_format = 'text', properties.bootstrap.servers = :'servers')
FORMAT UPSERT ENCODE JSON;

FLUSH;

SELECT word, n FROM counts ORDER BY n DESC, word LIMIT 10;

SELECT count(*) AS different_words, sum(n) AS words FROM counts;
