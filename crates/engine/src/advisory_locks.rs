//! Advisory locks: `pg_advisory_lock(1)` and its kin. Programs that migrate a schema take them, so that one runs at a time.
//!
//! A lock is a number, or a pair of numbers. It belongs to a session until that releases it or ends, or to a transaction. Locks
//! are held in memory: a restart ends all sessions.
//!
//! A SELECT calls these functions once, with constants, before it runs: [`take`] replaces the calls by their results. So a
//! statement that waits can be cancelled, and holds no thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as PlanResult;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millstream_sql::{Error, Result, sqlstate};
use tokio::sync::Notify;

/// A number, or a pair of numbers; a pair is never equal to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    One(i64),
    Two(i32, i32),
}

/// A lock that a session holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hold {
    owner: u64,
    is_shared: bool,
    /// True if the end of the transaction releases it.
    in_transaction: bool,
}

/// The locks of an engine.
#[derive(Debug, Default)]
pub(crate) struct AdvisoryLocks {
    state: Mutex<State>,
    released: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The holds of each lock. One that is taken twice must be released twice.
    held: BTreeMap<Key, Vec<Hold>>,
    /// The lock that each session waits for.
    waiting: BTreeMap<u64, Key>,
}

impl State {
    /// Takes a lock. Returns false if another session holds it.
    fn try_take(&mut self, key: Key, hold: Hold) -> bool {
        let holds = self.held.entry(key).or_default();
        let conflicts = |other: &Hold| other.owner != hold.owner && !(other.is_shared && hold.is_shared);
        let is_free = !holds.iter().any(conflicts);
        if is_free {
            holds.push(hold);
        }
        is_free
    }

    /// Releases a lock once. Returns false if the session doesn't hold it.
    fn release(&mut self, key: Key, owner: u64, is_shared: bool) -> bool {
        let Some(holds) = self.held.get_mut(&key) else { return false };
        let hold = Hold { owner, is_shared, in_transaction: false };
        let Some(place) = holds.iter().position(|other| *other == hold) else { return false };
        holds.swap_remove(place);
        if holds.is_empty() {
            self.held.remove(&key);
        }
        true
    }

    fn release_all(&mut self, owner: u64, of_transaction: bool) {
        let is_left = |hold: &Hold| hold.owner != owner || (of_transaction != hold.in_transaction);
        self.held.values_mut().for_each(|holds| holds.retain(is_left));
        self.held.retain(|_, holds| !holds.is_empty());
    }

    /// Returns true if the holders of a lock wait, directly or through others, for one that a session holds.
    fn is_deadlock(&self, key: Key, session: u64) -> bool {
        let (mut seen, mut keys) = (Vec::new(), vec![key]);
        while let Some(key) = keys.pop() {
            for hold in self.held.get(&key).into_iter().flatten() {
                let Some(next) = self.waiting.get(&hold.owner).filter(|_| hold.owner != session) else {
                    continue;
                };
                let blocks = |hold: &Hold| hold.owner == session;
                if self.held.get(next).is_some_and(|holds| holds.iter().any(blocks)) {
                    return true;
                }
                if !seen.contains(next) {
                    seen.push(*next);
                    keys.push(*next);
                }
            }
        }
        false
    }
}

/// The locks of a session. They are released when it ends.
#[derive(Debug)]
pub(crate) struct SessionLocks {
    owner: u64,
    all: Arc<AdvisoryLocks>,
}

impl Drop for SessionLocks {
    fn drop(&mut self) {
        self.release_all(false);
        self.release_all(true);
    }
}

/// A wait for a lock, which ends with the statement.
struct Wait<'a>(&'a SessionLocks);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting.remove(&self.0.owner);
    }
}

impl SessionLocks {
    fn new(all: Arc<AdvisoryLocks>) -> SessionLocks {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        SessionLocks { owner: NEXT.fetch_add(1, Ordering::Relaxed), all }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.all.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, call: Call) -> Hold {
        Hold { owner: self.owner, is_shared: call.is_shared, in_transaction: call.in_transaction }
    }

    /// Waits until it has a lock.
    async fn take(&self, key: Key, call: Call) -> Result<()> {
        let wait = Wait(self);
        loop {
            let released = self.all.released.notified();
            tokio::pin!(released);
            // A release from now on is noticed.
            released.as_mut().enable();
            {
                let mut state = self.lock();
                if state.try_take(key, self.hold(call)) {
                    break;
                }
                if state.is_deadlock(key, self.owner) {
                    return Err(Error::invalid("deadlock detected: a session that holds the advisory lock waits for one of this session")
                        .hint("Take locks in the same order in all sessions.")
                        .code(sqlstate::DEADLOCK_DETECTED));
                }
                state.waiting.insert(self.owner, key);
            }
            released.await;
        }
        drop(wait);
        Ok(())
    }

