//! The arrangements of a flow: the sides of joins that can share one, and where they are.

mod persistence;

use std::collections::HashMap;
use std::sync::Arc;

use millstream_delta::{Cut, Delta};

use crate::arrangement::{Arrangement, By, places_among, projected};
use crate::flow::{Flow, Node};
use crate::operator::ArrangesSides;
use crate::parallelism::Threads;
use crate::persistence::check_columns;
use crate::{Error, Result};
pub use persistence::PersistedArrangement;
pub(crate) use persistence::found;

/// Sides of joins that read the same node and look rows up by the same key.
#[derive(Debug)]
pub(crate) struct Findables {
    /// The node whose rows are looked up.
    pub(crate) input: usize,
    pub(crate) by: By,
    /// The sides that look them up.
    pub(crate) sides: Vec<Findable>,
    /// The arrangement of the rows, unless the only side keeps them itself.
    pub(crate) kept: Option<SharedArrangement>,
}

/// A side of a join whose rows may be in an arrangement for others to find by the same key.
#[derive(Clone, Debug)]
pub(crate) struct Findable {
    /// The join, and the number of its side.
    pub(crate) node: usize,
    pub(crate) at: usize,
    /// The side's columns, by their numbers in the relation that it reads.
    pub(crate) columns: Vec<usize>,
}

/// An arrangement that a flow reads.
#[derive(Debug)]
pub(crate) struct SharedArrangement {
    arrangement: Arc<Arrangement>,
    /// True if other flows read it too; then versions are epoch numbers.
    across: bool,
}

/// A part of a flow that it may share with others: the rows of a relation by a key.
#[derive(Debug)]
pub struct Shareable<'a> {
    /// Its number among those of the flow.
    pub place: usize,
    /// The relation, by its place in [`Flow::relations`].
    pub relation: usize,
    /// The key of the rows.
    pub by: &'a By,
    /// The columns that are read.
    pub columns: Vec<usize>,
    /// The arrangement that is shared with other flows, if there is one.
    pub shared: Option<&'a Arc<Arrangement>>,
}

impl Findables {
    /// Returns the same with the final places of nodes; `None` if the flow needs none of the sides.
    pub(crate) fn placed(self, places: &HashMap<usize, usize>) -> Option<Findables> {
        let input = *places.get(&self.input)?;
        let placed = |side: Findable| Some(Findable { node: *places.get(&side.node)?, ..side });
        let sides: Vec<Findable> = self.sides.into_iter().filter_map(placed).collect();
        (!sides.is_empty()).then_some(Findables { input, sides, ..self })
    }

    /// Returns the columns that are read, ascending.
    fn columns(&self) -> Vec<usize> {
        let all = self.sides.iter().flat_map(|side| &side.columns).chain(&self.by.keys);
        let mut columns: Vec<usize> = all.copied().collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}

impl SharedArrangement {
    /// Stages the change of an epoch before any reader runs.
    pub(crate) fn stage(
        &self,
        first: bool,
        version: u64,
        cut: &Cut,
        delta: &Delta,
        threads: &Threads,
    ) -> Result<()> {
        match (first, self.across) {
            (true, true) => Ok(()),
            // The first change is the whole content, which joins expect among the rows.
            (true, false) => self.arrangement.take(delta),
            (false, true) => self.arrangement.stage(cut.epoch.0, delta, threads),
            (false, false) => self.arrangement.stage(version, delta, threads),
        }
    }

    /// Merges the change into the rows after all readers have run.
    pub(crate) fn settle(&self, version: u64) -> Result<()> {
        if self.across { Ok(()) } else { self.arrangement.settle(version) }
    }

    /// Makes it the arrangement of this flow alone. All columns stay: if flows that left it return, they read it again, and
    /// nobody arranges the relation anew.
    fn owned(self) -> Result<SharedArrangement> {
        self.arrangement.own()?;
        Ok(SharedArrangement { across: false, ..self })
    }

