//! Compares checks and XPaths with PostgreSQL 15, by `cases.txt`: the kind of a case, its text or path, a document, and the result,
//! with tabs between them.

use std::collections::HashMap;

use super::scan::Form;
use super::{paths, value};

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        out.push(match escaped {
            None => c,
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('e') => '\u{1e}',
            Some('u') => '\u{2}',
            Some(other) => other,
        });
    }
    out
}

fn checked(text: &str, form: Form) -> String {
    if value::check(text, form).is_ok() { "ok" } else { "error" }.to_string()
}

#[test]
fn results_are_those_of_postgresql() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/functions/xml/cases.txt");
    let cases = std::fs::read_to_string(path).unwrap();
    let prefixes = HashMap::from([("p", "http://p"), ("q", "http://q")].map(|(p, s)| (p.into(), s.into())));
    let mut wrong = Vec::new();
    for line in cases.lines().filter(|line| !line.starts_with('#')) {
        let parts: Vec<String> = line.split('\t').map(unescaped).collect();
        let [kind, text, document, expected] = &parts[..] else { panic!("{line}") };
        let found = match kind.as_str() {
            "content" => checked(text, Form::Content),
            "document" => checked(text, Form::Document),
            _ => match paths::strings(text, document, &prefixes) {
                Ok(found) => found.join("\u{1e}"),
                Err(_) => "error".to_string(),
            },
        };
        // A document has a declaration, which the type XML leaves out.
        let expected = &expected.replace("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", "");
        if found != *expected {
            wrong
                .push(format!("{kind} {text:?}\n  of {document:?}\n  gives {found:?}\n  not   {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