    fn release(&self, key: Key, is_shared: bool) -> bool {
        let is_released = self.lock().release(key, self.owner, is_shared);
        self.all.released.notify_waiters();
        is_released
    }

    /// Releases all locks, or those of a transaction that has ended.
    pub(crate) fn release_all(&self, of_transaction: bool) {
        self.lock().release_all(self.owner, of_transaction);
        self.all.released.notify_waiters();
    }
}

/// The kinds of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Take,
    Try,
    Release,
    ReleaseAll,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Call {
    action: Action,
    is_shared: bool,
    in_transaction: bool,
}

const fn call(action: Action, is_shared: bool, in_transaction: bool) -> Call {
    Call { action, is_shared, in_transaction }
}

const FUNCTIONS: [(&str, Call); 11] = [
    ("pg_advisory_lock", call(Action::Take, false, false)),
    ("pg_advisory_lock_shared", call(Action::Take, true, false)),
    ("pg_advisory_xact_lock", call(Action::Take, false, true)),
    ("pg_advisory_xact_lock_shared", call(Action::Take, true, true)),
    ("pg_try_advisory_lock", call(Action::Try, false, false)),
    ("pg_try_advisory_lock_shared", call(Action::Try, true, false)),
    ("pg_try_advisory_xact_lock", call(Action::Try, false, true)),
    ("pg_try_advisory_xact_lock_shared", call(Action::Try, true, true)),
    ("pg_advisory_unlock", call(Action::Release, false, false)),
    ("pg_advisory_unlock_shared", call(Action::Release, true, false)),
    ("pg_advisory_unlock_all", call(Action::ReleaseAll, false, false)),
];

/// A function, which [`take`] replaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Function {
    name: &'static str,
    call: Call,
    signature: Signature,
}

/// Registers the functions.
pub(crate) fn register(registry: &mut dyn FunctionRegistry) -> PlanResult<()> {
    for (name, call) in FUNCTIONS {
        let signature = match call.action {
            Action::ReleaseAll => Signature::nullary(Volatility::Volatile),
            _ => Signature::user_defined(Volatility::Volatile),
        };
        registry.register_udf(Arc::new(ScalarUDF::from(Function { name, call, signature })))?;
    }
    Ok(())
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> PlanResult<Vec<DataType>> {
        let is_number = |found: &DataType| found.is_null() || found.is_integer();
        match found.len() {
            1 if found.iter().all(is_number) => Ok(vec![DataType::Int64]),
            2 if found.iter().all(is_number) => Ok(vec![DataType::Int32; 2]),
            _ => {
                Err(Error::invalid(format!("{} takes a BIGINT, or two numbers of type INT", self.name))
                    .into())
            }
        }
    }

    fn return_type(&self, _: &[DataType]) -> PlanResult<DataType> {
        Ok(match self.call.action {
            Action::Take | Action::ReleaseAll => DataType::Utf8View,
            Action::Try | Action::Release => DataType::Boolean,
        })
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        Err(Error::unsupported(format!("{} here", self.name))
            .hint("A SELECT calls it, with constants.")
            .into())
    }
}

