//! Values of type XML: their check, their form, and the functions that put them together.

use super::names::of_identifier;
use super::nodes::quote;
use super::scan::{self, Declaration, Form, Purpose, declaration};
use crate::error::{Error, Result};
use crate::sqlstate;

/// Fails if a text isn't well-formed.
pub(super) fn check(text: &str, form: Form) -> Result<()> {
    let (what, code) = match form {
        Form::Document => ("invalid XML document", sqlstate::INVALID_XML_DOCUMENT),
        Form::Content => ("invalid XML content", sqlstate::INVALID_XML_CONTENT),
    };
    let wrong = |problem: String| {
        Error::invalid(format!("{what}: {problem}"))
            .hint("Write < and & as &lt; and &amp;, and close each element.")
            .code(code)
    };
    let mut read_as = form;
    if form == Form::Content {
        let found =
            declaration(text).map_err(|problem| wrong(format!("invalid XML declaration: {problem}")))?;
        if scan::has_doctype(&text[found.map_or(0, |found| found.end)..]) {
            read_as = Form::Document;
        }
    }
    scan::read(text, Purpose::Check(read_as)).map_err(|fault| wrong(fault.in_line(text)))?;
    Ok(())
}

/// Returns the form in which a value is stored: PostgreSQL's output.
pub(super) fn canonical(text: &str, form: Form) -> Result<String> {
    check(text, form)?;
    Ok(shown(text))
}

/// True if a value is a document.
pub(super) fn is_document(text: &str) -> bool {
    check(text, Form::Document).is_ok()
}

/// Returns a value with its declaration as PostgreSQL shows it: left out if it says nothing.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let found = declared(text);
    let rest = &text[found.as_ref().map_or(0, |found| found.end)..];
    let (version, standalone) = found.map_or((None, None), |found| (Some(found.version), found.standalone));
    match declare(version, standalone, &mut out) {
        true => out.push_str(rest),
        false => out.push_str(rest.strip_prefix('\n').unwrap_or(rest)),
    }
    out
}

fn declared(text: &str) -> Option<Declaration<'_>> {
    declaration(text).ok().flatten()
}

/// Appends a declaration, unless it says nothing. Returns true if there is one.
fn declare(version: Option<&str>, standalone: Option<bool>, out: &mut String) -> bool {
    let version = version.unwrap_or("1.0");
    if version == "1.0" && standalone.is_none() {
        return false;
    }
    out.extend(["<?xml version=\"", version, "\""]);
    if let Some(standalone) = standalone {
        out.extend([" standalone=\"", if standalone { "yes" } else { "no" }, "\""]);
    }
    out.push_str("?>");
    true
}

/// Joins values. The result has the version and the flag that all of them have; none for no values.
pub(super) fn concat<'v>(values: impl Iterator<Item = &'v str>) -> Option<String> {
    let mut joined = String::new();
    let mut version: Option<Option<&str>> = None;
    let mut standalone: Option<Option<bool>> = None;
    for value in values {
        let found = declared(value);
        joined.push_str(&value[found.as_ref().map_or(0, |found| found.end)..]);
        let own = found.as_ref().map(|found| found.version);
        version = Some(match version {
            None => own,
            Some(known) => known.filter(|known| own == Some(*known)),
        });
        let own = found.and_then(|found| found.standalone);
        standalone = Some(match standalone {
            None => own,
            // A value without the flag wins, and then one that isn't standalone.
            Some(known) => known.zip(own).map(|(known, own)| known && own),
        });
    }
    let (version, standalone) = (version?, standalone?);
    let mut out = String::new();
    declare(version, standalone, &mut out);
    out.push_str(&joined);
    Some(out)
}

/// Returns a comment.
pub(super) fn comment(text: &str) -> Result<String> {
    if text.contains("--") || text.ends_with('-') {
        return Err(Error::invalid("invalid XML comment")
            .hint("A comment has no --, and doesn't end with -.")
            .code(sqlstate::INVALID_XML_COMMENT));
    }
    Ok(format!("<!--{text}-->"))
}

/// Returns a processing instruction.
pub(super) fn instruction(target: &str, content: Option<&str>) -> Result<String> {
    let wrong = |hint: &str, code| Error::invalid("invalid XML processing instruction").hint(hint).code(code);
    if target.eq_ignore_ascii_case("xml") {
        let hint = "XML processing instruction target name cannot be \"xml\".";
        return Err(wrong(hint, sqlstate::SYNTAX_ERROR));
    }
    let target = of_identifier(target);
    Ok(match content {
        None => format!("<?{target}?>"),
        Some(content) if content.contains("?>") => {
            let hint = "XML processing instruction cannot contain \"?>\".";
            return Err(wrong(hint, sqlstate::INVALID_XML_PROCESSING_INSTRUCTION));
        }
        Some(content) => format!("<?{target} {}?>", content.trim_start_matches(' ')),
    })
}

