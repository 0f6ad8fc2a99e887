-- Clicks that come late and in no order, put into sessions: visits that end when nothing is clicked for ten minutes.
--   millstream run examples/clickstream.sql
-- A session closes when the watermark passes its end. What comes for it later is kept aside.

-- So few rows at a time that time goes on while they come, as it does where clicks come from outside.
SET max_batch_rows = 4;

-- Clicks are expected to be at most five minutes late.
CREATE SOURCE clicks (visitor TEXT, page TEXT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '5 minutes')
  WITH (connector = 'file', path = 'examples/data/clicks/clicks.csv', format = 'csv', header = true, bounded = true);

-- Each visit once, when it is over.
CREATE STREAM visits AS
  SELECT visitor, window_start, window_end, count(*) AS clicks, string_agg(page, ' > ' ORDER BY at, page) AS pages
  FROM SESSION(clicks PARTITION BY visitor, at, INTERVAL '10 minutes')
  GROUP BY visitor, window_start, window_end
  EMIT ON WINDOW CLOSE;

-- The same so far: those that are open change as clicks come, and merge.
CREATE MATERIALIZED VIEW visits_so_far AS
  SELECT visitor, window_start, window_end, count(*) AS clicks
  FROM SESSION(clicks PARTITION BY visitor, at, INTERVAL '10 minutes')
  GROUP BY visitor, window_start, window_end;

-- Visits themselves have times: how many began in each half hour, of those that are over.
CREATE MATERIALIZED VIEW half_hours AS
  SELECT date_bin(INTERVAL '30 minutes', window_start) AS half_hour, count(*) AS visits, sum(clicks) AS clicks
  FROM visits GROUP BY half_hour;

EXPLAIN STREAM visits;

-- Waits until everything has been taken in.
FLUSH;

SELECT * FROM visits ORDER BY window_start, visitor;

SELECT * FROM visits_so_far ORDER BY window_start, visitor;

SELECT * FROM half_hours ORDER BY half_hour;

-- Bob's click at 09:05:50 came when his visit was over.
SELECT _window, _watermark, visitor, page, at FROM late_rows('visits');
