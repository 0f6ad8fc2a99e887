//! New operators for a query that is rebuilt, and the rows of the parts that it shares with others.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_delta::{Cut, Delta};
use millstream_flow::Flow;
use millstream_sql::{Error, Result};

use crate::run::contents::Contents;
use crate::run::own_flow::{self, OwnFlow};
use crate::run::query::RunningQuery;

/// New operators for a query.
pub(in crate::run) struct Fresh {
    pub(in crate::run) flow: OwnFlow,
    /// Those of the parts that it reads.
    pub(super) parts: PartContents,
}

/// The rows of parts, computed from their inputs.
#[derive(Default)]
pub(super) struct PartContents {
    /// New operators, by the name of the part.
    flows: BTreeMap<Arc<str>, Flow>,
    known: BTreeMap<Arc<str>, Delta>,
}

impl Fresh {
    /// Divides new operators of a statement's query as that query was divided; `part`: those of the part alone.
    pub(super) fn divided(
        whole: Flow,
        query: &RunningQuery,
        part: Option<&str>,
    ) -> Result<(Flow, PartContents)> {
        let (rest, flows) = query.role.divide(whole)?;
        let mut parts = PartContents { flows, known: BTreeMap::new() };
        let own = match part {
            Some(name) => parts.flows.remove(name).ok_or_else(|| Error::bug("a part has readers"))?,
            None => rest,
        };
        Ok((own, parts))
    }
}

impl PartContents {
    /// Returns the rows of a part as of the end of the epoch of a cut; `None` if this is the name of no part.
    pub(super) fn of(&mut self, name: &str, contents: Contents<'_>, cut: &Cut) -> Option<Result<Delta>> {
        if let Some(known) = self.known.get(name) {
            return Some(Ok(known.clone()));
        }
        let (name, mut flow) = self.flows.remove_entry(name)?;
        let rows = self.computed(&mut flow, contents, cut);
        if let Ok(rows) = &rows {
            self.known.insert(name, rows.clone());
        }
        Some(rows)
    }

    fn computed(&mut self, flow: &mut Flow, contents: Contents<'_>, cut: &Cut) -> Result<Delta> {
        let mut inputs = Vec::new();
        for relation in flow.relations().to_vec() {
            inputs.push(match self.of(&relation, contents, cut) {
                Some(rows) => rows?,
                None => Delta::from_iter(contents.answered(&relation)?),
            });
        }
        // The part itself has the errors.
        let (change, _) = own_flow::step(flow, cut, &inputs.iter().collect::<Vec<_>>(), true);
        Ok(change?.rows)
    }
}
