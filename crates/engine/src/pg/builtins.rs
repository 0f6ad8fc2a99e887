//! The built-in functions and operators in PostgreSQL's catalog: those of version 15 that exist here, with its OIDs.

use std::sync::LazyLock;

use super::facts::OWNER;
use super::pg_types as types;
use super::rows::Rows;

/// A built-in function as `functions.txt` lists it.
#[derive(Debug)]
pub(super) struct BuiltIn {
    pub(super) oid: i64,
    pub(super) name: &'static str,
    /// `f` (function), `a` (aggregate) or `w` (window function).
    pub(super) kind: char,
    is_strict: bool,
    volatility: char,
    returns_set: bool,
    returns: i64,
    pub(super) arguments: Vec<i64>,
}

/// An operator as `operators.txt` lists it. A side without an operand has OID 0.
#[derive(Debug)]
pub(super) struct Operator {
    pub(super) oid: i64,
    pub(super) name: &'static str,
    pub(super) operands: [i64; 2],
    result: i64,
}

static FUNCTIONS: LazyLock<Vec<BuiltIn>> =
    LazyLock::new(|| lines(include_str!("functions.txt")).filter_map(function).collect());

static OPERATORS: LazyLock<Vec<Operator>> =
    LazyLock::new(|| lines(include_str!("operators.txt")).filter_map(operator).collect());

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

fn function(line: &'static str) -> Option<BuiltIn> {
    let mut words = line.split(' ');
    let (oid, name, mut flags) = (words.next()?.parse().ok()?, words.next()?, words.next()?.chars());
    let returns = words.next()?.parse().ok()?;
    let arguments = words.next().unwrap_or_default().split(',').filter(|oid| !oid.is_empty());
    Some(BuiltIn {
        oid,
        name,
        kind: flags.next()?,
        is_strict: flags.next()? == 't',
        volatility: flags.next()?,
        returns_set: flags.next()? == 't',
        returns,
        arguments: arguments.map(|oid| oid.parse().ok()).collect::<Option<_>>()?,
    })
}

fn operator(line: &'static str) -> Option<Operator> {
    let mut words = line.split(' ');
    let (oid, name) = (words.next()?.parse().ok()?, words.next()?);
    let mut number = || words.next()?.parse().ok();
    Some(Operator { oid, name, operands: [number()?, number()?], result: number()? })
}

/// Returns the built-in functions, by OID.
pub(super) fn functions() -> &'static [BuiltIn] {
    &FUNCTIONS
}

/// Returns the function with this OID.
pub(super) fn function_of(oid: i64) -> Option<&'static BuiltIn> {
    FUNCTIONS.binary_search_by_key(&oid, |known| known.oid).ok().map(|at| &FUNCTIONS[at])
}

/// Returns the operators, by OID.
pub(super) fn operators() -> &'static [Operator] {
    &OPERATORS
}

/// Returns the operator with this OID.
pub(super) fn operator_of(oid: i64) -> Option<&'static Operator> {
    OPERATORS.binary_search_by_key(&oid, |known| known.oid).ok().map(|at| &OPERATORS[at])
}

/// Returns the names of types, separated by commas.
fn names(oids: &[i64], separator: &str) -> String {
    let name = |oid: &i64| if *oid == 0 { "none".to_string() } else { types::format(*oid, None) };
    oids.iter().map(name).collect::<Vec<_>>().join(separator)
}

impl BuiltIn {
    /// Returns the types of its arguments, such as `text, integer`.
    pub(super) fn argument_types(&self) -> String {
        names(&self.arguments, ", ")
    }

    /// Returns the type of its result, such as `SETOF text`.
    pub(super) fn result_type(&self) -> String {
        let name = types::format(self.returns, None);
        if self.returns_set { format!("SETOF {name}") } else { name }
    }

    /// Returns the text of its OID as a `regprocedure`, such as `substr(text,integer)`.
    pub(super) fn signature(&self) -> String {
        format!("{}({})", self.name, names(&self.arguments, ","))
    }
}

impl Operator {
    /// Returns the text of its OID as a `regoperator`, such as `+(integer,integer)`.
    pub(super) fn signature(&self) -> String {
        format!("{}({})", self.name, names(&self.operands, ",")).replace("none", "NONE")
    }
}

/// Fills `pg_proc` and `pg_operator`. Returns false for other tables.
pub(super) fn fill(table: &str, rows: &mut Rows) -> bool {
    match table {
        "pg_proc" => FUNCTIONS.iter().for_each(|function| {
            let is_internal = function.kind != 'f';
            rows.push(&[
                ("oid", function.oid.into()),
                ("proname", function.name.into()),
                ("pronamespace", 11.into()),
                ("proowner", OWNER.into()),
                ("prolang", 12.into()),
                ("procost", 1.into()),
                ("prorows", if function.returns_set { 1000 } else { 0 }.into()),
                ("prokind", function.kind.into()),
                ("proisstrict", function.is_strict.into()),
                ("proretset", function.returns_set.into()),
                ("provolatile", function.volatility.into()),
                ("proparallel", 's'.into()),
                ("pronargs", function.arguments.len().into()),
                ("prorettype", function.returns.into()),
                ("proargtypes", function.arguments.clone().into()),
                ("prosrc", if is_internal { "aggregate_dummy" } else { function.name }.into()),
            ]);
        }),
        "pg_operator" => OPERATORS.iter().for_each(|operator| {
            let [left, right] = operator.operands;
            rows.push(&[
                ("oid", operator.oid.into()),
                ("oprname", operator.name.into()),
                ("oprnamespace", 11.into()),
                ("oprowner", OWNER.into()),
                ("oprkind", if left == 0 { 'l' } else { 'b' }.into()),
                ("oprleft", left.into()),
                ("oprright", right.into()),
                ("oprresult", operator.result.into()),
            ]);
        }),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_and_has_known_types() {
        assert_eq!(functions().len(), lines(include_str!("functions.txt")).count());
        assert_eq!(operators().len(), lines(include_str!("operators.txt")).count());
        assert!(functions().is_sorted_by_key(|known| known.oid));
        assert!(operators().is_sorted_by_key(|known| known.oid));
        let of_functions =
            functions().iter().flat_map(|known| known.arguments.iter().chain([&known.returns]));
        let of_operators = operators().iter().flat_map(|known| known.operands.iter().chain([&known.result]));
        for oid in of_functions.chain(of_operators).filter(|oid| **oid != 0) {
            assert!(types::of(*oid).is_some(), "type {oid}");
        }
    }

    #[test]
    fn signatures_are_those_of_postgresql() {
        assert_eq!(function_of(871).map(BuiltIn::signature).as_deref(), Some("upper(text)"));
        assert_eq!(operator_of(551).map(Operator::signature).as_deref(), Some("+(integer,integer)"));
        assert_eq!(operator_of(596).map(Operator::signature).as_deref(), Some("|/(NONE,double precision)"));
        assert!(function_of(1).is_none() && operator_of(1).is_none());
    }
}
