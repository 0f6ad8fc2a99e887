//! The inputs of VERIFY: a view's rows and those of its inputs, as of one epoch.

use arrow::datatypes::SchemaRef;
use millstream_sql::{Error, Result};

use super::dead_letters::has_lost_dead_letters;
use super::late_insert::shown_window;
use super::late_rows::LateRows;
use super::query::{RunningQuery, Status};
use super::query_names::SharedParts;
use crate::catalog::Definition;
use crate::event::{Pinned, PinnedInput, Windows};
use crate::run::Pins;

impl Pins<'_> {
    /// Returns a materialized view with its inputs, between two epochs. Rows are shared, or a thread reads them.
    pub(super) fn pin(&mut self, name: &str) -> Result<Pinned> {
        let object = self.setup.catalog.get(name)?;
        let Definition::MaterializedView { plan, schema, on_close, .. } = &object.definition else {
            let kind = object.definition.kind();
            return Err(Error::invalid(format!(
                "\"{name}\" is a {kind}, but VERIFY takes a materialized view"
            )));
        };
        let query =
            self.queries.query(name).ok_or_else(|| Error::bug("a view in the catalog has a query"))?;
        if let (Status::Running, Some(first)) =
            (&query.status, SharedParts::of(self.queries).first_error(query))
        {
            let text = first.text();
            return Err(Error::invalid(format!(
                "\"{name}\" can't be verified while it has errors, since a batch query fails with them: {text}"
            ))
            .hint("Delete or fix the rows first."));
        }
        let schema = schema.clone();
        let plan = millstream_sql::at(plan.clone(), query.flow.now().0)?;
        let forgets = query.flow.operators().iter().any(|operator| operator.state.forgotten.is_some());
        let windows = self.windows(query, *on_close)?;
        let feeds = SharedParts::of(self.queries).base_feeds(query);
        let rows = self.departures().input_beside(name, None)?;
        let mut inputs = Vec::new();
        for (of, stamped) in feeds {
            let input = self.pin_input(&of, stamped.as_ref(), "can't verify")?;
            inputs.push((of, input));
        }
        Ok(Pinned { epoch: self.clock.epoch, plan, schema, rows, forgets, windows, inputs })
    }

    /// Returns the content of an input; `cant` begins the error message if that isn't available.
    pub(super) fn pin_input(
        &mut self,
        name: &str,
        stamped: Option<&SchemaRef>,
        cant: &str,
    ) -> Result<PinnedInput> {
        let Some(source) = self.sources.get(name).filter(|_| !self.tables.contains_key(name)) else {
            if self
                .queries
                .query(name)
                .and_then(|query| query.result.newest())
                .is_some_and(|newest| newest.has_lost)
            {
                return Err(Error::invalid(format!(
                    "{cant}: stream \"{name}\" no longer keeps all its rows"
                ))
                .hint("Give the stream a longer retention, or make a materialized view of it."));
            }
            if has_lost_dead_letters(self.queries, self.sources, name) {
                return Err(Error::invalid(format!("{cant}: {name} no longer keeps all its rows")).hint(
                    "Deliver them into a table with CREATE SINK … INTO, and make the view over that.",
                ));
            }
            return Ok(PinnedInput::Rows(self.departures().input_beside(name, stamped)?));
        };
        if stamped.is_some() {
            return Err(Error::invalid(format!(
                "{cant}: it reads the batch of each row of source \"{name}\", which reading the source \
                 again can't restore"
            )));
        }
        let Definition::Source { schema, connector, spec, .. } = &self.setup.catalog.get(name)?.definition
        else {
            return Err(Error::bug(format!("source \"{name}\" is no source in the catalog")));
        };
        if !source.is_replayable() && !source.position.is_start() {
            return Err(Error::invalid(format!(
                "{cant}: source \"{name}\" keeps no rows and can't be read again"
            ))
            .hint("Read the source into a table, and make the view over that."));
        }
        Ok(PinnedInput::SourceHistory(Box::new(crate::source_history::SourceHistory {
            schema: schema.clone(),
            connector: connector.clone(),
            spec: spec.clone(),
            spans: source.position.taken().spans().collect(),
            put: source.inserts.taken().to_vec(),
            ahead: source.times.ahead().clone(),
            limit: self.sources.budget.limit(&self.setup.settings),
            wanted: None,
        })))
    }

    /// Returns how far the windows of a query have closed.
    fn windows(&self, query: &RunningQuery, on_close: bool) -> Result<Option<Windows>> {
        let Some(late) = query.flow.late() else { return Ok(None) };
        let cut = self.clock.standing_cut(&self.setup.settings, self.watermarks.current());
        let late = late - query.result.late.as_ref().map_or(0, LateRows::count_put);
        Ok(Some(Windows { late, on_close, shown: shown_window(query, &cut)? }))
    }
}
