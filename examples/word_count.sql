-- Counts the words of all texts under examples/data/books, for as long as they come.
-- Run it in the repository: millstream run examples/word_count.sql

-- One row a line of text, in the column `line`. `bounded` ends the source with the files that are there now;
-- without it the counts would go on with every new file in the folder.
CREATE SOURCE lines WITH (
  connector = 'file',
  path = 'examples/data/books',
  format = 'text',
  bounded = true
);

-- A view keeps nothing: it names a query. Letters and inner apostrophes make words.
CREATE VIEW words AS
SELECT btrim(w, '''') AS word
FROM lines, UNNEST(string_to_array(regexp_replace(lower(line), '[^a-z'']+', ' ', 'g'), ' ')) AS u(w)
WHERE btrim(w, '''') <> '';

-- A materialized view keeps its result, right after every batch.
CREATE MATERIALIZED VIEW counts AS
SELECT word, count(*) AS n FROM words GROUP BY word;

-- Any query can be maintained, and any relation can be sent on: here the five most frequent words of more than four
-- letters, as they change.
CREATE SINK leaders AS
SELECT word, n FROM counts WHERE length(word) > 4 ORDER BY n DESC, word LIMIT 5
WITH (connector = 'print');

-- Waits until everything has been taken in.
FLUSH;

SELECT word, n FROM counts ORDER BY n DESC, word LIMIT 10;

SELECT count(*) AS different_words, sum(n) AS words FROM counts;
