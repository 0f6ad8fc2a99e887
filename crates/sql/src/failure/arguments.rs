//! Messages about the arguments of functions, with SQL's type names.

use super::values::with_sql_types;
use super::{lower_first, quoted};
use crate::error::Error;

/// The most forms of a function that a hint lists.
const FORMS_MAX: usize = 8;

/// The advice if a function has no form that can be shown.
const CAST: &str = "Cast the argument, as in x::TYPE.";

/// Rewords a message of the planner about arguments that a function doesn't take.
pub(super) fn reword(message: &str) -> Option<Error> {
    // Messages of our own functions about their arguments.
    if let Some((_, ours)) = message.split_once("user-defined coercion failed with: External error: ") {
        let ours = ours.split(" No function matches").next().unwrap_or(ours);
        let (text, hint) = ours.split_once("\nHINT: ").unzip();
        let error = Error::invalid(text.unwrap_or(ours).trim_end_matches('.'));
        return Some(error.maybe_hint(hint.map(|hint| format!("{}.", hint.trim_end_matches('.')))));
    }
    if let Some((problem, candidates)) = message.split_once(". No function matches") {
        let is_of_types = problem.contains("ailed to coerce arguments to satisfy a call")
            || problem.contains("user-defined coercion failed");
        let problem = call(candidates)
            .filter(|_| is_of_types)
            .map_or_else(|| lower_first(&with_sql_types(problem)), |(name, types)| doesnt_take(name, types));
        return Some(Error::invalid(problem).hint(hint(candidates)));
    }
    if message.contains("failed to match any signature") {
        let name = quoted(message, "Function '", '\'')?;
        let found = message.split_once("DataType: ").map(|(_, rest)| until_closed(rest));
        return Some(Error::invalid(doesnt_take(name, found.unwrap_or("these arguments"))).hint(CAST));
    }
    None
}

fn doesnt_take(name: &str, types: &str) -> String {
    format!("function \"{name}\" doesn't take {}", with_sql_types(types))
}

/// Returns the function and the types of ` the given name and argument types 'f(Int64, Utf8)'`.
fn call(candidates: &str) -> Option<(&str, &str)> {
    let (_, rest) = candidates.split_once("argument types '")?;
    let (name, types) = rest.split_once('(')?;
    Some((name, until_closed(types)))
}

/// Returns the text before a parenthesis that closes none in the text.
fn until_closed(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return &text[..at],
            ')' => depth -= 1,
            _ => {}
        }
    }
    text
}

/// Returns the forms of a function that can be written, each once.
fn hint(candidates: &str) -> String {
    let mut forms: Vec<String> = Vec::new();
    let listed = candidates.split_once("Candidate functions:").map_or("", |(_, list)| list);
    for form in listed.lines().map(str::trim).filter(|form| !form.is_empty()) {
        let form = written(form);
        if !form.contains("UserDefined") && !form.contains("DURATION") && !forms.contains(&form) {
            forms.push(form);
        }
    }
    match forms.is_empty() || forms.len() > FORMS_MAX {
        true => CAST.to_string(),
        false => format!("It takes {}. Cast the arguments, as in x::TYPE.", forms.join(" or ")),
    }
}

/// Returns a form with SQL's types, without their precision, and each of the alternatives `a/b` once.
fn written(form: &str) -> String {
    let mut form = with_sql_types(form);
    for digits in ["(0)", "(3)", "(6)"] {
        for name in ["TIMESTAMP", "TIMESTAMPTZ", "TIME"] {
            form = form.replace(&format!("{name}{digits}"), name);
        }
    }
    let Some((name, arguments)) = form.split_once('(') else { return form };
    let arguments = arguments.strip_suffix(')').unwrap_or(arguments);
    let once = |argument: &str| {
        let mut seen: Vec<&str> = Vec::new();
        argument.split('/').for_each(|one| {
            if !seen.contains(&one) {
                seen.push(one);
            }
        });
        seen.join("/")
    };
    let arguments: Vec<String> = arguments.split(", ").map(once).collect();
    format!("{name}({})", arguments.join(", "))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn check(call: &str, expected: &str) {
        Tables::new().table("t", "(a INT)", "VALUES (1)").fails(&format!("SELECT {call} AS x"), expected);
    }

    #[test]
    fn types_of_arguments_have_their_names_in_sql() {
        check(
            "to_char(true, '99.9')",
            "function \"to_char\" doesn't take BOOLEAN, TEXT\nHINT: It takes a time, an interval or a number, and a \
             pattern: to_char(now(), 'YYYY-MM-DD').",
        );
        check(
            "lpad(1)",
            "function \"lpad\" doesn't take BIGINT\nHINT: It takes lpad(TEXT, BIGINT) or lpad(TEXT, BIGINT, TEXT) or \
             lpad(BYTEA, BIGINT) or lpad(BYTEA, BIGINT, BYTEA). Cast the arguments, as in x::TYPE.",
        );
        check(
            "ln(DATE '2020-01-01')",
            "function \"ln\" doesn't take DATE\nHINT: It takes ln(DOUBLE PRECISION/REAL). Cast the arguments, as in \
             x::TYPE.",
        );
        check(
            "coalesce(1, DATE '2024-01-01')",
            "function \"coalesce\" doesn't take BIGINT, DATE\nHINT: Cast the argument, as in x::TYPE.",
        );
        check(
            "sum(TIMESTAMP '2024-01-01 00:00:00')",
            "function \"sum\" doesn't take TIMESTAMP\nHINT: Cast the argument, as in x::TYPE.",
        );
        check("true + 1", "cannot coerce arithmetic expression BOOLEAN + BIGINT to valid types");
    }
}
