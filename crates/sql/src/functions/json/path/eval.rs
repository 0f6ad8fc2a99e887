//! Evaluates a path over a value, as PostgreSQL's `jsonpath_exec.c` does.

use std::cell::Cell;
use std::cmp::Ordering;

use super::numbers;
use super::syntax::{Accessor, Comparison, Node, Operator, Path, Predicate, Sign};
use super::times::{self, Time};
use crate::error::Error;
use crate::functions::json::value::Value;
use crate::sqlstate;

/// An error of evaluation. A soft one makes a predicate unknown, and is suppressed if the caller is silent.
#[derive(Debug)]
pub(super) enum Fail {
    Soft(Error),
    Hard(Error),
    /// The end of a search that only needs one item, which was found.
    Found,
}

impl From<Error> for Fail {
    fn from(error: Error) -> Fail {
        Fail::Soft(error)
    }
}

pub(super) type Evaluated<T> = Result<T, Fail>;

pub(super) fn soft(message: impl Into<String>, code: &'static str) -> Fail {
    Fail::Soft(Error::invalid(message).code(code))
}

/// An item of a sequence.
#[derive(Debug, Clone)]
pub(super) enum Item<'v> {
    Part(&'v Value),
    Made(Value),
    Time(Time),
}

impl<'v> Item<'v> {
    /// Returns the item as JSON; none for a time.
    pub(super) fn value(&self) -> Option<&Value> {
        match self {
            Item::Part(value) => Some(value),
            Item::Made(value) => Some(value),
            Item::Time(_) => None,
        }
    }

    pub(super) fn into_value(self) -> Value {
        match self {
            Item::Part(value) => value.clone(),
            Item::Made(value) => value,
            Item::Time(time) => Value::String(time.text()),
        }
    }

    pub(super) fn number(&self) -> Option<&str> {
        match self.value() {
            Some(Value::Number(digits)) => Some(digits),
            _ => None,
        }
    }

    /// Returns the elements of an array.
    pub(super) fn elements(&self) -> Option<Vec<Item<'v>>> {
        match self {
            Item::Part(Value::Array(elements)) => Some(elements.iter().map(Item::Part).collect()),
            Item::Made(Value::Array(elements)) => Some(elements.iter().cloned().map(Item::Made).collect()),
            _ => None,
        }
    }

    /// Returns the members of an object.
    fn members(&self) -> Option<Vec<(&str, Item<'v>)>> {
        match self {
            Item::Part(Value::Object(members)) => {
                Some(members.iter().map(|(name, value)| (name.as_str(), Item::Part(value))).collect())
            }
            Item::Made(Value::Object(members)) => {
                Some(members.iter().map(|(name, value)| (name.as_str(), Item::Made(value.clone()))).collect())
            }
            _ => None,
        }
    }

    fn member(&self, name: &str) -> Option<Item<'v>> {
        match self {
            Item::Part(Value::Object(members)) => {
                members.iter().find(|(known, _)| known == name).map(|(_, value)| Item::Part(value))
            }
            Item::Made(Value::Object(members)) => {
                members.iter().find(|(known, _)| known == name).map(|(_, value)| Item::Made(value.clone()))
            }
            _ => None,
        }
    }
}

/// The surroundings of an evaluation.
pub(super) struct Context<'v> {
    pub(super) root: &'v Value,
    pub(super) variables: Option<&'v Value>,
    pub(super) strict: bool,
    /// True if times with and without a zone may be compared.
    pub(super) zones: bool,
    /// The number of nodes evaluated so far.
    pub(super) steps: Cell<usize>,
}

/// The most nodes that one evaluation may visit: `$.**.**.**` visits many times those of the value.
const STEPS_MAX: usize = 20_000_000;

/// The surroundings of an expression.
#[derive(Clone, Copy)]
struct Scope<'s, 'v> {
    current: &'s Item<'v>,
    /// The subscript of the last element of the array around.
    last: Option<i64>,
}

