//! A compiled query: operators in topological order.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use millstream_delta::{Cut, Delta, Timestamp};
use millstream_state::Tables;

use crate::Result;
use crate::arrangement::Arrangement;
use crate::change::Change;
use crate::dag::{Dag, Node};
use crate::event_time::EventTime;
use crate::failing_rows::FailingStage;
use crate::limits::Limits;
use crate::meter::Meter;
use crate::operator::{Cost, State};
use crate::provenance::Provenance;
use crate::sharing::{PersistedArrangement, Shareable, Sharing};

/// A query, compiled once and stepped an epoch at a time.
#[derive(Debug)]
pub struct Flow {
    pub(crate) relations: Vec<Arc<str>>,
    /// For each relation, true if its batches are taken as they end.
    pub(crate) batchwise: Vec<bool>,
    /// For each node, the parts of the plan that it was made of. Equal parts give equal operators.
    pub(crate) plans: Vec<Vec<LogicalPlan>>,
    /// The columns of the result with event times.
    pub(crate) times: Vec<(usize, EventTime)>,
    pub(crate) provenance: Provenance,
    pub(crate) dag: Dag,
}

/// The columns and batches that a flow reads of its relations.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// For each relation, true if its batches are taken as they end.
    batchwise: &'a [bool],
    nodes: &'a [Node],
}

impl Inputs<'_> {
    /// Returns true if the input at a place of [`Flow::relations`] is a window whose batches the flow takes
    /// as they end, at the batch's time. The engine retracts no rows: the operators drop old batches by
    /// themselves.
    pub fn takes_batches(&self, relation: usize) -> bool {
        self.batchwise[relation]
    }

    /// Returns the columns read of an input, by its place in [`Flow::relations`], ascending; `None`: all.
    pub fn columns_read(&self, relation: usize) -> Option<Vec<usize>> {
        let is_input = |node: &Node| matches!(node, Node::Input { relation: of, .. } if *of == relation);
        let input = self.nodes.iter().position(is_input)?;
        if input + 1 == self.nodes.len() {
            return None;
        }
        let mut all = Vec::new();
        for node in self.nodes {
            let Node::Operator { operator, inputs } = node else { continue };
            for (place, _) in inputs.iter().enumerate().filter(|(_, of)| **of == input) {
                all.extend(operator.properties().columns_read.as_ref()?.get(place)?);
            }
        }
        all.sort_unstable();
        all.dedup();
        Some(all)
    }

    /// Returns the number of columns that the flow knows of the input at a place of [`Flow::relations`]; more
    /// may follow them.
    pub fn columns_known(&self, relation: usize) -> usize {
        let known = |node: &Node| match node {
            Node::Input { relation: of, properties, .. } if *of == relation => {
                Some(properties.schema.fields().len())
            }
            _ => None,
        };
        self.nodes.iter().find_map(known).unwrap_or(usize::MAX)
    }
}

impl Flow {
    /// Returns the relations that the flow reads; it may list a window twice, see [`Inputs::takes_batches`].
    pub fn relations(&self) -> &[Arc<str>] {
        &self.relations
    }

    /// Renames a relation.
    pub fn rename_relation(&mut self, from: &str, to: &Arc<str>) {
        for name in self.relations.iter_mut().filter(|name| name.as_ref() == from) {
            *name = to.clone();
        }
    }

