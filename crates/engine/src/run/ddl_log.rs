//! The catalog in a checkpoint: the entries that created the present objects and settings.
//!
//! A start repeats these entries without rows. They keep their order, because an object may depend on earlier settings
//! and on alterations of other objects. Entries of dropped objects are removed. Of the settings, pauses and alterations
//! between two objects, only the last counts. So there are not many more entries than objects and ALTER TABLE statements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_durable::{Entry, Standing};
use millstream_sql::qualified_ident;

use crate::catalog::Object;
use crate::event::Change;
use crate::settings::Settings;
use crate::statements::rename;
use crate::variables::search_path_of;

/// One step that created the present state.
#[derive(Clone, Debug)]
enum Step {
    /// The creation of an object.
    Object(Arc<str>, Entry),
    /// An alteration of an object. `column`: it comments on that, or on the object if it is empty. `overrules`: it replaces
    /// all earlier ones.
    Altered { name: Arc<str>, column: Option<String>, overrules: bool, entry: Entry },
    /// Other columns or constraints of a table. Earlier steps know the table without them.
    TableAltered { name: Arc<str>, adds_columns: bool, entry: Entry },
    /// Another query of a relation, with the same first columns. Earlier steps know the relation with its former columns.
    Extended { name: Arc<str>, entry: Entry },
    /// A rename of an object. Earlier steps know the object, and all that read it, by the names at that time.
    Renamed { name: Arc<str>, from: Arc<str>, to: Arc<str>, entry: Entry },
    /// A setting, or a pause; of an object by its present name.
    State(Option<Arc<str>>, Entry),
}

impl Step {
    /// Returns the present name of its object.
    fn of(&self) -> Option<&Arc<str>> {
        match self {
            Step::Object(name, _)
            | Step::Altered { name, .. }
            | Step::TableAltered { name, .. }
            | Step::Extended { name, .. }
            | Step::Renamed { name, .. } => Some(name),
            Step::State(name, _) => name.as_ref(),
        }
    }

    fn of_mut(&mut self) -> Option<&mut Arc<str>> {
        match self {
            Step::Object(name, _)
            | Step::Altered { name, .. }
            | Step::TableAltered { name, .. }
            | Step::Extended { name, .. }
            | Step::Renamed { name, .. } => Some(name),
            Step::State(name, _) => name.as_mut(),
        }
    }

    fn entry(&self) -> &Entry {
        match self {
            Step::Object(_, entry)
            | Step::Altered { entry, .. }
            | Step::TableAltered { entry, .. }
            | Step::Extended { entry, .. }
            | Step::Renamed { entry, .. }
            | Step::State(_, entry) => entry,
        }
    }
}

/// The steps that created the present objects and settings, in order.
#[derive(Debug, Default)]
pub(super) struct DdlLog {
    steps: Vec<Step>,
}

#[derive(Debug)]
pub(super) struct Reader {
    pub(super) name: Arc<str>,
    pub(super) reads: Vec<Arc<str>>,
    /// False for a plain view. A start plans it again; of others it may have a stored plan.
    pub(super) is_kept: bool,
}

/// The effect of a group of changes on the objects.
#[derive(Debug, Default)]
pub(super) struct DdlChanges {
    changes: Vec<DdlChange>,
}

#[derive(Debug)]
enum DdlChange {
    Object {
        name: Arc<str>,
        statement: String,
    },
    Altered {
        name: Arc<str>,
        column: Option<String>,
        overrules: bool,
    },
    /// A new definition of an object. The objects that depend on it are ordered after it.
    Replaced {
        name: Arc<str>,
        statement: String,
        dependants: Vec<Arc<str>>,
    },
    TableAltered {
        name: Arc<str>,
        adds_columns: bool,
    },
    /// A new definition of an object, in its place: the objects that depend on it don't see its new columns.
    Extended {
        name: Arc<str>,
        statement: String,
    },
    Renamed {
        from: Arc<str>,
        to: Arc<str>,
    },
    Dropped(Vec<Arc<str>>),
}

