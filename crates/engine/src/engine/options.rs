//! The options of an engine by which its queries run: they change no result.

use millstream_flow::Choice;

use super::EngineBuilder;

impl EngineBuilder {
    /// Runs every query with the operator Whole only, so that tests can compare results.
    pub fn whole_only(mut self) -> EngineBuilder {
        self.execution.choice = Choice::WholeOnly;
        self
    }

    /// Adds rows to each overlapping window separately instead of to panes, so that tests can compare
    /// results.
    pub fn each_window(mut self) -> EngineBuilder {
        self.execution.choice = Choice::EachWindow;
        self
    }

    /// Treats every table as append-only and refuses to delete from it, so that tests can compare the
    /// operators that are cheaper for append-only inputs.
    pub fn append_only_tables(mut self) -> EngineBuilder {
        self.execution.append_only_tables = true;
        self
    }

    /// Spreads changes of at least this many rows over several threads, so that tests can compare results.
    pub fn spread_from(mut self, rows: usize) -> EngineBuilder {
        self.execution.spread_from = Some(rows);
        self
    }

    /// Steps every query that may lag on its own thread, once every `epochs` epochs and when a reader waits
    /// for it. This applies to fast queries and under any clock, so that tests can compare results.
    pub fn step_apart(mut self, epochs: u64) -> EngineBuilder {
        self.execution.apart = Some(epochs);
        self
    }

    /// Reads results that operators keep in more than this number of bytes on threads, so that tests can read small
    /// ones there.
    pub fn read_apart_above(mut self, bytes: usize) -> EngineBuilder {
        self.execution.read_bytes = Some(bytes);
        self
    }

    /// Takes no more changes of statements that feed a lagging query for which more than this number of bytes wait, so
    /// that tests can do so with few rows.
    pub fn statements_wait_above(mut self, bytes: usize) -> EngineBuilder {
        self.execution.statement_bytes = Some(bytes);
        self
    }

    /// Lets each query compute all its parts itself. Otherwise equal parts of several queries are one operator, such as the
    /// join of a VIEW that two of them read.
    pub fn separate_parts(mut self) -> EngineBuilder {
        self.execution.separate_parts = true;
        self
    }
}