/// Takes and releases the locks that a SELECT names, for the session with `locks`. Returns its plan with the results of these
/// calls.
pub(crate) async fn take(
    plan: LogicalPlan,
    locks: &OnceLock<SessionLocks>,
    all: &Arc<AdvisoryLocks>,
    in_transaction: bool,
) -> Result<LogicalPlan> {
    let mut calls: Vec<(Call, &'static str, Vec<Expr>)> = Vec::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                if let Expr::ScalarFunction(call) = part
                    && let Some(function) = call.func.inner().downcast_ref::<Function>()
                {
                    calls.push((function.call, function.name, call.args.clone()));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    if calls.is_empty() {
        return Ok(plan);
    }
    let locks = locks.get_or_init(|| SessionLocks::new(all.clone()));
    let mut results = Vec::with_capacity(calls.len());
    for (call, name, arguments) in calls {
        results.push((name, run(locks, call, key(name, &arguments)?).await?, arguments));
        if call.in_transaction && !in_transaction {
            locks.release_all(true);
        }
    }
    // Equal calls have their results in order.
    let mut result = |name: &str, arguments: &[Expr]| {
        let is_of =
            |(other, _, others): &(&str, ScalarValue, Vec<Expr>)| *other == name && *others == arguments;
        let place = results.iter().position(is_of).ok_or_else(|| Error::bug("a call has no result"))?;
        Ok::<_, Error>(results.remove(place).1)
    };
    let of_node = |node: LogicalPlan| {
        node.map_expressions(|expression| {
            expression.transform_down(|part| match &part {
                Expr::ScalarFunction(call) if call.func.inner().is::<Function>() => {
                    let value = result(call.func.name(), &call.args)?;
                    Ok(Transformed::yes(Expr::Literal(value, None)))
                }
                _ => Ok(Transformed::no(part)),
            })
        })
    };
    Ok(plan.transform_down_with_subqueries(of_node)?.data)
}

async fn run(locks: &SessionLocks, call: Call, key: Option<Key>) -> Result<ScalarValue> {
    let void = ScalarValue::Utf8View(Some(String::new()));
    Ok(match (call.action, key) {
        (Action::ReleaseAll, _) => {
            locks.release_all(false);
            void
        }
        (Action::Take, Some(key)) => {
            locks.take(key, call).await?;
            void
        }
        (Action::Try, Some(key)) => ScalarValue::Boolean(Some(locks.lock().try_take(key, locks.hold(call)))),
        (Action::Release, Some(key)) => ScalarValue::Boolean(Some(locks.release(key, call.is_shared))),
        (Action::Take, None) => ScalarValue::Utf8View(None),
        (Action::Try | Action::Release, None) => ScalarValue::Boolean(None),
    })
}

/// Returns the lock that a call names; none if a number is NULL, or if it has none.
fn key(name: &str, arguments: &[Expr]) -> Result<Option<Key>> {
    let constants = arguments.iter().map(|argument| match argument {
        Expr::Literal(value, _) => Ok(value),
        _ => {
            let error = Error::unsupported(format!("{name} with numbers that aren't constants"));
            Err(error.hint("Write the number, or a parameter."))
        }
    });
    Ok(match constants.collect::<Result<Vec<_>>>()?.as_slice() {
        [ScalarValue::Int64(Some(one))] => Some(Key::One(*one)),
        [ScalarValue::Int32(Some(one)), ScalarValue::Int32(Some(other))] => Some(Key::Two(*one, *other)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TAKE: Call = call(Action::Take, false, false);
    const SHARED: Call = call(Action::Take, true, false);
    const IN_TRANSACTION: Call = call(Action::Take, false, true);

    fn try_take(locks: &SessionLocks, key: Key, call: Call) -> bool {
        locks.lock().try_take(key, locks.hold(call))
    }

    #[test]
    fn a_lock_has_one_session_or_several_that_share_it() {
        let all = Arc::<AdvisoryLocks>::default();
        let [a, b] = [(); 2].map(|()| SessionLocks::new(all.clone()));
        assert!(try_take(&a, Key::One(1), TAKE) && try_take(&a, Key::One(1), TAKE));
        assert!(!try_take(&b, Key::One(1), TAKE) && try_take(&b, Key::Two(0, 1), TAKE));
        assert!(a.release(Key::One(1), false) && !try_take(&b, Key::One(1), SHARED));
        assert!(a.release(Key::One(1), false) && !a.release(Key::One(1), false));
        assert!(try_take(&b, Key::One(1), SHARED) && try_take(&a, Key::One(1), SHARED));
        assert!(!try_take(&a, Key::One(1), TAKE));
        drop(b);
        assert!(try_take(&a, Key::One(1), TAKE));
        assert!(try_take(&a, Key::One(2), IN_TRANSACTION) && !a.release(Key::One(2), false));
        a.release_all(true);
        let b = SessionLocks::new(all);
        assert!(try_take(&b, Key::One(2), TAKE) && !try_take(&b, Key::One(1), TAKE));
    }

    #[tokio::test]
    async fn waits_end_when_a_lock_is_free_or_in_a_circle() {
        let all = Arc::<AdvisoryLocks>::default();
        let [a, b] = [(); 2].map(|()| Arc::new(SessionLocks::new(all.clone())));
        a.take(Key::One(1), TAKE).await.unwrap();
        b.take(Key::One(2), TAKE).await.unwrap();
        let waits = tokio::spawn({
            let b = b.clone();
            async move { b.take(Key::One(1), TAKE).await }
        });
        while b.lock().waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        let error = a.take(Key::One(2), TAKE).await.unwrap_err();
        assert!(error.message.starts_with("deadlock detected"), "{error:?}");
        a.release_all(false);
        waits.await.unwrap().unwrap();
        // A wait that is cancelled leaves nothing behind.
        let wait = tokio::time::timeout(Duration::from_millis(1), a.take(Key::One(1), TAKE)).await;
        assert!(wait.is_err() && a.lock().waiting.is_empty());
    }
}