/// The settings that an object takes over when it is created.
const LASTING: [&str; 6] =
    ["allowed_lateness", "on_error", "output_rows_max", "recursion_max", "state_ttl", "whole_rows_max"];

impl DdlChanges {
    /// Returns the effect of these changes.
    pub(super) fn of(changes: &[Change]) -> DdlChanges {
        let change = |change: &Change| match change {
            Change::Create { object, .. } => {
                DdlChange::Object { name: object.name.clone(), statement: object.ddl.clone() }
            }
            // A watermark can only be dropped if there is one, so the step that declared it must stay.
            Change::Alter { object } => DdlChange::Altered {
                name: object.name.clone(),
                column: None,
                overrules: object.definition.watermark().is_some(),
            },
            Change::Comment { on, column, .. } => DdlChange::Altered {
                name: on.clone(),
                column: Some(column.clone().unwrap_or_default()),
                overrules: true,
            },
            Change::AlterTable(altered) => DdlChange::TableAltered {
                name: altered.object.name.clone(),
                adds_columns: !altered.added.is_empty(),
            },
            Change::Rename { from, to } => DdlChange::Renamed { from: from.clone(), to: to.clone() },
            Change::Drop { names } => DdlChange::Dropped(names.clone()),
        };
        DdlChanges { changes: changes.iter().map(change).collect() }
    }

    /// Returns the effect of a new query for a relation.
    pub(super) fn replaced(object: &Object, dependants: Vec<Arc<str>>) -> DdlChanges {
        let (name, statement) = (object.name.clone(), object.ddl.clone());
        DdlChanges { changes: vec![DdlChange::Replaced { name, statement, dependants }] }
    }

    /// Returns the effect of a new query for a relation whose readers keep their order before it.
    pub(super) fn extended(object: &Object) -> DdlChanges {
        let rest = object.ddl.strip_prefix("CREATE").unwrap_or(&object.ddl);
        let (name, statement) = (object.name.clone(), format!("CREATE OR REPLACE{rest}"));
        DdlChanges { changes: vec![DdlChange::Extended { name, statement }] }
    }
}

impl DdlLog {
    /// Adds a group of changes that the journal has as `entry`.
    pub(super) fn change(&mut self, ddl: DdlChanges, entry: &Entry, standing: Standing) {
        for change in ddl.changes {
            match change {
                DdlChange::Object { name, statement } => {
                    let entry = alone(entry, Some((&name, statement)), standing);
                    self.steps.push(Step::Object(name, entry));
                }
                // No other statement shares an entry with an ALTER.
                DdlChange::Altered { name, column, overrules } => {
                    let entry = alone(entry, None, standing);
                    self.steps.push(Step::Altered { name, column, overrules, entry });
                }
                DdlChange::Replaced { name, statement, dependants } => {
                    let behind = self.take_out(&name, &dependants);
                    let entry = alone(entry, Some((&name, statement)), standing);
                    self.steps.push(Step::Object(name, entry));
                    self.put_back(behind);
                }
                DdlChange::TableAltered { name, adds_columns } => {
                    let entry = alone(entry, None, standing);
                    self.steps.push(Step::TableAltered { name, adds_columns, entry });
                }
                DdlChange::Extended { name, statement } => {
                    let entry = alone(entry, Some((&name, statement)), standing);
                    self.steps.push(Step::Extended { name, entry });
                }
                DdlChange::Renamed { from, to } => self.rename(&from, &to, alone(entry, None, standing)),
                DdlChange::Dropped(names) => self.forget(&names),
            }
        }
        self.settle();
        self.settle_names();
    }

    /// Adds a setting or a pause.
    pub(super) fn state(&mut self, entry: Entry) {
        let name = match &entry {
            Entry::Paused { name, .. } => name.as_deref().map(Arc::from),
            _ => None,
        };
        self.steps.push(Step::State(name, entry));
        self.settle();
    }

