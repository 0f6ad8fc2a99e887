-- A network of links between places, asked recursively: what can be reached, what hangs together, which way is shortest.
--   millstream run examples/graph.sql
-- The rounds of a recursive query go over what is new alone: a link that comes costs what follows from it.

CREATE SOURCE links (a TEXT, b TEXT, minutes INT)
  WITH (connector = 'file', path = 'examples/data/network/links.csv', format = 'csv', header = true, bounded = true);

CREATE VIEW both_ways AS SELECT a, b, minutes FROM links UNION ALL SELECT b, a, minutes FROM links;

-- Which places can be reached from which. UNION finds each pair once, so that circles end.
CREATE MATERIALIZED VIEW reachable AS
  WITH RECURSIVE way(a, b) AS (
    SELECT a, b FROM both_ways
    UNION
    SELECT way.a, link.b FROM way JOIN both_ways AS link ON link.a = way.b
  )
  SELECT a, b FROM way;

-- Connected components: each place belongs to the first, by name, of those that it reaches.
CREATE MATERIALIZED VIEW components AS
  SELECT component, count(*) AS places, string_agg(place, ', ' ORDER BY place) AS names
  FROM (SELECT a AS place, min(b) AS component FROM reachable GROUP BY a) AS of_place
  GROUP BY component;

-- Shortest ways from one place. A way takes at most seven links, and visits no place twice.
CREATE MATERIALIZED VIEW shortest AS
  WITH RECURSIVE way(place, minutes, stops) AS (
    SELECT b, minutes, ['Aldermoor', b] FROM both_ways WHERE a = 'Aldermoor'
    UNION ALL
    SELECT link.b, way.minutes + link.minutes, array_append(way.stops, link.b)
    FROM way JOIN both_ways AS link ON link.a = way.place
    WHERE cardinality(way.stops) <= 7 AND NOT array_has(way.stops, link.b)
  )
  SELECT DISTINCT ON (place) place, minutes, array_to_string(stops, ' > ') AS way
  FROM way ORDER BY place, minutes, stops;

EXPLAIN MATERIALIZED VIEW reachable;

-- Waits until everything has been taken in.
FLUSH;

SELECT * FROM components ORDER BY component;

SELECT place, minutes, way FROM shortest ORDER BY minutes;