    /// Returns what the flow reads of its relations.
    pub fn inputs(&self) -> Inputs<'_> {
        Inputs { batchwise: &self.batchwise, nodes: &self.dag.nodes }
    }

    /// Returns the columns of the result.
    pub fn schema(&self) -> Result<&SchemaRef> {
        Ok(&self.dag.root()?.properties().schema)
    }

    /// Returns columns that together are unique in the result, if known.
    pub fn key(&self) -> Option<&[usize]> {
        self.dag.root().ok()?.properties().key.as_deref()
    }

    /// Returns true if the result is append-only.
    pub fn append_only(&self) -> Result<bool> {
        Ok(self.dag.root()?.properties().append_only)
    }

    /// Returns the columns of the result with event times.
    pub fn times(&self) -> &[(usize, EventTime)] {
        &self.times
    }

    /// Returns the columns of the late rows, if windows close: facts about each row, then its own columns.
    pub fn late_schema(&self) -> Option<&SchemaRef> {
        self.provenance.late_schema()
    }

    /// Passes the work of each operator since the last call to `each`, with the number of its node. Operators that were
    /// not stepped are omitted. The first call passes nothing.
    pub fn report(&mut self, each: impl FnMut(usize, Meter)) {
        self.dag.report(each);
    }

    /// Returns the number of rows that arrived for closed windows, by weight; `None` if no windows close.
    pub fn late(&self) -> Option<u64> {
        let late = self.dag.operators().filter_map(|operator| operator.abilities().windows);
        late.map(|windows| windows.late().rows).reduce(|sum, rows| sum + rows)
    }

    /// Returns the first operator that keeps state besides that of open windows with answers of their own,
    /// and that state. A closed window can't be recomputed from its own rows then.
    pub fn keeps_beside_windows(&self) -> Option<String> {
        let beside = self.dag.operators().filter(|operator| !operator.properties().keeps_open_windows);
        let mut beside = beside.map(|operator| operator.describe()).filter(|about| !about.state.is_empty());
        beside.next().map(|about| format!("{}, which keeps {}", about.name, about.state))
    }

    /// Returns the limits under which the flow was compiled.
    pub fn limits(&self) -> Limits {
        self.dag.limits
    }

    /// Returns true if the answer depends on the rows of the inputs alone, not on when they arrive or how
    /// they are cut into epochs.
    pub fn is_timeless(&self) -> bool {
        let windows = self.batchwise.iter().any(|batchwise| *batchwise);
        !windows
            && !self.dag.forgets()
            && !self.dag.operators().any(|operator| operator.properties().is_timed())
    }

    /// Returns true if the sum of outputs doesn't depend on the epochs' cuts while no watermark or time
    /// moves.
    pub fn is_additive(&self) -> bool {
        !self
            .dag
            .operators()
            .any(|operator| operator.properties().depends_on_cuts || operator.abilities().expiry.is_some())
    }

    /// Returns the cost of the most expensive operator.
    pub fn cost(&self) -> Cost {
        self.dag.nodes.iter().map(|node| node.properties().cost).max().unwrap_or(Cost::Delta)
    }

    /// Steps one epoch: `inputs` has the delta of each of [`Flow::relations`], in their order. The first step
    /// runs every operator, so a query over no rows has its answer too. After an error the flow must not be
    /// stepped again.
    pub fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Change> {
        self.step_for(cut, inputs, true)
    }

    /// Steps one epoch. If not `read`, rows of the result may be left out, but never an error.
    pub fn step_for(&mut self, cut: &Cut, inputs: &[&Delta], read: bool) -> Result<Change> {
        let advance = self.dag.advance(cut, inputs, read)?;
        self.provenance.change(&self.dag.nodes, &self.relations, (cut, inputs), advance)
    }

    /// Runs the first epoch over the full content of the relations, without the late rows. Removes these from
    /// the inputs of the operators they were late for, so the answer is the one over rows in time. Fails if a
    /// late row isn't there. `late` is as in [`Change::late`].
    pub fn step_without(&mut self, cut: &Cut, inputs: &[&Delta], late: &[RecordBatch]) -> Result<Change> {
        let without = self.provenance.late_rows(late)?;
        let advance = self.dag.advance_without(cut, inputs, true, &without)?;
        self.provenance.change(&self.dag.nodes, &self.relations, (cut, inputs), advance)
    }

    /// Returns true if an epoch with this cut must be stepped even if no input changes.
    pub fn is_due(&self, cut: &Cut) -> bool {
        self.dag.operators().any(|operator| operator.abilities().is_due(cut))
    }

    /// Returns the time of the next step that is due even if no input changes, if known.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.dag.operators().filter_map(|operator| operator.abilities().wake_at()).min()
    }

    /// Returns the time of the answer, if it depends on the time: it is the same until [`Flow::wake_at`].
    pub fn now(&self) -> Timestamp {
        self.dag.now
    }

    /// Drops all state, as if the flow had never been stepped; the counters stay.
    pub fn reset(&mut self) -> Result<()> {
        self.dag.reset()
    }

    /// Saves the state of all operators as tables, including rows in shared arrangements.
    pub fn save(&self) -> Result<Tables> {
        self.dag.save()
    }

    /// Saves only the changes, for a checkpoint. The arrangements of `shared` are saved beside the flow, so
    /// it saves just their places.
    pub fn save_changed(&self, shared: &[Arc<Arrangement>]) -> Result<Tables> {
        self.dag.save_changed(shared)
    }

    /// Loads the state that a flow of the same plan has saved. `shared` are the arrangements that were saved
    /// beside it. The flow shares no arrangement afterwards.
    pub fn load(&mut self, mut all: Tables, shared: &[PersistedArrangement]) -> Result<()> {
        self.dag.lookups.put_shared(shared, &mut all)?;
        self.dag.load(all)
    }

    /// Returns the parts that the flow may share with other flows over the same relations.
    pub fn shareable(&self) -> Vec<Shareable<'_>> {
        self.dag.lookups.shareable(&self.dag.nodes)
    }

    /// Returns the rows that joins of the flow look up, to change where they are.
    pub fn sharing(&mut self) -> Sharing<'_> {
        self.dag.sharing()
    }

    /// Returns the number of rows of all operators' state.
    pub fn state_rows(&self) -> usize {
        self.dag.operators().map(State::state_rows).sum()
    }

    /// Returns the approximate bytes of memory of all operators' state.
    pub fn state_bytes(&self) -> usize {
        self.dag.operators().map(State::state_bytes).sum()
    }
}

impl FailingStage {
    /// Returns a stage by the places of its operator's node and of the stage in the operator, if it exists.
    pub fn find(flow: &Flow, node: usize, number: usize) -> Option<FailingStage> {
        let Node::Operator { operator, .. } = flow.dag.nodes.get(node)? else { return None };
        let stage = operator.abilities().row_by_row?.stages().get(number)?.clone();
        Some(FailingStage { node, number, operator: operator.describe().name, stage })
    }
}