    fn rename(&mut self, from: &Arc<str>, to: &Arc<str>, entry: Entry) {
        for name in self.steps.iter_mut().filter_map(Step::of_mut).filter(|name| *name == from) {
            *name = to.clone();
        }
        // Its schema may be dropped before the statement is repeated, so that has both names in full.
        let entry = renaming(&entry, from, to).unwrap_or(entry);
        self.steps.push(Step::Renamed { name: to.clone(), from: from.clone(), to: to.clone(), entry });
    }

    /// Returns an object whose rename prevents the steps of `names` from being repeated after all others; none if they
    /// can be. `reads`: the relations that they read; `is_there`: true if an object now has this name.
    pub(super) fn renamed_since(
        &self,
        names: &[Arc<str>],
        reads: &BTreeSet<Arc<str>>,
        is_there: &dyn Fn(&str) -> bool,
    ) -> Option<&Arc<str>> {
        let mut is_made = false;
        self.steps.iter().find_map(|step| match step {
            Step::Object(name, _) => {
                is_made |= names.contains(name);
                None
            }
            // Its former name may be another object's by now.
            Step::Renamed { name, from, .. } if names.contains(name) => is_there(from).then_some(name),
            Step::Renamed { name, .. } => (is_made && reads.contains(name)).then_some(name),
            _ => None,
        })
    }

    /// Returns true if a relation got another query in its place after one of its readers was created. The reader can't
    /// be created after all other steps: it would find columns that were added later.
    pub(super) fn is_extended_behind(&self, name: &str, readers: &[Arc<str>]) -> bool {
        let mut is_made = false;
        self.steps.iter().any(|step| match step {
            Step::Object(of, _) => {
                is_made |= readers.contains(of);
                false
            }
            Step::Extended { name: of, .. } => is_made && of.as_ref() == name,
            _ => false,
        })
    }

