//! What made the objects that are there, and what is set: the catalog that a checkpoint holds.
//!
//! A start does these entries again, over no rows, so they keep their order: what an object becomes may depend on what was
//! set, and on how another was altered, when it was made. What is gone isn't done again, and of what was set, paused or
//! altered between two objects only the last counts. So there are never many more of them than objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_durable::{Entry, Standing};
use millstream_sql::functions::quote_ident;

use crate::catalog::Object;
use crate::event::Change;
use crate::settings::Settings;
use crate::statements::rename;

/// One step of making what is there.
#[derive(Clone, Debug)]
enum Step {
    /// An object was made.
    Object(Arc<str>, Entry),
    /// An object is another one since. `overrules`: whatever it was altered to before.
    Altered { name: Arc<str>, overrules: bool, entry: Entry },
    /// A table has columns behind those that it had: what comes before knows it without them.
    Widened { name: Arc<str>, entry: Entry },
    /// An object is called otherwise since: what comes before knows it, and all that reads it, by the names of then.
    Renamed { name: Arc<str>, from: Arc<str>, entry: Entry },
    /// A setting, or whether something stands still: of an object by its name of now.
    State(Option<Arc<str>>, Entry),
}

impl Step {
    /// The object that it is about, by its name of now.
    fn of(&self) -> Option<&Arc<str>> {
        match self {
            Step::Object(name, _)
            | Step::Altered { name, .. }
            | Step::Widened { name, .. }
            | Step::Renamed { name, .. } => Some(name),
            Step::State(name, _) => name.as_ref(),
        }
    }

    fn of_mut(&mut self) -> Option<&mut Arc<str>> {
        match self {
            Step::Object(name, _)
            | Step::Altered { name, .. }
            | Step::Widened { name, .. }
            | Step::Renamed { name, .. } => Some(name),
            Step::State(name, _) => name.as_mut(),
        }
    }

    fn entry(&self) -> &Entry {
        match self {
            Step::Object(_, entry)
            | Step::Altered { entry, .. }
            | Step::Widened { entry, .. }
            | Step::Renamed { entry, .. }
            | Step::State(_, entry) => entry,
        }
    }
}

/// The steps that made what is there, in their order.
#[derive(Debug, Default)]
pub(super) struct Made {
    steps: Vec<Step>,
}

/// An object that reads others.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) name: Arc<str>,
    pub(super) reads: Vec<Arc<str>>,
    /// Whether its plan is kept, so that a start doesn't plan it anew, where that could be.
    pub(super) is_kept: bool,
}

/// What a group of changes does to the objects.
#[derive(Debug, Default)]
pub(super) struct News {
    made: Vec<Making>,
}

#[derive(Debug)]
enum Making {
    Object {
        name: Arc<str>,
        statement: String,
    },
    Altered {
        name: Arc<str>,
        overrules: bool,
    },
    /// An object has another definition. Behind it stand those that are made of it.
    Replaced {
        name: Arc<str>,
        statement: String,
        dependants: Vec<Arc<str>>,
    },
    Widened(Arc<str>),
    Renamed {
        from: Arc<str>,
        to: Arc<str>,
    },
    Dropped(Vec<Arc<str>>),
}

/// The settings by which an object that is made depends on when it is.
const LASTING: [&str; 6] =
    ["allowed_lateness", "on_error", "output_rows_max", "recursion_max", "state_ttl", "whole_rows_max"];

impl News {
    /// Of these changes.
    pub(super) fn of(changes: &[Change]) -> News {
        let making = |change: &Change| match change {
            Change::Create { object, .. } => {
                Making::Object { name: object.name.clone(), statement: object.ddl.clone() }
            }
            // A watermark can be dropped only where there is one: what had set it must stay before that.
            Change::Alter { object } => Making::Altered {
                name: object.name.clone(),
                overrules: object.definition.watermark().is_some(),
            },
            Change::Widen { object, .. } => Making::Widened(object.name.clone()),
            Change::Rename { from, to } => Making::Renamed { from: from.clone(), to: to.clone() },
            Change::Drop { names } => Making::Dropped(names.clone()),
        };
        News { made: changes.iter().map(making).collect() }
    }