/// Receives the items of a sequence one by one. Those before an error count if the caller is silent.
type Emit<'e, 'v> = dyn FnMut(Item<'v>) -> Evaluated<()> + 'e;

impl<'v> Context<'v> {
    /// Returns the items that a path finds, and the error that ended the search.
    pub(super) fn query(&self, path: &Path) -> (Vec<Item<'v>>, Option<Fail>) {
        let root = Item::Part(self.root);
        let mut items = Vec::new();
        let result = self.node(&path.root, Scope { current: &root, last: None }, &mut |item| {
            self.step()?;
            items.push(item);
            Ok(())
        });
        (items, result.err())
    }

    /// Tells if a path finds an item. In lax mode, the search ends with the first one.
    pub(super) fn finds(&self, path: &Path) -> Evaluated<bool> {
        let root = Item::Part(self.root);
        self.is_any(&path.root, Scope { current: &root, last: None })
    }

    fn is_any(&self, node: &Node, scope: Scope<'_, 'v>) -> Evaluated<bool> {
        let mut found = false;
        let result = self.node(node, scope, &mut |_| {
            self.step()?;
            found = true;
            if self.strict { Ok(()) } else { Err(Fail::Found) }
        });
        match result {
            Ok(()) | Err(Fail::Found) => Ok(found),
            Err(fail) => Err(fail),
        }
    }

    /// Returns an item as JSON. Copies count like the visits of nodes.
    pub(super) fn taken(&self, item: Item<'v>) -> Evaluated<Value> {
        if let Item::Part(value) = &item {
            self.count(value)?;
        }
        Ok(item.into_value())
    }

    fn count(&self, value: &Value) -> Evaluated<()> {
        self.step()?;
        match value {
            Value::Array(elements) => elements.iter().try_for_each(|element| self.count(element)),
            Value::Object(members) => members.iter().try_for_each(|(_, member)| self.count(member)),
            _ => Ok(()),
        }
    }

    fn list(&self, node: &Node, scope: Scope<'_, 'v>) -> Evaluated<Vec<Item<'v>>> {
        let mut items = Vec::new();
        self.node(node, scope, &mut |item| {
            self.step()?;
            items.push(item);
            Ok(())
        })?;
        Ok(items)
    }

    fn node(&self, node: &Node, scope: Scope<'_, 'v>, emit: &mut Emit<'_, 'v>) -> Evaluated<()> {
        self.step()?;
        emit(match node {
            Node::Root => Item::Part(self.root),
            Node::Current => scope.current.clone(),
            Node::Literal(value) => Item::Made(value.clone()),
            Node::Last => match scope.last {
                Some(last) => Item::Made(Value::Number(last.to_string())),
                None => {
                    let message = "LAST is allowed only in array subscripts";
                    return Err(Fail::Hard(Error::invalid(message).code(sqlstate::SYNTAX_ERROR)));
                }
            },
            Node::Variable(name) => self.variable(name)?,
            Node::Predicate(predicate) => Item::Made(match self.predicate(predicate, scope)? {
                Some(flag) => Value::Bool(flag),
                None => Value::Null,
            }),
            Node::Sign(sign, operand) => return self.signed(*sign, operand, scope, emit),
            Node::Arithmetic(operator, left, right) => self.arithmetic(*operator, left, right, scope)?,
            Node::Access(base, accessor) => {
                // What `.**` finds need not have the parts that follow.
                let lenient = !self.strict || has_descendants(base);
                return self.node(base, scope, &mut |item| self.access(item, accessor, lenient, scope, emit));
            }
        })
    }

    fn step(&self) -> Evaluated<()> {
        self.steps.set(self.steps.get() + 1);
        match self.steps.get() > STEPS_MAX {
            true => Err(Fail::Hard(
                Error::invalid(format!("a jsonpath visits more than {STEPS_MAX} items"))
                    .code(sqlstate::PROGRAM_LIMIT_EXCEEDED),
            )),
            false => Ok(()),
        }
    }

    fn variable(&self, name: &str) -> Evaluated<Item<'v>> {
        let found = match self.variables {
            Some(Value::Object(members)) => members.iter().find(|(known, _)| known == name),
            _ => None,
        };
        match found {
            Some((_, value)) => Ok(Item::Part(value)),
            None => Err(Fail::Hard(
                Error::invalid(format!("could not find jsonpath variable \"{name}\""))
                    .code(sqlstate::UNDEFINED_OBJECT),
            )),
        }
    }

    /// Evaluates a node. In lax mode, arrays are replaced by their elements.
    fn unwrapped(&self, node: &Node, scope: Scope<'_, 'v>) -> Evaluated<Vec<Item<'v>>> {
        let items = self.list(node, scope)?;
        Ok(if self.strict { items } else { flat(items) })
    }

    fn signed(
        &self,
        sign: Sign,
        operand: &Node,
        scope: Scope<'_, 'v>,
        emit: &mut Emit<'_, 'v>,
    ) -> Evaluated<()> {
        for item in self.unwrapped(operand, scope)? {
            let Some(digits) = item.number() else {
                let symbol = if sign == Sign::Plus { "+" } else { "-" };
                let message = format!("operand of unary jsonpath operator {symbol} is not a numeric value");
                return Err(soft(message, sqlstate::DATA_EXCEPTION));
            };
            let item = match sign {
                Sign::Plus => item,
                Sign::Minus => Item::Made(Value::Number(negative(digits))),
            };
            emit(item)?;
        }
        Ok(())
    }

    fn arithmetic(
        &self,
        operator: Operator,
        left: &Node,
        right: &Node,
        scope: Scope<'_, 'v>,
    ) -> Evaluated<Item<'v>> {
        let operand = |node: &Node, side: &str| -> Evaluated<String> {
            match &self.unwrapped(node, scope)?[..] {
                [item] if item.number().is_some() => Ok(item.number().unwrap_or_default().to_string()),
                _ => {
                    let symbol = operator.symbol();
                    let message =
                        format!("{side} operand of jsonpath operator {symbol} is not a single numeric value");
                    Err(soft(message, sqlstate::DATA_EXCEPTION))
                }
            }
        };
        let (left, right) = (operand(left, "left")?, operand(right, "right")?);
        Ok(Item::Made(Value::Number(numbers::compute(operator, &left, &right)?)))
    }

    fn access(
        &self,
        item: Item<'v>,
        accessor: &Accessor,
        lenient: bool,
        scope: Scope<'_, 'v>,
        emit: &mut Emit<'_, 'v>,
    ) -> Evaluated<()> {
        self.step()?;
        match accessor {
            Accessor::Descendants(first, last) => descend(&item, 0, *first, *last, emit),
            Accessor::AnyElement => match item.elements() {
                Some(elements) => elements.into_iter().try_for_each(emit),
                None if !self.strict => emit(item),
                None if lenient => Ok(()),
                None => Err(not_an("wildcard array accessor", "an array")),
            },
            Accessor::Elements(subscripts) => self.elements(&item, subscripts, lenient, scope, emit),
            Accessor::Method(method) if !times::unwraps(method) => {
                times::apply(self, method, item, lenient)?.into_iter().try_for_each(emit)
            }
            _ => {
                let parts = if self.strict { None } else { item.elements() };
                for part in parts.unwrap_or_else(|| vec![item]) {
                    self.part(part, accessor, lenient, scope, emit)?;
                }
                Ok(())
            }
        }
    }

    /// Applies an accessor for which arrays are unwrapped in lax mode.
    fn part(
        &self,
        item: Item<'v>,
        accessor: &Accessor,
        lenient: bool,
        scope: Scope<'_, 'v>,
        emit: &mut Emit<'_, 'v>,
    ) -> Evaluated<()> {
        let is_object = matches!(item.value(), Some(Value::Object(_)));
        match accessor {
            Accessor::Member(name) => match item.member(name) {
                Some(found) => emit(found),
                None if lenient => Ok(()),
                None if is_object => {
                    let message = format!("JSON object does not contain key \"{name}\"");
                    Err(soft(message, sqlstate::SQL_JSON_MEMBER_NOT_FOUND))
                }
                None => Err(not_an("member accessor", "an object")),
            },
            Accessor::AnyMember => match item.members() {
                Some(members) => members.into_iter().try_for_each(|(_, value)| emit(value)),
                None if lenient => Ok(()),
                None => Err(not_an("wildcard member accessor", "an object")),
            },
            Accessor::Filter(predicate) => {
                match self.predicate(predicate, Scope { current: &item, last: scope.last })? {
                    Some(true) => emit(item),
                    _ => Ok(()),
                }
            }
            Accessor::Method(method) => {
                times::apply(self, method, item, lenient)?.into_iter().try_for_each(emit)
            }
            _ => Ok(()),
        }
    }

    fn elements(
        &self,
        item: &Item<'v>,
        subscripts: &[(Node, Option<Node>)],
        lenient: bool,
        scope: Scope<'_, 'v>,
        emit: &mut Emit<'_, 'v>,
    ) -> Evaluated<()> {
        let elements = match item.elements() {
            Some(elements) => elements,
            None if !self.strict => vec![item.clone()],
            None if lenient => return Ok(()),
            None => return Err(not_an("array accessor", "an array")),
        };
        let count = elements.len() as i64;
        let scope = Scope { current: scope.current, last: Some(count - 1) };
        for (first, last) in subscripts {
            let first = self.subscript(first, scope)?;
            let last = last.as_ref().map_or(Ok(first), |last| self.subscript(last, scope))?;
            if !lenient && (first < 0 || first > last || last >= count) {
                let message = "jsonpath array subscript is out of bounds";
                return Err(soft(message, sqlstate::INVALID_SQL_JSON_SUBSCRIPT));
            }
            for place in first.max(0)..=last.min(count - 1) {
                elements.get(place as usize).cloned().map_or(Ok(()), &mut *emit)?;
            }
        }
        Ok(())
    }

    fn subscript(&self, node: &Node, scope: Scope<'_, 'v>) -> Evaluated<i64> {
        let items = self.list(node, scope)?;
        let [item] = &items[..] else {
            let message = "jsonpath array subscript is not a single numeric value";
            return Err(soft(message, sqlstate::INVALID_SQL_JSON_SUBSCRIPT));
        };
        let Some(digits) = item.number() else {
            let message = "jsonpath array subscript is not a single numeric value";
            return Err(soft(message, sqlstate::INVALID_SQL_JSON_SUBSCRIPT));
        };
        numbers::truncated(digits).ok_or_else(|| {
            soft("jsonpath array subscript is out of integer range", sqlstate::INVALID_SQL_JSON_SUBSCRIPT)
        })
    }

    /// Evaluates a predicate; none means unknown.
    fn predicate(&self, predicate: &Predicate, scope: Scope<'_, 'v>) -> Evaluated<Option<bool>> {
        Ok(match predicate {
            Predicate::And(one, other) => match self.predicate(one, scope)? {
                Some(false) => Some(false),
                known => match self.predicate(other, scope)? {
                    Some(true) => known,
                    Some(false) => Some(false),
                    None => None,
                },
            },
            Predicate::Or(one, other) => match self.predicate(one, scope)? {
                Some(true) => Some(true),
                known => match self.predicate(other, scope)? {
                    Some(false) => known,
                    Some(true) => Some(true),
                    None => None,
                },
            },
            Predicate::Not(inner) => self.predicate(inner, scope)?.map(|flag| !flag),
            Predicate::IsUnknown(inner) => Some(self.predicate(inner, scope)?.is_none()),
            Predicate::Exists(node) => known(self.is_any(node, scope))?,
            Predicate::Compare(comparison, left, right) => {
                let (Some(left), Some(right)) =
                    (known(self.unwrapped(left, scope))?, known(self.unwrapped(right, scope))?)
                else {
                    return Ok(None);
                };
                let pairs = left.iter().flat_map(|one| right.iter().map(move |other| (one, other)));
                self.any(pairs.map(|(one, other)| self.compare(*comparison, one, other)))?
            }
            Predicate::StartsWith(node, initial) => {
                let (Some(items), Some(initials)) =
                    (known(self.unwrapped(node, scope))?, known(self.list(initial, scope))?)
                else {
                    return Ok(None);
                };
                let text = |item: &Item<'v>| match item.value() {
                    Some(Value::String(text)) => Some(text.clone()),
                    _ => None,
                };
                let initials: Vec<Option<String>> = initials.iter().map(text).collect();
                let starts = |item: &Item<'v>, initial: &Option<String>| {
                    Ok(text(item).zip(initial.as_ref()).map(|(text, initial)| text.starts_with(initial)))
                };
                let pairs = items.iter().flat_map(|item| initials.iter().map(move |initial| (item, initial)));
                self.any(pairs.map(|(item, initial)| starts(item, initial)))?
            }
            Predicate::Matches(node, regex) => {
                let Some(items) = known(self.unwrapped(node, scope))? else { return Ok(None) };
                self.any(items.iter().map(|item| match item.value() {
                    Some(Value::String(text)) => Ok(Some(regex.is_match(text))),
                    _ => Ok(None),
                }))?
            }
        })
    }

    /// Returns true if a result is. In strict mode, a result that is unknown makes all unknown.
    fn any(&self, results: impl Iterator<Item = Evaluated<Option<bool>>>) -> Evaluated<Option<bool>> {
        let (mut found, mut unknown) = (false, false);
        for result in results {
            match result? {
                None if self.strict => return Ok(None),
                None => unknown = true,
                Some(true) if !self.strict => return Ok(Some(true)),
                Some(flag) => found |= flag,
            }
        }
        Ok(if found {
            Some(true)
        } else if unknown {
            None
        } else {
            Some(false)
        })
    }

    fn compare(&self, comparison: Comparison, one: &Item<'v>, other: &Item<'v>) -> Evaluated<Option<bool>> {
        let order = match (one, other) {
            (Item::Time(one), Item::Time(other)) => one.compare(other, self.zones)?,
            _ => match (one.value(), other.value()) {
                (Some(Value::Null), Some(Value::Null)) => Some(Ordering::Equal),
                // Null differs from all other values, and has no order with them.
                (Some(Value::Null), _) | (_, Some(Value::Null)) => {
                    return Ok(Some(comparison == Comparison::NotEqual));
                }
                (Some(Value::Bool(one)), Some(Value::Bool(other))) => Some(one.cmp(other)),
                (Some(Value::Number(one)), Some(Value::Number(other))) => Some(numbers::compare(one, other)),
                (Some(Value::String(one)), Some(Value::String(other))) => Some(one.cmp(other)),
                _ => None,
            },
        };
        Ok(order.map(|order| match comparison {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }))
    }
}

