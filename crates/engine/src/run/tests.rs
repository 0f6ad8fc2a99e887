//! The views of the loop without its thread: each test calls them over the owners of an idle engine.

use std::sync::mpsc::channel;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_delta::{Cut, Epoch, Timestamp};
use millstream_state::Files;
use tokio::sync::oneshot;

use super::*;
use crate::catalog::{Catalog, Definition, Intake, Object};
use crate::event::{Apart, Followed, Modification, Reply, Request};
use crate::{Following, Record};

/// An engine whose loop has no thread.
struct Idle {
    state: Loop,
    inbox: Receiver<Event>,
    _runtimes: [Runtime; 2],
}

impl Idle {
    /// Begins an engine under a manual clock, with the table `t (a BIGINT)`.
    fn with_table() -> Idle {
        let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let parts = Parts {
            history: History::default(),
            sequences: Arc::default(),
            recorder: None,
            listeners: Listeners::default(),
            execution: ExecutionOptions::default(),
            spill: Arc::new(Files::below(std::env::temp_dir())),
            memory_limit: None,
            time: Arc::new(|| Timestamp(100_000_000)),
            recovers: false,
            runtime: runtime(),
            steps: runtime(),
        };
        let (events, inbox) = channel();
        let (mut state, runtimes) = begin(Weak::new(), events, &Planner::new(), parts);
        state.setup.settings.clock = ClockKind::Manual;
        let intake = Intake::default();
        let schema = rows(&[]).schema();
        let definition =
            Definition::Table { schema: schema.clone(), key: Vec::new(), intake, watermark: None };
        let object = Object { name: "t".into(), ddl: String::new(), reads: Vec::new(), definition };
        let object = Arc::new(object);
        let mut catalog = Catalog::default();
        catalog.add(object.clone()).unwrap();
        state.setup.publish_catalog(catalog);
        state
            .tables
            .insert(object.name.clone(), table::Table::new(&object.name, &schema, &[], intake).unwrap());
        Idle { state, inbox, _runtimes: runtimes }
    }

    /// Sends an INSERT to the loop.
    fn insert(&mut self, values: &[i64]) -> oneshot::Receiver<Result<u64>> {
        let (reply, answer) = Reply::new();
        let modification = Modification::Insert { table: "t".into(), rows: vec![rows(values)] };
        self.state.react(Event::Modify { modification, idempotency_key: None, reply });
        answer
    }

    /// Handles the events that the loop has sent to itself.
    fn react_to_own(&mut self) {
        while let Ok(event) = self.inbox.try_recv() {
            self.state.react(event);
        }
    }
}

fn rows(values: &[i64]) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values.to_vec()))]).unwrap()
}

#[test]
fn a_statement_waits_until_its_table_is_no_longer_reserved() {
    let mut idle = Idle::with_table();
    let (reply, mut reservation) = Reply::new();
    idle.state.react(Event::Apart(Apart::Reserve { tables: vec!["t".into()], reply }));
    let reservation = reservation.try_recv().unwrap().unwrap();
    let mut answer = idle.insert(&[1]);
    assert!(answer.try_recv().is_err());
    drop(reservation);
    idle.react_to_own();
    assert_eq!(answer.try_recv().unwrap().unwrap(), 1);
    assert!(idle.state.tables["t"].is_changed());
}

#[test]
fn a_replayed_epoch_gets_its_number_its_time_and_its_rows() {
    let mut idle = Idle::with_table();
    let cut = Cut::new(Epoch(1), Timestamp(7));
    let record = Record { cut, changes: vec![("t".into(), Delta::insert(rows(&[1, 2])))] };
    let (reply, mut answer) = Reply::new();
    idle.state.epoch_replay().begin_replay(record, Vec::new(), reply);
    assert!(idle.state.waiters.replay.is_some());
    idle.state.replay_on(None);
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!((idle.state.clock.epoch, idle.state.clock.last()), (Epoch(1), Timestamp(7)));
    assert_eq!(idle.state.tables["t"].published().num_rows(), 2);
}