    /// Of a relation that has another query.
    pub(super) fn replaced(object: &Object, dependants: Vec<Arc<str>>) -> News {
        let (name, statement) = (object.name.clone(), object.ddl.clone());
        News { made: vec![Making::Replaced { name, statement, dependants }] }
    }
}

impl Made {
    /// Takes in a group of changes that the journal knows by `entry`.
    pub(super) fn change(&mut self, news: News, entry: &Entry, standing: Standing) {
        for making in news.made {
            match making {
                Making::Object { name, statement } => {
                    let entry = alone(entry, Some((&name, statement)), standing);
                    self.steps.push(Step::Object(name, entry));
                }
                // It is alone in its entry: no other statement takes effect together with an ALTER.
                Making::Altered { name, overrules } => {
                    let entry = alone(entry, None, standing);
                    self.steps.push(Step::Altered { name, overrules, entry });
                }
                Making::Replaced { name, statement, dependants } => {
                    let behind = self.take_out(&name, &dependants);
                    let entry = alone(entry, Some((&name, statement)), standing);
                    self.steps.push(Step::Object(name, entry));
                    self.put_back(behind);
                }
                Making::Widened(name) => {
                    let entry = alone(entry, None, standing);
                    self.steps.push(Step::Widened { name, entry });
                }
                Making::Renamed { from, to } => self.rename(&from, &to, alone(entry, None, standing)),
                Making::Dropped(names) => self.forget(&names),
            }
        }
        self.settle();
        self.settle_names();
    }

    /// Takes in what is set, or paused.
    pub(super) fn state(&mut self, entry: Entry) {
        let name = match &entry {
            Entry::Paused { name, .. } => name.as_deref().map(Arc::from),
            _ => None,
        };
        self.steps.push(Step::State(name, entry));
        self.settle();
    }

    /// An object is called otherwise from now on.
    fn rename(&mut self, from: &Arc<str>, to: &Arc<str>, entry: Entry) {
        for name in self.steps.iter_mut().filter_map(Step::of_mut).filter(|name| *name == from) {
            *name = to.clone();
        }
        self.steps.push(Step::Renamed { name: to.clone(), from: from.clone(), entry });
    }

