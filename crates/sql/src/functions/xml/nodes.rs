//! Writes nodes of a document as XML, in the form of libxml2.

use super::eval::Found;
use super::names::parts;
use super::tree::{Document, Node};
use crate::error::Result;

/// Appends a text in which the characters that XML reserves are references.
pub(super) fn escape(text: &str, out: &mut String) {
    escape_with(text, out, |c| match c {
        '\r' => Some("&#x0d;"),
        _ => None,
    });
}

fn escape_with(text: &str, out: &mut String, other: impl Fn(char) -> Option<&'static str>) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => match other(c) {
                Some(reference) => out.push_str(reference),
                None => out.push(c),
            },
        }
    }
}

/// Appends the value of an attribute with its quotes. As in libxml2, characters beyond ASCII are references.
pub(super) fn quote(value: &str, out: &mut String) {
    quote_as(value, true, out);
}

fn quote_as(value: &str, is_ascii: bool, out: &mut String) {
    out.push('"');
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push_str(&format!("&#{};", u32::from(c))),
            c if c.is_ascii() || !is_ascii => out.push(c),
            c => out.push_str(&format!("&#x{:X};", u32::from(c))),
        }
    }
    out.push('"');
}

impl Document {
    /// Returns a node as XML: an attribute is its value.
    pub(super) fn markup(&self, (node, attribute): Found) -> Result<String> {
        let mut out = String::new();
        let found = &self.nodes[node];
        match (&found.text, attribute) {
            (_, 1..) => escape(&found.attributes[attribute - 1].1, &mut out),
            (Some(text), _) if !found.is_cdata => escape(text, &mut out),
            _ if node == 0 => {
                for child in &found.children {
                    self.write(*child, &[], false, &mut out);
                    out.push('\n');
                }
            }
            _ => {
                let mut added = Vec::new();
                self.find_undeclared(node, &mut Vec::new(), &mut added)?;
                self.write(node, &added, true, &mut out);
            }
        }
        self.work(out.len())?;
        Ok(out)
    }

    /// Collects the namespaces that the elements and attributes in an element have from elements around it.
    fn find_undeclared<'d>(
        &'d self,
        place: usize,
        scope: &mut Vec<&'d str>,
        added: &mut Vec<(&'d str, &'d str)>,
    ) -> Result<()> {
        let node = &self.nodes[place];
        let known = scope.len();
        scope.extend(node.declared.iter().map(|(prefix, _)| prefix.as_str()));
        let attributes = node.attributes.iter().map(|(name, _)| name.as_str());
        for (name, space) in node.name.as_deref().into_iter().chain(attributes).zip(&node.spaces) {
            let (prefix, _) = parts(name);
            self.work(scope.len() + added.len())?;
            let is_known = prefix == "xml" || scope.contains(&prefix);
            if *space > 0 && !is_known && !added.iter().any(|(known, _)| *known == prefix) {
                added.push((prefix, &self.spaces[*space]));
            }
        }
        for child in &node.children {
            self.find_undeclared(*child, scope, added)?;
        }
        scope.truncate(known);
        Ok(())
    }

    /// Appends a node. Attributes of a whole document keep characters beyond ASCII, which others write as references.
    fn write(&self, place: usize, added: &[(&str, &str)], is_ascii: bool, out: &mut String) {
        let node = &self.nodes[place];
        match (&node.text, &node.remark, &node.name) {
            (Some(text), ..) if node.is_cdata => {
                out.push_str("<![CDATA[");
                out.push_str(text);
                out.push_str("]]>");
            }
            (Some(text), ..) => escape_with(text, out, |c| (c == '\r').then_some("&#13;")),
            (_, Some(remark), _) => match &remark.target {
                None => out.extend(["<!--", &remark.content, "-->"]),
                Some(target) => {
                    let blank = if remark.content.is_empty() { "" } else { " " };
                    out.extend(["<?", target, blank, &remark.content, "?>"]);
                }
            },
            (.., Some(name)) => self.write_element(node, name, added, is_ascii, out),
            _ => {}
        }
    }

    fn write_element(
        &self,
        node: &Node,
        name: &str,
        added: &[(&str, &str)],
        is_ascii: bool,
        out: &mut String,
    ) {
        out.extend(["<", name]);
        let declared = node.declared.iter().map(|(prefix, space)| (prefix.as_str(), space.as_str()));
        for (prefix, space) in declared.chain(added.iter().copied()) {
            let colon = if prefix.is_empty() { "" } else { ":" };
            let mut written = String::new();
            quote_as(space, is_ascii, &mut written);
            out.extend([" xmlns", colon, prefix, "=", &written]);
        }
        for (name, value) in &node.attributes {
            out.extend([" ", name, "="]);
            quote_as(value, is_ascii, out);
        }
        if node.children.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        for child in &node.children {
            self.write(*child, &[], is_ascii, out);
        }
        out.extend(["</", name, ">"]);
    }
}