#[test]
fn a_subscription_gets_the_content_and_then_each_epoch() {
    let mut idle = Idle::with_table();
    idle.insert(&[1]);
    idle.state.run_epoch();
    let request = Request { followed: Followed::Relation("t".into()), following: Following::default() };
    let version = idle.state.setup.catalog.version;
    let mut opened = idle.state.subscribe(version, request).unwrap().unwrap();
    idle.insert(&[2, 3]);
    idle.state.run_epoch();
    idle.state.delivery().deliver_subscriptions();
    let portion = opened.receiver.try_recv().unwrap();
    let (cut, content) = portion.content.unwrap();
    assert_eq!((cut.epoch, content.num_rows()), (Epoch(1), Some(1)));
    let epochs: Vec<(Epoch, usize)> =
        portion.epochs.iter().map(|(cut, delta)| (cut.epoch, delta.num_rows())).collect();
    assert_eq!(epochs, [(Epoch(2), 2)]);
    idle.state.delivery().end_subscriptions_to(&["t".into()], "was dropped");
    assert!(idle.state.outputs.subscriptions.is_empty());
    assert!(opened.receiver.try_recv().is_err());
}

#[test]
fn a_subscription_to_an_older_catalog_is_planned_again() {
    let mut idle = Idle::with_table();
    let request = Request { followed: Followed::Relation("t".into()), following: Following::default() };
    assert!(idle.state.subscribe(0, request).unwrap().is_none());
    assert!(idle.state.outputs.subscriptions.is_empty());
}

#[test]
fn a_transaction_is_pinned_until_its_guard_is_dropped() {
    let mut idle = Idle::with_table();
    idle.insert(&[1]);
    idle.state.run_epoch();
    let begun = idle.state.pins().begin();
    assert_eq!(begun.tables.len(), 1);
    assert_eq!(idle.state.outputs.transactions.len(), 1);
    drop(begun);
    idle.react_to_own();
    assert!(idle.state.outputs.transactions.is_empty());
}

#[test]
fn a_flush_without_input_is_answered_at_once_and_one_with_input_after_its_batch() {
    let mut idle = Idle::with_table();
    let (reply, mut answer) = Reply::new();
    idle.state.answers().flush(reply);
    idle.state.answer_waiters();
    assert!(answer.try_recv().unwrap().is_ok());
    idle.insert(&[1]);
    let (reply, mut answer) = Reply::new();
    idle.state.answers().flush(reply);
    idle.state.answer_waiters();
    assert!(answer.try_recv().is_err());
    idle.state.work();
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!(idle.state.clock.epoch, Epoch(1));
}

#[test]
fn contents_name_the_relation_that_is_missing() {
    let idle = Idle::with_table();
    let contents = idle.state.read_view().contents();
    assert_eq!(contents.content_as("t", None).unwrap().num_rows(), Some(0));
    let error = contents.answered("u").unwrap_err();
    assert_eq!(error.message, "there is no relation \"u\"");
    let error = contents.answered("millstream.epochs").unwrap_err();
    assert_eq!(error.message, "there is no relation \"millstream.epochs\"");
    assert!(idle.state.read_view().answered("millstream.epochs").is_ok());
}

#[test]
fn a_changed_setting_is_checked_before_anything_takes_it() {
    let mut idle = Idle::with_table();
    idle.insert(&[1]);
    idle.state.run_epoch();
    let (reply, mut answer) = Reply::new();
    idle.state.set("clock".into(), "system".into(), reply);
    assert!(answer.try_recv().unwrap().is_ok());
    let (reply, mut answer) = Reply::new();
    idle.state.set("clock".into(), "manual".into(), reply);
    let error = answer.try_recv().unwrap().unwrap_err();
    assert_eq!(error.message, "the clock can't become manual after the first epoch");
    assert_eq!(idle.state.setup.settings.clock, ClockKind::System);
}