/// Returns a value with another declaration. `standalone` is `yes`, `no`, `no value`, or another word to leave it.
pub(super) fn root(value: &str, version: Option<&str>, standalone: &str) -> String {
    let found = declared(value);
    let rest = &value[found.as_ref().map_or(0, |found| found.end)..];
    let standalone = match standalone {
        "yes" => Some(true),
        "no" => Some(false),
        "no value" => None,
        _ => found.and_then(|found| found.standalone),
    };
    let mut out = String::new();
    declare(version, standalone, &mut out);
    out.push_str(rest);
    shown(&out)
}

/// Returns an element with attributes and content. Those that are NULL are left out.
pub(super) fn element<'v>(
    name: &str,
    attributes: impl Iterator<Item = (&'v str, Option<&'v str>)>,
    content: impl Iterator<Item = Option<&'v str>>,
) -> String {
    let mut out = format!("<{name}");
    for (name, value) in attributes {
        let Some(value) = value else { continue };
        out.extend([" ", name, "="]);
        quote(value, &mut out);
    }
    let mut content = content.flatten().peekable();
    if content.peek().is_none() {
        out.push_str("/>");
        return out;
    }
    out.push('>');
    out.extend(content);
    out.extend(["</", name, ">"]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str, form: Form, expected: &str) {
        assert_eq!(check(text, form).unwrap_err().message, expected, "{text}");
    }

    /// The problems are those of PostgreSQL 15.
    #[test]
    fn values_are_well_formed() {
        for (text, problem) in [
            ("a&b", "EntityRef: expecting ';'"),
            ("<a><b></a>", "Opening and ending tag mismatch: b line 1 and a"),
            ("<a x='1' x='2'/>", "Attribute x redefined"),
            ("<a x=1/>", "AttValue: \" or ' expected"),
            ("<a", "Couldn't find end of Start Tag a line 1"),
            ("a<", "StartTag: invalid element name"),
            ("<a b='1'c='2'/>", "attributes construct error"),
            ("<a><!-- a--b --></a>", "Double hyphen within comment: <!-- a"),
            ("]]>", "Sequence ']]>' not allowed in content"),
            (" <?xml version='1.0'?>", "XML declaration allowed only at the start of the document"),
            ("<a>&#0;</a>", "xmlParseCharRef: invalid xmlChar value 0"),
            ("<a>&#xD800;</a>", "xmlParseCharRef: invalid xmlChar value 55296"),
            ("\u{1}", "PCDATA invalid Char value 1"),
            ("</a>", "chunk is not well balanced"),
            ("<a>", "Premature end of data in tag a line 1"),
            ("<?a", "ParsePI: PI a never end ..."),
            ("<!--", "Comment not terminated"),
            ("&foo;", "Entity 'foo' not defined"),
            ("<a b='<'/>", "Unescaped '<' not allowed in attributes values"),
        ] {
            fails(text, Form::Content, &format!("invalid XML content: line 1: {problem}"));
        }
        for text in ["", "a", "<a/>b<c/>", "<a:b/>", "a>b", "<![CDATA[<]]>", "<a></a >", "<!---->"] {
            check(text, Form::Content).unwrap();
        }
        fails(
            "\n<a/>x",
            Form::Document,
            "invalid XML document: line 2: Extra content at the end of the document",
        );
        fails("", Form::Document, "invalid XML document: line 1: Document is empty");
    }

    #[test]
    fn hostile_texts_are_refused() {
        let deep = "<a>".repeat(100_000) + &"</a>".repeat(100_000);
        assert!(check(&deep, Form::Content).unwrap_err().message.contains("Excessive depth"));
        let mut bomb = String::from("<!DOCTYPE a [<!ENTITY e0 \"aaaaaaaaaa\">");
        for level in 1..30 {
            let inner = format!("&e{};", level - 1).repeat(10);
            bomb.push_str(&format!("<!ENTITY e{level} \"{inner}\">"));
        }
        bomb.push_str("]><a>&e29;</a>");
        assert!(check(&bomb, Form::Content).unwrap_err().message.contains("entities expand"));
        let looped = "<!DOCTYPE a [<!ENTITY x '&y;'><!ENTITY y '&x;'>]><a>&x;</a>";
        assert!(check(looped, Form::Content).unwrap_err().message.contains("entity reference loop"));
        let wide: String = (0..200_000).map(|at| format!(" a{at}=''")).collect();
        check(&format!("<a{wide}/>"), Form::Content).unwrap();
    }

    #[test]
    fn declarations_are_joined() {
        let joined = |values: &[&str]| concat(values.iter().copied()).unwrap();
        let (newer, other) = ("<?xml version=\"1.1\"?><a/>", "<?xml version=\"1.1\" standalone=\"no\"?><b/>");
        assert_eq!(joined(&[newer, other]), "<?xml version=\"1.1\"?><a/><b/>");
        assert_eq!(joined(&[newer, "<b/>"]), "<a/><b/>");
        assert_eq!(concat(std::iter::empty()), None);
        assert_eq!(root("<a/>", Some("1.1"), ""), "<?xml version=\"1.1\"?><a/>");
        assert_eq!(root(other, None, "yes"), "<?xml version=\"1.0\" standalone=\"yes\"?><b/>");
        assert_eq!(root(other, None, "no value"), "<b/>");
        assert_eq!(canonical("<?xml version='1.0' encoding='UTF-8'?>\n<a/>", Form::Content).unwrap(), "<a/>");
    }
}