/// Replaces arrays by their elements.
fn flat(items: Vec<Item<'_>>) -> Vec<Item<'_>> {
    items.into_iter().flat_map(|item| item.elements().unwrap_or_else(|| vec![item])).collect()
}

/// Returns none for a soft error.
fn known<T>(result: Evaluated<T>) -> Evaluated<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Fail::Soft(_)) => Ok(None),
        Err(hard) => Err(hard),
    }
}

fn not_an(accessor: &str, expected: &str) -> Fail {
    let code = match expected {
        "an array" => sqlstate::SQL_JSON_ARRAY_NOT_FOUND,
        _ => sqlstate::SQL_JSON_MEMBER_NOT_FOUND,
    };
    soft(format!("jsonpath {accessor} can only be applied to {expected}"), code)
}

fn negative(digits: &str) -> String {
    match digits.strip_prefix('-') {
        Some(positive) => positive.to_string(),
        None if numbers::compare(digits, "0").is_eq() => digits.to_string(),
        None => format!("-{digits}"),
    }
}

fn has_descendants(node: &Node) -> bool {
    match node {
        Node::Access(base, accessor) => {
            matches!(accessor, Accessor::Descendants(..)) || has_descendants(base)
        }
        _ => false,
    }
}

/// Finds the values from one level to another below an item.
fn descend<'v>(
    item: &Item<'v>,
    level: u32,
    first: u32,
    last: Option<u32>,
    emit: &mut Emit<'_, 'v>,
) -> Evaluated<()> {
    let parts = match item.elements() {
        Some(elements) => Some(elements),
        None => item.members().map(|members| members.into_iter().map(|(_, value)| value).collect()),
    };
    // `{last}` means the leaves below the item.
    let is_leaf = parts.is_none() && level > 0 && first == u32::MAX;
    if (level >= first && last.is_none_or(|last| level <= last)) || is_leaf {
        emit(item.clone())?;
    }
    if last.is_none_or(|last| level < last) {
        for part in parts.into_iter().flatten() {
            descend(&part, level + 1, first, last, emit)?;
        }
    }
    Ok(())
}