    /// Returns one of these readers that would change if all of them were created after all other steps, and the relation
    /// responsible. A start plans the reader again, and would find columns of the relation that were added later.
    pub(super) fn columns_added_since<'a>(
        &'a self,
        readers: &'a [Reader],
    ) -> Option<(&'a Arc<str>, &'a Arc<str>)> {
        let mut made: Vec<&Reader> = Vec::new();
        self.steps.iter().find_map(|step| match step {
            Step::Object(name, entry) => {
                let reader = readers.iter().find(|reader| reader.name == *name);
                made.extend(reader.filter(|reader| !reader.is_kept || !has_plan(entry)));
                None
            }
            // A relation that is created again with its readers stays before them.
            Step::Extended { name, .. } if readers.iter().any(|reader| reader.name == *name) => None,
            Step::TableAltered { name, adds_columns: true, .. } | Step::Extended { name, .. } => {
                let reader = made.iter().find(|reader| reader.reads.contains(name))?;
                Some((&reader.name, name))
            }
            _ => None,
        })
    }

    /// Returns one of the objects whose statements are repeated after all others when `name` has another query, and that
    /// looked relations up on a search path: they would be looked up again, among more relations. `readers` are its
    /// dependants.
    pub(super) fn made_on_path<'a>(&'a self, name: &str, readers: &[Reader]) -> Option<&'a Arc<str>> {
        self.steps.iter().find_map(|step| {
            let of = step.of()?;
            let reader = readers.iter().find(|reader| reader.name == *of);
            let is_moved = match (step, reader) {
                (Step::Object(..) | Step::Extended { .. }, Some(reader)) => {
                    !reader.is_kept || !has_plan(step.entry())
                }
                (Step::Altered { column: Some(_), .. }, None) => of.as_ref() == name,
                (Step::State(..), _) | (_, None) => false,
                (_, Some(_)) => true,
            };
            let Entry::Changed { variables, .. } = step.entry() else { return None };
            let mut paths = variables.iter().filter(|(name, _)| name == "search_path");
            (is_moved && paths.any(|(_, path)| search_path_of(path).is_some())).then_some(of)
        })
    }

    /// Returns the entries that create the present objects and settings.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.steps.iter().map(|step| step.entry().clone()).collect()
    }

    /// Removes the steps of dropped objects.
    fn forget(&mut self, names: &[Arc<str>]) {
        self.steps.retain(|step| !step.of().is_some_and(|name| names.contains(name)));
    }

    /// Removes the steps of an object, and takes out those of its dependants, each with the settings at its time. None
    /// of the dependants is paused.
    fn take_out(
        &mut self,
        name: &Arc<str>,
        dependants: &[Arc<str>],
    ) -> Vec<(BTreeMap<String, String>, Step)> {
        let mut settings = BTreeMap::new();
        let (mut kept, mut taken) = (Vec::new(), Vec::new());
        for step in std::mem::take(&mut self.steps) {
            match &step {
                Step::State(None, Entry::Set { name: of, value }) => {
                    if LASTING.contains(&of.as_str()) {
                        settings.insert(of.clone(), value.clone());
                    }
                    kept.push(step);
                }
                // Comments stay, unless the object has lost their column.
                Step::Altered { name: of, column: Some(_), .. } if of == name => {
                    taken.push((settings.clone(), step));
                }
                _ if step.of() == Some(name) => {}
                Step::State(Some(of), _) if dependants.contains(of) => {}
                _ if step.of().is_some_and(|of| dependants.contains(of)) => {
                    taken.push((settings.clone(), step));
                }
                _ => kept.push(step),
            }
        }
        self.steps = kept;
        taken
    }

    /// Appends steps, each under the settings that it was taken out with, and then restores the settings.
    fn put_back(&mut self, steps: Vec<(BTreeMap<String, String>, Step)>) {
        let mut now: BTreeMap<String, String> = BTreeMap::new();
        for step in &self.steps {
            if let Step::State(_, Entry::Set { name, value }) = step {
                now.insert(name.clone(), value.clone());
            }
        }
        now.retain(|name, _| LASTING.contains(&name.as_str()));
        let at_the_end = now.clone();
        for (then, step) in steps {
            self.set_to(&mut now, &then);
            self.steps.push(step);
        }
        self.set_to(&mut now, &at_the_end);
    }

    /// Adds steps that change the settings from one state to another.
    fn set_to(&mut self, now: &mut BTreeMap<String, String>, then: &BTreeMap<String, String>) {
        let defaults = Settings::default();
        for name in LASTING {
            let value = |all: &BTreeMap<String, String>| {
                all.get(name).cloned().or_else(|| defaults.show(name).ok()).unwrap_or_default()
            };
            let (is, was) = (value(now), value(then));
            if is != was {
                self.steps.push(Step::State(None, Entry::Set { name: name.into(), value: was }));
            }
        }
        now.clone_from(then);
    }

    /// Removes settings, pauses and alterations that are overruled before the next object is created.
    fn settle(&mut self) {
        let mut later = BTreeSet::new();
        let mut kept: Vec<Step> = Vec::with_capacity(self.steps.len());
        let mut extends: Option<Arc<str>> = None;
        for step in std::mem::take(&mut self.steps).into_iter().rev() {
            // Of two queries of a relation, the last counts if nothing was made in between.
            match &step {
                Step::Extended { name, .. } if extends.as_ref() == Some(name) => continue,
                Step::Extended { name, .. } => extends = Some(name.clone()),
                Step::State(None, Entry::Set { .. }) => {}
                _ => extends = None,
            }
            let key = match &step {
                Step::Object(..) | Step::Extended { .. } | Step::Renamed { .. } => {
                    later.clear();
                    kept.push(step);
                    continue;
                }
                Step::TableAltered { .. } => {
                    // It may rename columns, which comments follow.
                    later.retain(|(kind, _)| *kind != "comment");
                    kept.push(step);
                    continue;
                }
                Step::Altered { name, column, overrules, .. } => {
                    let key = match column {
                        None => ("altered", name.to_string()),
                        Some(column) => ("comment", format!("{name}\0{column}")),
                    };
                    if !later.contains(&key) {
                        if *overrules {
                            later.insert(key);
                        }
                        kept.push(step);
                    }
                    continue;
                }
                Step::State(_, Entry::Set { name, .. }) => ("set", name.clone()),
                Step::State(Some(name), _) => ("paused", name.to_string()),
                Step::State(..) => ("all", String::new()),
            };
            // PAUSE ALL and RESUME ALL overrule earlier steps of one object.
            let overruled = key.0 == "paused" && later.contains(&("all", String::new()));
            if later.insert(key) && !overruled {
                kept.push(step);
            }
        }
        kept.reverse();
        // A setting to its present value is redundant.
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        kept.retain(|step| match step {
            Step::State(_, Entry::Set { name, value }) => {
                values.insert(name.clone(), value.clone()).as_ref() != Some(value)
            }
            _ => true,
        });
        self.steps = kept;
    }

    /// Merges renames of one object, if no step between them knows the name between.
    fn settle_names(&mut self) {
        let mut at = self.steps.len();
        while let Some(later) = at.checked_sub(1) {
            at = later;
            let Step::Renamed { name, to, .. } = &self.steps[later] else { continue };
            let plain = |step: &&Step| matches!(step, Step::State(None, Entry::Set { .. }));
            let between = self.steps[..later].iter().rev().take_while(plain).count();
            let Some(earlier) = later.checked_sub(between + 1) else { continue };
            let Step::Renamed { name: before, from, entry, .. } = &self.steps[earlier] else { continue };
            if before != name {
                continue;
            }
            // Later steps may have renamed it again, so its present name may be another one.
            let (name, from, to) = (name.clone(), from.clone(), to.clone());
            let entry = renaming(entry, &from, &to);
            self.steps.remove(earlier);
            if to == from {
                self.steps.remove(later - 1);
                // The steps on both sides are neighbours now.
                at = (earlier + 1).min(self.steps.len());
            } else if let Some(entry) = entry {
                self.steps[later - 1] = Step::Renamed { name, from, to, entry };
            }
        }
    }
}

