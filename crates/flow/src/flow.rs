//! A compiled query: operators in topological order.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use millstream_delta::{Cut, Delta, Timestamp};

use crate::change::Change;
use crate::event_time::EventTime;
use crate::failing_rows::FailingRows;
use crate::failure::Failure;
use crate::late_rows::{self, Late, Layout, Without};
use crate::limits::Limits;
use crate::meter::Meter;
use crate::operator::{Abilities, Cost, Description, Operator, Output, Properties, State};
use crate::parallelism::Threads;
use crate::sharing::Findables;
use crate::{Error, Result};

/// One node of the DAG.
#[derive(Debug)]
pub(crate) enum Node {
    /// The changes of a relation, by its place in [`Flow::relations`].
    Input { relation: usize, properties: Properties, about: Description },
    /// An operator over the outputs of earlier nodes.
    Operator { operator: Box<dyn Operator>, inputs: Vec<usize> },
}

impl Node {
    pub(crate) fn properties(&self) -> &Properties {
        match self {
            Node::Input { properties, .. } => properties,
            Node::Operator { operator, .. } => operator.properties(),
        }
    }

    fn reads(&self, place: usize) -> bool {
        matches!(self, Node::Operator { inputs, .. } if inputs.contains(&place))
    }
}

/// The output of one step of a flow.
pub(crate) struct Advance {
    /// The change of the result.
    pub(crate) rows: Delta,
    /// The failures, each with the name of its operator.
    pub(crate) failures: Vec<(&'static str, Failure)>,
    /// The failures as the rows that fail.
    pub(crate) failing: Vec<FailingRows>,
    /// The number of further changed rows of the result.
    pub(crate) left_out: u64,
    /// The late rows, each with the place and the name of its operator.
    pub(crate) late: Vec<(usize, &'static str, Late)>,
}

/// The outputs of a flow's nodes in one step.
#[derive(Default)]
struct Stepped {
    outputs: Vec<Delta>,
    failures: Vec<(&'static str, Failure)>,
    failing: Vec<FailingRows>,
    left_out: u64,
    late: Vec<(usize, &'static str, Late)>,
}

impl Stepped {
    fn take(&mut self, place: usize, (name, output): (&'static str, Output)) {
        self.left_out += output.left_out;
        self.failures.extend(output.failures.into_iter().map(|failure| (name, failure)));
        self.failing.extend(output.failing.into_iter().map(|failing| failing.at(place, name)));
        self.late.extend(output.late.into_iter().map(|late| (place, name, late)));
        self.outputs[place] = output.rows;
    }
}

/// The inputs of one step of a flow's nodes.
struct Step<'a> {
    cut: &'a Cut,
    /// True if every operator runs.
    first: bool,
    /// The deltas by relation.
    inputs: &'a [&'a Delta],
    /// The places of the nodes whose rows nobody reads.
    unread: &'a [usize],
    /// The rows to leave out of the operators' inputs.
    without: &'a Without,
    limits: &'a Limits,
}

impl Step<'_> {
    /// Steps the node at a place after its inputs. The returned name is that of an operator with failures or
    /// late rows.
    fn of(
        &self,
        place: usize,
        node: &mut Node,
        meter: &mut Meter,
        all: &Stepped,
    ) -> Result<(&'static str, Output)> {
        let (operator, inputs) = match node {
            Node::Input { relation, properties, .. } => {
                // A table may have gained columns behind those that the query knows.
                let known = properties.schema.fields().len();
                let delta = self.inputs[*relation].first_columns(known)?.into_owned();
                if !delta.is_empty() {
                    meter.steps += 1;
                    meter.rows_out += delta.num_rows() as u64;
                }
                return Ok(("", delta.into()));
            }
            Node::Operator { operator, inputs } => (operator, inputs),
        };
        let unread = self.unread.contains(&place);
        if unread && all.left_out > 0 {
            meter.hand_on(all.left_out);
            return Ok(("", Output::default()));
        }
        let given =
            inputs.iter().enumerate().map(|(at, input)| self.given((place, at), &all.outputs[*input]));
        let given = given.collect::<Result<Vec<_>>>()?;
        let given: Vec<&Delta> = given.iter().map(AsRef::as_ref).collect();
        let is_due = || operator.properties().slides || operator.abilities().is_due(self.cut);
        if !self.first && given.iter().all(|delta| delta.is_empty()) && !is_due() {
            return Ok(("", Output::default()));
        }
        let begun = Instant::now();
        let output = match unread {
            true => operator.step_unread(self.cut, &given),
            false => operator.step(self.cut, &given),
        };
        let output = output
            .and_then(|output| self.limits.check_output(output.rows.num_rows()).map(|()| output))
            .map_err(|error| error.of_operator(operator.describe().name))?;
        let rows = given.iter().map(|delta| delta.num_rows() as u64).sum();
        meter.count(rows, &output, begun.elapsed());
        let nameless = output.failures.is_empty() && output.failing.is_empty() && output.late.is_empty();
        Ok((if nameless { "" } else { operator.describe().name }, output))
    }

    /// Returns the delta of an input as an operator gets it.
    fn given<'a>(&self, at: (usize, usize), delta: &'a Delta) -> Result<Cow<'a, Delta>> {
        match self.without.get(&at) {
            Some(gone) => Ok(Cow::Owned(late_rows::less(delta, gone)?)),
            None => Ok(Cow::Borrowed(delta)),
        }
    }
}