    pub(crate) fn reset(&self) -> Result<()> {
        if self.across { Ok(()) } else { self.arrangement.reset() }
    }
}

impl Flow {
    /// Lets joins of this flow that look the same rows up by the same key share one arrangement.
    pub(crate) fn share_within(&mut self) -> Result<()> {
        for place in 0..self.findables.len() {
            if self.findables[place].sides.len() > 1 {
                let arrangement = self.arrangement(place)?;
                self.put_into(place, &Arc::new(arrangement), false)?;
            }
        }
        Ok(())
    }

    /// Returns an empty arrangement for the rows of a place.
    fn arrangement(&self, place: usize) -> Result<Arrangement> {
        let findables = &self.findables[place];
        let schema = &self.nodes[findables.input].properties().schema;
        Arrangement::new(schema, findables.by.clone(), findables.columns())
    }

    /// Reads the rows of a place from an arrangement: its own rows move there, and rows in another arrangement must be
    /// the same.
    fn put_into(&mut self, place: usize, arrangement: &Arc<Arrangement>, across: bool) -> Result<()> {
        for side in self.findables[place].sides.clone() {
            let columns = arrangement.places_of(&side.columns)?;
            self.arranging(side.node)?.move_out(side.at, arrangement, columns)?;
        }
        self.findables[place].kept = Some(SharedArrangement { arrangement: arrangement.clone(), across });
        self.count(place, true)
    }

    /// Sets whether this flow accounts for the arrangement of a place in its state; exactly one of the
    /// readers does.
    pub fn count(&mut self, place: usize, counted: bool) -> Result<()> {
        for (number, side) in self.findables[place].sides.clone().into_iter().enumerate() {
            self.arranging(side.node)?.count_elsewhere(side.at, counted && number == 0);
        }
        Ok(())
    }

    /// Returns the operator at a node as one whose sides may be in arrangements.
    fn arranging(&mut self, node: usize) -> Result<&mut dyn ArrangesSides> {
        let arranging = match &mut self.nodes[node] {
            Node::Operator { operator, .. } => operator.as_arranging(),
            Node::Input { .. } => None,
        };
        arranging.ok_or_else(|| Error::Bug("a side of a join is looked for elsewhere".into()))
    }

    /// Returns the queries that read the arrangements of a node, if there are others than this one.
    pub(crate) fn sharing_with(&self, node: usize) -> Vec<Arc<str>> {
        let read = self.findables.iter().filter(|found| found.sides.iter().any(|side| side.node == node));
        let mut readers = Vec::new();
        for arrangement in read.filter_map(|found| found.kept.as_ref()).map(|kept| &kept.arrangement) {
            let names = arrangement.readers();
            if names.len() > 1 {
                readers.extend(names.into_iter().filter(|name| !readers.contains(name)).collect::<Vec<_>>());
            }
        }
        readers
    }

    /// Returns the parts that it may share with other flows over the same relations.
    pub fn shareable(&self) -> Vec<Shareable<'_>> {
        let shareable = |(place, findables): (usize, &'_ Findables)| {
            let Node::Input { relation, .. } = &self.nodes[findables.input] else { return None };
            let shared = self.findables[place].kept.as_ref().filter(|kept| kept.across);
            Some(Shareable {
                place,
                relation: *relation,
                by: &self.findables[place].by,
                columns: findables.columns(),
                shared: shared.map(|kept| &kept.arrangement),
            })
        };
        self.findables.iter().enumerate().filter_map(shareable).collect()
    }

    /// Returns the number of columns that it knows of the input at a place of [`Flow::relations`]; more may
    /// follow them.
    pub fn columns_known(&self, relation: usize) -> usize {
        let known = |node: &Node| match node {
            Node::Input { relation: of, properties, .. } if *of == relation => {
                Some(properties.schema.fields().len())
            }
            _ => None,
        };
        self.nodes.iter().find_map(known).unwrap_or(usize::MAX)
    }

