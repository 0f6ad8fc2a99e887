-- Counts the words of each second that a server sends: Spark Streaming's first example. Start `nc -lk 9999`, run this,
-- and type into nc. Ctrl-C ends it.
--
--     millstream run examples/network_word_count.sql

SET batch_interval = '1 second';
CREATE SOURCE lines WITH (connector = 'socket', host = 'localhost', port = 9999);
CREATE STREAM words AS SELECT w AS word FROM lines, UNNEST(string_to_array(line, ' ')) AS u(w);
CREATE STREAM word_counts AS SELECT word, count(*) AS n FROM words GROUP BY word FOR EACH BATCH;
CREATE SINK printed FROM word_counts WITH (connector = 'print', style = 'spark', limit = 10);