/// Returns true if the entry has a stored plan.
fn has_plan(entry: &Entry) -> bool {
    match entry {
        Entry::Changed { plans, .. } => plans.iter().any(|plan| plan.plan.is_ok()),
        _ => false,
    }
}

/// Returns the entry that gives an object its last name, made from an earlier rename.
fn renaming(entry: &Entry, from: &str, to: &str) -> Option<Entry> {
    let mut entry = entry.clone();
    let Entry::Changed { statements, .. } = &mut entry else { return None };
    let kind = rename::kind_of(statements.first()?)?;
    let (from, to) = (qualified_ident(from), qualified_ident(to));
    *statements = vec![format!("ALTER {kind} {from} RENAME TO {to}")];
    Some(entry)
}

/// Returns the entry of one statement out of several that took effect together, without the names of executed
/// statements. The engine keeps these elsewhere.
fn alone(entry: &Entry, made: Option<(&str, String)>, standing: Standing) -> Entry {
    match (entry, made) {
        (Entry::Changed { variables, plans, .. }, Some((name, statement))) => {
            // An object created twice in the entry was dropped in between, so the last plan is its own.
            let plan = plans.iter().rfind(|plan| plan.object == name);
            Entry::Changed {
                statements: vec![statement],
                variables: variables.clone(),
                done: Vec::new(),
                plans: plan.cloned().into_iter().collect(),
                standing,
            }
        }
        (other, _) => {
            let mut entry = other.clone();
            match &mut entry {
                Entry::Changed { done, standing: at, .. } => {
                    done.clear();
                    *at = standing;
                }
                Entry::TableMade { standing: at, .. } => *at = standing,
                _ => {}
            }
            entry
        }
    }
}

#[cfg(test)]
mod tests;