    /// Returns an arrangement with these columns of the rows that this flow keeps for a place; called between two epochs.
    /// Rows and keys are not inserted again: the flow gives its own arrangement away, or their structures are copied and
    /// the memory of the rows is shared.
    fn arranged(&mut self, place: usize, columns: &[usize]) -> Result<Arc<Arrangement>> {
        let findables = &self.findables[place];
        let (by, columns) = (findables.by.clone(), columns.to_vec());
        if let Some(kept) = &findables.kept {
            kept.arrangement.own()?;
            return match kept.arrangement.columns() == columns {
                true => Ok(kept.arrangement.clone()),
                false => kept.arrangement.fork(columns, false).map(Arc::new),
            };
        }
        let [side] = &findables.sides.clone()[..] else {
            return Err(Error::Bug("an arrangement is made of what others keep".into()));
        };
        let places = places_among(&side.columns, &columns);
        let places = places.ok_or_else(|| Error::Bug("a join reads the columns of its key".into()))?;
        let join = self.arranging(side.node)?;
        if let Some(arrangement) = join.arranged(side.at, by, columns, &places)? {
            return Ok(Arc::new(arrangement));
        }
        let rows = join.content_of(side.at)?;
        let arrangement = self.arrangement(place)?;
        arrangement.take_kept(projected(&rows, &places)?)?;
        Ok(Arc::new(arrangement))
    }

    /// Lets the flow keep the rows of a place by itself again: the current rows, or if `before` the rows as
    /// of the start of the epoch in which others may have changed them. The last of the named readers takes the
    /// arrangement over, others get a copy of the columns that they read.
    pub fn unshare(&mut self, place: usize, before: bool) -> Result<()> {
        let Some(kept) = self.findables[place].kept.take_if(|kept| kept.across) else { return Ok(()) };
        if !before && kept.arrangement.readers().len() == 1 {
            self.findables[place].kept = Some(kept.owned()?);
            return self.count(place, true);
        }
        if !before {
            kept.arrangement.settle_now()?;
        }
        let own = Arc::new(kept.arrangement.fork(self.own_columns(place), false)?);
        self.put_into(place, &own, false)
    }

    /// Reads the rows of `before` from `now` instead, which has the same rows, at any time within an epoch.
    pub fn read_instead(&mut self, before: &Arc<Arrangement>, now: &Arc<Arrangement>) -> Result<()> {
        for place in 0..self.findables.len() {
            let is_read = |kept: &SharedArrangement| kept.across && Arc::ptr_eq(&kept.arrangement, before);
            if self.findables[place].kept.as_ref().is_some_and(is_read) {
                self.put_into(place, now, true)?;
            }
        }
        Ok(())
    }

    /// Takes the arrangements over that it shared: no other flow reads them any more.
    pub fn own_shared(&mut self) -> Result<()> {
        for place in 0..self.findables.len() {
            let Some(kept) = self.findables[place].kept.take_if(|kept| kept.across) else { continue };
            self.findables[place].kept = Some(kept.owned()?);
            self.count(place, true)?;
        }
        Ok(())
    }

    /// Returns the columns that it keeps of the rows of a place, in their order in saved state.
    pub(crate) fn own_columns(&self, place: usize) -> Vec<usize> {
        match &self.findables[place].sides[..] {
            [side] => side.columns.clone(),
            _ => self.findables[place].columns(),
        }
    }

    /// Returns the rows of a place, with the columns that the flow reads, if they are in an arrangement.
    pub(crate) fn found_elsewhere(&self, place: usize) -> Result<Option<Delta>> {
        let kept = self.findables[place].kept.as_ref();
        kept.map(|kept| self.rows_in(place, &kept.arrangement)).transpose()
    }

    fn rows_in(&self, place: usize, arrangement: &Arrangement) -> Result<Delta> {
        projected(&arrangement.content()?, &arrangement.places_of(&self.own_columns(place))?)
    }

    /// Lets joins keep the rows of their sides themselves, unless several sides look them up. These rows are none: the
    /// flow is reset next.
    pub(crate) fn keep_nothing_elsewhere(&mut self) -> Result<()> {
        for place in 0..self.findables.len() {
            let Some(kept) = self.findables[place].kept.take() else { continue };
            match &self.findables[place].sides.clone()[..] {
                [side] => self.arranging(side.node)?.move_in(side.at, Delta::default())?,
                _ if kept.across => {
                    let own = self.arrangement(place)?;
                    self.put_into(place, &Arc::new(own), false)?;
                }
                _ => self.findables[place].kept = Some(kept),
            }
        }
        Ok(())
    }