/// Returns the name of the operator at a node of a flow; none for an input.
pub fn operator_name(flow: &Flow, node: usize) -> Option<&'static str> {
    match flow.dag.nodes.get(node)? {
        Node::Operator { operator, .. } => Some(operator.describe().name),
        Node::Input { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::fixture::{Fixture, Random, step, step_for};

    #[test]
    fn what_nobody_takes_is_counted() {
        let queries = [
            "SELECT k, count(*) AS n FROM t GROUP BY k",
            "SELECT sum(v) AS s, k FROM t GROUP BY k",
            "SELECT min(v) AS least, count(DISTINCT s) AS texts, f FROM t GROUP BY f",
            "SELECT DISTINCT k, s FROM t",
            "SELECT count(*) AS n, max(v) AS most FROM t",
            "SELECT k, s, count(*) AS n FROM t GROUP BY ROLLUP (k, s)",
            "SELECT k, avg(v) AS mean FROM t GROUP BY k HAVING count(*) > 1",
            "SELECT t.k AS k, u.v AS v FROM t JOIN u ON t.id = u.id",
        ];
        let mut left_out = vec![0; queries.len()];
        for seed in 0..4 {
            let (mut random, mut fixture) = (Random(seed), Fixture::new());
            let mut flows: Vec<[Flow; 2]> =
                queries.iter().map(|sql| [fixture.compile(sql), fixture.compile(sql)]).collect();
            for epoch in 1..12 {
                let changes = fixture.change(&mut random);
                for (at, [read, unread]) in flows.iter_mut().enumerate() {
                    let told = step(read, epoch, &changes);
                    let quiet = step_for(unread, epoch, &changes, false);
                    let (rows, counted) = (told.rows.num_rows(), quiet.rows.num_rows());
                    assert_eq!(rows as u64, counted as u64 + quiet.left_out, "{}", queries[at]);
                    assert_eq!(told.left_out, 0);
                    left_out[at] += quiet.left_out;
                    let metered = [&*read, &*unread].map(|flow| flow.dag.meters.last().unwrap().rows_out);
                    assert_eq!(metered[0], metered[1], "{}", queries[at]);
                }
            }
        }
        let leaves_out: Vec<bool> = left_out.iter().map(|rows| *rows > 0).collect();
        assert_eq!(leaves_out, [true, true, true, true, true, true, false, false]);
    }

    #[test]
    fn nothing_depends_on_the_number_of_threads() {
        let queries = [
            "SELECT t.id, u.id, t.v FROM t LEFT JOIN u ON t.k = u.k",
            "SELECT t.id, u.id FROM t FULL JOIN u ON t.k = u.k AND 100 / (t.v + u.v - 4) > 9",
            "SELECT a.id, b.v FROM t a JOIN t b ON a.k = b.k AND a.v > b.v",
            "SELECT t.id FROM t WHERE t.v IN (SELECT u.v FROM u WHERE u.s <> t.s)",
            "SELECT a.k, n, m FROM (SELECT k, count(*) AS n FROM t GROUP BY k) a \
             JOIN (SELECT k, min(v) AS m FROM t WHERE v > 2 GROUP BY k) b ON a.k = b.k UNION ALL SELECT k, v, 100 / v FROM u",
            "SELECT * FROM (SELECT k, id, rank() OVER (PARTITION BY k ORDER BY v) AS n FROM t) WHERE n < 4",
            "SELECT k, v FROM t ORDER BY v, k, id LIMIT 5",
            "SELECT id, sum(v) OVER w, lag(v) OVER w, dense_rank() OVER w FROM t WINDOW w AS (PARTITION BY k ORDER BY v, id)",
            "SELECT id, ntile(3) OVER (PARTITION BY k, s ORDER BY v, id) FROM t",
        ];
        for seed in 70..74 {
            let (mut random, mut fixture) = (Random(seed), Fixture::new());
            let mut flows: Vec<[Flow; 2]> =
                queries.iter().map(|sql| [fixture.compile(sql), fixture.compile(sql)]).collect();
            for epoch in 1..12 {
                let changes = fixture.change(&mut random);
                for (sql, [alone, together]) in queries.iter().zip(&mut flows) {
                    alone.dag.threads.set(NonZeroUsize::MIN);
                    together.dag.threads.set(NonZeroUsize::new(2 + epoch as usize).unwrap());
                    let [one, several] = [alone, together].map(|flow| step(flow, epoch, &changes));
                    for (one, several) in [(one.rows, several.rows), (one.errors, several.errors)] {
                        assert_eq!(one.chunks.len(), several.chunks.len(), "{sql}");
                        for (one, several) in one.chunks.iter().zip(&several.chunks) {
                            assert_eq!(one.rows, several.rows, "{sql}");
                            assert_eq!(one.weights, several.weights, "{sql}");
                        }
                    }
                }
            }
        }
    }
}