/// Groups the places of nodes into waves: a node's inputs are in earlier waves.
pub(crate) fn waves(nodes: &[Node]) -> Arc<[Vec<usize>]> {
    let mut waves: Vec<Vec<usize>> = Vec::new();
    let mut numbers = Vec::with_capacity(nodes.len());
    for (place, node) in nodes.iter().enumerate() {
        let number = match node {
            Node::Input { .. } => 0,
            Node::Operator { inputs, .. } => {
                inputs.iter().map(|input| numbers[*input] + 1).max().unwrap_or(0)
            }
        };
        numbers.push(number);
        if number == waves.len() {
            waves.push(Vec::new());
        }
        waves[number].push(place);
    }
    waves.into()
}

/// A query, compiled once and stepped an epoch at a time.
#[derive(Debug)]
pub struct Flow {
    pub(crate) relations: Vec<Arc<str>>,
    /// For each relation, true if its batches are taken as they end.
    pub(crate) batchwise: Vec<bool>,
    pub(crate) nodes: Vec<Node>,
    /// For each node, the parts of the plan that it was made of. Equal parts give equal operators.
    pub(crate) plans: Vec<Vec<LogicalPlan>>,
    /// The nodes in waves: nodes of one wave don't read one another.
    pub(crate) waves: Arc<[Vec<usize>]>,
    pub(crate) threads: Threads,
    /// The counters of each node, by its place.
    pub(crate) meters: Vec<Meter>,
    pub(crate) limits: Limits,
    pub(crate) started: bool,
    /// The sides of joins that look rows up by key, and that may share arrangements.
    pub(crate) findables: Vec<Findables>,
    /// The number of steps so far.
    pub(crate) version: u64,
    /// The newest batch time of a step.
    pub(crate) now: Timestamp,
    /// The columns of the result with event times.
    pub(crate) times: Vec<(usize, EventTime)>,
    /// For each node, the column of a relation that holds its event time.
    pub(crate) event_columns: Vec<Option<usize>>,
    /// The layout of the late rows, if windows close.
    pub(crate) layout: Option<Layout>,
}

impl Flow {
    /// Returns the relations that the flow reads; it may list a window twice, see [`Flow::takes_batches`].
    pub fn relations(&self) -> &[Arc<str>] {
        &self.relations
    }