    /// Whether what made these objects can be done again behind all that was done since, although some names are others by
    /// now. `reads`: what they are made of; `is_there`: whether an object has this name now. Else the name of one that
    /// is in the way.
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
            // Its own name of then may be another's by now.
            Step::Renamed { name, from, .. } if names.contains(name) => is_there(from).then_some(name),
            Step::Renamed { name, .. } => (is_made && reads.contains(name)).then_some(name),
            _ => None,
        })
    }

    /// One of these readers that would be another if it was made behind all that was done since: a start plans it anew, and
    /// would find columns of a table that came later. Also that table.
    pub(super) fn widened_since<'a>(&'a self, readers: &'a [Reader]) -> Option<(&'a Arc<str>, &'a Arc<str>)> {
        let has_plan = |entry: &Entry| match entry {
            Entry::Changed { plans, .. } => plans.iter().any(|plan| plan.plan.is_ok()),
            _ => false,
        };
        let mut made: Vec<&Reader> = Vec::new();
        self.steps.iter().find_map(|step| match step {
            Step::Object(name, entry) => {
                let reader = readers.iter().find(|reader| reader.name == *name);
                made.extend(reader.filter(|reader| !reader.is_kept || !has_plan(entry)));
                None
            }
            Step::Widened { name, .. } => {
                let reader = made.iter().find(|reader| reader.reads.contains(name))?;
                Some((&reader.name, name))
            }
            _ => None,
        })
    }

    /// The entries that make what is there.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.steps.iter().map(|step| step.entry().clone()).collect()
    }

    /// Gives up what made objects that are gone.
    fn forget(&mut self, names: &[Arc<str>]) {
        self.steps.retain(|step| !step.of().is_some_and(|name| names.contains(name)));
    }

    /// Takes out what made an object, and what made those that are made of it: these with the settings of then. None of
    /// them is paused.
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

    /// Puts steps behind all others, each under the settings that it was taken under, which are then again what they
    /// were.
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

    /// Sets what differs between two states of the settings.
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

    /// Gives up what was set, paused or altered and is overruled before another object was made.
    fn settle(&mut self) {
        let mut later = BTreeSet::new();
        let mut kept: Vec<Step> = Vec::with_capacity(self.steps.len());
        for step in std::mem::take(&mut self.steps).into_iter().rev() {
            let key = match &step {
                Step::Object(..) | Step::Renamed { .. } => {
                    later.clear();
                    kept.push(step);
                    continue;
                }
                Step::Widened { .. } => {
                    kept.push(step);
                    continue;
                }
                Step::Altered { name, overrules, .. } => {
                    let key = ("altered", name.to_string());
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
            // PAUSE ALL and RESUME ALL overrule what was said of one.
            let overruled = key.0 == "paused" && later.contains(&("all", String::new()));
            if later.insert(key) && !overruled {
                kept.push(step);
            }
        }
        kept.reverse();
        // What is set to what it is already need not be said.
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        kept.retain(|step| match step {
            Step::State(_, Entry::Set { name, value }) => {
                values.insert(name.clone(), value.clone()).as_ref() != Some(value)
            }
            _ => true,
        });
        self.steps = kept;
    }

    /// Makes one step of several that give an object a name, where nothing stands between that knows the name between.
    fn settle_names(&mut self) {
        let mut at = self.steps.len();
        while let Some(later) = at.checked_sub(1) {
            at = later;
            let Step::Renamed { name, .. } = &self.steps[later] else { continue };
            let plain = |step: &&Step| matches!(step, Step::State(None, Entry::Set { .. }));
            let between = self.steps[..later].iter().rev().take_while(plain).count();
            let Some(earlier) = later.checked_sub(between + 1) else { continue };
            let Step::Renamed { name: before, from, entry } = &self.steps[earlier] else { continue };
            if before != name {
                continue;
            }
            let (name, from) = (name.clone(), from.clone());
            let entry = renaming(entry, &from, &name);
            self.steps.remove(earlier);
            if name == from {
                self.steps.remove(later - 1);
                at = earlier;
            } else if let Some(entry) = entry {
                self.steps[later - 1] = Step::Renamed { name, from, entry };
            }
        }
    }
}

/// The entry that gives an object its last name, out of one that gave it the name before.
fn renaming(entry: &Entry, from: &str, to: &str) -> Option<Entry> {
    let mut entry = entry.clone();
    let Entry::Changed { statements, .. } = &mut entry else { return None };
    let kind = rename::kind_of(statements.first()?)?;
    *statements = vec![format!("ALTER {kind} {} RENAME TO {}", quote_ident(from), quote_ident(to))];
    Some(entry)
}

/// The entry of one statement out of those that took effect together. The names under which statements were done are kept
/// beside.
fn alone(entry: &Entry, made: Option<(&str, String)>, standing: Standing) -> Entry {
    match (entry, made) {
        (Entry::Changed { variables, plans, .. }, Some((name, statement))) => {
            // One that was made twice in the entry was dropped in between: the last plan is its own.
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
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Entry {
        Entry::Set { name: name.into(), value: value.into() }
    }

    fn paused(name: Option<&str>, pause: bool) -> Entry {
        Entry::Paused { name: name.map(str::to_string), pause, standing: Standing::default() }
    }

    fn changed(statements: &[&str]) -> Entry {
        Entry::Changed {
            statements: statements.iter().map(|text| (*text).to_string()).collect(),
            variables: Vec::new(),
            done: vec!["as a script".into()],
            plans: Vec::new(),
            standing: Standing::default(),
        }
    }

    fn made(made: &mut Made, names: &[&str]) {
        let making = |name: &&str| Making::Object { name: (*name).into(), statement: format!("make {name}") };
        let news = News { made: names.iter().map(making).collect() };
        made.change(news, &changed(names), Standing::default());
    }

    fn dropped(made: &mut Made, names: &[&str]) {
        let names = names.iter().map(|name| (*name).into()).collect();
        made.change(News { made: vec![Making::Dropped(names)] }, &changed(&["drop"]), Standing::default());
    }

    fn altered(made: &mut Made, name: &str, statement: &str) {
        let overrules = !statement.starts_with("drop");
        let news = News { made: vec![Making::Altered { name: name.into(), overrules }] };
        made.change(news, &changed(&[statement]), Standing::default());
    }

    fn texts(made: &Made) -> Vec<String> {
        let text = |entry: Entry| match entry {
            Entry::Changed { statements, done, .. } => {
                assert!(done.is_empty());
                statements.join("; ")
            }
            Entry::Set { name, value } => format!("{name} = {value}"),
            Entry::Paused { name, pause, .. } => format!("{} {pause}", name.unwrap_or("all".into())),
            other => format!("{other:?}"),
        };
        made.entries().into_iter().map(text).collect()
    }

    #[test]
    fn of_what_is_set_between_two_objects_the_last_counts() {
        let mut all = Made::default();
        [set("a", "1"), set("b", "1"), set("a", "2")].into_iter().for_each(|entry| all.state(entry));
        made(&mut all, &["x", "y"]);
        for entry in [
            paused(Some("x"), true),
            set("a", "3"),
            paused(Some("y"), true),
            paused(Some("x"), false),
            set("a", "4"),
            paused(None, false),
        ] {
            all.state(entry);
        }
        assert_eq!(texts(&all), ["b = 1", "a = 2", "make x", "make y", "a = 4", "all false"]);
    }

    #[test]
    fn what_is_gone_leaves_nothing() {
        let mut all = Made::default();
        all.state(set("a", "1"));
        made(&mut all, &["x"]);
        for round in 0..100 {
            all.state(set("a", &round.to_string()));
            made(&mut all, &["y", "z"]);
            altered(&mut all, "y", "alter y");
            all.state(paused(Some("z"), true));
            dropped(&mut all, &["z", "y"]);
        }
        assert_eq!(texts(&all), ["a = 1", "make x", "a = 99"]);
    }

    #[test]
    fn an_object_made_again_stands_behind_what_it_is_made_of() {
        let mut all = Made::default();
        made(&mut all, &["x", "y"]);
        dropped(&mut all, &["x"]);
        made(&mut all, &["z", "x"]);
        assert_eq!(texts(&all), ["make y", "make z", "make x"]);
    }

    #[test]
    fn an_alteration_stays_before_what_was_made_after_it() {
        let mut all = Made::default();
        made(&mut all, &["x"]);
        altered(&mut all, "x", "first");
        altered(&mut all, "x", "second");
        made(&mut all, &["y"]);
        altered(&mut all, "x", "third");
        assert_eq!(texts(&all), ["make x", "second", "make y", "third"]);
        dropped(&mut all, &["y"]);
        assert_eq!(texts(&all), ["make x", "third"]);
    }

    fn renamed(made: &mut Made, from: &str, to: &str) {
        let news = News { made: vec![Making::Renamed { from: from.into(), to: to.into() }] };
        made.change(news, &changed(&[&format!("ALTER TABLE {from} RENAME TO {to}")]), Standing::default());
    }

    #[test]
    fn a_name_is_given_in_its_place_and_goes_with_its_object() {
        let mut all = Made::default();
        made(&mut all, &["x", "reads x"]);
        all.state(paused(Some("x"), true));
        renamed(&mut all, "x", "y");
        made(&mut all, &["x"]);
        all.state(paused(Some("x"), true));
        let expected = ["make x", "make reads x", "x true", "ALTER TABLE x RENAME TO y", "make x", "x true"];
        assert_eq!(texts(&all), expected);
        let reads = |name: &str| BTreeSet::from([Arc::<str>::from(name)]);
        let found = |all: &Made, reads: &BTreeSet<Arc<str>>| {
            all.renamed_since(&["reads x".into()], reads, &|_| true).map(ToString::to_string)
        };
        assert_eq!(found(&all, &reads("y")).as_deref(), Some("y"));
        assert_eq!(found(&all, &reads("x")), None);
        dropped(&mut all, &["y"]);
        assert_eq!(texts(&all), ["make reads x", "make x", "x true"]);
    }

    #[test]
    fn names_that_stand_together_become_one() {
        let mut all = Made::default();
        made(&mut all, &["x"]);
        renamed(&mut all, "x", "y");
        all.state(set("a", "1"));
        renamed(&mut all, "y", "Z");
        assert_eq!(texts(&all), ["make x", "a = 1", "ALTER TABLE x RENAME TO \"Z\""]);
        renamed(&mut all, "Z", "x");
        assert_eq!(texts(&all), ["make x", "a = 1"]);
        renamed(&mut all, "x", "y");
        made(&mut all, &["x"]);
        renamed(&mut all, "y", "z");
        let expected =
            ["make x", "a = 1", "ALTER TABLE x RENAME TO y", "make x", "ALTER TABLE y RENAME TO z"];
        assert_eq!(texts(&all), expected);
    }

    fn widened(made: &mut Made, name: &str, statement: &str) {
        made.change(
            News { made: vec![Making::Widened(name.into())] },
            &changed(&[statement]),
            Standing::default(),
        );
    }

    #[test]
    fn a_column_comes_in_its_place_and_goes_with_its_table() {
        let mut all = Made::default();
        made(&mut all, &["t"]);
        altered(&mut all, "t", "first");
        widened(&mut all, "t", "add a");
        altered(&mut all, "t", "second");
        made(&mut all, &["v"]);
        widened(&mut all, "t", "add b");
        widened(&mut all, "t", "add c");
        assert_eq!(texts(&all), ["make t", "add a", "second", "make v", "add b", "add c"]);
        let reader = |name: &str, is_kept| Reader { name: name.into(), reads: vec!["t".into()], is_kept };
        let found = |all: &Made, reader: Reader| {
            all.widened_since(&[reader]).map(|(reader, table)| format!("{reader} {table}"))
        };
        assert_eq!(found(&all, reader("v", false)).as_deref(), Some("v t"));
        // No plan of it is kept.
        assert_eq!(found(&all, reader("v", true)).as_deref(), Some("v t"));
        made(&mut all, &["w"]);
        assert_eq!(found(&all, reader("w", false)), None);
        renamed(&mut all, "t", "u");
        dropped(&mut all, &["v", "w"]);
        let renames = "ALTER TABLE t RENAME TO u";
        assert_eq!(texts(&all), ["make t", "add a", "second", "add b", "add c", renames]);
        dropped(&mut all, &["u"]);
        assert!(texts(&all).is_empty());
    }

    fn replaced(made: &mut Made, name: &str, dependants: &[&str]) {
        let dependants = dependants.iter().map(|name| (*name).into()).collect();
        let statement = format!("make {name} anew");
        let news = News { made: vec![Making::Replaced { name: name.into(), statement, dependants }] };
        made.change(news, &changed(&["replace"]), Standing::default());
    }

    #[test]
    fn what_has_another_query_stands_behind_what_that_reads_and_before_what_reads_it() {
        let mut all = Made::default();
        made(&mut all, &["s", "x"]);
        all.state(set("on_error", "keep"));
        made(&mut all, &["y"]);
        all.state(set("on_error", "fail"));
        all.state(set("batch_interval", "1 second"));
        made(&mut all, &["t"]);
        all.state(paused(Some("y"), true));
        all.state(paused(Some("y"), false));
        replaced(&mut all, "x", &["y"]);
        let expected = [
            "make s",
            "on_error = fail",
            "batch_interval = 1 second",
            "make t",
            "make x anew",
            "on_error = keep",
            "make y",
            "on_error = fail",
        ];
        assert_eq!(texts(&all), expected);
        for _ in 0..10 {
            replaced(&mut all, "x", &["y"]);
        }
        assert_eq!(texts(&all), expected);
    }

    #[test]
    fn what_is_taken_away_was_there_before() {
        let mut all = Made::default();
        made(&mut all, &["x"]);
        ["first", "drop", "second", "drop"].iter().for_each(|text| altered(&mut all, "x", text));
        assert_eq!(texts(&all), ["make x", "second", "drop"]);
        altered(&mut all, "x", "third");
        assert_eq!(texts(&all), ["make x", "third"]);
    }
}