    /// Stores rows that were in an arrangement for a place that has none.
    pub(crate) fn find_elsewhere(&mut self, place: usize, rows: Delta) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let columns = self.own_columns(place);
        let findables = &self.findables[place];
        let schema = &self.nodes[findables.input].properties().schema;
        check_columns(&rows, &schema.project(&columns)?)?;
        if let Some(kept) = &findables.kept {
            return kept.arrangement.take_kept(rows);
        }
        let arrangement = Arrangement::new(schema, findables.by.clone(), columns)?;
        arrangement.take_kept(rows)?;
        self.put_into(place, &Arc::new(arrangement), false)
    }
}

/// A flow that looks rows up by a key, and the place of these rows among those that it may share.
pub type Reader<'a> = (&'a mut Flow, usize);

/// Returns the columns that readers of the same rows read, ascending.
fn columns_of<'a>(readers: impl Iterator<Item = (&'a Flow, usize)>) -> Vec<usize> {
    let mut columns: Vec<usize> = readers.flat_map(|(flow, place)| flow.findables[place].columns()).collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

impl Flow {
    /// Returns the shared arrangement of a place, if there is one with these columns.
    fn shared_with(&self, place: usize, columns: &[usize]) -> Option<Arc<Arrangement>> {
        let kept = self.findables[place].kept.as_ref().filter(|kept| kept.across)?;
        kept.arrangement.has(columns).then(|| kept.arrangement.clone())
    }

    /// Returns true if it keeps all these columns of the rows of a place.
    fn keeps_all(&self, place: usize, columns: &[usize]) -> bool {
        let findables = &self.findables[place];
        let has = |kept: &SharedArrangement| kept.arrangement.has(columns);
        self.started && (findables.columns() == columns || findables.kept.as_ref().is_some_and(has))
    }
}

/// Returns true if no reader of the same rows by the same key keeps all columns that the readers read
/// together.
pub fn needs_content(readers: &[(&Flow, usize)]) -> bool {
    let columns = columns_of(readers.iter().copied());
    let has = |(flow, place): &(&Flow, usize)| {
        flow.shared_with(*place, &columns).is_some() || flow.keeps_all(*place, &columns)
    };
    !readers.iter().any(has)
}

/// Lets readers of the same rows by the same key share one arrangement, between two epochs; the next epoch
/// must not be `version`. All readers have had the same rows, or were not stepped yet and will get them in
/// their first step. `content` has these rows with all columns of the relation; it is required if
/// [`needs_content`].
pub fn share_rows(
    readers: &mut [Reader<'_>],
    version: u64,
    content: Option<&Delta>,
) -> Result<Option<Arc<Arrangement>>> {
    let columns = columns_of(readers.iter().map(|(flow, place)| (&**flow, *place)));
    let shared = readers.iter().find_map(|(flow, place)| flow.shared_with(*place, &columns));
    let donor = readers.iter().position(|(flow, place)| flow.keeps_all(*place, &columns));
    let arrangement = match (shared, donor, content) {
        (Some(shared), ..) => shared,
        (None, Some(donor), _) => {
            let (flow, place) = &mut readers[donor];
            flow.arranged(*place, &columns)?
        }
        (None, None, Some(content)) => {
            let Some((flow, place)) = readers.first() else { return Ok(None) };
            let findables = &flow.findables[*place];
            let schema = &flow.nodes[findables.input].properties().schema;
            let arrangement = Arrangement::new(schema, findables.by.clone(), columns.clone())?;
            arrangement.take(content)?;
            Arc::new(arrangement)
        }
        (None, None, None) => return Ok(None),
    };
    arrangement.settle(version)?;
    for (flow, place) in readers.iter_mut() {
        let there = flow.shared_with(*place, &columns);
        if there.is_none_or(|there| !Arc::ptr_eq(&there, &arrangement)) {
            // It contains all rows that the flow was given, or those of its first step.
            flow.put_into(*place, &arrangement, true)?;
        }
    }
    Ok(Some(arrangement))
}
