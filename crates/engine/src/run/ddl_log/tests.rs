//! Steps keep their order, and redundant steps are removed.

use super::*;

fn set(name: &str, value: &str) -> Entry {
    Entry::Set { name: name.into(), value: value.into() }
}

fn paused(name: Option<&str>, pause: bool) -> Entry {
    Entry::Paused { name: name.map(str::to_string), pause, stages: true, standing: Standing::default() }
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

fn created(log: &mut DdlLog, names: &[&str]) {
    let change = |name: &&str| DdlChange::Object { name: (*name).into(), statement: format!("make {name}") };
    let changes = DdlChanges { changes: names.iter().map(change).collect() };
    log.change(changes, &changed(names), Standing::default());
}

fn dropped(log: &mut DdlLog, names: &[&str]) {
    let names = names.iter().map(|name| (*name).into()).collect();
    log.change(
        DdlChanges { changes: vec![DdlChange::Dropped(names)] },
        &changed(&["drop"]),
        Standing::default(),
    );
}

fn altered(log: &mut DdlLog, name: &str, statement: &str) {
    let overrules = !statement.starts_with("drop");
    let changes =
        DdlChanges { changes: vec![DdlChange::Altered { name: name.into(), column: None, overrules }] };
    log.change(changes, &changed(&[statement]), Standing::default());
}

fn texts(log: &DdlLog) -> Vec<String> {
    let text = |entry: Entry| match entry {
        Entry::Changed { statements, done, .. } => {
            assert!(done.is_empty());
            statements.join("; ")
        }
        Entry::Set { name, value } => format!("{name} = {value}"),
        Entry::Paused { name, pause, .. } => format!("{} {pause}", name.unwrap_or("all".into())),
        other => format!("{other:?}"),
    };
    log.entries().into_iter().map(text).collect()
}

#[test]
fn of_what_is_set_between_two_objects_the_last_counts() {
    let mut all = DdlLog::default();
    [set("a", "1"), set("b", "1"), set("a", "2")].into_iter().for_each(|entry| all.state(entry));
    created(&mut all, &["x", "y"]);
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
    let mut all = DdlLog::default();
    all.state(set("a", "1"));
    created(&mut all, &["x"]);
    for round in 0..100 {
        all.state(set("a", &round.to_string()));
        created(&mut all, &["y", "z"]);
        altered(&mut all, "y", "alter y");
        all.state(paused(Some("z"), true));
        dropped(&mut all, &["z", "y"]);
    }
    assert_eq!(texts(&all), ["a = 1", "make x", "a = 99"]);
}

#[test]
fn an_object_made_again_stands_behind_what_it_is_made_of() {
    let mut all = DdlLog::default();
    created(&mut all, &["x", "y"]);
    dropped(&mut all, &["x"]);
    created(&mut all, &["z", "x"]);
    assert_eq!(texts(&all), ["make y", "make z", "make x"]);
}

#[test]
fn an_alteration_stays_before_what_was_made_after_it() {
    let mut all = DdlLog::default();
    created(&mut all, &["x"]);
    altered(&mut all, "x", "first");
    altered(&mut all, "x", "second");
    created(&mut all, &["y"]);
    altered(&mut all, "x", "third");
    assert_eq!(texts(&all), ["make x", "second", "make y", "third"]);
    dropped(&mut all, &["y"]);
    assert_eq!(texts(&all), ["make x", "third"]);
}

fn renamed(log: &mut DdlLog, from: &str, to: &str) {
    let changes = DdlChanges { changes: vec![DdlChange::Renamed { from: from.into(), to: to.into() }] };
    log.change(changes, &changed(&[&format!("ALTER TABLE {from} RENAME TO {to}")]), Standing::default());
}

#[test]
fn a_name_is_given_in_its_place_and_goes_with_its_object() {
    let mut all = DdlLog::default();
    created(&mut all, &["x", "reads x"]);
    all.state(paused(Some("x"), true));
    renamed(&mut all, "x", "y");
    created(&mut all, &["x"]);
    all.state(paused(Some("x"), true));
    let expected =
        ["make x", "make reads x", "x true", "ALTER TABLE public.x RENAME TO public.y", "make x", "x true"];
    assert_eq!(texts(&all), expected);
    let reads = |name: &str| BTreeSet::from([Arc::<str>::from(name)]);
    let found = |all: &DdlLog, reads: &BTreeSet<Arc<str>>| {
        all.renamed_since(&["reads x".into()], reads, &|_| true).map(ToString::to_string)
    };
    assert_eq!(found(&all, &reads("y")).as_deref(), Some("y"));
    assert_eq!(found(&all, &reads("x")), None);
    dropped(&mut all, &["y"]);
    assert_eq!(texts(&all), ["make reads x", "make x", "x true"]);
}

#[test]
fn names_that_stand_together_become_one() {
    let mut all = DdlLog::default();
    created(&mut all, &["x"]);
    renamed(&mut all, "x", "y");
    all.state(set("a", "1"));
    renamed(&mut all, "y", "Z");
    assert_eq!(texts(&all), ["make x", "a = 1", "ALTER TABLE public.x RENAME TO public.\"Z\""]);
    renamed(&mut all, "Z", "x");
    assert_eq!(texts(&all), ["make x", "a = 1"]);
    renamed(&mut all, "x", "y");
    created(&mut all, &["x"]);
    renamed(&mut all, "y", "z");
    let expected = [
        "make x",
        "a = 1",
        "ALTER TABLE public.x RENAME TO public.y",
        "make x",
        "ALTER TABLE public.y RENAME TO public.z",
    ];
    assert_eq!(texts(&all), expected);
}

#[test]
fn merged_names_are_those_of_their_time() {
    let mut all = DdlLog::default();
    created(&mut all, &["x"]);
    renamed(&mut all, "x", "y");
    created(&mut all, &["v"]);
    renamed(&mut all, "y", "z");
    created(&mut all, &["w"]);
    renamed(&mut all, "z", "q");
    dropped(&mut all, &["v"]);
    let expected = [
        "make x",
        "ALTER TABLE public.x RENAME TO public.z",
        "make w",
        "ALTER TABLE public.z RENAME TO public.q",
    ];
    assert_eq!(texts(&all), expected);
}

/// Exchanges two names, as ALTER … SWAP WITH does if `older` is the object that was created first.
fn exchanged(log: &mut DdlLog, older: &str, newer: &str) {
    let rename = |from: &str, to: &str| DdlChange::Renamed { from: from.into(), to: to.into() };
    let changes = vec![rename(older, "z"), rename(newer, older), rename("z", newer)];
    let statement = format!("ALTER TABLE {older} SWAP WITH {newer}");
    log.change(DdlChanges { changes }, &changed(&[&statement]), Standing::default());
}

#[test]
fn exchanged_names_are_renames() {
    let rename = |from: &str, to: &str| format!("ALTER TABLE public.{from} RENAME TO public.{to}");
    let mut all = DdlLog::default();
    created(&mut all, &["x", "y"]);
    exchanged(&mut all, "x", "y");
    let made = ["make x".to_string(), "make y".to_string()];
    let renames = [rename("x", "z"), rename("y", "x"), rename("z", "y")];
    assert_eq!(texts(&all), [made.as_slice(), renames.as_slice()].concat());
    exchanged(&mut all, "y", "x");
    assert_eq!(texts(&all), made);
    exchanged(&mut all, "x", "y");
    dropped(&mut all, &["x"]);
    assert_eq!(texts(&all), [made[0].clone(), rename("x", "y")]);
}

fn added(log: &mut DdlLog, name: &str, statement: &str) {
    log.change(
        DdlChanges { changes: vec![DdlChange::TableAltered { name: name.into(), adds_columns: true }] },
        &changed(&[statement]),
        Standing::default(),
    );
}

#[test]
fn a_column_comes_in_its_place_and_goes_with_its_table() {
    let mut all = DdlLog::default();
    created(&mut all, &["t"]);
    altered(&mut all, "t", "first");
    added(&mut all, "t", "add a");
    altered(&mut all, "t", "second");
    created(&mut all, &["v"]);
    added(&mut all, "t", "add b");
    added(&mut all, "t", "add c");
    assert_eq!(texts(&all), ["make t", "add a", "second", "make v", "add b", "add c"]);
    let reader = |name: &str, is_kept| Reader { name: name.into(), reads: vec!["t".into()], is_kept };
    let found = |all: &DdlLog, reader: Reader| {
        all.columns_added_since(&[reader]).map(|(reader, table)| format!("{reader} {table}"))
    };
    assert_eq!(found(&all, reader("v", false)).as_deref(), Some("v t"));
    // It has no stored plan.
    assert_eq!(found(&all, reader("v", true)).as_deref(), Some("v t"));
    created(&mut all, &["w"]);
    assert_eq!(found(&all, reader("w", false)), None);
    renamed(&mut all, "t", "u");
    dropped(&mut all, &["v", "w"]);
    let renames = "ALTER TABLE public.t RENAME TO public.u";
    assert_eq!(texts(&all), ["make t", "add a", "second", "add b", "add c", renames]);
    dropped(&mut all, &["u"]);
    assert!(texts(&all).is_empty());
}

fn replaced(log: &mut DdlLog, name: &str, dependants: &[&str]) {
    let dependants = dependants.iter().map(|name| (*name).into()).collect();
    let statement = format!("make {name} anew");
    let changes =
        DdlChanges { changes: vec![DdlChange::Replaced { name: name.into(), statement, dependants }] };
    log.change(changes, &changed(&["replace"]), Standing::default());
}

#[test]
fn what_has_another_query_stands_behind_what_that_reads_and_before_what_reads_it() {
    let mut all = DdlLog::default();
    created(&mut all, &["s", "x"]);
    all.state(set("on_error", "keep"));
    created(&mut all, &["y"]);
    all.state(set("on_error", "fail"));
    all.state(set("batch_interval", "1 second"));
    created(&mut all, &["t"]);
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
    let mut all = DdlLog::default();
    created(&mut all, &["x"]);
    ["first", "drop", "second", "drop"].iter().for_each(|text| altered(&mut all, "x", text));
    assert_eq!(texts(&all), ["make x", "second", "drop"]);
    altered(&mut all, "x", "third");
    assert_eq!(texts(&all), ["make x", "third"]);
}

fn extended(log: &mut DdlLog, name: &str, statement: &str) {
    let changes = vec![DdlChange::Extended { name: name.into(), statement: statement.into() }];
    log.change(DdlChanges { changes }, &changed(&["extend"]), Standing::default());
}

#[test]
fn a_longer_query_comes_in_its_place_behind_what_reads_the_shorter_one() {
    let mut all = DdlLog::default();
    created(&mut all, &["t", "m", "v"]);
    extended(&mut all, "m", "extend m");
    all.state(set("on_error", "keep"));
    extended(&mut all, "m", "extend m again");
    created(&mut all, &["w"]);
    extended(&mut all, "m", "extend m for w");
    let expected =
        ["make t", "make m", "make v", "on_error = keep", "extend m again", "make w", "extend m for w"];
    assert_eq!(texts(&all), expected);
    assert!(all.is_extended_behind("m", &["v".into()]));
    assert!(!all.is_extended_behind("v", &["w".into()]));
    let reader =
        |name: &str, reads: &str| Reader { name: name.into(), reads: vec![reads.into()], is_kept: false };
    let found = |readers: &[Reader]| {
        all.columns_added_since(readers).map(|(reader, relation)| format!("{reader} {relation}"))
    };
    assert_eq!(found(&[reader("v", "m")]).as_deref(), Some("v m"));
    assert_eq!(found(&[reader("m", "t"), reader("v", "m")]), None);
    dropped(&mut all, &["v", "w"]);
    assert!(!all.is_extended_behind("m", &["v".into()]));
    assert_eq!(texts(&all), ["make t", "make m", "on_error = keep", "extend m for w"]);
    replaced(&mut all, "m", &[]);
    assert_eq!(texts(&all), ["make t", "on_error = keep", "make m anew"]);
}