    /// Renames a relation.
    pub fn rename_relation(&mut self, from: &str, to: &Arc<str>) {
        for name in self.relations.iter_mut().filter(|name| name.as_ref() == from) {
            *name = to.clone();
        }
    }

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
        for node in &self.nodes {
            let Node::Operator { operator, inputs } = node else { continue };
            for (place, _) in inputs.iter().enumerate().filter(|(_, of)| **of == input) {
                all.extend(operator.properties().columns_read.as_ref()?.get(place)?);
            }
        }
        all.sort_unstable();
        all.dedup();
        Some(all)
    }

    /// Returns the columns of the result.
    pub fn schema(&self) -> Result<&SchemaRef> {
        Ok(&self.root()?.properties().schema)
    }

    /// Returns columns that together are unique in the result, if known.
    pub fn key(&self) -> Option<&[usize]> {
        self.root().ok()?.properties().key.as_deref()
    }

    /// Returns true if the result is append-only.
    pub fn append_only(&self) -> Result<bool> {
        Ok(self.root()?.properties().append_only)
    }

    /// Returns the columns of the result with event times.
    pub fn times(&self) -> &[(usize, EventTime)] {
        &self.times
    }

    /// Returns the columns of the late rows, if windows close: facts about each row, then its own columns.
    pub fn late_schema(&self) -> Option<&SchemaRef> {
        self.layout.as_ref().map(|layout| &layout.shown)
    }

    /// Returns the number of rows that arrived for closed windows, by weight; `None` if no windows close.
    pub fn late(&self) -> Option<u64> {
        let late = self.stateful().filter_map(|operator| operator.abilities().windows);
        late.map(|windows| windows.late().rows).reduce(|sum, rows| sum + rows)
    }

    /// Returns the first operator that keeps state besides that of open windows with answers of their own,
    /// and that state. A closed window can't be recomputed from its own rows then.
    pub fn keeps_beside_windows(&self) -> Option<String> {
        let beside = self.stateful().filter(|operator| !operator.properties().keeps_open_windows);
        let mut beside = beside.map(|operator| operator.describe()).filter(|about| !about.state.is_empty());
        beside.next().map(|about| format!("{}, which keeps {}", about.name, about.state))
    }

    /// Returns the limits under which the flow was compiled.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns true if the flow forgets idle keys or closed windows, and so differs from a batch query.
    pub fn forgets(&self) -> bool {
        let forgets = |of: Abilities<'_>| of.expiry.is_some() || of.windows.is_some();
        self.stateful().any(|operator| forgets(operator.abilities()))
    }

    /// Returns true if the answer depends on the rows of the inputs alone, not on when they arrive or how
    /// they are cut into epochs.
    pub fn is_timeless(&self) -> bool {
        let windows = self.batchwise.iter().any(|batchwise| *batchwise);
        !windows && !self.forgets() && !self.stateful().any(|operator| operator.properties().is_timed())
    }

    /// Returns true if the sum of outputs doesn't depend on the epochs' cuts while no watermark or time
    /// moves.
    pub fn is_additive(&self) -> bool {
        !self
            .stateful()
            .any(|operator| operator.properties().depends_on_cuts || operator.abilities().expiry.is_some())
    }

    /// Returns the cost of the most expensive operator.
    pub fn cost(&self) -> Cost {
        self.nodes.iter().map(|node| node.properties().cost).max().unwrap_or(Cost::Delta)
    }

    /// Steps one epoch: `inputs` has the delta of each of [`Flow::relations`], in their order. The first step
    /// runs every operator, so a query over no rows has its answer too. After an error the flow must not be
    /// stepped again.
    pub fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Change> {
        self.step_for(cut, inputs, true)
    }

    /// Steps one epoch. If not `read`, rows of the result may be left out, but never an error.
    pub fn step_for(&mut self, cut: &Cut, inputs: &[&Delta], read: bool) -> Result<Change> {
        let advance = self.advance(cut, inputs, read)?;
        self.told(cut, inputs, advance)
    }

    /// Runs the first epoch over the full content of the relations, without the late rows. Removes these from
    /// the inputs of the operators they were late for, so the answer is the one over rows in time. Fails if a
    /// late row isn't there. `late` is as in [`Change::late`].
    pub fn step_without(&mut self, cut: &Cut, inputs: &[&Delta], late: &[RecordBatch]) -> Result<Change> {
        let without = match &self.layout {
            Some(layout) => layout.taken_back(late)?,
            None => Without::new(),
        };
        let advance = self.advance_without(cut, inputs, true, &without)?;
        self.told(cut, inputs, advance)
    }

    /// Steps like [`Flow::step_for`], and returns the failures one by one, each with its operator's name.
    pub(crate) fn advance(&mut self, cut: &Cut, inputs: &[&Delta], read: bool) -> Result<Advance> {
        self.advance_without(cut, inputs, read, &Without::new())
    }

    fn advance_without(
        &mut self,
        cut: &Cut,
        inputs: &[&Delta],
        read: bool,
        without: &Without,
    ) -> Result<Advance> {
        let unread = if read { Vec::new() } else { self.unread() };
        let first = !std::mem::replace(&mut self.started, true);
        self.version += 1;
        self.now = self.now.max(cut.now);
        let mut all = Stepped { outputs: vec![Delta::default(); self.nodes.len()], ..Stepped::default() };
        for wave in self.waves.clone().iter() {
            let step = Step { cut, first, inputs, unread: &unread, without, limits: &self.limits };
            if self.is_busy(wave, &all.outputs) {
                let nodes = self.nodes.iter_mut().zip(&mut self.meters).enumerate();
                let nodes = nodes.filter(|(place, _)| wave.binary_search(place).is_ok()).collect();
                let done =
                    self.threads.spread(nodes, |(place, (node, meter))| step.of(place, node, meter, &all));
                for (place, done) in wave.iter().zip(done) {
                    all.take(*place, done?);
                }
            } else {
                for place in wave {
                    let done = step.of(*place, &mut self.nodes[*place], &mut self.meters[*place], &all)?;
                    all.take(*place, done);
                }
            }
            for place in wave {
                for findables in self.findables.iter().filter(|findables| findables.input == *place) {
                    if let Some(kept) = &findables.kept {
                        kept.stage(first, self.version, cut, &all.outputs[*place], &self.threads)?;
                    }
                }
            }
        }
        self.settle(&all.outputs)?;
        let Stepped { mut outputs, failures, failing, left_out, late } = all;
        Ok(Advance { rows: outputs.pop().unwrap_or_default(), failures, failing, left_out, late })
    }

    /// Runs the first step of a flow with loaded operators. These aren't stepped: `put_out` has their outputs
    /// so far. `found` is true for each lookup place whose arrangement already has its rows.
    pub(crate) fn begin_over(
        &mut self,
        cut: &Cut,
        inputs: &[&Delta],
        put_out: &BTreeMap<usize, Delta>,
        is_kept: &dyn Fn(usize) -> bool,
        found: &[bool],
    ) -> Result<Advance> {
        self.started = true;
        self.version += 1;
        self.now = self.now.max(cut.now);
        let mut all = Stepped { outputs: vec![Delta::default(); self.nodes.len()], ..Stepped::default() };
        let without = Without::new();
        for wave in self.waves.clone().iter() {
            let step =
                Step { cut, first: true, inputs, unread: &[], without: &without, limits: &self.limits };
            for place in wave {
                let node = &mut self.nodes[*place];
                if is_kept(*place) && matches!(node, Node::Operator { .. }) {
                    all.outputs[*place] = put_out.get(place).cloned().unwrap_or_default();
                    continue;
                }
                let done = step.of(*place, node, &mut self.meters[*place], &all)?;
                all.take(*place, done);
            }
            let read = |findables: &Findables| wave.contains(&findables.input);
            let new =
                self.findables.iter().zip(found).filter(|(findables, found)| !**found && read(findables));
            for (findables, _) in new {
                if let Some(kept) = &findables.kept {
                    kept.stage(true, self.version, cut, &all.outputs[findables.input], &self.threads)?;
                }
            }
        }
        self.settle(&all.outputs)?;
        let Stepped { mut outputs, failures, failing, left_out, late } = all;
        Ok(Advance { rows: outputs.pop().unwrap_or_default(), failures, failing, left_out, late })
    }

    /// Merges the changes of this step into the arrangements.
    fn settle(&self, outputs: &[Delta]) -> Result<()> {
        let kept = || self.findables.iter().filter_map(|findables| findables.kept.as_ref());
        if kept().nth(1).is_none() || !self.threads.share(outputs.iter().map(Delta::num_rows).sum()) {
            return kept().try_for_each(|kept| kept.settle(self.version));
        }
        let version = self.version;
        self.threads.spread(kept().collect(), |kept| kept.settle(version)).into_iter().collect()
    }

    /// Returns true if several nodes of a wave have many input rows, so that they are stepped in parallel.
    fn is_busy(&self, wave: &[usize], outputs: &[Delta]) -> bool {
        let busy = |place: &&usize| match &self.nodes[**place] {
            Node::Input { .. } => false,
            Node::Operator { operator, inputs } => {
                let rows = inputs.iter().map(|input| outputs[*input].num_rows()).sum::<usize>();
                rows >= self.threads.piece_rows() && !operator.properties().hands_on
            }
        };
        wave.len() > 1 && self.threads.are_several() && wave.iter().filter(busy).nth(1).is_some()
    }

    /// Returns the places of the nodes whose rows nobody reads if nobody reads the result: the last node, and
    /// the nodes whose rows it only forwards.
    fn unread(&self) -> Vec<usize> {
        let Some(mut place) = self.nodes.len().checked_sub(1) else { return Vec::new() };
        let mut unread = vec![place];
        while let Node::Operator { operator, inputs } = &self.nodes[place]
            && let [input] = inputs[..]
            && operator.properties().hands_on
            && self.nodes.iter().filter(|node| node.reads(input)).count() == 1
        {
            place = input;
            unread.push(place);
        }
        unread
    }

    /// Returns true if an epoch with this cut must be stepped even if no input changes.
    pub fn is_due(&self, cut: &Cut) -> bool {
        self.stateful().any(|operator| operator.abilities().is_due(cut))
    }

    /// Returns the time of the next step that is due even if no input changes, if known.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.stateful().filter_map(|operator| operator.abilities().wake_at()).min()
    }

    /// Returns the time of the answer, if it depends on the time: it is the same until [`Flow::wake_at`].
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Drops all state, as if the flow had never been stepped; the counters stay.
    pub fn reset(&mut self) -> Result<()> {
        self.started = false;
        for kept in self.findables.iter().filter_map(|findables| findables.kept.as_ref()) {
            kept.reset()?;
        }
        for (node, meter) in self.nodes.iter_mut().zip(&mut self.meters) {
            meter.errors = 0;
            if let Node::Operator { operator, .. } = node {
                operator.reset()?;
            }
        }
        Ok(())
    }

    /// Returns the number of rows of all operators' state.
    pub fn state_rows(&self) -> usize {
        self.stateful().map(State::state_rows).sum()
    }

    /// Returns the approximate bytes of memory of all operators' state.
    pub fn state_bytes(&self) -> usize {
        self.stateful().map(State::state_bytes).sum()
    }

    pub(crate) fn stateful(&self) -> impl Iterator<Item = &dyn Operator> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Operator { operator, .. } => Some(operator.as_ref()),
            Node::Input { .. } => None,
        })
    }

    fn root(&self) -> Result<&Node> {
        self.nodes.last().ok_or_else(|| Error::Bug("a flow without operators".into()))
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
                    let metered = [&*read, &*unread].map(|flow| flow.meters.last().unwrap().rows_out);
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
                    alone.threads.set(NonZeroUsize::MIN);
                    together.threads.set(NonZeroUsize::new(2 + epoch as usize).unwrap());
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
